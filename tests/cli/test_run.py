"""`ephemeral run -- COMMAND`: what the command gets, and that it is itself afterwards."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ephemeral.providers import configured
from ephemeral_certs.interception import Interception
from ephemeral_cli.__main__ import main

COMMAND = [sys.executable, "-m", "ephemeral_cli", "run"]
PATIENCE = 120
OF_THE_MACHINE = (
    "OLLAMA_HOST", "OLLAMA_API_BASE", "GOOGLE_GEMINI_BASE_URL", "OPENROUTER_API_BASE", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy",
    "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_of_the_machine(monkeypatch, tmp_path) -> None:
    for name in OF_THE_MACHINE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EPHEMERAL_STATE", str(tmp_path / "state"))


class StandIn(ThreadingHTTPServer):
    """Answers as the proxy does when it is asked how it is, and an empty list to everything else."""

    daemon_threads = True

    def __init__(self) -> None:
        self.health = json.dumps({"status": "ok", "providers": {name: one.url for name, one in configured().items()}, "intercepts": ["api.openai.com"]}).encode()
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Answers)

    @property
    def port(self) -> int:
        return self.server_address[1]


class Answers(BaseHTTPRequestHandler):
    server: StandIn

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        body = self.server.health if self.path == "/healthz" else b'{"object": "list", "data": []}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy(monkeypatch) -> Iterator[StandIn]:
    with StandIn() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        monkeypatch.setenv("EPHEMERAL_PROXY_PORT", str(server.port))
        yield server
        server.shutdown()
        thread.join(PATIENCE)


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**os.environ, **variables}, timeout=PATIENCE, check=False)


def here(*arguments: str, **variables: str) -> tuple[int, str, str]:
    """The same in this very process, for what does not come to run a command: exit code, output, errors."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["ephemeral", "run", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
    return int(end.value.code or 0), out.getvalue(), err.getvalue()


def shown(*arguments: str, **variables: str) -> dict[str, str]:
    code, out, err = here("--dry-run", *arguments, **variables)
    assert (code, err) == (0, "")
    return dict(line.removeprefix("export ").split("=", 1) for line in out.splitlines())


# --- what it gets -----------------------------------------------------------------------------------------------------


def test_the_child_gets_the_base_urls_and_all_else_stays(proxy) -> None:
    program = "import json, os; print(json.dumps(dict(os.environ)))"
    done = run("--", sys.executable, "-c", program, MINE="kept")
    assert (done.returncode, done.stderr) == (0, "")
    base = f"http://127.0.0.1:{proxy.port}"
    expected = {
        "OPENAI_BASE_URL": f"{base}/v1", "OPENAI_API_BASE": f"{base}/v1", "ANTHROPIC_BASE_URL": f"{base}/anthropic", "ANTHROPIC_API_URL": f"{base}/anthropic",
        "ANTHROPIC_API_BASE": f"{base}/anthropic", "GOOGLE_GEMINI_BASE_URL": f"{base}/gemini", "OLLAMA_HOST": f"{base}/ollama",
        "OLLAMA_API_BASE": f"{base}/ollama", "OPENROUTER_API_BASE": f"{base}/openrouter/v1",
    }  # fmt: skip
    theirs = json.loads(done.stdout)
    assert {name: value for name, value in theirs.items() if os.environ.get(name) != value and name != "LC_CTYPE"} == expected | {"MINE": "kept"}
    assert os.environ.keys() <= theirs.keys()


def test_the_official_client_finds_the_proxy(proxy) -> None:
    done = run("--", sys.executable, "-c", "from openai import OpenAI; print(OpenAI(api_key='none').models.list().data)")
    assert done.stdout == "[]\n", done.stderr
    assert proxy.asked == ["/healthz", "/v1/models"]


def test_a_dry_run_prints_the_variables_and_needs_no_proxy() -> None:
    assert shown("--", "whatever", EPHEMERAL_PROXY_PORT="1")["OPENAI_BASE_URL"] == "http://127.0.0.1:1/v1"


def test_ollama_gets_the_port_of_its_own_where_it_has_one() -> None:
    found = shown(EPHEMERAL_PROXY_PORTS="ollama=11435 anthropic=8791")
    assert found["OLLAMA_HOST"] == "http://127.0.0.1:11435"
    assert found["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:8787/anthropic"


def test_where_there_is_another_proxy_it_is_kept_from_loopback() -> None:
    assert "NO_PROXY" not in shown()
    found = shown(HTTP_PROXY="http://proxy.example.com:3128", NO_PROXY="intranet")
    assert found["NO_PROXY"] == found["no_proxy"] == "intranet,localhost,127.0.0.1,::1"


# --- whom it refuses to redirect --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("OPENAI_BASE_URL", "https://openrouter.ai/api/v1", "EPHEMERAL_UPSTREAM=https://openrouter.ai/api/v1 for `ephemeral up` and for this command"),
        ("OPENAI_API_BASE", "https://api.openai.com:8443/v1", "EPHEMERAL_UPSTREAM=https://api.openai.com:8443/v1"),
        ("OPENAI_BASE_URL", "http://api.openai.com/v1", "EPHEMERAL_UPSTREAM="),
        ("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1", "EPHEMERAL_UPSTREAM="),
        ("OPENAI_BASE_URL", "https://user:secret@example.com/v1", "unset OPENAI_BASE_URL"),
        ("ANTHROPIC_BASE_URL", "https://llm.example.com", 'EPHEMERAL_UPSTREAMS="anthropic=https://llm.example.com"'),
        ("GOOGLE_GEMINI_BASE_URL", "nonsense", "unset GOOGLE_GEMINI_BASE_URL"),
        ("OLLAMA_HOST", "gpu.example.com", 'EPHEMERAL_UPSTREAMS="ollama=http://gpu.example.com:11434"'),
        ("OLLAMA_HOST", ":11500", 'EPHEMERAL_UPSTREAMS="ollama=http://127.0.0.1:11500"'),
    ],
)
def test_traffic_meant_for_another_company_is_not_redirected(variable, value, says) -> None:
    code, out, err = here("--dry-run", **{variable: value})
    assert (code, out) == (2, "")
    assert err.startswith(f"ephemeral: {variable} ")
    assert says in err
    assert "secret" not in err


@pytest.mark.parametrize(
    ("variable", "value", "settings"),
    [
        ("OPENAI_BASE_URL", "https://api.openai.com/v1", {}),
        ("OPENAI_BASE_URL", "http://localhost:8787/v1", {}),
        ("OPENAI_BASE_URL", "https://openrouter.ai/api/v1/", {"EPHEMERAL_UPSTREAM": "https://openrouter.ai/api"}),
        ("ANTHROPIC_BASE_URL", "https://api.anthropic.com/", {}),
        ("ANTHROPIC_BASE_URL", "http://127.0.0.1:8791", {"EPHEMERAL_PROXY_PORTS": "anthropic=8791"}),
        ("ANTHROPIC_BASE_URL", "https://llm.example.com", {"EPHEMERAL_UPSTREAMS": "anthropic=https://llm.example.com"}),
        ("OLLAMA_HOST", "0.0.0.0", {}),
        ("OLLAMA_HOST", "localhost:11434", {}),
        ("OLLAMA_HOST", "http://127.0.0.1:11434", {}),
        ("OLLAMA_HOST", "gpu:11434", {"EPHEMERAL_UPSTREAMS": "ollama=http://gpu:11434"}),
    ],
)
def test_what_leads_to_the_same_place_may_be_set(variable, value, settings) -> None:
    assert shown(**settings, **{variable: value})[variable].startswith("http://127.0.0.1:8787/")


def test_a_proxy_that_was_given_other_providers_is_refused(proxy) -> None:
    code, _, err = here("--", "true", EPHEMERAL_UPSTREAM="https://api.k2think.ai")
    assert code == 2
    assert "the proxy that runs forwards openai to https://api.openai.com, and by the settings here it is https://api.k2think.ai" in err
    assert "the same EPHEMERAL_UPSTREAM\n" in err
    code, _, err = here("--", "true", EPHEMERAL_UPSTREAMS="ollama=http://gpu:11434")
    assert "forwards ollama to http://127.0.0.1:11434" in err
    assert "the same EPHEMERAL_UPSTREAMS\n" in err


# --- when it cannot be ------------------------------------------------------------------------------------------------


def test_without_the_proxy_it_says_what_to_type() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        code, _, err = here("--", "true", EPHEMERAL_PROXY_PORT=str(taken.getsockname()[1]))
    assert code == 1
    assert "the proxy does not run" in err
    assert "next: ephemeral up\n" in err


@pytest.mark.parametrize("health", [b"<html>", b"[]", b"{}", b'{"providers": [], "intercepts": {}}'])
def test_something_else_on_its_port_is_not_taken_for_it(proxy, health) -> None:
    proxy.health = health
    code, _, err = here("--", "true")
    assert code == 1
    assert "is not the proxy" in err


def test_without_a_command_it_says_how() -> None:
    code, _, err = here()
    assert code == 2
    assert "next: ephemeral run -- python app.py" in err


def test_settings_that_cannot_be_read_are_one_sentence() -> None:
    for variable, value in (("EPHEMERAL_PROXY_PORTS", "claude=1"), ("EPHEMERAL_UPSTREAMS", "x"), ("EPHEMERAL_UPSTREAM", "x"), ("EPHEMERAL_PROXY_PORT", "x")):
        code, _, err = here("--", "true", **{variable: value})
        assert (code, err.count("\n")) == (2, 1)
        assert err.startswith(f"ephemeral: {variable} ")


@pytest.mark.parametrize(
    ("content", "mode", "code", "says"),
    [
        (None, 0, 127, "there is no command"),
        ("#!/bin/sh\n", 0o644, 126, "cannot be executed: Permission denied"),
        ("#!/no/such/interpreter\n", 0o755, 126, "cannot be executed: the interpreter that it names is not there"),
        ("neither script nor program", 0o755, 126, "cannot be executed: Exec format error"),
    ],
)
def test_a_command_that_cannot_be_run_ends_as_in_a_shell(proxy, tmp_path, content, mode, code, says) -> None:
    program = tmp_path / "program"
    if content is not None:
        program.write_text(content)
        program.chmod(mode)
    for name, variables in ((str(program), {}), ("program", {"PATH": str(tmp_path)})):
        got, _, err = here("--", name, **variables)
        assert got == code, err
        assert err.startswith("ephemeral: ")
        assert says in err


# --- it is itself -----------------------------------------------------------------------------------------------------


def test_arguments_pass_as_they_are_and_the_exit_code_is_its_own(proxy) -> None:
    script = 'printf "%s|" "$@"; exit 7'
    for before in (["--"], []):
        done = run(*before, "sh", "-c", script, "sh", "--dry-run", "--", "a b", "")
        assert (done.returncode, done.stdout) == (7, "--dry-run|--|a b||")


def test_it_is_the_same_process_with_signals_as_they_were(proxy) -> None:
    script = "echo $$; grep SigIgn /proc/self/status; read line"
    child = subprocess.Popen([*COMMAND, "--", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert int(child.stdout.readline()) == child.pid
    ignored = int(child.stdout.readline().split()[1], 16)
    assert not ignored & (1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1))
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=PATIENCE)
    assert child.returncode == -signal.SIGTERM


def test_its_terminal_is_its_own(proxy) -> None:
    ours, theirs = pty.openpty()
    try:
        child = subprocess.Popen([*COMMAND, "--", "sh", "-c", "test -t 0 && test -t 1 && test -t 2"], stdin=theirs, stdout=theirs, stderr=theirs)
        assert child.wait(PATIENCE) == 0
    finally:
        os.close(ours)
        os.close(theirs)


# --- interception -----------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path) -> Interception:
    return Interception.create(tmp_path / "state" / "certs", ["api.openai.com"])


def test_intercept_without_an_authority_says_what_to_type(proxy) -> None:
    code, _, err = here("--intercept", "--", "true")
    assert code == 1
    assert "ephemeral certs init" in err


def test_intercept_sets_the_way_and_the_roots_and_no_base_url(proxy, authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
        done = run("--intercept", "--", "sh", "-c", 'echo "$HTTPS_PROXY" "$SSL_CERT_FILE" "$OPENAI_BASE_URL"', EPHEMERAL_INTERCEPT_PORT=str(port))
    assert done.stdout == f"http://ephemeral:{authority.credential}@127.0.0.1:{port} {authority.bundle} \n", done.stderr
    assert shown("--intercept")["HTTPS_PROXY"].endswith("@127.0.0.1:8786")


@pytest.mark.parametrize(("intercepts", "says"), [([], "does not intercept"), (["llm.example.com"], "still uses the authority before")])
def test_intercept_says_when_the_proxy_does_not_know_of_the_authority(proxy, authority, intercepts, says) -> None:
    proxy.health = json.dumps({"status": "ok", "providers": {}, "intercepts": intercepts}).encode()
    code, _, err = here("--intercept", "--", "true")
    assert code == 1
    assert says in err
    assert "start `ephemeral up` again" in err


def test_intercept_says_when_the_port_is_another(proxy, authority) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        code, _, err = here("--intercept", "--", "true", EPHEMERAL_INTERCEPT_PORT=str(port))
    assert code == 1
    assert f"not on port {port}" in err
    assert "the same EPHEMERAL_INTERCEPT_PORT" in err
