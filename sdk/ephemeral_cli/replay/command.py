"""``ephemeral replay``: recorded tasks through the whole path, over an empty state unless told otherwise."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from rich.console import Console

from ephemeral import settings, wire
from ephemeral_cli import rooms, up
from ephemeral_cli.errors import CommandError
from ephemeral_cli.progress import Reporter, Step
from ephemeral_cli.replay import report
from ephemeral_cli.replay.conversation import Held, hold
from ephemeral_cli.replay.house import House, Provider, open_house, take_fat_snapshot
from ephemeral_cli.replay.tasks import Task, load
from ephemeral_cli.setup import command as setup_command

T = TypeVar("T")

EMPTY = "empty state: a fresh database and nothing learned; the store that `ephemeral setup` made (base environment, first snapshots, wheels) is kept"
WARM = "warm state: this machine's own, with all that earlier conversations left"


@dataclass(frozen=True)
class Choices:
    """The command's options, as typed."""

    file: Path
    tokens_per_second: float
    ttft: float
    limit: int
    seed: int
    policy: str
    warm: bool
    as_json: bool
    parallel: int


def run(choices: Choices) -> None:
    """Replay and print. Raises CommandError for what cannot be read or started, and when it was interrupted."""
    tasks = load(choices.file, choices.limit, choices.seed)
    random.Random(choices.seed).shuffle(tasks)
    require_setup()
    reporter = Reporter()
    conversations = asyncio.run(_replay(choices, tasks, reporter))
    figures = {
        "file": choices.file.name, "policy": choices.policy, "state": "warm" if choices.warm else "empty", "seed": choices.seed,
        "tokens_per_second": choices.tokens_per_second, "ttft_seconds": choices.ttft, "parallel": choices.parallel,
        **report.summary(conversations),
    }
    if choices.as_json:
        sys.stdout.write(json.dumps({**figures, "tasks": [report.details(held) for held in conversations]}, indent=1) + "\n")
        return
    console = Console()
    console.print(f"policy {choices.policy}; {WARM if choices.warm else EMPTY}", highlight=False, soft_wrap=True)
    console.print(report.show(figures))
    for held in conversations:
        if held.outcome.error:
            console.print(f"{held.task.id}: {held.outcome.error}", markup=False, highlight=False, soft_wrap=True)


def require_setup() -> None:
    """Raise CommandError when no sandbox can start here yet."""
    left = setup_command.check(settings.get("store"))
    if left and settings.get("runtime") != "docker":
        raise CommandError("; ".join(left), "ephemeral setup")


async def _replay(choices: Choices, tasks: list[Task], reporter: Reporter) -> list[Held]:
    variables = {} if choices.policy == "ours" else {"EPHEMERAL_PREDICTOR": "none"}
    provider = Provider(choices.file.resolve(), choices.ttft, choices.tokens_per_second)
    async with _state(choices.warm) as state:
        async with open_house(state, rooms.Ports.free(), provider, reporter.say, **variables) as house:
            if choices.policy == "fat-snapshot":
                with reporter.step("taking the fat snapshot"):
                    await interruptible(take_fat_snapshot(house.sandboxd))
            with reporter.step(f"{len(tasks)} conversations") as step:
                return await hold_all(tasks, house, "replay", cast(wire.Policy, choices.policy), choices.parallel, step)


async def hold_all(tasks: list[Task], house: House, model: str, policy: wire.Policy, parallel: int, step: Step) -> list[Held]:
    """Hold every conversation, ``parallel`` at once; the results are in the order of ``tasks``. Ctrl-C raises CommandError."""
    turn = asyncio.Semaphore(parallel)
    done = 0

    async def one(task: Task) -> Held:
        nonlocal done
        async with turn:
            step.update(done, len(tasks), task.id)
            held = await hold(task, house, model, policy)
            done += 1
            step.update(done, len(tasks), task.id)
            return held

    async def everyone() -> list[Held]:
        return await asyncio.gather(*(one(task) for task in tasks))

    return await interruptible(everyone())


async def interruptible(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await ``coroutine``; SIGINT or SIGTERM cancels it and raises CommandError, so that what runs below us stops in order."""
    work = asyncio.create_task(coroutine)
    stopped = asyncio.create_task(_told_to_stop())
    await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not work.done():
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        raise CommandError("interrupted", exit_code=130)
    stopped.cancel()
    return work.result()


async def _told_to_stop() -> None:
    await up.stop_signal().wait()


@asynccontextmanager
async def _state(warm: bool) -> AsyncIterator[Path]:
    if warm:
        yield settings.get("state")
        return
    # Short: a Unix socket's path holds 107 bytes.
    state = Path(tempfile.mkdtemp(prefix="ephemeral-replay-"))
    try:
        yield state
    finally:
        shutil.rmtree(state, ignore_errors=True)
