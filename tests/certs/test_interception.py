"""The authority for interception, judged by those who have to believe it: real TLS clients in real handshakes."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ephemeral_certs import roots
from ephemeral_certs.authority import Authority
from ephemeral_certs.errors import CertsError
from ephemeral_certs.interception import Interception

PATIENCE = 60
HOSTS = ["api.openai.com", "api.anthropic.com", "203.0.113.7", "2001:db8::7"]


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> Interception:
    directory = tmp_path_factory.mktemp("state") / "certs"
    Interception.create(directory, HOSTS)
    return Interception.open(directory)


class Server:
    """A TLS server on loopback that says ``hello`` as HTTP to whoever believes its certificate."""

    def __init__(self, directory: Path, certificate: bytes, key: bytes) -> None:
        pem = directory / "server.pem"
        pem.write_bytes(key + certificate)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pem)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._stopping = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stopping:
            client, _ = self._listener.accept()
            with client:
                client.settimeout(PATIENCE)
                try:
                    with self._context.wrap_socket(client, server_side=True) as secure:
                        if not secure.recv(4096):
                            continue
                        secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
                        secure.unwrap()
                except OSError:
                    continue  # it was not believed, or stop() came by

    def stop(self) -> None:
        self._stopping = True
        with socket.create_connection(("127.0.0.1", self.port)):
            pass
        self._thread.join(PATIENCE)
        self._listener.close()


@pytest.fixture
def serve(tmp_path) -> Iterator[Callable[[bytes, bytes], Server]]:
    running: list[Server] = []

    def start(certificate: bytes, key: bytes) -> Server:
        running.append(Server(tmp_path, certificate, key))
        return running[-1]

    yield start
    for server in running:
        server.stop()


PYTHON = """
import socket, ssl, sys
ca, host, port = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
assert context.verify_flags & ssl.VERIFY_X509_STRICT, "this Python does not verify strictly: 3.13 does"
with socket.create_connection(("127.0.0.1", int(port)), timeout=30) as plain, context.wrap_socket(plain, server_hostname=host) as secure:
    secure.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    print(secure.recv(4096).decode())
"""
NODE = """
const [ca, host, port] = process.argv.slice(1);
const options = {host: '127.0.0.1', port, checkServerIdentity: (_, found) => require('tls').checkServerIdentity(host, found)};
if (ca) options.ca = require('fs').readFileSync(ca);
if (!require('net').isIP(host)) options.servername = host;
const secure = require('tls').connect(options, () => secure.write('GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'));
secure.on('data', data => { console.log(String(data)); secure.destroy(); });
secure.on('error', problem => { console.error(problem.message); process.exit(1); });
"""


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.fail(f"{name} is not installed here: it is one of those that have to believe our certificates")
    return path


def asked(client: str, ca: Path, host: str, port: int) -> tuple[bool, str]:
    """Whether ``client``, which trusts ``ca``, believed that the server on ``port`` was ``host``; and all that it said."""
    url = f"https://{f'[{host}]' if ':' in host else host}:{port}/"
    is_address = host.replace(".", "").isdigit() or ":" in host
    name = ["-verify_ip", host] if is_address else ["-servername", host, "-verify_hostname", host]
    commands = {
        "python": [sys.executable, "-c", PYTHON, str(ca), host, str(port)],
        "node": [tool("node"), "-e", NODE, str(ca), host, str(port)],
        "node, by NODE_EXTRA_CA_CERTS": [tool("node"), "-e", NODE, "", host, str(port)],
        "curl": [tool("curl"), "--silent", "--show-error", "--noproxy", "*", "--cacert", str(ca), "--connect-to", f"::127.0.0.1:{port}", url],
        "openssl": [
            tool("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", str(ca), "-x509_strict", "-purpose", "sslserver",
            "-verify_return_error", "-quiet", *name,
        ],
    }  # fmt: skip
    environment = {**os.environ, "NODE_EXTRA_CA_CERTS": str(ca)} if "EXTRA" in client else {**os.environ, "NODE_EXTRA_CA_CERTS": ""}
    done = subprocess.run(
        commands[client], input="GET / HTTP/1.1\r\nHost: x\r\n\r\n", capture_output=True, text=True, timeout=PATIENCE, env=environment, check=False
    )
    return "hello" in done.stdout, done.stdout + done.stderr


CLIENTS = ["python", "node", "node, by NODE_EXTRA_CA_CERTS", "curl", "openssl"]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("host", HOSTS)
def test_strict_clients_believe_a_leaf(opened, serve, client, host) -> None:
    leaf = opened.leaf(host)
    server = serve(leaf.certificate, leaf.key)
    believed, said = asked(client, opened.ca, host, server.port)
    assert believed, said


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("host", ["bank.example.com", "api.openai.com.example.com", "198.51.100.7", "2001:db8::8"])
def test_what_its_key_signs_for_others_is_refused(opened, serve, client, host) -> None:
    """The proof of the constraints: the key is in the wrong hands, and still of no use against anybody else."""
    key = ec.generate_private_key(ec.SECP256R1())
    rogue = Authority.open(opened.directory).server_certificate(host, key.public_key(), days=1)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    server = serve(rogue, pem)
    believed, said = asked(client, opened.ca, host, server.port)
    assert not believed
    assert "subtree violation" in said or client == "curl", said


@pytest.mark.parametrize(("hosts", "foreign"), [(["api.openai.com"], "203.0.113.7"), (["203.0.113.7"], "api.openai.com")])
@pytest.mark.parametrize("client", ["python", "node", "curl", "openssl"])
def test_bound_to_names_it_vouches_for_no_address_and_the_other_way_round(tmp_path, serve, client, hosts, foreign) -> None:
    opened = Interception.create(tmp_path / "certs", hosts)
    leaf = opened.leaf(hosts[0])
    good = serve(leaf.certificate, leaf.key)
    assert asked(client, opened.ca, hosts[0], good.port)[0]
    key = ec.generate_private_key(ec.SECP256R1())
    rogue = Authority.open(opened.directory).server_certificate(foreign, key.public_key(), days=1)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    bad = serve(rogue, pem)
    assert not asked(client, opened.ca, foreign, bad.port)[0]


def test_it_vouches_for_no_client(opened, tmp_path) -> None:
    client = Authority.open(opened.directory).issue_client("laptop")
    (tmp_path / "client.pem").write_bytes(client.certificate)
    done = subprocess.run(
        [tool("openssl"), "verify", "-purpose", "sslclient", "-CAfile", str(opened.ca), str(tmp_path / "client.pem")], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert "unsuitable certificate purpose" in done.stderr


def test_a_leaf_lives_a_day_and_is_kept_in_memory_alone(tmp_path) -> None:
    opened = Interception.create(tmp_path / "certs", HOSTS)
    before = {path: path.read_bytes() for path in opened.directory.iterdir()}
    leaf = opened.leaf("api.openai.com")
    assert 23 * 3600 < leaf.expires_at - time.time() <= 24 * 3600
    assert opened.leaf("API.OpenAI.com.") is leaf
    assert opened.leaf("api.anthropic.com") is not leaf
    assert opened.leaf("[2001:db8::7]") is opened.leaf("2001:db8::7")
    assert {path: path.read_bytes() for path in opened.directory.iterdir()} == before
    assert json.loads(before[opened.directory / "issued.json"]) == []


@pytest.mark.parametrize("hours", [22.5, -25.5, 24 * 400])
def test_a_leaf_is_made_again_before_it_ends_and_when_the_clock_was_set(tmp_path, hours) -> None:
    Interception.create(tmp_path / "certs", HOSTS)
    now = [time.time()]
    opened = Interception(tmp_path / "certs", Authority.open(tmp_path / "certs"), "credential", clock=lambda: now[0])
    leaf = opened.leaf("api.openai.com")
    now[0] += hours * 3600
    if hours > 24 * 365:
        with pytest.raises(CertsError, match=r"expired.*ephemeral certs init"):
            opened.leaf("api.openai.com")
    else:
        assert opened.leaf("api.openai.com") is not leaf


@pytest.mark.parametrize("host", ["example.com", "openai.com", "sub.api.openai.com", "", "203.0.113.8", "api.openai.com\n"])
def test_there_is_no_leaf_for_another_host(opened, host) -> None:
    with pytest.raises(CertsError, match="not the host of a configured provider"):
        opened.leaf(host)


def test_its_files_are_for_their_owner_only(opened) -> None:
    assert stat.S_IMODE(opened.directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in opened.directory.iterdir()} == {0o600}


def test_a_new_one_takes_the_place_and_the_credential_stays_unless_asked(tmp_path) -> None:
    first = Interception.create(tmp_path / "certs", ["api.openai.com"])
    second = Interception.create(tmp_path / "certs", ["api.anthropic.com"])
    assert len(first.credential) >= 40
    assert (second.hosts, second.credential) == ({"api.anthropic.com"}, first.credential)
    third = Interception.create(tmp_path / "certs", ["api.anthropic.com"], new_credential=True)
    assert third.credential != first.credential
    opened = Interception.open(tmp_path / "certs")
    assert (opened.credential, opened.pem) == (third.credential, third.pem)
    assert len({one.pem for one in (first, second, third)}) == 3


def spoil(directory: Path, how: str) -> None:
    if how == "missing":
        shutil.rmtree(directory)
    elif how == "no credential":
        (directory / "proxy-token").unlink()
    elif how == "another's ca.pem":
        (directory / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    elif how == "no bundle":
        (directory / "bundle.pem").unlink()
    elif how == "unbound":
        shutil.rmtree(directory)
        Authority.create(directory, "a host's")
    elif how == "expired":
        Authority.create(directory, "old", days=-1 / 48, permitted=["api.openai.com"], replace=True)


@pytest.mark.parametrize("how", ["missing", "no credential", "another's ca.pem", "no bundle", "unbound", "expired"])
def test_what_cannot_be_used_says_what_to_type(tmp_path, how) -> None:
    Interception.create(tmp_path / "certs", HOSTS)
    spoil(tmp_path / "certs", how)
    with pytest.raises(CertsError, match="ephemeral certs init"):
        Interception.open(tmp_path / "certs")


def test_a_damaged_authority_is_named(tmp_path) -> None:
    Interception.create(tmp_path / "certs", HOSTS)
    (tmp_path / "certs" / "authority.pem").write_text("nonsense")
    with pytest.raises(CertsError, match=r"authority\.pem cannot be read"):
        Interception.open(tmp_path / "certs")


def test_it_needs_hosts_and_they_must_be_hosts(tmp_path) -> None:
    with pytest.raises(CertsError, match="no host to vouch for"):
        Interception.create(tmp_path / "certs", [])
    with pytest.raises(CertsError, match="neither a host name nor an IP address"):
        Interception.create(tmp_path / "certs", ["under_score.example.com"])
    assert not Interception.exists(tmp_path / "certs")


def test_the_bundle_is_what_programs_trusted_before_and_ours(tmp_path, monkeypatch) -> None:
    for name in roots.NAMED_BY:
        monkeypatch.delenv(name, raising=False)
    company = Authority.create(tmp_path / "company", "A company's own")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(company.directory / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nowhere"))
    opened = Interception.create(tmp_path / "certs", HOSTS)
    found = roots.certificates(opened.bundle)
    ours = ssl.PEM_cert_to_DER_cert(opened.pem.decode())
    assert found[-2:] == [ssl.PEM_cert_to_DER_cert(company.pem.decode()), ours]
    assert len(found) > 50, "this machine has no roots of its own: install ca-certificates"
    assert len(found) == len(set(found))
    ssl.create_default_context(cafile=str(opened.bundle))


def test_an_earlier_one_of_ours_is_not_handed_on(tmp_path, monkeypatch) -> None:
    first = Interception.create(tmp_path / "certs", HOSTS)
    monkeypatch.setenv("SSL_CERT_FILE", str(first.bundle))
    second = Interception.create(tmp_path / "certs", HOSTS)
    names = [x509.load_pem_x509_certificate(one.pem).subject.rfc4514_string() for one in (first, second)]
    assert names[0] != names[1]
    found = roots.certificates(second.bundle)
    assert ssl.PEM_cert_to_DER_cert(first.pem.decode()) not in found
    assert found.count(ssl.PEM_cert_to_DER_cert(second.pem.decode())) == 1
