"""Who may talk to the proxy, and how its process starts and stops."""

from __future__ import annotations

import datetime
import http.client
import ipaddress
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PATIENCE = 30


def ask(port: int, path: str = "/v1/models", **headers: str) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type", ""), response.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 404),
        ("/v2/models", {}, 404),
        ("/v1x", {}, 404),
        ("/openai", {}, 404),
        ("//example.com/v1/models", {}, 404),
        ("http://example.com/v1/models", {"Host": "example.com"}, 400),
        ("/v1/models", {"Host": "example.com"}, 421),
        ("/v1/models", {"Host": "127.0.0.1.example.com"}, 421),
        ("/v1/models", {"Host": "169.254.169.254"}, 421),
        ("/v1/models", {"Host": ""}, 421),
        ("/v1/models", {"Host": "[::1"}, 400),
        ("/v1/models", {"Origin": "https://example.com"}, 403),
        ("/v1/models", {"Origin": "null"}, 403),
        ("/healthz", {"Origin": "https://example.com"}, 403),
    ],
)
def test_what_is_not_ours_to_forward_is_refused_with_a_reason(proxy, provider, path, headers, status) -> None:
    before = len(provider.requests)
    got, kind, body = ask(proxy.port, path, **headers)
    assert (got, kind) == (status, "application/problem+json")
    assert json.loads(body)["detail"].endswith(".")
    assert len(provider.requests) == before


@pytest.mark.parametrize(
    "headers", [{"Host": "localhost:8787"}, {"Host": "[::1]:1"}, {"Origin": "http://localhost:3000"}]
)
def test_loopback_by_any_name_is_served(proxy, provider, answers, headers) -> None:
    provider.script = answers.sized(b"{}")
    assert ask(proxy.port, **headers)[0] == 200


def test_it_is_no_tunnel(proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE) as client:
        client.sendall(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")


def test_its_health_names_the_providers_and_counts(proxy, provider, answers) -> None:
    provider.script = answers.sized(b"{}")
    before = json.loads(ask(proxy.port, "/healthz")[2])
    assert ask(proxy.port)[0] == 200
    after = json.loads(ask(proxy.port, "/healthz")[2])
    assert after["status"] == "ok"
    assert after["providers"]["openai"] == f"http://{provider.authority}"
    assert after["providers"]["openrouter"] == "https://openrouter.ai/api"
    assert after["requests"] - before["requests"] == 2
    counted = {"connections", "refused", "copies_dropped", "copies_failed", "crashed", "events_sent", "events_dropped", "unreadable", "restarts"}
    assert counted < after.keys()


def start(**environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "ephemeral_proxy"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_a_taken_port_is_one_clear_sentence(proxy, tmp_path: Path) -> None:
    done = start(EPHEMERAL_PROXY_PORT=str(proxy.port), EPHEMERAL_STATE=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == (
        f"ephemeral.proxy: port {proxy.port} of 127.0.0.1 is taken: "
        "stop what listens there, or set EPHEMERAL_PROXY_PORT to another\n"
    )


def test_an_upstream_that_is_none_is_one_clear_sentence(tmp_path: Path) -> None:
    done = start(EPHEMERAL_UPSTREAM="https://user:secret@x", EPHEMERAL_STATE=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("ephemeral.proxy: EPHEMERAL_UPSTREAM holds more than an address: write ")
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stderr


def test_told_to_stop_it_lets_a_short_answer_finish_and_gives_the_port_back(
    start_proxy, provider, answers, tmp_path: Path
) -> None:
    proxy = start_proxy(f"http://{provider.authority}", tmp_path)

    def port_is_closed() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", proxy.port)) != 0

    def finish_once_it_stops() -> None:
        while not port_is_closed():
            if threading.Event().wait(0.01):
                return

    head, first, *rest = answers.chunked([b"data: 1\n\n", b"data: 2\n\n"])
    provider.script = [head, first, finish_once_it_stops, *rest]
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=PATIENCE)
    connection.request("GET", "/v1/stream")
    response = connection.getresponse()
    assert response.read1(100) == b"data: 1\n\n"
    proxy.process.send_signal(signal.SIGTERM)
    assert response.read() == b"data: 2\n\n"
    connection.close()
    assert proxy.process.wait(PATIENCE) == 0


def test_told_to_stop_it_does_not_wait_for_a_long_answer(start_proxy, provider, answers, tmp_path: Path) -> None:
    release = threading.Event()
    proxy = start_proxy(f"http://{provider.authority}", tmp_path)
    head, first, *rest = answers.chunked([b"data: 1\n\n", b"data: 2\n\n"])
    provider.script = [head, first, lambda: release.wait(PATIENCE), *rest]
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=PATIENCE)
    connection.request("GET", "/v1/stream")
    response = connection.getresponse()
    assert response.read1(100) == b"data: 1\n\n"
    proxy.process.send_signal(signal.SIGINT)
    assert proxy.process.wait(PATIENCE) == 0
    assert not release.is_set()
    release.set()
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        response.read()
    connection.close()
    assert [line for line in proxy.log[1:] if line.strip()] == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test provider")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - day).not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    return folder / "cert.pem", folder / "key.pem"


def test_a_provider_over_tls_is_reached_only_when_its_certificate_is_trusted(
    start_proxy, provider, answers, certificate, tmp_path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with type(provider)(context) as secure:
        secure.script = answers.sized(b'{"data": []}')
        trusting = start_proxy(f"https://{secure.authority}", tmp_path, SSL_CERT_FILE=str(certificate[0]))
        assert ask(trusting.port) == (200, "application/json", b'{"data": []}')
        assert f"Host: {secure.authority}\r\n".encode() in secure.requests[-1]
        wary = start_proxy(f"https://{secure.authority}", tmp_path, SSL_CERT_FILE="")
        status, _, body = ask(wary.port)
        assert status == 502
        assert "certificate of 127.0.0.1: set SSL_CERT_FILE" in json.loads(body)["error"]["message"]
        secure.shutdown()


def test_it_keeps_the_base_path_and_leaves_nothing_behind_but_whose_conversations_it_saw(start_proxy, provider, answers, tmp_path: Path) -> None:
    provider.script = answers.sized(b"{}")
    proxy = start_proxy(f"http://{provider.authority}/api/v1", tmp_path, HOME=str(tmp_path))
    assert ask(proxy.port)[0] == 200
    assert provider.requests[-1].startswith(b"GET /api/v1/models ")
    assert proxy.stop() == 0
    assert [(file.name, file.stat().st_mode & 0o777) for file in tmp_path.iterdir()] == [("identity.db", 0o600)]
