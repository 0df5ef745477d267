"""``ephemeral replay``: recorded tasks through the whole path, under one policy or several, over an empty state unless told otherwise."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from ephemeral import bench, settings, wire
from ephemeral.errors import EphemeralError
from ephemeral_cli import rooms, up
from ephemeral_cli.errors import CommandError
from ephemeral_cli.progress import Reporter, Step
from ephemeral_cli.replay import comparing, k2, policies, report, store
from ephemeral_cli.replay.comparing import Measured
from ephemeral_cli.replay.conversation import Held, hold, strays
from ephemeral_cli.replay.house import House, Provider, open_house, take_fat_snapshot
from ephemeral_cli.replay.tasks import Task, load
from ephemeral_cli.setup import command as setup_command

T = TypeVar("T")

PLAIN_WIDTH = 132
"""Of the table, where the output is a file: it has no width of its own."""
EMPTY = "empty state: a fresh database and nothing learned; the store that `ephemeral setup` made (base environment, first snapshots, wheels) is kept"
WARM = "warm state: this machine's own, with all that earlier conversations left"
SIDE_BY_SIDE = (
    "each policy in a house of its own: a fresh database, nothing learned, and the store as `ephemeral setup` made it (base environment, first "
    "snapshots); what one downloads is not there for the next")


@dataclass(frozen=True)
class Choices:
    """The command's options, as typed. ``policies`` may hold ``all``; none is ``ours``."""

    file: Path
    tokens_per_second: float
    ttft: float
    limit: int
    seed: int
    policies: tuple[str, ...]
    warm: bool
    as_json: bool
    parallel: int
    k2_url: str = ""


@dataclass(frozen=True)
class Run:
    """What every policy's run has in common. ``level``: each has a store of its own, as setup left it."""

    choices: Choices
    tasks: list[Task]
    k2: dict[str, str]
    level: bool
    reporter: Reporter


class Interrupted(CommandError):
    """SIGINT or SIGTERM came; what ran has been stopped in order."""

    def __init__(self) -> None:
        super().__init__("interrupted", exit_code=130)


def run(choices: Choices) -> None:
    """Replay and print. Raises CommandError for what cannot be read or started, and when it was interrupted."""
    if choices.k2_url and not {policies.K2, policies.ALL} & set(choices.policies):
        raise CommandError("--k2-url is for a policy that was not asked for", f"add --policy {policies.K2}", 2)
    settings_of_k2 = policies.k2_variables(choices.k2_url)
    chosen, left_out = policies.choose(choices.policies, bool(settings_of_k2))
    several = len(chosen) > 1
    if several and choices.warm:
        raise CommandError("several policies cannot be compared over one warm state: each would find what the one before it left", "leave --warm out", 2)
    tasks = load(choices.file, choices.limit, choices.seed)
    random.Random(choices.seed).shuffle(tasks)
    require_setup()
    machine = bench.machine()
    work = Run(choices, tasks, settings_of_k2, several, Reporter())
    if several:
        _side_by_side(work, chosen, left_out, machine)
    else:
        _alone(work, chosen[0])


def _alone(work: Run, policy: str) -> None:
    choices = work.choices
    measured, _ = asyncio.run(_replay(work, policy))
    figures = {"file": choices.file.name, "policy": policy, **_shared(choices), **report.summary(measured.conversations, measured.strays)}
    if measured.k2:
        figures["k2"] = measured.k2
    if choices.as_json:
        sys.stdout.write(json.dumps({**figures, "tasks": [report.details(held) for held in measured.conversations]}, indent=1) + "\n")
        return
    console = Console()
    console.print(f"policy {policy}; {WARM if choices.warm else EMPTY}", highlight=False, soft_wrap=True)
    console.print(report.show(figures))
    _say_broken(console, measured)


def _side_by_side(work: Run, chosen: list[str], left_out: dict[str, str], machine: dict[str, Any]) -> None:
    """One policy after the other; a policy that fails, or an interruption, costs nothing that was measured before it.

    Raises CommandError afterwards, when there was either.
    """
    measured: dict[str, Measured] = {}
    failed: dict[str, str] = {}
    interrupted = False
    work.reporter.say(f"{', '.join(chosen)}, in this order; {SIDE_BY_SIDE}")
    for policy in chosen:
        try:
            measured[policy], interrupted = asyncio.run(_replay(work, policy))
        except (Interrupted, KeyboardInterrupt):
            interrupted = True
        except (CommandError, EphemeralError, OSError) as problem:
            failed[policy] = str(problem)
            work.reporter.say(f"{policy}: {problem}")
        if interrupted:
            break
    twenty = policies.twenty()
    figures = comparing.figures(measured, twenty)
    compared = comparing.comparisons(figures)
    if work.choices.as_json:
        tasks = {policy: [report.details(held) for held in one.conversations] for policy, one in measured.items()}
        sys.stdout.write(json.dumps({
            "policies": {policy: {**found, "tasks": tasks[policy]} for policy, found in figures.items()}, "comparisons": compared,
            "file": work.choices.file.name, **_shared(work.choices), "limit": work.choices.limit, "order": chosen, "left_out": left_out, "failed": failed,
            "interrupted": interrupted, "twenty": sorted(twenty), "machine": machine,
        }, indent=1) + "\n")
    else:
        _print(work.choices, measured, figures, compared, left_out)
    if interrupted:
        raise Interrupted
    if failed:
        raise CommandError("; ".join(f"{policy}: {problem}" for policy, problem in failed.items()), "ephemeral doctor")


def _print(choices: Choices, measured: dict[str, Measured], figures: dict[str, dict[str, Any]], compared: list[dict[str, Any]],
           left_out: dict[str, str]) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = PLAIN_WIDTH

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    if figures:
        say(f"{choices.file.name}, seed {choices.seed}; first token {choices.ttft:g} s, {choices.tokens_per_second:g} tokens/s; {SIDE_BY_SIDE}")
        console.print(comparing.show(figures))
        say("")
    for comparison in compared:
        say(comparison["sentence"])
    measured_waits = {policy for policy, found in figures.items() if found["wait_ms"]}
    if {"ours", policies.K2} & measured_waits and len(measured_waits) > 1 and not any(comparison["kind"] == "tie" for comparison in compared):
        say("No cheaper policy ties us at any wait.")
    for policy, found in figures.items():
        if found["unserved"]:
            say(f"{policy} failed tasks that another policy ran, and its wait for them is not counted: {', '.join(found['unserved'])}.")
    for policy, why in left_out.items():
        say(f"{policy} was left out: {why}")
    for policy, one in measured.items():
        _say_broken(console, one, f"{policy}, ")


def _shared(choices: Choices) -> dict[str, Any]:
    return {
        "state": "warm" if choices.warm else "empty", "seed": choices.seed,
        "tokens_per_second": choices.tokens_per_second, "ttft_seconds": choices.ttft, "parallel": choices.parallel,
    }


def _say_broken(console: Console, measured: Measured, where: str = "") -> None:
    for held in measured.conversations:
        if held.outcome.error:
            console.print(f"{where}{held.task.id}: {held.outcome.error}", markup=False, highlight=False, soft_wrap=True)


def require_setup() -> None:
    """Raise CommandError when no sandbox can start here yet."""
    left = setup_command.check(settings.get("store"))
    if left and settings.get("runtime") != "docker":
        raise CommandError("; ".join(left), "ephemeral setup")


async def _replay(work: Run, policy: str) -> tuple[Measured, bool]:
    """What ``policy`` came to, and whether somebody wanted to stop when all of it was measured and the house was being closed."""
    stop = up.stop_signal()
    async with AsyncExitStack() as opened:
        measured = await _unless(stop, _measure(work, policy, opened))
    return measured, stop.is_set()


async def _measure(work: Run, policy: str, opened: AsyncExitStack) -> Measured:
    """All conversations under ``policy``, in a house that is left open: ``opened`` closes it."""
    choices, reporter = work.choices, work.reporter
    began = time.monotonic()
    name = f"{policy}: " if work.level else ""
    variables = policies.variables(policy, work.k2)
    provider = Provider(choices.file.resolve(), choices.ttft, choices.tokens_per_second)
    state = await opened.enter_async_context(_state(choices.warm))
    if work.level:
        variables["EPHEMERAL_STORE"] = str(opened.enter_context(store.fresh(settings.get("store"), state)))
    house = await opened.enter_async_context(open_house(state, rooms.Ports.free(), provider, reporter.say, **variables))
    if policy == "fat-snapshot":
        with reporter.step(f"{name}taking the fat snapshot"):
            await take_fat_snapshot(house.sandboxd)
    since = time.time()
    with reporter.step(f"{name}{len(work.tasks)} conversations") as step:
        conversations = await _hold_each(work.tasks, house, "replay", policies.of_sessions(policy), choices.parallel, step)
    others = await strays(house, conversations, since)
    sessions = [*(held.session for held in conversations if held.session), *others]
    asked = await k2.calls(house.sandboxd, state / "predictor.sock", sessions) if policy == policies.K2 else None
    host = await house.sandboxd.host()
    return Measured(conversations, others, host.base_packages, asked, time.monotonic() - began)


async def hold_all(tasks: list[Task], house: House, model: str, policy: wire.Policy, parallel: int, step: Step) -> list[Held]:
    """Hold every conversation, ``parallel`` at once; the results are in the order of ``tasks``. Ctrl-C raises CommandError."""
    return await interruptible(_hold_each(tasks, house, model, policy, parallel, step))


async def _hold_each(tasks: list[Task], house: House, model: str, policy: wire.Policy, parallel: int, step: Step) -> list[Held]:
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

    return await asyncio.gather(*(one(task) for task in tasks))


async def interruptible(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await ``coroutine``; SIGINT or SIGTERM cancels it and raises CommandError, so that what runs below us stops in order."""
    return await _unless(up.stop_signal(), coroutine)


async def _unless(stop: asyncio.Event, coroutine: Coroutine[Any, Any, T]) -> T:
    """Await ``coroutine``. Raises Interrupted, with it cancelled and at its end, when ``stop`` is set before."""
    work, stopped = asyncio.create_task(coroutine), asyncio.create_task(stop.wait())
    await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not work.done():
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        raise Interrupted
    stopped.cancel()
    return work.result()


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
