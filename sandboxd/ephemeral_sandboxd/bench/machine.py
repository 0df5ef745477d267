"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

from ephemeral_sandboxd import version
from ephemeral_sandboxd.commands import run
from ephemeral_sandboxd.host import Parts


async def facts(parts: Parts) -> dict[str, Any]:
    """To be asked before anything is measured: the load average is the one before. ``engine`` stays None until an engine was asked."""
    _, said = await run(str(parts.runsc), "--version")
    return {
        "cores": os.cpu_count(), "model": _model(), "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(), "cgroup_version": 2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1,
        "runsc": (said.splitlines() or [""])[0].removeprefix("runsc version ").strip(), "platform": platform.platform(),
        "load_average": [round(load, 2) for load in os.getloadavg()], "python": platform.python_version(), "sandbox_python": parts.python,
        "engine": None, "ephemeral": version.VERSION, "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))), platform.machine())
