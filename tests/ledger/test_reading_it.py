"""The database as its owner reads it: columns for all that is recorded, views with clear names, through the real datasette."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from datasette.app import Datasette
from pydantic import BaseModel
from sqlite_utils import Database

from ephemeral import wire
from ephemeral_sandboxd.ledger import Recorder

AT = 1_790_000_000.0

RENAMED = {"session": "session_id", "sandbox": "sandbox_id", "memory_seconds": "memory_gib_seconds", "wants": None, "plan": None, "accepted": None, "refused": None}
"""Fields whose column is called otherwise, or that are rows of another table."""


@pytest.mark.parametrize(
    ("table", "models"),
    [
        ("sessions", [wire.Session]), ("sandboxes", [wire.Sandbox]), ("plans", [wire.PlanRecord, wire.Plan]), ("executions", [wire.Execution]),
        ("moments", [wire.Moment]), ("environments", [wire.Environment]), ("snapshots", [wire.Snapshot]),
    ],
)  # fmt: skip
async def test_every_field_of_what_is_recorded_has_a_column(tmp_path: Path, table: str, models: list[type[BaseModel]]):
    """A message with a field more could not be written at all, and would stop every other one."""
    await Recorder(tmp_path / "ledger.db", capture=False).close()
    database = Database(tmp_path / "ledger.db")
    columns = set(database.table(table).columns_dict)
    database.close()
    fields = {RENAMED.get(name, name) for model in models for name in model.model_fields} - {None}
    assert fields <= columns


@pytest.fixture
async def filled(tmp_path: Path) -> Path:
    path = tmp_path / "ephemeral.db"
    recorder = Recorder(path, capture=False)
    recorder.session(wire.Session(
        id="s1", app="demo", started_at=AT, last_at=AT + 60, ended_at=AT + 60, state="ended", root="node", network=["example.com"], executions=4,
        builds=2, wasted=1, memory_seconds=8,
    ))  # fmt: skip
    wants = [wire.Want(package=name, probability=0.9, proposer="seen") for name in ("numpy", "pandas", "scipy")]
    plan = wire.Plan(session="s1", proposer="seen", at=AT, wants=wants, root="node", disk_bytes=1 << 30, timeout_seconds=5)
    recorder.plan(wire.PlanRecord(id=1, session="s1", plan=plan, accepted=["numpy", "pandas", "scipy"], outcome="declined"))
    recorder.moment(wire.Moment(session="s1", at=AT + 1, kind="preload", duration_ms=500))
    recorder.moment(wire.Moment(session="s1", at=AT + 30, kind="preload", duration_ms=9000))
    needs: list[tuple[list[str], wire.Tier]] = [(["numpy"], "live"), (["numpy", "torch"], "partial"), (["torch"], "cold"), ([], "live")]
    for number, (needed, tier) in enumerate(needs):
        recorder.execution(wire.Execution(
            id=f"e{number}", session="s1", state="done", verdict="interrupted" if number == 3 else "ok", tier=tier, created_at=AT + 10 + number,
            wait_ms=10.0 * number, run_ms=5, predicted=["numpy", "pandas", "scipy"], needed=needed, language="javascript", notice="the sandbox was lost",
            stages=wire.Stages(thaw_ms=1, import_ms=2),
        ))  # fmt: skip
    assert (await recorder.get_session("s1")).network == ["example.com"]
    assert (await recorder.plans("s1")).items[0].plan == plan
    assert (await recorder.get_execution("e3")).notice == "the sandbox was lost"
    await recorder.close()
    return path


@pytest.fixture
def datasette(filled: Path) -> Iterator[Datasette]:
    opened = Datasette([str(filled)])
    yield opened
    opened.executor.shutdown()
    for database in opened.databases.values():
        database.close()


async def test_datasette_shows_every_table_and_view(datasette: Datasette):
    listing = (await datasette.client.get("/ephemeral.json")).json()
    assert {"sessions", "sandboxes", "plans", "plan_packages", "executions", "execution_outputs", "moments"} <= {table["name"] for table in listing["tables"]}
    views = {view["name"] for view in listing["views"]}
    assert {"sessions_summary", "waits_by_tier", "predictions", "packages_predicted_vs_needed", "daily_savings", "memory_seconds_by_session"} <= views
    for name in (*views, *(table["name"] for table in listing["tables"] if not table["hidden"])):
        response = await datasette.client.get(f"/ephemeral/{name}.json?_shape=array")
        assert response.status_code == 200, f"{name}: {response.text}"
        page = await datasette.client.get(f"/ephemeral/{name}")
        assert page.status_code == 200, name


async def test_the_views_say_what_their_names_promise(datasette: Datasette):
    async def rows(view: str) -> list[dict]:
        response = await datasette.client.get(f"/ephemeral/{view}.json?_shape=array")
        return response.json()

    [session] = await rows("sessions_summary")
    assert (session["session_id"], session["seconds"], session["executions"], session["ok"], session["not_ok"]) == ("s1", 60.0, 4, 3, 1)
    assert {row["execution_id"]: row["outcome"] for row in await rows("predictions")} == {"e0": "hit", "e1": "partial", "e2": "miss", "e3": "none needed"}
    tiers = {row["tier"]: row for row in await rows("waits_by_tier")}
    assert (tiers["live"]["executions"], tiers["live"]["wait_max_ms"], tiers["live"]["thaw_mean_ms"]) == (2, 30.0, 1.0)
    packages = {row["package"]: (row["sessions_both"], row["predicted_in_vain"], row["not_foreseen"]) for row in await rows("packages_predicted_vs_needed")}
    assert packages == {"numpy": (1, 0, 0), "pandas": (0, 1, 0), "scipy": (0, 1, 0), "torch": (0, 0, 1)}
    [day] = await rows("daily_savings")
    assert (day["executions"], day["live"], day["wait_ms"], day["done_before_code_ms"]) == (4, 2, 60.0, 500.0), "what came after the code saved nothing"
    [memory] = await rows("memory_seconds_by_session")
    assert (memory["memory_gib_seconds"], memory["gib_seconds_an_execution"]) == (8.0, 2.0)


async def test_times_beyond_the_calendar_are_kept_as_its_ends(tmp_path: Path):
    recorder = Recorder(tmp_path / "ledger.db", capture=False)
    for number, at in enumerate((-1e300, 1e300, 5.0)):
        recorder.moment(wire.Moment(session="s1", at=at, kind="plan", data={"number": number}))
    kept = (await recorder.moments("s1")).items
    assert [moment.data["number"] for moment in kept] == [0, 2, 1]
    assert recorder.health() == {}
    await recorder.close()
