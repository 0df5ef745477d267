"""What a real sandbox costs is measured while it is made ready, and served."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1 << 20


async def test_sandboxes_say_what_their_start_took(house):
    spare = house.daemon.sandboxes()[0]
    assert spare.start_ms is not None
    assert spare.start_ms > 0
    boot = house.recorder.costs().boot_ms
    assert (boot.n > 0, boot.source) == (True, "measured")


async def test_imports_made_by_hand_are_timed_with_the_memory_that_they_take(house):
    before = house.recorder.costs()
    assert before.modules.get("humanize") is None
    await house.prepared("timed", ["humanize"], ["humanize"])
    [preload] = [moment for moment in await house.moments("timed") if moment.kind == "preload" and moment.detail == "humanize"]
    assert preload.duration_ms is not None
    assert 0 <= preload.data["memory_bytes"] < 200 * MIB
    timed = house.recorder.costs().modules["humanize"]
    assert (timed.import_ms.n, timed.import_ms.source) == (1, "measured")
    assert timed.import_ms.value == round(preload.duration_ms, 3)
    assert timed.memory_bytes.n == 1


async def test_what_is_only_to_be_there_is_mounted_and_not_imported(house):
    want = {"package": "humanize", "probability": 0.2, "proposer": "learned", "evidence": "model", "decision": "available", "saves_ms": 1.0, "costs_ms": 9.0}
    await house.plan("there", [], wants=[want])
    await house.until(lambda: house.sandbox("there") is not None and house.sandbox("there").state == "ready")
    sandbox = house.sandbox("there")
    assert sandbox.modules == []
    assert len(sandbox.environments) >= 1
    done = await house.run("import humanize\nprint(humanize.naturalsize(10))", session="there")
    assert (done.verdict, done.missing) == ("ok", [])


async def test_a_sandbox_that_is_used_says_how_long_it_stood(house):
    before = house.recorder.costs().until_used_seconds.n
    await house.prepared("used", [])
    await house.run("print(1)", session="used")
    assert house.recorder.costs().until_used_seconds.n == before + 1
