"""What things cost on this host: read off what sessions and snapshots leave behind, also what an earlier process recorded."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ephemeral import wire
from ephemeral.costs import PRIORS
from ephemeral_sandboxd.ledger import Recorder
from ephemeral_sandboxd.ledger.costs import MODULES, REMEMBERED, SNAPSHOTS, CostBook

MIB = 1 << 20
_clock = itertools.count(1000)


def moment(kind: str, detail: str = "", ms: float | None = None, session: str = "s", at: float | None = None, **data: Any) -> wire.Moment:
    return wire.Moment(session=session, at=float(next(_clock)) if at is None else at, kind=kind, detail=detail, duration_ms=ms, data=data)


def prepared(box: str, imports: dict[str, float], *, has: tuple[str, ...] = (), how: str = "restore", session: str = "s") -> Iterator[wire.Moment]:
    """The marks of a sandbox that came with ``has`` and had ``imports`` (module -> milliseconds) made by hand, each of 10 MiB."""
    yield moment(how, ms=300.0, session=session, sandbox=box, modules=list(has))
    for module, ms in imports.items():
        yield moment("preload", module, ms, session, sandbox=box, memory_bytes=10 * MIB)
    yield moment("ready", session=session, sandbox=box, modules=[*has, *imports])


def snapshot(modules: list[str], import_ms: float, mebibytes: float, created_at: float = 1.0) -> wire.Snapshot:
    name = f"{' '.join(modules)} {created_at}"
    return wire.Snapshot(id=name, environments=[], modules=modules, size_bytes=int(mebibytes * MIB), import_ms=import_ms, created_at=created_at)


def started(ms: float | None, *modules: str, name: str = "b") -> wire.Sandbox:
    return wire.Sandbox(id=name, state="booting", started_from="x" if modules else "boot", modules=list(modules), start_ms=ms, created_at=1.0)


def book(*told: wire.Moment | wire.Snapshot | wire.Sandbox) -> wire.Costs:
    costs = CostBook()
    for one in told:
        if isinstance(one, wire.Snapshot):
            costs.snapshot(one)
        elif isinstance(one, wire.Sandbox):
            costs.sandbox(one)
        else:
            costs.moment(one)
    return costs.costs()


def test_before_anything_was_measured_everything_is_a_prior():
    costs = book()
    assert costs == PRIORS.model_copy(update={"modules": {}})
    assert {getattr(costs, name).source for name in wire.Costs.model_fields if name != "modules"} == {"prior"}


def test_medians_say_of_how_many():
    costs = book(*(started(ms) for ms in (300, 500, 9000)), started(200.0, "numpy"), started(None), started(7.0).model_copy(update={"state": "ready"}))
    assert costs.boot_ms == wire.Figure(value=500, n=3, source="measured")
    assert costs.restore_ms == wire.Figure(value=200, n=1, source="measured")
    assert costs.fetch_ms.source == "prior"


def test_only_the_latest_count():
    costs = book(*(started(float(ms)) for ms in [9000] * REMEMBERED + [100] * REMEMBERED))
    assert costs.boot_ms == wire.Figure(value=100, n=REMEMBERED, source="measured")


def test_a_module_takes_what_it_and_its_parts_took_in_one_sandbox():
    costs = book(*prepared("a", {"sklearn": 900.0, "sklearn.svm": 80.0, "sklearn.tree": 20.0, "sklearn.base": 1.0}), *prepared("b", {"sklearn": 2000.0}))
    assert costs.modules["sklearn"].import_ms == wire.Figure(value=1500, n=2, source="measured")
    assert costs.modules["sklearn"].memory_bytes.value == 20 * MIB
    assert costs.import_ms == wire.Figure(value=1500, n=1, source="measured")


def test_what_came_with_the_snapshot_is_not_taken_for_an_import():
    told = [*prepared("a", {"numpy.fft": 30.0, "pandas": 700.0}, has=("numpy",)), moment("preload", "pandas.plotting", 50.0, sandbox="a"), moment("ready", sandbox="a")]
    costs = book(*told)
    assert set(costs.modules) == {"pandas"}
    assert costs.modules["pandas"].import_ms == wire.Figure(value=700, n=1, source="measured")


def test_imports_that_failed_or_that_nobody_can_place_count_for_nothing():
    broken = moment("preload", "torch", 100.0, sandbox="a", failed="import")
    costs = book(moment("boot", ms=1.0, sandbox="a", modules=[]), broken, moment("ready", sandbox="a"), *prepared("", {"x": 100.0}), moment("preload", "y", 50.0))
    assert costs.modules == {}


def test_snapshots_that_differ_by_one_module_say_what_it_takes():
    costs = book(
        snapshot([], 0, 15), snapshot(["numpy"], 300, 24), snapshot(["numpy", "pandas"], 1300, 51), snapshot(["numpy", "pandas", "scipy", "sklearn"], 9000, 140)
    )  # fmt: skip
    assert {top: (each.import_ms.value, each.memory_bytes.value // MIB) for top, each in costs.modules.items()} == {"numpy": (300, 9), "pandas": (1000, 27)}


def test_the_latest_snapshot_of_the_same_modules_counts_and_an_import_by_hand_more():
    shots = snapshot([], 0, 15), snapshot(["numpy"], 300, 24, 5.0), snapshot(["numpy"], 900, 24, 2.0)
    assert book(*shots).modules["numpy"].import_ms.value == 300
    assert book(*shots, *prepared("a", {"numpy": 120.0})).modules["numpy"].import_ms.value == 120


def test_only_what_was_downloaded_counts_as_fetched():
    assert book(moment("build", ms=1.0, readiness="wheels", fetch_ms=5.0), moment("build", ms=1.0)).fetch_ms.source == "prior"
    assert book(moment("build", ms=1.0, readiness="cold", fetch_ms=4200.0)).fetch_ms == wire.Figure(value=4200, n=1, source="measured")


def test_how_long_a_sandbox_stands_until_it_is_used_and_until_it_is_not():
    costs = book(
        moment("ready", session="used", at=10), moment("ready", session="used", at=12), moment("code_arrived", session="used", at=14),
        moment("ended", session="used", at=500), moment("ready", session="vain", at=20), moment("ended", "idle", session="vain", at=320),
        moment("ready", session="back", at=30), moment("released", session="back", at=90), moment("ended", session="back", at=400),
        moment("ready", session="stopped", at=30), moment("ended", "sandboxd stopped", session="stopped", at=31), moment("code_arrived", session="never-ready", at=99),
    )  # fmt: skip
    assert costs.until_used_seconds == wire.Figure(value=4, n=1, source="measured")
    assert costs.until_ended_seconds == wire.Figure(value=180, n=2, source="measured")


def test_whatever_strangers_code_imports_the_book_stays_small():
    told = [one for number in range(MODULES + 50) for one in prepared(f"b{number}", {f"m{number}": 50.0}, session=f"s{number}")]
    modules = book(*told).modules
    assert len(modules) == MODULES
    assert "m0" not in modules
    assert f"m{MODULES + 49}" in modules


def test_of_many_sets_of_modules_the_latest_are_compared():
    told = [snapshot([], 0, 15), *(snapshot([f"m{number}"], 100, 20) for number in range(SNAPSHOTS + 5))]
    assert book(*told).modules == {}  # the bare one was told first
    assert len(book(*told, snapshot([], 0, 15)).modules) == SNAPSHOTS - 1


@pytest.mark.parametrize("number", [10**400, -1, float("nan"), float("inf"), "7", None, [7]])
def test_a_number_that_nobody_measured_counts_for_nothing(number: Any):
    told = [moment("boot", sandbox="a", modules=[]), moment("preload", "pandas", 700.0, sandbox="a", memory_bytes=number), moment("ready", sandbox="a", at=-1e308)]
    costs = book(*told, moment("build", fetch_ms=number, readiness="cold"), moment("code_arrived", at=1e308))
    assert costs.modules["pandas"].memory_bytes.n == costs.fetch_ms.n == 0
    assert wire.Costs.model_validate_json(costs.model_dump_json()) == costs


def test_only_what_can_be_a_modules_name_is_served_as_one():
    told = [moment("boot", sandbox="a", modules=[]), *(moment("preload", name, 700.0, sandbox="a") for name in ("pandas.io", "my secret is 7", "", "a-b")), moment("ready", sandbox="a")]
    assert set(book(*told).modules) == {"pandas"}


def test_marks_of_odd_shape_are_no_trouble():
    assert book(moment("boot", sandbox=3, modules="numpy"), moment("ready"), moment("preload", "", 9.0, sandbox="z"), moment("build", fetch_ms="x", readiness="cold")).modules == {}


async def test_what_was_measured_survives_the_process(tmp_path: Path):
    path = tmp_path / "ledger.db"
    recorder = Recorder(path, capture=False)
    for one in prepared("a", {"pandas": 700.0}, how="boot"):
        recorder.moment(one)
    recorder.moment(moment("code_arrived"))
    recorder.moment(moment("spare", ms=1.0, sandbox="spare", modules=[]))  # a spare is there at once
    recorder.moment(moment("preload", "torch", 8000.0, sandbox="spare", memory_bytes=200 * MIB))
    recorder.moment(moment("preload", "torch.nn", 1.0, sandbox="spare", memory_bytes=0))
    recorder.moment(moment("ready", session="other", sandbox="spare"))
    recorder.snapshot(snapshot(["numpy"], 100, 20).model_copy(update={"id": "x"}))
    recorder.sandbox(started(400.0, name="b1"))
    recorder.sandbox(started(200.0, "numpy", name="b2"))
    recorder.sandbox(started(200.0, "numpy", name="b2").model_copy(update={"state": "deleted"}))
    before = recorder.costs()
    assert set(before.modules) == {"pandas", "torch"}
    assert before.modules["pandas"].memory_bytes == wire.Figure(value=10 * MIB, n=1, source="measured")
    assert (before.until_used_seconds.n, before.boot_ms.value, before.restore_ms.n) == (1, 400, 1)
    await recorder.close()
    again = Recorder(path, capture=False)
    assert again.costs() == before
    await again.close()


@pytest.mark.parametrize("decision", ["import", "available", None])
async def test_why_a_package_was_imported_or_not_is_kept_with_its_plan(tmp_path: Path, decision: str | None):
    recorder = Recorder(tmp_path / "ledger.db", capture=False)
    want = wire.Want.model_validate(
        {"package": "pandas", "probability": 0.5, "proposer": "seen", "decision": decision, "saves_ms": 300.5 if decision else None, "costs_ms": 20.25 if decision else None}
    )  # fmt: skip
    plan = wire.Plan(session="s", proposer="seen", wants=[want])
    recorder.plan(wire.PlanRecord(id=recorder.next_plan_id(), session="s", plan=plan, accepted=["pandas"]))
    assert (await recorder.plans("s")).items[0].plan.wants == [want]
    await recorder.close()
