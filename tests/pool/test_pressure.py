"""More sessions than memory: who is served, who waits, who is told to come back, and what is given up for it."""

from __future__ import annotations

import asyncio
import time

import pytest

from ephemeral import wire
from ephemeral_sandboxd.errors import Busy
from ephemeral_sandboxd.pool import admission

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def room_for(house):
    """Shrink the memory budget to what is used now and ``extra`` bytes; put it back afterwards."""
    budget = house.daemon._fleet.admission.budget_bytes

    def shrink(extra: int) -> None:
        house.daemon._fleet.admission.budget_bytes = house.daemon._fleet.memory_used_bytes + extra

    yield shrink
    house.daemon._fleet.admission.budget_bytes = budget


async def quiet(house) -> None:
    """No session, no sandbox but spares."""
    for session in list(house.daemon._sessions.all()):
        await house.daemon.end_session(session.id)
    await house.until(lambda: all(sandbox.state == "spare" for sandbox in house.daemon.sandboxes()))


async def test_an_idle_sandbox_makes_room_for_code_that_has_come(house, room_for):
    await quiet(house)
    await house.prepared("cheap-1", ["numpy"], ["numpy"])
    room_for(0)
    execution = await house.run("1 + 1", session="dear-1")
    assert execution.verdict == "ok"
    await house.run("x = 1", session="dear-1")


async def test_variables_are_worth_more_than_a_bet(house, room_for):
    await quiet(house)
    await house.run("x = 41", session="kept-1")
    await house.until(lambda: house.sandbox("kept-1").frozen)
    room_for(0)
    while spares := house.daemon._fleet.spares():
        house.daemon._fleet.give_back(spares[0])
    house.daemon._fleet.admission.budget_bytes = house.daemon._fleet.memory_used_bytes
    record = await house.plan("bet-1", ["pandas"], ["pandas"], needs_code=0.2)
    await house.until(lambda: house.daemon._sessions.get("bet-1").builder.done())
    outcomes = [plan.outcome for plan in (await house.recorder.plans("bet-1")).items if plan.id == record.id]
    assert outcomes == ["declined"]
    assert (await house.run("x + 1", session="kept-1")).result == "42"


async def test_a_full_house_of_running_code_refuses_after_a_while_and_says_when_to_come_back(house, room_for, monkeypatch):
    await quiet(house)
    monkeypatch.setattr(admission, "FIRST_SECONDS", 1.0)
    busy = asyncio.create_task(house.run("x = bytearray(200 << 20)\nimport time; time.sleep(6)", session="busy-1"))
    await house.until(lambda: house.sandbox("busy-1") and house.sandbox("busy-1").state == "running" and house.sandbox("busy-1").memory_bytes > 200 << 20)
    while spares := house.daemon._fleet.spares():
        house.daemon._fleet.give_back(spares[0])
    house.daemon._fleet.admission.budget_bytes = house.daemon._fleet.memory_used_bytes
    with pytest.raises(Busy) as refusal:
        await house.run("1", session="waits-1")
    assert 1 <= refusal.value.retry_after_seconds <= 60
    assert house.daemon.host().refused >= 1
    waiting = asyncio.create_task(house.run("2", session="waits-2"))
    monkeypatch.setattr(admission, "FIRST_SECONDS", 30.0)
    await busy
    waited = asyncio.create_task(house.run("3", session="waits-3"))
    assert (await waited).result == "3"
    await asyncio.gather(waiting, return_exceptions=True)


async def test_twelve_sessions_at_once_are_all_served_in_their_order(house):
    await quiet(house)
    began: dict[str, float] = {}

    async def one(number: int) -> None:
        execution = await house.run("1", session=f"burst-{number}")
        assert execution.verdict == "ok", execution
        began[f"burst-{number}"] = execution.started_at

    await asyncio.gather(*(one(number) for number in range(12)))
    assert len(began) == 12


async def test_thousands_of_sessions_hold_no_sandbox(house):
    before = len(house.daemon.sandboxes())
    began = time.monotonic()
    for number in range(2000):
        house.daemon.open_session(wire.SessionRequest(id=f"idle-{number}"))
    assert len(house.daemon.sandboxes()) <= before + 2
    assert house.daemon.host().sessions >= 2000
    assert time.monotonic() - began < 60
    for number in range(2000):
        await house.daemon.end_session(f"idle-{number}")
