"""``ephemeral demo``: the replay of the bundled tasks over this machine's own state, with the rivals beside it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ephemeral import settings
from ephemeral_cli import rooms, up
from ephemeral_cli.demo import table
from ephemeral_cli.demo.rivals import Rivals
from ephemeral_cli.errors import CommandError
from ephemeral_cli.progress import Reporter
from ephemeral_cli.replay.command import hold_all, interruptible, require_setup
from ephemeral_cli.replay.conversation import Held
from ephemeral_cli.replay.house import House, Provider, open_house
from ephemeral_cli.replay.provider import Answer
from ephemeral_cli.replay.tasks import Task, load
from ephemeral_cli.supervise import Service, check_port, free_port

TASKS = Path(__file__).with_name("tasks.jsonl")
PLAIN_WIDTH = 132
LEAST_WIDTH = 100
WHOLE_RUN_SECONDS = 90.0
"""Rivals are measured again while a run has not taken longer than this: a later run stays under two minutes."""


@dataclass(frozen=True)
class Choices:
    """The command's options, as typed."""

    tokens_per_second: float
    ttft: float
    skip_rivals: bool
    all_rivals: bool
    parallel: int
    model: str
    output: Path


def run(choices: Choices) -> None:
    """Hold the conversations, measure the rivals, print, write; then serve the dashboard while a terminal looks on."""
    require_setup()
    asyncio.run(_demo(choices, time.monotonic()))


async def _demo(choices: Choices, started: float) -> None:
    reporter, console = Reporter(), Console()
    # A file or a log has no width of its own, and below a hundred columns no package name would be left whole.
    console.width = max(console.width, LEAST_WIDTH) if console.is_terminal else PLAIN_WIDTH
    real = bool(os.environ.get("OPENAI_API_KEY"))
    tasks = load(TASKS)
    if real:  # a model words its answers as it likes
        tasks = [replace_expectation(task) for task in tasks]
    provider = None if real else Provider(TASKS, choices.ttft, choices.tokens_per_second)
    state, ports = settings.get("state"), free_where_taken(rooms.Ports.configured())
    async with open_house(state, ports, provider, reporter.say) as house:
        said_by = settings.get("upstream") if real else f"recorded answers, first token {choices.ttft:g} s, {choices.tokens_per_second:g} tokens/s"
        reporter.say(f"provider: {said_by}")
        with reporter.step(f"{len(tasks)} conversations") as step:
            conversations = await hold_all(tasks, house, choices.model if real else "replay", "ours", choices.parallel, step)
        rivals = Rivals(state / "rivals.json")
        if not choices.skip_rivals:
            await _measure(choices, rivals, house, conversations, started, reporter)
        facts = {"provider": said_by, "model": choices.model if real else "replay", "cores": os.cpu_count(), "at": time.time()}
        demo = table.figures(conversations, rivals, **facts)
        _write(choices.output, demo)
        console.print(table.show(demo))
        for line in table.remarks(demo):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        console.print(f"{choices.output}, after {time.monotonic() - started:.0f} s", markup=False, highlight=False)
        if sys.stdin.isatty() and sys.stdout.isatty():
            console.print(f"\ndashboard  {house.addresses.dashboard}\nCtrl-C stops everything.", markup=False, highlight=False, soft_wrap=True)
            await up.stop_signal().wait()
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        console.print("dashboard: .venv/bin/ephemeral up prints its address; these conversations are in it", highlight=False, soft_wrap=True)
    failed = [entry["name"] for entry in demo["tasks"] if not entry["ok"]]
    if failed:
        raise CommandError(f"not ok: {', '.join(failed)}", f"the logs are in {state / 'logs'}")


async def _measure(choices: Choices, rivals: Rivals, house: House, conversations: list[Held], started: float, reporter: Reporter) -> None:
    budget = float("inf") if choices.all_rivals else max(0.0, WHOLE_RUN_SECONDS - (time.monotonic() - started))
    leads = {held.task.id: generation_seconds(held.task, choices) for held in conversations}
    with reporter.step("the same code without us (cold, cold cached, fat snapshot)") as step:
        await interruptible(rivals.measure(house.sandboxd, [held.task for held in conversations], leads, budget, step))


def generation_seconds(task: Task, choices: Choices) -> float:
    """How long the provider takes from the request to the last token of the code: the time a snapshot's restore hides behind."""
    return choices.ttft + Answer(task.prose, task.code).tokens / choices.tokens_per_second


def replace_expectation(task: Task) -> Task:
    return task.model_copy(update={"expect": ""})


def free_where_taken(ports: rooms.Ports) -> rooms.Ports:
    """The configured ports, each exchanged for a free one when something listens there already; those that the demo does not use are left out."""

    def usable(port: int) -> int:
        try:
            check_port(Service("demo", (), "", port))
        except CommandError:
            return free_port()
        return port

    return rooms.Ports(usable(ports.proxy), usable(ports.mcp), usable(ports.sandboxd))


def _write(output: Path, demo: dict[str, Any]) -> None:
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(demo, indent=1) + "\n")
    except OSError as problem:
        raise CommandError(f"{output} cannot be written: {problem.strerror}", "ephemeral demo --output /elsewhere/demo.json") from None
