"""What the same code costs without us: measured straight at sandboxd, one at a time, never beside a conversation.

Figures are remembered in ``STATE/rivals.json``, so that a later run measures again only what its time allows, the oldest first.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ephemeral import wire
from ephemeral.client import AsyncClient
from ephemeral.errors import EphemeralError
from ephemeral_cli.progress import Step
from ephemeral_cli.replay.house import take_fat_snapshot
from ephemeral_cli.replay.tasks import Task

POLICIES: tuple[wire.Policy, ...] = ("none", "cached", "fat-snapshot")
"""Cold: a fresh sandbox and an install with an empty cache; cold cached: with a warm one; fat snapshot: the twenty most
used packages already imported, restored when the session starts."""
OVERHEAD_SECONDS = 3.0
"""What measuring takes beyond the figure itself: opening and ending a session."""


@dataclass(frozen=True)
class Figure:
    """Wait and run of ``code`` under one policy. ``ok``: it ran well. ``now``: measured in this very run."""

    ms: float
    at: float
    code: str
    ok: bool
    now: bool = False


class Rivals:
    """The figures of all tasks, kept in ``file``. ``lead_seconds`` of a task: how long before its code its session starts."""

    def __init__(self, file: Path):
        self._file = file
        self._figures: dict[str, Figure] = {}
        try:
            stored = json.loads(file.read_text())
            self._figures = {key: Figure(**{**figure, "now": False}) for key, figure in stored.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            pass  # none yet, or not ours: measured anew

    def figure(self, task: Task, policy: wire.Policy) -> Figure | None:
        """What is known of ``task``'s code as it is now."""
        figure = self._figures.get(f"{task.id} {policy}")
        return figure if figure and figure.ok and figure.code == _digest(task) else None

    async def measure(self, sandboxd: AsyncClient, tasks: Sequence[Task], lead_seconds: dict[str, float], budget_seconds: float, step: Step) -> None:
        """Measure what was never measured, then the oldest again while ``budget_seconds`` last."""
        deadline = time.monotonic() + budget_seconds
        todo = [(task, policy) for policy in POLICIES for task in tasks if task.code is not None]
        unknown = [(task, policy) for task, policy in todo if self.figure(task, policy) is None]
        known = sorted(((figure.at, number) for number, (task, policy) in enumerate(todo) if (figure := self.figure(task, policy))))
        order = unknown + [todo[number] for _, number in known]
        if order:  # it may be gone (another kernel, another guest): its making is in nobody's figure
            step.update(0, len(order), "taking the fat snapshot")
            with contextlib.suppress(EphemeralError):  # then measuring with it says so, task by task
                await take_fat_snapshot(sandboxd)
        for number, (task, policy) in enumerate(order):
            before = self.figure(task, policy)
            lead = lead_seconds.get(task.id, 0) if policy == "fat-snapshot" else 0.0
            if before and time.monotonic() + before.ms / 1000 + lead + OVERHEAD_SECONDS > deadline:
                continue
            step.update(number, len(order), f"{policy}: {task.id}")
            figure = await _measure(sandboxd, task, policy, lead)
            if figure:
                self._figures[f"{task.id} {policy}"] = figure
                self._save()

    def _save(self) -> None:
        fresh = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        fresh.write_text(json.dumps({key: asdict(figure) for key, figure in self._figures.items()}, indent=1) + "\n")
        os.replace(fresh, self._file)


async def _measure(sandboxd: AsyncClient, task: Task, policy: wire.Policy, lead_seconds: float) -> Figure | None:
    # Who installs must say what: nothing reads it off the code for him.
    packages = task.packages if policy in ("none", "cached") else []
    execution = await _run(sandboxd, task.code or "", packages, policy, lead_seconds)
    if execution is None:
        return None
    return Figure((execution.wait_ms or 0) + (execution.run_ms or 0), time.time(), _digest(task), execution.verdict == "ok", now=True)


async def _run(sandboxd: AsyncClient, code: str, packages: list[str], policy: wire.Policy, lead_seconds: float) -> wire.Execution | None:
    """Run ``code`` in a session of its own; None where sandboxd could not: no figure is better than a wrong one."""
    try:
        session = await sandboxd.open_session(app="demo rivals", policy=policy)
        try:
            await _stand(sandboxd, session.id, lead_seconds)
            return await sandboxd.execute(wire.ExecutionRequest(code=code, session=session.id, packages=packages))
        finally:
            await sandboxd.end_session(session.id)
    except EphemeralError:
        return None


async def _stand(sandboxd: AsyncClient, session: str, lead_seconds: float) -> None:
    """Let the session's sandbox come up, as it would while the provider talks: at most ``lead_seconds``."""
    deadline = time.monotonic() + lead_seconds
    while (left := deadline - time.monotonic()) > 0:
        sandboxes = await sandboxd.sandboxes()
        if any(sandbox.session == session and sandbox.state == "ready" for sandbox in sandboxes.items):
            return
        await asyncio.sleep(min(left, 0.1))


def _digest(task: Task) -> str:
    return hashlib.sha256((task.code or "").encode()).hexdigest()
