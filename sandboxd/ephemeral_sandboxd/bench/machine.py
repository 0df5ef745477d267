"""What the figures were measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ephemeral import bench
from ephemeral_sandboxd.commands import run
from ephemeral_sandboxd.host import Parts


async def facts(parts: Parts) -> dict[str, Any]:
    """To be asked before anything is measured: the load average is the one before. ``engine`` stays None until an engine was asked."""
    machine = bench.machine()
    _, said = await run(str(parts.runsc), "--version")
    return {
        **machine, "cgroup_version": 2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1,
        "runsc": (said.splitlines() or [""])[0].removeprefix("runsc version ").strip(), "sandbox_python": parts.python, "engine": None,
    }
