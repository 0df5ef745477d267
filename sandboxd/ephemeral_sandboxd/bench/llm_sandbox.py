"""The llm-sandbox package's pooled session, where it is installed: a peer that is no dependency of ours."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from ephemeral_sandboxd.bench.place import NotHere

PYTHON = "/sandbox/.sandbox-venv/bin/python"
"""Where its sessions look for the interpreter; the image has one there, so that no virtual environment has to be made."""


def pooled(client: Any, image: str, programs: Mapping[str, tuple[str, str]], rounds: int) -> dict[str, list[float]]:
    """For each kind of ``programs`` (code, what it prints): milliseconds from asking a warm pool for a session to the printed result.

    Blocking. Raises place.NotHere, with what to type or what it said.
    """
    try:
        from llm_sandbox import SandboxBackend
        from llm_sandbox.pool import PoolConfig, PooledSandboxSession, create_pool_manager
    except ImportError as problem:
        raise NotHere(f"llm-sandbox is not installed beside sandboxd: uv pip install 'llm-sandbox[docker]' ({problem})") from problem
    logging.getLogger("llm_sandbox").setLevel(logging.CRITICAL)  # what goes wrong is raised as well
    try:
        pool = create_pool_manager(
            client=client, backend=SandboxBackend.DOCKER, config=PoolConfig(min_pool_size=1, max_pool_size=1), lang="python", image=image,
            skip_environment_setup=True, runtime_configs={"network_mode": "none", "stop_signal": "SIGKILL"})
        try:
            return {kind: [_once(PooledSandboxSession(pool_manager=pool), *program) for _ in range(rounds + 1)][1:]
                    for kind, program in programs.items()}
        finally:
            pool.close()
    except Exception as problem:  # a stranger's code: whatever it raises, our own figures must not suffer
        raise NotHere(f"llm-sandbox {version('llm-sandbox')}: {type(problem).__name__}: {str(problem)[-200:]}") from problem


def _once(session: Any, code: str, prints: str) -> float:
    began = time.perf_counter()
    with session:
        said = session.run(code)
        took = (time.perf_counter() - began) * 1000
    if said.stdout.strip() != prints:
        raise ValueError(f"it printed {said.stdout[-100:]!r} {said.stderr[-100:]!r}")
    return took
