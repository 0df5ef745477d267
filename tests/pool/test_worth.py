"""What a sandbox is worth that stands ready, and which one is given back first."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from ephemeral import wire
from ephemeral_sandboxd.pool import worth
from ephemeral_sandboxd.pool.sessions import Session

MIB = 1 << 20
NOW = time.monotonic()
STOCK = SimpleNamespace(name="default")


def a_plan(needs_code: float = 1.0, **fields: object) -> wire.Plan:
    return wire.Plan.model_validate({"session": "s", "proposer": "seen", "needs_code": needs_code, **fields})


def a_session(
    name: str = "s", *, plan: wire.Plan | None = None, silent: float = 0.0, state: str = "ready", used: bool = False,
    imports_ms: float = 0.0, memory_bytes: int = 100 * MIB,
) -> Session:  # fmt: skip
    """A real session; of its sandbox only what worth is made of."""
    session = Session(name, STOCK)  # type: ignore[arg-type]
    session.sandbox = SimpleNamespace(state=state, used=used, imports_ms=imports_ms, memory_bytes=memory_bytes)  # type: ignore[assignment]
    session.last_seen = NOW - silent
    if plan:
        session.record = wire.PlanRecord(id=1, session=name, plan=plan)
    return session


def of(session: Session) -> float:
    return worth.of_session(session, NOW)


@pytest.fixture(autouse=True)
def _sessions_end_after_400_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPHEMERAL_IDLE_SECONDS", "400")


# ------------------------------------------------------------------------------------------------ a session's sandbox


def test_a_session_without_a_sandbox_holds_nothing_of_worth():
    session = a_session(used=True)
    session.sandbox = None
    assert of(session) == 0


def test_a_sandbox_that_nobody_expects_to_use_is_worth_nothing():
    assert of(a_session()) == 0


@pytest.mark.parametrize("action", ["nothing", "release", "resize"])
def test_a_plan_that_provisions_nothing_makes_a_sandbox_worth_nothing(action: str):
    assert of(a_session(plan=a_plan(action=action))) == 0


def test_a_session_that_has_run_something_is_worth_more_than_the_surest_bet():
    ran = a_session(used=True)
    bet = a_session(plan=a_plan(needs_code=1.0), imports_ms=3000)
    assert of(ran) > of(bet) > 0


def test_variables_stay_worth_something_whatever_the_last_plan_says():
    ran = a_session(used=True)
    assert of(a_session(used=True, plan=a_plan(action="nothing"))) == of(ran)
    assert of(a_session(used=True, plan=a_plan(needs_code=0.0))) == of(ran)


def test_a_plan_that_is_surer_of_code_makes_what_has_run_worth_more():
    assert of(a_session(used=True, plan=a_plan(needs_code=1.0))) == pytest.approx(of(a_session(used=True)) / worth.AGAIN)


def test_worth_grows_with_the_probability_of_code():
    assert of(a_session(plan=a_plan(needs_code=0.8))) == pytest.approx(2 * of(a_session(plan=a_plan(needs_code=0.4))))


def test_imports_that_stand_ready_are_worth_the_time_that_they_took():
    empty, imported = a_session(plan=a_plan()), a_session(plan=a_plan(), imports_ms=worth.BOOT_MS)
    assert of(imported) == pytest.approx(2 * of(empty))


@pytest.mark.parametrize("used", [False, True])
def test_silence_halves_worth_with_every_quarter_of_the_time_to_the_sessions_end(used: bool):
    fresh, quarter, whole = (a_session(plan=a_plan(), used=used, silent=silent) for silent in (0, 100, 400))
    assert of(quarter) == pytest.approx(of(fresh) / 2)
    assert of(whole) == pytest.approx(of(fresh) / 16)


def test_silence_of_weeks_leaves_no_less_than_nothing():
    assert 0 <= of(a_session(used=True, silent=1e7)) < 1e-9


def test_a_time_to_the_end_of_nothing_is_no_trouble(monkeypatch):
    monkeypatch.setenv("EPHEMERAL_IDLE_SECONDS", "0")
    assert of(a_session(used=True, silent=1)) == pytest.approx(of(a_session(used=True)) / 2)


def test_without_a_time_given_silence_lasts_until_now():
    session = a_session(used=True)
    session.touch()
    assert 0 < worth.of_session(session) <= worth.of_session(session, session.last_seen)


def test_more_memory_lowers_worth():
    assert of(a_session(used=True, memory_bytes=400 * MIB)) == pytest.approx(of(a_session(used=True, memory_bytes=100 * MIB)) / 4)


def test_memory_not_yet_measured_does_not_make_a_sandbox_priceless():
    assert of(a_session(used=True, memory_bytes=0)) == of(a_session(used=True, memory_bytes=worth.SMALLEST_BYTES)) < worth.CERTAIN


# ------------------------------------------------------------------------------------------------ a plan's sandbox


def test_a_plan_is_worth_what_its_sandbox_would_be_when_it_stands():
    plan = a_plan(needs_code=0.7)
    assert worth.of_plan(plan, 900.0, 200 * MIB) == pytest.approx(of(a_session(plan=plan, imports_ms=900.0, memory_bytes=200 * MIB)))


def test_imports_that_were_never_timed_are_taken_to_be_worth_something():
    assert worth.of_plan(a_plan(), 0.0, 100 * MIB) < worth.of_plan(a_plan(), None, 100 * MIB) == worth.of_plan(a_plan(), worth.UNKNOWN_IMPORTS_MS, 100 * MIB)


def measured(boot_ms: float, **modules: float) -> wire.Costs:
    """A host that has timed its boots and these modules."""
    figures = {name: wire.Figure(value=1.0) for name in wire.Costs.model_fields if name != "modules"}
    figures["boot_ms"] = wire.Figure(value=boot_ms, n=1, source="measured")
    if modules:
        figures["import_ms"] = wire.Figure(value=700.0, n=len(modules), source="measured")
    timed = {top: wire.ModuleCosts(import_ms=wire.Figure(value=ms, n=1, source="measured"), memory_bytes=wire.Figure(value=1.0)) for top, ms in modules.items()}
    return wire.Costs(**figures, modules=timed)


def test_what_this_host_measured_takes_the_constants_place():
    plan, session = a_plan(), a_session(plan=a_plan())
    assert worth.of_plan(plan, 0.0, 100 * MIB, measured(800)) == pytest.approx(2 * worth.of_plan(plan, 0.0, 100 * MIB))
    assert worth.of_session(session, NOW, measured(800)) == pytest.approx(2 * of(session))
    unmeasured = measured(800).model_copy(update={"boot_ms": wire.Figure(value=800)})
    assert worth.of_session(session, NOW, unmeasured) == of(session)


def test_imports_take_what_the_snapshot_has_and_what_the_rest_took_here():
    shot = wire.Snapshot(id="x", environments=[], modules=["numpy"], size_bytes=1, import_ms=90, created_at=1.0)
    costs = measured(400, pandas=1000, numpy=50)
    assert worth.imports_ms(["numpy"], shot, None) == 90
    assert worth.imports_ms([], None, None) == 0
    assert worth.imports_ms(["numpy", "pandas"], shot, costs) == 1090
    assert worth.imports_ms(["matplotlib.pyplot", "numpy"], None, costs) == 750
    assert worth.imports_ms(["pandas"], shot, None) is None
    assert worth.imports_ms(["pandas"], shot, measured(400)) is None


def test_a_plan_that_expects_no_code_is_worth_nothing():
    assert worth.of_plan(a_plan(needs_code=0.0), 5000.0, 100 * MIB) == 0


def test_no_bet_and_no_variables_outbid_code_that_has_come():
    assert worth.of_plan(a_plan(), 120_000.0, 0) < worth.CERTAIN
    assert of(a_session(used=True, imports_ms=120_000.0, memory_bytes=0)) < worth.CERTAIN


# ------------------------------------------------------------------------------------------------ which goes first


def test_the_least_is_the_bet_before_the_silent_before_the_fresh():
    fresh, silent, bet = a_session("fresh", used=True), a_session("silent", used=True, silent=50), a_session("bet", plan=a_plan(needs_code=0.1))
    order = []
    sessions = [fresh, silent, bet]
    while found := worth.least(sessions):
        order.append(found[0].id)
        sessions.remove(found[0])
    assert order == ["bet", "silent", "fresh"]


def test_the_least_comes_with_its_worth():
    session = a_session(plan=a_plan())
    found = worth.least([session])
    assert found is not None
    assert found[0] is session
    assert found[1] == pytest.approx(worth.of_session(session), rel=0.01)


@pytest.mark.parametrize("state", ["booting", "preparing", "running", "lost", "deleted"])
def test_a_sandbox_that_is_not_idle_is_never_the_least(state: str):
    busy, idle = a_session("busy", state=state), a_session("idle", used=True)
    found = worth.least([busy, idle])
    assert found is not None
    assert found[0] is idle
    assert worth.least([busy]) is None


async def test_a_session_that_somebody_works_on_is_never_the_least():
    held, idle = a_session("held"), a_session("idle", used=True)
    async with held.lock:
        found = worth.least([held, idle])
        assert found is not None
        assert found[0] is idle
        assert worth.least([held]) is None
    found = worth.least([held, idle])
    assert found is not None
    assert found[0] is held


def test_two_that_are_worth_the_same_are_no_trouble():
    found = worth.least([a_session("a"), a_session("b")])
    assert found is not None
    assert found[1] == 0


def test_where_nothing_stands_nothing_is_the_least():
    empty = a_session()
    empty.sandbox = None
    assert worth.least([]) is None
    assert worth.least([empty]) is None
