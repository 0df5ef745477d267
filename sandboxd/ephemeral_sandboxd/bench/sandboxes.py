"""One sandbox at a time: restored, booted, asked, frozen, checkpointed, deleted."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ephemeral_sandboxd.bench.figures import Figures
from ephemeral_sandboxd.bench.memory import sandbox_pss_mb
from ephemeral_sandboxd.bench.place import KINDS, NotHere, Place, reasons, timed
from ephemeral_sandboxd.runtimes import Box

WARM_UP = 50
FROZEN_SECONDS = 0.02
"""How long a sandbox stands frozen before it is asked: the kernel stops the last of its threads a moment after it said so."""

SCIENCE = """
import numpy, pandas, matplotlib.pyplot, sklearn, scipy
print(int(pandas.DataFrame({"a": numpy.arange(4)})["a"].sum()))
"""
TORCH = """
import torch
print(int(torch.arange(4).sum()))
"""
ENVIRONMENTS = {"science": SCIENCE, "torch": TORCH}
SUM = "6"


async def executions(place: Place, figures: Figures) -> None:
    """exec_live_ms, exec_frozen_ms: one restored sandbox, asked again and again."""
    async with one(place, "bare") as box:
        for _ in range(WARM_UP):
            await place.answer(box)
        live = [await timed(lambda: place.answer(box)) for _ in range(place.times(2000, 300))]
        figures.add("exec_live_ms", live)
        frozen = []
        for _ in range(place.times(200, 40)):
            box.freeze()
            await asyncio.sleep(FROZEN_SECONDS)
            frozen.append(await timed(lambda: place.answer(box)))
        figures.add("exec_frozen_ms", frozen)


async def restores(place: Place, figures: Figures) -> None:
    """restore_ms: with blanks standing, as in a daemon that had a quiet moment before."""
    for kind in KINDS:
        if not figures.wanted(f"restore_ms.{kind}"):
            continue
        with reasons(figures, f"restore_ms.{kind}"):
            image = await place.image(kind)
            samples, rounds = [], place.times(20, 2)
            for number in range(rounds + 1):
                place.progress(f"restore: {kind}", number, rounds + 1)
                await place.settled()
                began = time.perf_counter()
                box = await place.start(image)
                try:
                    await place.answer(box)
                    samples.append((time.perf_counter() - began) * 1000)
                finally:
                    await box.delete()
            figures.add(f"restore_ms.{kind}", samples[1:])  # the first reads the image from the disk


async def boots(place: Place, figures: Figures) -> None:
    """boot_ms."""
    samples = []
    for _ in range(place.times(10, 3)):
        began = time.perf_counter()
        box = await place.start(None)
        try:
            await place.answer(box)
            samples.append((time.perf_counter() - began) * 1000)
        finally:
            await box.delete()
    figures.add("boot_ms", samples)


async def teardowns(place: Place, figures: Figures) -> None:
    """teardown_ms."""
    samples = []
    for _ in range(place.times(20, 3)):
        async with one(place, "bare") as box:
            await place.settled()
            box.freeze()
            samples.append(await timed(box.delete))
    figures.add("teardown_ms", samples)


async def checkpoints(place: Place, figures: Figures) -> None:
    """checkpoint_ms: as the pool takes snapshots, of a sandbox that has run nobody's code."""
    place.check("pandas")
    samples = []
    for number in range(place.times(5, 1)):
        box = await place.start(None)
        image = place.state / f"checkpoint-{number}"
        image.mkdir()
        try:
            for module in KINDS["pandas"]:
                await box.request("preload", module=module)
            await box.request("settle")
            samples.append(await timed(lambda box=box, image=image: box.checkpoint(image)))  # type: ignore[misc]
        finally:
            await box.delete()
    figures.add("checkpoint_ms", samples)


async def environments(place: Place, figures: Figures) -> None:
    """environment_ms: what a session waits for when no snapshot is there."""
    for kind, code in ENVIRONMENTS.items():
        if not figures.wanted(f"environment_ms.{kind}"):
            continue
        with reasons(figures, f"environment_ms.{kind}"):
            place.check(kind)
            samples, rounds = [], place.times(3, 1)
            for number in range(rounds):
                place.progress(f"boot and import: {kind}", number, rounds)
                began = time.perf_counter()
                box = await place.start(None)
                try:
                    await place.answer(box, code, SUM)
                    samples.append((time.perf_counter() - began) * 1000)
                finally:
                    await box.delete()
            figures.add(f"environment_ms.{kind}", samples)


async def idleness(place: Place, figures: Figures) -> None:
    """idle_cpu_percent, idle_pss_mb: one sandbox at a time, because many share pages and each would look smaller."""
    window = 3.0 if not place.quick else 1.0
    cpu: list[float] = []
    for kind in ("bare", "pandas", "torch"):
        with reasons(figures, f"idle_pss_mb.{kind}"):
            memory: list[float] = []
            for _ in range(place.times(3, 1)):
                async with one(place, kind) as box:
                    await box.request("settle")
                    await place.settled()
                    box.freeze()
                    await asyncio.sleep(FROZEN_SECONDS)
                    before, began = box.usage().cpu_ms, time.perf_counter()
                    await asyncio.sleep(window)
                    took_ms = (time.perf_counter() - began) * 1000
                    cpu.append((box.usage().cpu_ms - before) / took_ms * 100)
                    memory.append(sandbox_pss_mb(box.name))
            figures.add(f"idle_pss_mb.{kind}", memory)
    if not cpu:
        raise NotHere("no sandbox to look at")
    figures.add("idle_cpu_percent", cpu, window_seconds=window)


async def rates(place: Place, figures: Figures) -> None:
    """starts_per_second_per_core: many at once, far more than there are blanks."""
    cores = os.cpu_count() or 1
    image = await place.image("bare")
    many = place.times(12, 4) * cores
    samples = []
    for number in range(place.times(3, 1)):
        place.progress("starts", number, place.times(3, 1))
        boxes: list[Box] = []
        began = time.perf_counter()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(many):
                    group.create_task(_answering(place, image, boxes))
            samples.append(many / (time.perf_counter() - began) / cores)
        finally:
            for box in boxes:
                await box.delete()
        await place.settled()
    figures.add("starts_per_second_per_core", samples, starts=many)


async def _answering(place: Place, image: Path, boxes: list[Box]) -> None:
    box = await place.start(image)
    boxes.append(box)
    await place.answer(box)


@asynccontextmanager
async def one(place: Place, kind: str) -> AsyncIterator[Box]:
    """A restored sandbox that has answered; deleted at the end."""
    box = await place.restored(kind)
    try:
        yield box
    finally:
        await box.delete()
