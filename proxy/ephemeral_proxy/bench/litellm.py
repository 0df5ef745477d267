"""LiteLLM's proxy in an environment of its own, below the state directory: made once, some 600 MB, kept for the next run.

It pins other releases of what this environment has, so it can never live beside us.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from ephemeral import settings
from ephemeral_proxy.bench.processes import NotMeasured

REQUIREMENT = "litellm[proxy]"
INSTALL_SECONDS = 900.0
VERSION = "import importlib.metadata as metadata; print(metadata.version('litellm'))"


@dataclass(frozen=True)
class Installed:
    program: Path
    version: str


async def environment() -> Installed:
    """The environment, made if need be. Raises NotMeasured."""
    place = settings.get("state") / "bench" / "litellm"
    done = place / "installed.json"  # written last: what has none was interrupted
    if not done.exists():
        uv = _uv()
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            await _run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(place))
            await _run(uv, "pip", "install", "--quiet", "--python", str(place / "bin" / "python"), "--only-binary", ":all:", REQUIREMENT)
            version = await _run(str(place / "bin" / "python"), "-c", VERSION)
            done.write_text(json.dumps({"version": version.strip()}))
        except OSError as problem:
            raise NotMeasured(f"{REQUIREMENT} cannot be installed into {place}: {problem.strerror}") from None
    return Installed(place / "bin" / "litellm", json.loads(done.read_text())["version"])


def _uv() -> str:
    """The uv beside us, else the one on PATH."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise NotMeasured(f"{REQUIREMENT} cannot be installed: there is no uv beside this Python, nor on PATH")
    return found


async def _run(*command: str) -> str:
    """Its output. Raises NotMeasured with what it said."""
    process = await asyncio.create_subprocess_exec(
        *command, env=_environment(), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True)
    try:
        said, complaints = await asyncio.wait_for(process.communicate(), INSTALL_SECONDS)
    except TimeoutError:
        raise NotMeasured(f"{REQUIREMENT} cannot be installed: not done within {INSTALL_SECONDS:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        lines = [line.strip() for line in complaints.decode(errors="replace").splitlines()]
        raise NotMeasured(f"{REQUIREMENT} cannot be installed: {' / '.join(line for line in lines if line)[-300:]}")
    return said.decode(errors="replace")


def _environment() -> dict[str, str]:
    """uv as this machine is configured, but for the index that our settings, or pip's variables, name."""
    variables = {**os.environ, "NO_COLOR": "1", "UV_HTTP_RETRIES": "2"}
    for name, value in (
        ("UV_DEFAULT_INDEX", settings.get("index_url") or os.environ.get("PIP_INDEX_URL", "")),
        ("UV_FIND_LINKS", ",".join((settings.get("find_links") or os.environ.get("PIP_FIND_LINKS", "")).split())),
        ("SSL_CERT_FILE", os.environ.get("SSL_CERT_FILE") or os.environ.get("PIP_CERT", "")),
    ):
        if value:
            variables[name] = value
    return variables
