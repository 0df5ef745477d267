"""`ephemeral certs`, as a person types it. The machine's trust store is changed in a mount namespace of the test's own, never here."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shlex
import shutil
import socketserver
import ssl
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import BinaryIO

import pytest

from ephemeral_certs import roots
from ephemeral_certs.authority import Authority
from ephemeral_certs.interception import Interception
from ephemeral_cli.__main__ import main
from ephemeral_cli.certs import stores
from ephemeral_cli.errors import CommandError

COMMAND = [sys.executable, "-m", "ephemeral_cli", "certs"]
ROOTS = (*roots.NAMED_BY, "NIX_SSL_CERT_FILE", "HTTPLIB2_CA_CERTS")
PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")
BUNDLED = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH")


@pytest.fixture(autouse=True)
def _no_roots_or_proxies_of_the_machine(monkeypatch) -> None:
    for name in (*ROOTS, *PROXIES):
        monkeypatch.delenv(name, raising=False)


def certs(state: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`ephemeral certs …` in this very process: starting another takes most of a second."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        for name, value in {"EPHEMERAL_STATE": str(state), **variables}.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["ephemeral", "certs", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
    return subprocess.CompletedProcess(sys.argv, int(end.value.code or 0), out.getvalue(), err.getvalue())


def authority(state: Path) -> bytes:
    return (state / "certs" / "authority.pem").read_bytes()


def test_init_makes_it_and_says_what_it_may_vouch_for(tmp_path: Path) -> None:
    state = tmp_path / "state"
    done = certs(state, "init")
    assert (done.returncode, done.stderr) == (0, "")
    assert "api.anthropic.com, api.openai.com, generativelanguage.googleapis.com, openrouter.ai and names below" in done.stdout
    assert "127.0.0.1" not in done.stdout.replace("next:", "")  # Ollama speaks plain HTTP: nobody asks for it with CONNECT
    assert [stat.S_IMODE(path.stat().st_mode) for path in (state, state / "certs", state / "certs" / "authority.pem")] == [0o700, 0o700, 0o600]


def test_init_again_keeps_what_fits_and_renews_the_roots(tmp_path: Path) -> None:
    certs(tmp_path, "init")
    before, token = authority(tmp_path), (tmp_path / "certs" / "proxy-token").read_text()
    Authority.create(tmp_path / "company", "A company's own")
    company = (tmp_path / "company" / "ca.pem").read_text()
    done = certs(tmp_path, "init", SSL_CERT_FILE=str(tmp_path / "company" / "ca.pem"))
    assert "stays as it is" in done.stdout
    assert company in (tmp_path / "certs" / "bundle.pem").read_text()
    assert (authority(tmp_path), (tmp_path / "certs" / "proxy-token").read_text()) == (before, token)


def test_init_makes_another_when_the_hosts_changed_and_says_so(tmp_path: Path) -> None:
    certs(tmp_path, "init")
    before = authority(tmp_path)
    changed = {"EPHEMERAL_UPSTREAM": "https://api.k2think.ai/v1"}
    assert "are others by now (now with api.k2think.ai, without api.openai.com): type `ephemeral certs init`" in certs(tmp_path, "show", **changed).stdout
    done = certs(tmp_path, "init", **changed)
    assert "the configured hosts changed: now with api.k2think.ai, without api.openai.com" in done.stdout
    assert "`ephemeral up` uses it once it is started again" in done.stdout
    assert authority(tmp_path) != before


def test_init_new_makes_another_key_and_credential(tmp_path: Path) -> None:
    certs(tmp_path, "init")
    before, token = authority(tmp_path), (tmp_path / "certs" / "proxy-token").read_text()
    done = certs(tmp_path, "init", "--new")
    assert "as was asked" in done.stdout
    assert authority(tmp_path) != before
    assert (tmp_path / "certs" / "proxy-token").read_text() != token


@pytest.mark.parametrize("lost", ["bundle.pem", "ca.pem", "proxy-token"])
def test_init_mends_what_does_not_belong_together(tmp_path: Path, lost: str) -> None:
    certs(tmp_path, "init")
    (tmp_path / "certs" / lost).unlink()
    assert "does not belong together" in certs(tmp_path, "show").stderr
    assert "it could not be used any more" in certs(tmp_path, "init").stdout
    assert certs(tmp_path, "show").returncode == 0


def test_a_provider_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    done = certs(tmp_path, "init", EPHEMERAL_UPSTREAMS="openrouter")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "EPHEMERAL_UPSTREAMS is not a list of NAME=URL" in done.stderr


@pytest.mark.parametrize("command", ["show", "env", "trust"])
def test_without_an_authority_it_says_what_to_type(tmp_path: Path, command: str) -> None:
    done = certs(tmp_path, command)
    assert done.returncode == 1
    assert "ephemeral certs init" in done.stderr
    assert "Traceback" not in done.stderr


def variables(state: Path, **theirs: str) -> dict[str, str]:
    done = certs(state, "env", "--json", **theirs)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_env_names_the_proxy_and_whom_to_trust(tmp_path: Path) -> None:
    certs(tmp_path, "init")
    found = variables(tmp_path, EPHEMERAL_INTERCEPT_PORT="1234")
    token = (tmp_path / "certs" / "proxy-token").read_text().strip()
    assert found["HTTPS_PROXY"] == found["https_proxy"] == f"http://ephemeral:{token}@127.0.0.1:1234"
    assert found["NO_PROXY"] == found["no_proxy"] == "localhost,127.0.0.1,::1"
    assert {found[name] for name in BUNDLED} == {str(tmp_path / "certs" / "bundle.pem")}
    assert {found[name] for name in ("NODE_EXTRA_CA_CERTS", "DENO_CERT")} == {str(tmp_path / "certs" / "ca.pem")}
    assert found["NODE_USE_ENV_PROXY"] == "1"
    assert not {"HTTP_PROXY", "http_proxy", *ROOTS[-2:]} & found.keys()


def test_env_is_what_a_shell_can_read(tmp_path: Path) -> None:
    state = tmp_path / "it's a state; $(with) blanks"
    certs(state, "init")
    script = f'eval "$({shlex.join([*COMMAND, "env"])})" && printf %s "$SSL_CERT_FILE"'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env={**os.environ, "EPHEMERAL_STATE": str(state)}, timeout=120, check=True)
    assert done.stdout == str(state / "certs" / "bundle.pem")


def test_env_twice_is_the_same(tmp_path: Path) -> None:
    certs(tmp_path, "init")
    once = variables(tmp_path)
    assert variables(tmp_path, **once) == once


def test_env_keeps_what_the_user_exempted_and_added(tmp_path: Path) -> None:
    company = Authority.create(tmp_path / "company", "A company's own").directory / "ca.pem"
    theirs = {"NO_PROXY": "intranet, .example.com", "no_proxy": "intranet,127.0.0.1", "NODE_EXTRA_CA_CERTS": str(company), "NIX_SSL_CERT_FILE": str(company)}
    certs(tmp_path, "init", **theirs)
    found = variables(tmp_path, **theirs)
    assert found["NO_PROXY"] == "intranet,.example.com,127.0.0.1,localhost,::1"
    assert found["NODE_EXTRA_CA_CERTS"] == found["NIX_SSL_CERT_FILE"] == str(tmp_path / "certs" / "bundle.pem")


def test_env_refuses_to_drop_roots_that_the_bundle_lacks(tmp_path: Path) -> None:
    certs(tmp_path, "init")
    company = Authority.create(tmp_path / "company", "A company's own").directory / "ca.pem"
    done = certs(tmp_path, "env", REQUESTS_CA_BUNDLE=str(company))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"ephemeral: REQUESTS_CA_BUNDLE names roots that {tmp_path}/certs/bundle.pem does not hold ({company})\n  next: ephemeral certs init\n"


@pytest.mark.parametrize("theirs", ["http://user:secret@proxy.example.com:3128", "proxy.example.com:3128"])
def test_env_refuses_to_take_the_place_of_another_proxy(tmp_path: Path, theirs: str) -> None:
    certs(tmp_path, "init")
    done = certs(tmp_path, "env", https_proxy=theirs)
    assert (done.returncode, done.stdout) == (2, "")
    assert "https_proxy names another proxy (proxy.example.com:3128)" in done.stderr
    assert "secret" not in done.stderr


class Door(socketserver.ThreadingTCPServer):
    """A forward proxy as ours is documented: CONNECT with the credential only, and the authority's hosts in its own name."""

    daemon_threads = True

    def __init__(self, state: Path) -> None:
        self.opened = Interception.open(state / "certs")
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Guest)


class Guest(socketserver.StreamRequestHandler):
    server: Door

    def handle(self) -> None:
        line, headers = self.head(self.rfile)
        wanted = base64.b64encode(f"ephemeral:{self.server.opened.credential}".encode()).decode()
        if headers.get("proxy-authorization") != f"Basic {wanted}":
            self.wfile.write(b'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="x"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n')
            return
        method, host = line.split()[0], line.split()[1].rpartition(":")[0]
        leaf = self.server.opened.leaf(host)
        with tempfile.NamedTemporaryFile() as pem:
            pem.write(leaf.key + leaf.certificate)
            pem.flush()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pem.name)
        self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with contextlib.suppress(OSError), context.wrap_socket(self.request, server_side=True) as secure:
            line, _ = self.head(secure.makefile("rb"))
            self.server.asked.append(f"{method} {host} {line}")
            body = b'{"object": "list", "data": []}'
            secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    @staticmethod
    def head(stream: BinaryIO) -> tuple[str, dict[str, str]]:
        lines = [line.decode().strip() for line in iter(stream.readline, b"\r\n")]
        return lines[0], {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}


URL = "https://api.openai.com/v1/models"
KNOW_NO_BASE_URL = {
    "curl": ["curl", "--silent", "--show-error", URL],
    "urllib": [sys.executable, "-c", f"from urllib.request import urlopen; print(urlopen('{URL}').read().decode())"],
    "requests": [sys.executable, "-c", f"import requests; print(requests.get('{URL}').text)"],
    "httpx": [sys.executable, "-c", f"import httpx; print(httpx.get('{URL}').text)"],
    "openai": [sys.executable, "-c", "from openai import OpenAI; print(OpenAI(api_key='none').models.list().model_dump_json())"],
}


@pytest.mark.parametrize("program", KNOW_NO_BASE_URL)
def test_programs_that_know_only_the_variables_reach_the_proxy_and_believe_it(tmp_path: Path, program: str) -> None:
    certs(tmp_path, "init")
    with Door(tmp_path) as door:
        thread = threading.Thread(target=door.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            found = variables(tmp_path, EPHEMERAL_INTERCEPT_PORT=str(door.server_address[1]))
            done = subprocess.run(KNOW_NO_BASE_URL[program], capture_output=True, text=True, env=os.environ | found, timeout=120, check=False)
        finally:
            door.shutdown()
            thread.join(120)
    assert '"data"' in done.stdout, done.stderr
    assert door.asked == ["CONNECT api.openai.com GET /v1/models HTTP/1.1"]


# --- the machine's own store ------------------------------------------------------------------------------------------


def in_a_store_of_its_own(script: str, state: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell script as root where what it does to the trust store is seen by itself alone, and gone with it."""
    if not shutil.which("update-ca-certificates") or os.geteuid():
        pytest.fail("this test wants root, and update-ca-certificates of Debian or Ubuntu (the package ca-certificates)")
    private = """
    set -e
    for place in /etc/ssl /usr/local/share/ca-certificates; do
        cp -a "$place/." "$1/copy"
        mount -t tmpfs tmpfs "$place"
        cp -a "$1/copy/." "$place"
        rm -rf "$1/copy"; mkdir "$1/copy"
    done
    """
    work = state / "work"
    (work / "copy").mkdir(parents=True)
    environment = {**os.environ, "EPHEMERAL_STATE": str(state), "certs": shlex.join(COMMAND)}
    return subprocess.run(["unshare", "--mount", "sh", "-c", private + script, "sh", str(work)], capture_output=True, text=True, env=environment, timeout=120, check=False)


def test_trust_puts_it_into_debians_store_and_untrust_takes_it_out(tmp_path: Path) -> None:
    certs(tmp_path, "init")
    here = Path("/etc/ssl/certs/ca-certificates.crt").read_bytes()
    script = """
    verify() { openssl verify -CAfile /etc/ssl/certs/ca-certificates.crt -CApath /etc/ssl/certs "$EPHEMERAL_STATE/certs/ca.pem" >/dev/null 2>&1 && echo trusted || echo not trusted; }
    verify; $certs trust; verify; $certs show | tail -1; $certs init --new | grep 'still trusts'
    $certs untrust; verify; find /etc/ssl/certs /usr/local/share/ca-certificates -iname '*ephemeral*' -o -xtype l
    """
    done = in_a_store_of_its_own(script, tmp_path)
    ca, file, command = tmp_path / "certs" / "ca.pem", "/usr/local/share/ca-certificates/ephemeral.crt", "/usr/sbin/update-ca-certificates"
    ran, ran_fresh = f"{command} was run.", f"{command} --fresh was run."
    assert done.stdout.splitlines() == [
        "not trusted",
        f"{ca} was copied to {file}.", ran,
        "trusted",
        "This machine's own trust store holds it (`ephemeral certs untrust` takes it out).",
        "This machine still trusts the one before: type `ephemeral certs trust` again, or `ephemeral certs untrust`.",
        f"{file} was removed.", ran_fresh,
        "not trusted",
    ], done.stderr  # fmt: skip
    assert Path("/etc/ssl/certs/ca-certificates.crt").read_bytes() == here
    assert not Path(file).exists()


def fedora(root: Path, status: int = 0) -> Path:
    """A machine's files as Fedora has them: the command makes one file of all anchors."""
    anchors, command = root / "etc/pki/ca-trust/source/anchors", root / "usr/bin/update-ca-trust"
    anchors.mkdir(parents=True)
    command.parent.mkdir(parents=True)
    command.write_text(f"#!/bin/sh\necho trouble >&2\ncat {shlex.quote(str(anchors))}/* > {shlex.quote(str(root))}/extracted.pem 2>/dev/null\nexit {status}\n")
    command.chmod(0o755)
    return root


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return Authority.create(tmp_path / "ours", "ours", permitted=["api.openai.com"]).directory / "ca.pem"


def test_fedoras_store_has_another_place_and_command(tmp_path: Path, certificate: Path) -> None:
    root = fedora(tmp_path / "root")
    file = root / "etc/pki/ca-trust/source/anchors/ephemeral.crt"
    assert stores.trust(certificate, root) == [f"{certificate} was copied to {file}.", f"{root}/usr/bin/update-ca-trust was run."]
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert (root / "extracted.pem").read_bytes() == stores.trusted(root) == certificate.read_bytes()
    assert stores.trust(certificate, root)[0] == f"{file} is there already."
    file.write_text("an earlier one")
    assert stores.trust(certificate, root)[0] == f"{certificate} was copied to {file} in place of an earlier one."
    assert stores.trusted(root) == certificate.read_bytes()
    assert stores.untrust(root)[0] == f"{file} was removed."
    assert stores.untrust(root)[0] == f"{file} is not there."
    assert (root / "extracted.pem").read_bytes() == b""


def test_a_store_that_cannot_be_made_is_left_as_it_was(tmp_path: Path, certificate: Path) -> None:
    root = fedora(tmp_path / "root", status=1)
    with pytest.raises(CommandError, match="update-ca-trust failed: trouble"):
        stores.trust(certificate, root)
    assert stores.trusted(root) is None


def test_another_machines_store_is_refused_with_what_to_do(tmp_path: Path, certificate: Path) -> None:
    with pytest.raises(CommandError, match="not one that we know") as refusal:
        stores.trust(certificate, tmp_path)
    assert str(certificate) in refusal.value.hint
    with pytest.raises(CommandError, match="not one that we know"):
        stores.untrust(tmp_path)


def test_who_is_not_root_is_told_how_to_be() -> None:
    if os.geteuid():
        pytest.fail("this test wants root, to become somebody who is not")
    program = "import os; from ephemeral_cli.certs import stores; os.setgroups([]); os.setgid(65534); os.setuid(65534); stores.untrust()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "EPHEMERAL_STATE": "/a state"})
    assert "is root's to change" in done.stderr
