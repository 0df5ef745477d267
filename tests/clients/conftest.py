"""The official clients, each version in an environment of its own; the fake providers; and the proxy between them.

A list in ``requirements/`` is what ``uv pip compile --no-header --no-annotate`` makes of the names in its first line.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from llm.server import KEY, FakeProviders, Seen
from recording import Predictor as RecordingPredictor

REPOSITORY = Path(__file__).parents[2]
HERE = Path(__file__).parent
ENVIRONMENTS = REPOSITORY / "build" / "test" / "clients"
PATIENCE = 60.0
"""Seconds that anything may take on a slow machine before a test calls it lost."""


@dataclass(frozen=True)
class Run:
    """What one run of a client's programs came to: ``saw`` is their output, program -> step -> what the client saw."""

    saw: dict[str, dict[str, object]]
    requests: list[Seen]
    deserted: int


class Predictor(RecordingPredictor):
    """Finds a conversation by what its user said: the clients name no sessions."""

    def conversation(self, prompt: str, turns: int) -> list[dict]:
        """The events of the session in which the user said ``prompt``, once ``turns`` of its turns have ended."""

        def mine() -> list[dict]:
            said = [e for e in self.events if e["kind"] == "user_turn" and e["text"] == prompt]
            return [e for e in self.events if said and e["session"] == said[0]["session"]]

        def over() -> bool:
            return sum(event["kind"] == "turn_ended" for event in mine()) >= turns

        with self.changed:
            assert self.changed.wait_for(over, PATIENCE / 3), (
                f"no {turns} ended turns in the session of {prompt!r}, only {[(e['kind'], e.get('text', '')) for e in mine()]}"
            )
            return mine()


@pytest.fixture(scope="session")
def providers() -> Iterator[FakeProviders]:
    with FakeProviders() as running:
        yield running


@pytest.fixture(scope="session")
def predictor(short_directory: Path) -> Iterator[Predictor]:
    state = short_directory / "clients"
    state.mkdir()
    with Predictor(state / "predictor.sock") as server:
        yield server
        server.shutdown()


@pytest.fixture(scope="session")
def proxy(providers: FakeProviders, predictor: Predictor) -> Iterator[str]:
    """Address of ``python -m ephemeral_proxy`` between the clients and the fake providers."""
    others = " ".join(f"{name}={providers.urls[name]}" for name in ("anthropic", "gemini", "ollama"))
    settings = {
        "EPHEMERAL_STATE": str(Path(str(predictor.server_address)).parent),
        "EPHEMERAL_PROXY_PORT": "0",
        "EPHEMERAL_INTERCEPT_PORT": "0",
        "EPHEMERAL_UPSTREAM": providers.urls["openai"],
        "EPHEMERAL_UPSTREAMS": others,
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EPHEMERAL_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "ephemeral_proxy"], env={**inherited, **settings}, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr
    log = [process.stderr.readline()]
    found = re.search(r"(http://127\.0\.0\.1:\d+)/v1", log[0])
    if not found:
        process.kill()
        pytest.fail(f"the proxy did not start: {log[0]}{process.communicate(timeout=PATIENCE)[1]}")
    reader = threading.Thread(target=lambda: log.extend(process.stderr or ()), daemon=True)
    reader.start()
    yield found[1]
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    reader.join(PATIENCE)
    assert not [line for line in log if "Traceback" in line], "".join(log)


def environment(client: str) -> Path:
    """The Python that has ``requirements/CLIENT.txt`` installed; made when there is none, or the list has changed."""
    wanted = (HERE / "requirements" / f"{client}.txt").read_text()
    root = ENVIRONMENTS / client
    python, stamp = root / "bin" / "python", root / "installed.txt"
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    uv = str(Path(sys.executable).parent / "uv")
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(root)],
        [uv, "pip", "install", "--quiet", "--python", str(python), "-r", str(HERE / "requirements" / f"{client}.txt")],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode:
            pytest.fail(f"the clients of {client} could not be installed ({' '.join(command[:3])}): {done.stderr}")
    stamp.write_text(wanted)
    return python


class Client:
    """A process that runs ``programs`` in a client's environment, as often as it is given addresses of the providers."""

    def __init__(self, name: str, programs: list[str], providers: FakeProviders, home: Path) -> None:
        self._providers = providers
        self._errors = home / f"{name}.stderr"
        variables = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "CLIENT_NAME": name,
            "CLIENT_KEY": KEY,
        }
        command = [str(environment(name)), str(HERE / "programs" / "record.py"), *programs]
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )

    def run(self, urls: dict[str, str]) -> Run:
        process, providers = self._process, self._providers
        assert process.stdin
        assert process.stdout
        before, deserted = len(providers.requests), providers.deserted
        lost = threading.Timer(2 * PATIENCE, process.kill)
        lost.start()
        process.stdin.write(json.dumps(urls) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        lost.cancel()
        assert line, f"the programs did not get to their end: {self._errors.read_text()[-4000:]}"
        assert providers.idle(), "the programs are done, and a provider is still answering"
        return Run(json.loads(line), providers.requests[before:], providers.deserted - deserted)

    def stop(self) -> None:
        with self._process:  # closes its standard input, and it ends
            pass


@pytest.fixture(scope="session")
def start_client(providers: FakeProviders, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Client]:
    home = tmp_path_factory.mktemp("home")
    return lambda name, programs: Client(name, programs, providers, home)
