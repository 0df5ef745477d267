"""Who gets memory for a sandbox: within the budget, in order of arrival, at the cost of what is worth less, or told when to come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from ephemeral_sandboxd.errors import Busy
from ephemeral_sandboxd.pool import admission
from ephemeral_sandboxd.pool.admission import Admission, Declined
from ephemeral_sandboxd.pool.worth import CERTAIN

MIB = 1 << 20


@dataclass
class House:
    """A budget, and the sandboxes in it: those that run, which nobody takes away, and idle ones by their worth."""

    budget: int
    at_once: int = 100
    running: dict[str, int] = field(default_factory=dict)
    idle: dict[float, int] = field(default_factory=dict)
    served: list[str] = field(default_factory=list)
    most: int = 0
    """The most bytes that sandboxes held and were promised at any time."""

    def __post_init__(self) -> None:
        self.admission = Admission(self.budget, self.at_once, lambda: self.used, self._yield_one)

    @property
    def used(self) -> int:
        return sum(self.running.values()) + sum(self.idle.values())

    def _yield_one(self, worth: float) -> bool:
        cheapest = min(self.idle, default=CERTAIN)
        if cheapest >= worth:
            return False
        del self.idle[cheapest]
        self.admission.changed()
        return True

    async def start(self, name: str, size: int, worth: float = CERTAIN, until: asyncio.Event | None = None) -> None:
        """A sandbox that holds ``size`` bytes from its start on; it is still starting ``until`` that is set."""
        async with self.admission.room(size, worth):
            self.served.append(name)
            self._look()
            await (until.wait() if until else asyncio.sleep(0))
            self.running[name] = size
        self._look()

    def _look(self) -> None:
        self.most = max(self.most, self.used + self.admission.starting_bytes)

    def end(self, name: str) -> None:
        del self.running[name]
        self.admission.changed()

    async def queue(self, name: str, size: int, worth: float = CERTAIN) -> asyncio.Task[None]:
        """The same as a task, which waits in the queue when this returns."""
        before = self.admission.waiting
        task = asyncio.create_task(self.start(name, size, worth))
        await until(lambda: self.admission.waiting == before + 1)
        return task


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.002)


async def settled() -> None:
    """Everybody who was woken has looked."""
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def dropped(*tasks: asyncio.Task[None]) -> AsyncIterator[None]:
    """Nobody waits on after the test."""
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# ------------------------------------------------------------------------------------------------ within the budget


async def test_what_starts_holds_what_was_reserved_for_it_and_then_what_is_measured():
    house = House(100)
    async with house.admission.room(60, CERTAIN):
        assert house.admission.starting_bytes == 60
        house.running["a"] = 25
    assert house.admission.starting_bytes == 0
    await house.start("b", 75)
    assert house.used == 100
    assert house.admission.waiting == house.admission.refused == 0


async def test_memory_that_is_promised_to_one_that_starts_is_not_promised_twice():
    house, started = House(100), asyncio.Event()
    first = asyncio.create_task(house.start("first", 60, until=started))
    await until(lambda: house.served)
    second = await house.queue("second", 60)
    started.set()
    await first
    await settled()
    assert house.served == ["first"]
    house.end("first")
    await second
    assert house.served == ["first", "second"]


async def test_a_crowd_never_holds_more_than_the_budget_and_all_of_it_is_served():
    house = House(100, at_once=4)

    async def come_and_go(number: int) -> None:
        await house.start(f"s{number}", 10 + number * 7 % 50)
        await asyncio.sleep(0.001 * (number % 3))
        house.end(f"s{number}")

    async with asyncio.timeout(60):
        await asyncio.gather(*(come_and_go(number) for number in range(60)))
    assert house.most <= 100
    assert house.served == [f"s{number}" for number in range(60)]
    assert house.used == house.admission.starting_bytes == house.admission.waiting == 0


async def test_no_more_start_at_once_than_the_machine_is_good_for():
    house, started = House(1000, at_once=2), asyncio.Event()
    first = [asyncio.create_task(house.start(name, 10, until=started)) for name in "ab"]
    await until(lambda: len(house.served) == 2)
    third = await house.queue("c", 10)
    await settled()
    assert house.served == ["a", "b"]
    started.set()
    await asyncio.gather(*first, third)
    assert house.served == ["a", "b", "c"]


async def test_a_start_that_fails_gives_its_memory_and_its_turn_back():
    house, fails = House(100, at_once=1), asyncio.Event()

    async def fail() -> None:
        async with house.admission.room(100, CERTAIN):
            await fails.wait()
            raise RuntimeError("no boot")

    failing = asyncio.create_task(fail())
    await until(lambda: house.admission.starting_bytes)
    waiting = await house.queue("next", 100)
    fails.set()
    with pytest.raises(RuntimeError, match="no boot"):
        await failing
    await waiting
    assert house.served == ["next"]
    assert house.admission.starting_bytes == 0


# ------------------------------------------------------------------------------------------------ in order of arrival


async def test_first_come_is_first_served():
    house = House(100, running={"old": 100})
    tasks = [await house.queue(name, 100) for name in "abcde"]
    for leaves, task in zip(["old", *"abcd"], tasks, strict=True):
        house.end(leaves)
        await task
    assert house.served == list("abcde")


async def test_a_small_one_does_not_overtake_a_big_one_that_came_before_it():
    house = House(100, running={"old": 50, "older": 30})
    big = await house.queue("big", 60)
    small = await house.queue("small", 5)
    house.admission.changed()
    await settled()
    assert house.served == []
    house.end("old")
    await asyncio.gather(big, small)
    assert house.served == ["big", "small"]


async def test_who_comes_when_memory_has_just_become_free_stands_behind_those_who_waited_for_it():
    house = House(100, running={"old": 100})
    patient = await house.queue("patient", 100)
    house.end("old")
    late = asyncio.create_task(house.start("late", 100))
    await patient
    assert house.served == ["patient"]
    house.end("patient")
    await late


async def test_room_for_several_serves_several_at_once():
    house = House(100, running={"old": 100})
    tasks = [await house.queue(name, 30) for name in "abc"]
    house.end("old")
    await asyncio.gather(*tasks)
    assert house.served == ["a", "b", "c"]


@pytest.mark.parametrize("leaves", ["a", "b", "c"])
async def test_who_gives_up_leaves_the_queue_and_the_others_keep_their_order(leaves: str):
    house = House(100, running={"old": 100})
    tasks = {name: await house.queue(name, 30) for name in "abc"}
    tasks[leaves].cancel()
    await asyncio.wait([tasks[leaves]])
    assert tasks[leaves].cancelled()
    assert house.admission.waiting == 2
    house.end("old")
    stayed = [name for name in "abc" if name != leaves]
    await asyncio.gather(*(tasks[name] for name in stayed))
    assert house.served == stayed
    assert house.admission.waiting == house.admission.starting_bytes == 0


async def test_who_gives_up_at_the_moment_of_being_called_does_not_take_the_turn_along():
    house = House(100, running={"old": 100})
    first, second = await house.queue("first", 100), await house.queue("second", 100)
    house.end("old")
    first.cancel()
    await second
    assert house.served == ["second"]


async def test_a_big_one_that_gives_up_lets_a_small_one_in_that_fits():
    house = House(100, running={"old": 80})
    big, small = await house.queue("big", 50), await house.queue("small", 20)
    big.cancel()
    await small
    assert house.served == ["small"]


# ------------------------------------------------------------------------------------------------ come back later


def assert_told_when_to_come_back(refusal: Busy) -> None:
    assert refusal.status == 429
    assert 1 <= refusal.retry_after_seconds <= 60
    assert refusal.detail
    assert "EPHEMERAL_MEMORY_BUDGET_BYTES" in refusal.hint


async def test_a_full_queue_refuses_at_once(monkeypatch):
    monkeypatch.setattr(admission, "WAITING_AT_MOST", 2)
    house = House(100, running={"old": 100})
    tasks = [await house.queue(name, 10) for name in "ab"]
    async with dropped(*tasks):
        with pytest.raises(Busy) as refusal:
            await house.start("c", 10)
        assert_told_when_to_come_back(refusal.value)
        assert "2 sessions wait" in refusal.value.detail
        assert house.admission.refused == 1
        assert house.admission.waiting == 2


@pytest.mark.parametrize("limit", ["WAIT_SECONDS", "FIRST_SECONDS"])
async def test_a_long_wait_for_memory_ends_in_a_refusal(monkeypatch, limit: str):
    monkeypatch.setattr(admission, limit, 0.05)
    house = House(100 * MIB, running={"old": 100 * MIB})
    with pytest.raises(Busy) as refusal:
        await house.start("a", 10 * MIB)
    assert_told_when_to_come_back(refusal.value)
    assert "100 MiB of 100 MiB" in refusal.value.detail
    assert house.admission.refused == 1
    assert house.admission.waiting == house.admission.starting_bytes == 0


async def test_who_is_not_the_first_is_refused_after_a_long_wait_too(monkeypatch):
    house = House(100, running={"old": 100})
    first = await house.queue("first", 10)
    async with dropped(first):
        monkeypatch.setattr(admission, "WAIT_SECONDS", 0.05)
        with pytest.raises(Busy) as refusal:
            await house.start("second", 10)
        assert_told_when_to_come_back(refusal.value)
        assert house.admission.waiting == 1
        house.end("old")
        await first
    assert house.served == ["first"]


async def test_a_wait_for_a_turn_alone_is_not_cut_short_as_one_for_memory_is(monkeypatch):
    monkeypatch.setattr(admission, "FIRST_SECONDS", 0.0)
    house, started = House(100, at_once=1), asyncio.Event()
    first = asyncio.create_task(house.start("first", 10, until=started))
    await until(lambda: house.served)
    second = await house.queue("second", 10)
    house.admission.changed()
    await settled()
    assert not second.done()
    started.set()
    await asyncio.gather(first, second)
    assert house.served == ["first", "second"]


async def test_a_refused_one_makes_way_for_the_next_that_fits(monkeypatch):
    house = House(100, running={"old": 80})
    monkeypatch.setattr(admission, "WAIT_SECONDS", 0.2)
    big = asyncio.create_task(house.start("big", 50))
    await settled()
    monkeypatch.setattr(admission, "WAIT_SECONDS", 60.0)
    small = asyncio.create_task(house.start("small", 20))
    with pytest.raises(Busy):
        await big
    await small
    assert house.served == ["small"]


async def test_what_can_never_fit_is_refused_without_giving_anything_back_for_it():
    house = House(100, idle={1.0: 50})
    with pytest.raises(Busy) as refusal:
        await house.start("huge", 101)
    assert_told_when_to_come_back(refusal.value)
    with pytest.raises(Declined):
        await house.start("huge", 101, worth=1000)
    assert house.idle == {1.0: 50}
    assert house.admission.refused == 1


async def test_after_quick_starts_the_next_try_may_come_after_a_second(monkeypatch):
    house = House(100)
    for number in range(20):
        await house.start(f"s{number}", 5)
    monkeypatch.setattr(admission, "WAITING_AT_MOST", 0)
    with pytest.raises(Busy) as refusal:
        await house.start("late", 5)
    assert refusal.value.retry_after_seconds == 1


async def test_behind_a_long_queue_of_slow_starts_the_next_try_comes_after_a_minute_at_most(monkeypatch):
    monkeypatch.setattr(admission, "WAITING_AT_MOST", 1000)
    house = House(100)
    await house.start("a", 50)
    await asyncio.sleep(0.1)
    await house.start("b", 50)
    tasks = [asyncio.create_task(house.start(f"s{number}", 50)) for number in range(1000)]
    async with dropped(*tasks):
        await until(lambda: house.admission.waiting == 1000)
        with pytest.raises(Busy) as refusal:
            await house.start("late", 50)
        assert refusal.value.retry_after_seconds == 60


# ------------------------------------------------------------------------------------------------ worth


async def test_code_displaces_the_cheapest_and_no_more_than_it_needs():
    house = House(100, idle={7.0: 30, 2.0: 30, 5.0: 30, 1e12: 10})
    await house.start("code", 50)
    assert house.idle == {7.0: 30, 1e12: 10}


async def test_code_displaces_whatever_is_idle_however_dear():
    house = House(100, idle={1e12: 100})
    await house.start("code", 100)
    assert house.idle == {}


async def test_a_bet_gets_what_is_free_and_displaces_what_is_worth_less():
    house = House(100, idle={1.0: 40, 9.0: 40})
    await house.start("small", 20, worth=0.5)
    assert house.idle == {1.0: 40, 9.0: 40}
    await house.start("dear", 30, worth=5.0)
    assert house.idle == {9.0: 40}


@pytest.mark.parametrize("worth", [1.0, 5.0])
async def test_a_bet_is_declined_when_only_what_is_worth_as_much_or_more_could_be_displaced(worth: float):
    house = House(100, idle={5.0: 50, 9.0: 50})
    with pytest.raises(Declined, match="worth more"):
        await house.start("bet", 20, worth=worth)
    assert house.idle == {5.0: 50, 9.0: 50}
    assert house.served == []
    assert house.admission.waiting == house.admission.starting_bytes == house.admission.refused == 0


async def test_a_bet_takes_nothing_from_code_that_waits():
    house = House(100, running={"old": 50, "older": 40})
    code = await house.queue("code", 60)
    bet = await house.queue("bet", 5, worth=1e9)  # would fit
    await settled()
    assert house.served == []
    house.end("old")
    await code
    with pytest.raises(Declined):
        await bet
    assert house.served == ["code"]


async def test_a_bet_that_is_declined_lets_code_behind_it_have_its_turn():
    house, started = House(100, at_once=1, running={"old": 40}, idle={9.0: 50}), asyncio.Event()
    first = asyncio.create_task(house.start("first", 10, until=started))
    await until(lambda: house.served)
    bet = await house.queue("bet", 30, worth=1.0)
    code = await house.queue("code", 30)
    started.set()
    with pytest.raises(Declined):
        await bet
    await asyncio.gather(first, code)
    assert house.served == ["first", "code"]
    assert house.idle == {}


@pytest.mark.parametrize(("limit", "value"), [("WAITING_AT_MOST", 0), ("WAIT_SECONDS", 0.05)])
async def test_a_bet_that_cannot_wait_is_declined_and_not_counted_as_refused(monkeypatch, limit: str, value: float):
    house, started = House(100, at_once=1), asyncio.Event()
    first = asyncio.create_task(house.start("first", 10, until=started))
    await until(lambda: house.served)
    monkeypatch.setattr(admission, limit, value)
    with pytest.raises(Declined):
        await house.start("bet", 10, worth=5.0)
    assert house.admission.refused == house.admission.waiting == 0
    started.set()
    await first


# ------------------------------------------------------------------------------------------------ relief and the end


async def test_growth_beyond_the_budget_is_relieved_by_the_cheapest_idle_ones():
    house = House(100, running={"grows": 20}, idle={3.0: 20, 1.0: 20, 2.0: 20})
    house.admission.relieve()
    assert sorted(house.idle) == [1.0, 2.0, 3.0]
    house.running["grows"] = 70
    house.admission.relieve()
    assert house.idle == {3.0: 20}


async def test_what_is_starting_counts_when_growth_is_relieved():
    house = House(100, running={"grows": 20}, idle={1.0: 20, 2.0: 20})
    async with house.admission.room(40, CERTAIN):
        house.running["grows"] = 40
        house.admission.relieve()
        assert house.idle == {2.0: 20}


async def test_relief_ends_when_nothing_is_idle():
    house = House(100, running={"grows": 300}, idle={1.0: 20})
    house.admission.relieve()
    assert house.idle == {}
    assert house.running == {"grows": 300}


async def test_closing_refuses_who_waits_and_who_comes_later():
    house = House(100, running={"old": 100})
    tasks = [await house.queue("code", 10), await house.queue("bet", 10, worth=5.0), await house.queue("code-2", 10)]
    house.admission.close()
    for task in tasks:
        with pytest.raises(Busy, match="stopping"):
            await task
    house.end("old")
    for worth in (CERTAIN, 5.0):
        with pytest.raises(Busy, match="stopping") as refusal:
            await house.start("late", 10, worth)
        assert 1 <= refusal.value.retry_after_seconds <= 60
    assert house.served == []
    assert house.admission.waiting == house.admission.starting_bytes == 0


@pytest.mark.parametrize("frees", [True, False])
async def test_closing_refuses_who_has_just_been_called(frees: bool):
    house = House(100, running={"old": 100})
    called = await house.queue("called", 10)
    if frees:
        house.end("old")
    else:
        house.admission.changed()
    house.admission.close()
    with pytest.raises(Busy, match="stopping"):
        await called
    assert house.served == []


async def test_closing_lets_those_finish_who_are_starting():
    house, started = House(100), asyncio.Event()
    starting = asyncio.create_task(house.start("a", 10, until=started))
    await until(lambda: house.served)
    house.admission.close()
    started.set()
    await starting
    assert house.running == {"a": 10}
    assert house.admission.starting_bytes == 0
