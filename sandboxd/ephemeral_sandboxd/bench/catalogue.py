"""Every figure by its name in the result, with its unit, what it is, and the goal where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ephemeral_sandboxd.errors import BadRequest


@dataclass(frozen=True)
class Entry:
    """``name`` is the path in the result (``restore_ms.pandas``). ``goal``: for these statistics, the most that is good."""

    name: str
    unit: str
    what: str
    goal: dict[str, float] = field(default_factory=dict)


SCIENCE = "numpy, pandas, matplotlib, scikit-learn, scipy"
RESTORE = "restore of a snapshot, asked to the answer of 1+1"
PROGRAM = "import pandas and print a sum"

CATALOGUE = (
    Entry("exec_live_ms", "ms", "1+1 in a sandbox that stands ready", {"p50": 0.5, "p99": 5}),
    Entry("exec_frozen_ms", "ms", "1+1 in a frozen sandbox", {"p50": 2}),
    Entry("restore_ms.bare", "ms", f"{RESTORE}: nothing imported"),
    Entry("restore_ms.numpy", "ms", f"{RESTORE}: numpy imported"),
    Entry("restore_ms.pandas", "ms", f"{RESTORE}: pandas imported", {"p50": 200}),
    Entry("restore_ms.science", "ms", f"{RESTORE}: {SCIENCE} imported"),
    Entry("restore_ms.torch", "ms", f"{RESTORE}: torch imported", {"p50": 350}),
    Entry("compose_ms.wheels20", "ms", "twenty wheels put together to a directory", {"p50": 10}),
    Entry("compose_ms.torch", "ms", "torch and what it depends on, put together", {"p50": 10}),
    Entry("boot_ms", "ms", "boot without a snapshot, asked to the answer of 1+1"),
    Entry("teardown_ms", "ms", "deletion of a frozen sandbox, until nothing is left"),
    Entry("checkpoint_ms", "ms", "a snapshot taken of a sandbox with pandas imported"),
    Entry("environment_ms.science", "ms", f"boot, mount, import of {SCIENCE}, first result; no snapshot", {"p50": 6000}),
    Entry("environment_ms.torch", "ms", "boot, mount, import of torch, first result; no snapshot", {"p50": 5000}),
    Entry("idle_cpu_percent", "%", "CPU that a frozen sandbox takes, of one core", {"max": 0}),
    Entry("idle_pss_mb.bare", "MB", "memory (PSS) of a restored, frozen sandbox: nothing imported", {"p50": 35}),
    Entry("idle_pss_mb.pandas", "MB", "memory (PSS) of a restored, frozen sandbox: pandas imported", {"p50": 75}),
    Entry("idle_pss_mb.torch", "MB", "memory (PSS) of a restored, frozen sandbox: torch imported", {"p50": 150}),
    Entry("starts_per_second_per_core", "1/s", "bare sandboxes restored at once, until all have answered"),
    Entry("burst100_ms", "ms", "100 new sessions at once through the pool, each until its first result", {"max": 20_000}),
    Entry("sessions2000_mb", "MB", "memory (PSS) of the daemon and all it runs with 2,000 idle sessions", {"max": 2048}),
    Entry("peers.ephemeral_restore_ms.bare", "ms", "ours, same program: snapshot restored, print 1+1"),
    Entry("peers.ephemeral_restore_ms.pandas", "ms", f"ours, same program: snapshot restored, {PROGRAM}"),
    Entry("peers.ephemeral_live_ms.pandas", "ms", f"ours, same program: frozen sandbox with pandas imported, {PROGRAM}"),
    Entry("peers.docker_run_pip_ms", "ms", f"docker run, pip install pandas, {PROGRAM}"),
    Entry("peers.docker_run_uv_cache_ms.runc", "ms", f"docker run, uv pip install pandas from a warm cache, {PROGRAM}"),
    Entry("peers.docker_run_uv_cache_ms.runsc", "ms", "the same with the engine's runsc runtime"),
    Entry("peers.docker_exec_ms.bare", "ms", "docker exec of python in a warm container, print 1+1"),
    Entry("peers.docker_exec_ms.pandas", "ms", f"docker exec of python in a warm container, {PROGRAM}"),
    Entry("peers.docker_exec_runsc_ms.bare", "ms", "docker exec, the engine's runsc runtime, print 1+1"),
    Entry("peers.docker_exec_runsc_ms.pandas", "ms", f"docker exec, the engine's runsc runtime, {PROGRAM}"),
    Entry("peers.llm_sandbox_pooled_ms.bare", "ms", "llm-sandbox, session from a warm pool, print 1+1"),
    Entry("peers.llm_sandbox_pooled_ms.pandas", "ms", f"llm-sandbox, session from a warm pool with pandas installed, {PROGRAM}"),
)


def selected(only: Sequence[str], *, peers: bool) -> tuple[Entry, ...]:
    """The entries called in ``only`` (``restore_ms`` means all below it), or all. Raises BadRequest for a name that is none."""
    entries = tuple(entry for entry in CATALOGUE if peers or not entry.name.startswith("peers."))
    for name in only:
        if not any(_below(entry.name, name) for entry in entries):
            tops = dict.fromkeys(entry.name.partition(".")[0] for entry in entries)
            raise BadRequest("no such measure", name, f"one or more of: {' '.join(tops)}")
    return tuple(entry for entry in entries if not only or any(_below(entry.name, name) for name in only))


def _below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")
