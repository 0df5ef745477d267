"""What one session imported by hand is a snapshot for the next."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_imports_made_by_hand_become_a_snapshot_when_the_house_is_quiet(house):
    modules = ["networkx", "numpy"]  # networkx is not in the base environment: its snapshot has a slot of its own
    before = {snapshot.id for snapshot in house.daemon.snapshots()}
    await house.prepared("learn-1", modules, modules)
    await house.daemon.end_session("learn-1")
    await house.until(lambda: any(s.id not in before and s.modules == modules for s in house.daemon.snapshots()))
    sandbox = await house.prepared("learn-2", modules, modules)
    assert sandbox.started_from in {snapshot.id for snapshot in house.daemon.snapshots()} - before


async def test_restored_copies_have_different_random_numbers(house):
    code = "import random, numpy\nprint(random.random(), numpy.random.rand())"
    for session in ("random-1", "random-2"):
        await house.prepared(session, ["numpy"], ["numpy"])
    first, second = [await house.run(code, session=session) for session in ("random-1", "random-2")]
    assert first.tier == second.tier == "live"
    assert first.stdout.split()[0] != second.stdout.split()[0]
    assert first.stdout.split()[1] != second.stdout.split()[1]


async def test_a_damaged_snapshot_is_counted_and_the_session_still_gets_its_sandbox(house):
    snapshot = next(s for s in house.daemon.snapshots() if s.modules == ["numpy"])
    directory = house.daemon._stocks.default.snapshots.directory(snapshot.id)
    pages = directory / "image" / "checkpoint.img"
    content = pages.read_bytes()
    pages.write_bytes(content[: len(content) // 2])
    try:
        execution = await house.run("import numpy\nprint(numpy.ones(2).sum())", session="damaged-1")
        assert (execution.verdict, execution.stdout) == ("ok", "2.0\n")
        counted = next(s for s in house.daemon.snapshots() if s.id == snapshot.id)
        assert counted.failures == 1
    finally:
        pages.write_bytes(content)
