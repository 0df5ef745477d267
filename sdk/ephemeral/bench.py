"""What every bench does alike: tells its progress, describes its samples and the machine they were taken on. Standard library only."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

Progress = Callable[[str, int, int], None]
"""Told what is being done, and how much of how much."""

P99_SAMPLES = 100
"""With fewer than these the 99th percentile would be made up: the largest sample stands for it, and the figure says so."""


def say(message: Mapping[str, Any]) -> None:
    """One message to whoever started the bench: ``{"what", "done", "total"}``, ``{"result"}`` or ``{"error", "hint"}``, a JSON object a line."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


async def interruptible(measure: Callable[[Progress], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    """What ``measure(progress)`` returns. It is cancelled by SIGINT, SIGTERM, and when whoever listens to the progress is gone."""
    task = asyncio.current_task()
    assert task
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)

    def progress(what: str, done: int, total: int) -> None:
        try:
            say({"what": what, "done": done, "total": total})
        except BrokenPipeError:
            task.cancel()

    return await measure(progress)


def describe(samples: Sequence[float]) -> dict[str, float | None]:
    """Least, median, 99th percentile (the largest of fewer than 100) and largest; all None without samples."""
    if not samples:
        return dict.fromkeys(("min", "p50", "p99", "max"))
    most = max(samples)
    p99 = statistics.quantiles(samples, n=100, method="inclusive")[98] if len(samples) >= P99_SAMPLES else most
    return {name: round(value, 4) for name, value in (("min", min(samples)), ("p50", statistics.median(samples)), ("p99", p99), ("max", most))}


def machine() -> dict[str, Any]:
    """To be asked before anything is measured: the load average is the one before."""
    return {
        "cores": os.cpu_count(), "model": _model(), "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(), "platform": platform.platform(), "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(), "ephemeral": _installed(), "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))), platform.machine())


def _installed() -> str:
    try:
        return version("ephemeral-sidecar")
    except PackageNotFoundError:
        return "unknown"
