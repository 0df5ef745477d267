"""What Prometheus reads: counters of what happened, gauges of what there is, and no name of anybody's."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from ephemeral import wire
from ephemeral_sandboxd.ledger import Recorder

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(house) -> Samples:
    async with house.tcp.get("/metrics") as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = await response.text()
    return {(sample.name, frozenset(sample.labels.items())): sample.value for family in plain(text) for sample in family.samples}


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def execution(number: int = 1, **changes) -> wire.Execution:
    values = {
        "id": f"e{number}", "session": "SECRET-session", "state": "done", "verdict": "ok", "tier": "live", "created_at": 1.0, "wait_ms": 2.0,
        "run_ms": 1500.0, "lead_ms": 3000.0, "predicted": ["SECRET-package"], "needed": ["SECRET-package"], "stages": {"thaw_ms": 500.0},
    }  # fmt: skip
    return wire.Execution.model_validate(values | changes)


@pytest.fixture
def recorder(house) -> Iterator[Recorder]:
    return house.recorder


async def test_an_execution_is_counted_once_when_it_is_over(house, recorder: Recorder):
    recorder.execution(execution(state="running", verdict=None, tier=None))
    recorder.execution(execution())
    recorder.execution(execution())
    recorder.execution(execution(2, verdict="timeout", tier="cold", needed=["SECRET-other"], predicted=[], language="shell"))
    recorder.execution(execution(3, verdict="refused", tier=None, wait_ms=None, run_ms=None, lead_ms=None, needed=[]))
    samples = await scrape(house)
    assert value(samples, "ephemeral_executions_total", tier="live", verdict="ok", language="python") == 1
    assert value(samples, "ephemeral_executions_total", tier="cold", verdict="timeout", language="shell") == 1
    assert value(samples, "ephemeral_executions_total", tier="none", verdict="refused", language="python") == 1
    assert value(samples, "ephemeral_wait_seconds_bucket", tier="live", le="0.0025") == 1
    assert value(samples, "ephemeral_wait_seconds_bucket", tier="live", le="0.001") == 0
    assert value(samples, "ephemeral_run_seconds_sum", tier="live") == 1.5
    assert value(samples, "ephemeral_lead_seconds_count") == 2
    assert value(samples, "ephemeral_stage_seconds_total", stage="thaw") == 1.0
    assert value(samples, "ephemeral_predictions_total", outcome="hit") == 1
    assert value(samples, "ephemeral_predictions_total", outcome="miss") == 1


async def test_plans_builds_steps_and_egress_are_counted(house, recorder: Recorder):
    plan = wire.PlanRecord(id=1, session="s1", plan=wire.Plan(session="s1", proposer="learned"))
    for outcome in ("building", "building", "ready", "superseded"):
        recorder.plan(plan.model_copy(update={"outcome": outcome}))
    session = wire.Session(id="s1", started_at=1, last_at=1)
    for builds, wasted, state in ((1, 0, "active"), (3, 0, "active"), (3, 2, "ended"), (3, 2, "ended")):
        recorder.session(session.model_copy(update={"builds": builds, "wasted": wasted, "state": state}))
    for kind, data in (("restore", {}), ("restore", {"failed": "Gone"}), ("egress", {"verdict": "allowed"}), ("egress", {"verdict": ["odd"]}), ("user_turn", {})):
        recorder.moment(wire.Moment(session="s1", at=1, kind=kind, duration_ms=250, data=data))
    samples = await scrape(house)
    assert {name: value(samples, "ephemeral_plans_total", proposer="learned", outcome=name) for name in ("building", "ready", "superseded")} == {
        "building": 1, "ready": 1, "superseded": 1,
    }  # fmt: skip
    assert (value(samples, "ephemeral_builds_total"), value(samples, "ephemeral_builds_wasted_total")) == (3, 2)
    assert value(samples, "ephemeral_sessions_ended_total") == 1
    assert value(samples, "ephemeral_steps_total", step="restore", result="failed") == 1
    assert value(samples, "ephemeral_steps_seconds_total", step="restore") == 0.5
    assert value(samples, "ephemeral_egress_connections_total", verdict="allowed") == 1
    assert value(samples, "ephemeral_egress_connections_total", verdict="other") == 1


async def test_gauges_say_what_there_is_now(house):
    house.daemon.boxes["box2"] = wire.Sandbox(id="box2", state="ready", frozen=True, memory_bytes=7 << 20, memory_limit_bytes=1 << 30, created_at=1)
    house.daemon.missing = "the base environment"
    samples = await scrape(house)
    assert value(samples, "ephemeral_sandboxes", state="ready") == 1
    assert value(samples, "ephemeral_sandboxes", state="spare") == 1
    assert value(samples, "ephemeral_sandboxes", state="running") == 0
    assert value(samples, "ephemeral_sandboxes_frozen") == 1
    assert value(samples, "ephemeral_sandboxes_memory_bytes") == 7 << 20
    assert value(samples, "ephemeral_memory_budget_bytes") == 1 << 29
    assert value(samples, "ephemeral_ready") == 0
    assert value(samples, "ephemeral_build_info", version="0", runtime="gvisor", isolation="none: a stand-in") == 1
    assert value(samples, "ephemeral_ledger_failing") == 0
    assert value(samples, "ephemeral_disk_bytes", kind="ledger") > 0
    assert value(samples, "process_resident_memory_bytes") > 1 << 20
    assert value(samples, "process_open_fds") > 3


async def test_a_scraper_that_prefers_openmetrics_gets_it(house):
    house.recorder.execution(execution())
    async with house.tcp.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}) as response:
        assert response.content_type == "application/openmetrics-text"
        text = await response.text()
    assert "ephemeral_executions" in {family.name for family in openmetrics(text)}
    assert text.endswith("# EOF\n")


async def test_no_token_is_wanted_but_the_host_is_checked(house):
    async with house.tcp.get("/metrics", headers={"Host": "evil.example"}) as response:
        assert response.status == 421
    async with house.tcp.post("/metrics") as response:
        assert response.status == 405


async def test_labels_come_from_closed_sets(house, recorder: Recorder):
    """What a newer room says in words we do not know is `other`; names of sessions, packages and hosts are nowhere."""
    for number in range(50):
        recorder.execution(execution(number, session=f"SECRET-{number}", error="SECRET", language=f"SECRET{number}"))
        recorder.session(wire.Session(id=f"SECRET-{number}", app="SECRET", started_at=1, last_at=1))
        recorder.moment(wire.Moment(session="s1", at=1, kind="egress", detail="SECRET", data={"host": "SECRET", "verdict": f"SECRET{number}"}))
        recorder.moment(wire.Moment(session="s1", at=1, kind=f"SECRET{number}", duration_ms=1))
    house.daemon.boxes = {f"SECRET{n}": wire.Sandbox(id=f"SECRET{n}", session="SECRET", state="ready", modules=["SECRET"], created_at=1) for n in range(200)}
    async with house.tcp.get("/metrics") as response:
        text = await response.text()
    assert "SECRET" not in text
    assert 'verdict="other"' in text
    assert len(text.splitlines()) < 500


async def test_the_document_names_it(house):
    async with house.tcp.get("/openapi.json") as response:
        content = (await response.json())["paths"]["/metrics"]["get"]["responses"]["200"]["content"]
    assert set(content) == {"text/plain", "application/openmetrics-text"}


async def test_a_broken_ledger_shows(house, recorder: Recorder):
    recorder.execution(execution(stdout="lone \udc80 surrogate", code="\udc80"))
    recorder.session(wire.Session(id="lone \udc80", started_at=time.time(), last_at=time.time()))
    await recorder.flush()
    assert value(await scrape(house), "ephemeral_ledger_dropped_total", kind="row") == 1
