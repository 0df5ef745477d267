"""What is measured: ours, mitmdump, LiteLLM's proxy. Each starts in front of the provider, with a directory of its own, and is gone afterwards."""

from __future__ import annotations

import contextlib
import http.client
import importlib.metadata
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ephemeral_proxy.bench import litellm, traffic
from ephemeral_proxy.bench.processes import Helper, NotMeasured, free_port, helper, listens, running, until

_LISTENING = re.compile(r"listening on http://127\.0\.0\.1:(\d+)/v1")


@dataclass(frozen=True)
class Target:
    """``command`` is how it was started, without what a shell would have to quote. ``predictor`` receives our events."""

    port: int
    pid: int
    version: str
    command: str
    predictor: Helper | None = None


@contextlib.asynccontextmanager
async def ours(place: Path, provider: int, cores: frozenset[int]) -> AsyncIterator[Target]:
    """``python -m ephemeral_proxy`` with a predictor that takes its events."""
    log = place / "log"
    settings = {"EPHEMERAL_PROXY_PORT": "0", "EPHEMERAL_UPSTREAM": f"http://127.0.0.1:{provider}", "EPHEMERAL_STATE": str(place)}
    async with helper("predictor", str(place / "predictor.sock")) as predictor, running(
            [sys.executable, "-m", "ephemeral_proxy"], environment=_environment(place) | settings, cores=cores, log=log) as process:
        await until(lambda: bool(_LISTENING.search(log.read_text(errors="replace"))), process, log, "python -m ephemeral_proxy")
        found = _LISTENING.search(log.read_text(errors="replace"))
        assert found
        shown = " ".join(f"{name}={value}" for name, value in settings.items() if name != "EPHEMERAL_STATE")
        yield Target(int(found[1]), process.pid, importlib.metadata.version("ephemeral-sidecar"), f"{shown} python -m ephemeral_proxy", predictor)


@contextlib.asynccontextmanager
async def mitmdump(place: Path, provider: int, cores: frozenset[int]) -> AsyncIterator[Target]:
    """mitmdump as it comes, but silent, and streaming instead of keeping answers until they are complete."""
    beside = Path(sys.executable).with_name("mitmdump")
    program = str(beside) if beside.exists() else shutil.which("mitmdump")
    if program is None:
        raise NotMeasured("there is no mitmdump beside this Python, nor on PATH")
    port, log = free_port(), place / "log"
    options = ["--quiet", "--mode", f"reverse:http://127.0.0.1:{provider}", "--listen-host", "127.0.0.1", "--listen-port", str(port),
               "--set", "stream_large_bodies=1"]
    async with running([program, *options, "--set", f"confdir={place / 'conf'}"], environment=_environment(place), cores=cores, log=log) as process:
        await until(lambda: listens(port), process, log, "mitmdump")
        yield Target(port, process.pid, importlib.metadata.version("mitmproxy"), " ".join(("mitmdump", *options)))


@contextlib.asynccontextmanager
async def litellm_proxy(place: Path, provider: int, cores: frozenset[int]) -> AsyncIterator[Target]:
    """LiteLLM's proxy with one worker and nothing behind it: no database, no cache, no keys, no callbacks, no retries."""
    installed = await litellm.environment()
    port, log, config = free_port(), place / "log", place / "config.yaml"
    endpoint = {"api_base": f"http://127.0.0.1:{provider}/v1", "api_key": "sk-bench"}
    config.write_text(json.dumps({  # JSON is YAML
        "model_list": [{"model_name": model, "litellm_params": {"model": f"openai/{model}", **endpoint}} for model in traffic.MODELS],
        "router_settings": {"num_retries": 0},
        "general_settings": {"dangerously_permit_weak_or_unset_master_key": True},
    }))
    variables = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    options = ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    async with running([str(installed.program), "--config", str(config), *options], environment=_environment(place) | variables, cores=cores,
                       log=log) as process:
        await until(lambda: listens(port), process, log, "litellm")
        shown = " ".join(f"{name}={value}" for name, value in variables.items())
        yield Target(port, process.pid, installed.version, f"{shown} litellm --config config.yaml {' '.join(options)}")


def health(port: int) -> dict[str, Any]:
    """What our proxy says of itself; empty when it does not."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        found = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError):
        return {}
    finally:
        connection.close()
    return found if isinstance(found, dict) else {}


def _environment(place: Path) -> dict[str, str]:
    """Nothing of this machine's settings, keys or proxies; a home of its own."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG", "TMPDIR") if name in os.environ}
    return kept | {"HOME": str(place), "NO_PROXY": "*"}


TARGETS = {"ephemeral": ours, "mitmdump": mitmdump, "litellm": litellm_proxy}
"""By their names in the result."""

