"""Events in over a real Unix socket, plans out to a sandboxd that records."""

import asyncio
import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import time

import aiohttp
import pytest

from ephemeral_predictor.app import Configuration
from ephemeral_predictor.history import History, Observed, Run


def user(text):
    return {"kind": "user_turn", "text": text}


def code(text, call="c1"):
    return {"kind": "code", "text": text, "call": call}


async def test_a_user_turn_becomes_a_plan_with_its_evidence_and_no_text(start, sandboxd):
    predictor = await start()
    assert await predictor.send({"kind": "turn_started", "app": "demo"}, user("plot sales.csv by secret-region")) == 204
    plan = await sandboxd.plan()
    assert plan["action"] == "provision"
    assert plan["proposer"] == "learned"
    assert {(want["package"], want["evidence"]) for want in plan["wants"]} >= {("pandas", "file"), ("matplotlib", "concept")}
    assert "secret-region" not in json.dumps(plan)
    status, belief = await predictor.get("/v1/sessions/s1")
    assert status == 200
    assert belief["plan"]["wants"] == plan["wants"]


async def test_what_an_app_imported_before_is_planned_for_its_next_session(start, sandboxd, tmp_path):
    history = History(tmp_path / "history.db")
    for number in range(12):
        runs = (Run(frozenset({"polars", "duckdb"} if number else {"polars"})),)
        history.record(Observed(f"before-{number}", "demo", time.time() - 60, time.time(), runs))
    history.close()
    predictor = await start(history=tmp_path / "history.db")
    await predictor.send({"kind": "turn_started", "app": "demo"}, user("Write Python code that counts the orders for each day."))
    plan = await sandboxd.plan(1)
    assert {(want["package"], want["proposer"], want["evidence"]) for want in plan["wants"]} >= {
        ("polars", "learned", "history"), ("duckdb", "learned", "history"),
    }  # fmt: skip
    await predictor.send({"kind": "turn_started", "app": "demo"}, user("Write a poem about orders."), session="s2")
    await predictor.send({"kind": "turn_started", "app": "other"}, user("Write Python code that counts the orders for each day."), session="s3")
    await predictor.send({"kind": "turn_started", "app": "demo"}, user("Count them in Python with the standard library only."), session="s4")
    await sandboxd.until(lambda: any(moment["session"] == "s4" for moment in sandboxd.moments), "the last session's moments")
    others = [want for plan in sandboxd.plans if plan["session"] != "s1" for want in plan["wants"]]
    assert [want for want in others if want["evidence"] == "history"] == []


async def test_streaming_code_gives_one_plan_for_each_material_change(start, sandboxd):
    predictor = await start()
    await predictor.send({"kind": "tool_call_started", "call": "c1", "name": "execute_code"})
    await sandboxd.plan(1)
    text = "import numpy as np\nx = np.arange(10)\n" + "print(x)\n" * 30 + "import numpy\nfrom scipy.stats import norm\n"
    for start_at in range(0, len(text), 7):
        await predictor.send(code(text[start_at : start_at + 7]))
    await predictor.send({"kind": "code_done", "call": "c1", "digest": hashlib.sha256(text.encode()).hexdigest()})
    await sandboxd.plan(3)
    await sandboxd.until(lambda: bool(sandboxd.digests), "a digest")
    await sandboxd.until(lambda: any(m["kind"] == "code_done" for m in sandboxd.moments), "the last moment")
    assert [sorted(want["package"] for want in plan["wants"]) for plan in sandboxd.plans] == [[], ["numpy"], ["numpy", "scipy"]]
    assert "scipy.stats" in sandboxd.plans[-1]["modules"]


async def test_a_digest_is_claimed_before_the_same_batch_is_planned(start, sandboxd):
    predictor = await start()
    digest = hashlib.sha256(b"import numpy").hexdigest()
    await predictor.send(user("plot a.csv"), code("import numpy"), {"kind": "code_done", "call": "c1", "digest": digest})
    await sandboxd.plan()
    await sandboxd.until(lambda: bool(sandboxd.digests), "a digest")
    assert sandboxd.digests == {digest: "s1"}
    assert sandboxd.order.index("digest") < sandboxd.order.index("plan")


async def test_a_conversation_that_needs_no_code_is_seen_and_gets_no_plan(start, sandboxd):
    predictor = await start()
    await predictor.send({"kind": "tool_declared", "name": "execute_code"}, user("What is the capital of France?"))
    await predictor.send({"kind": "assistant_text", "text": "Paris."}, {"kind": "turn_ended", "text": "stop"})
    await sandboxd.until(lambda: any(m["kind"] == "turn_ended" for m in sandboxd.moments), "the turn's end")
    assert sandboxd.plans == []


async def test_moments_carry_the_shape_of_the_conversation_and_deltas_are_put_together(start, sandboxd):
    predictor = await start()
    await predictor.send({"kind": "turn_started", "model": "m"}, user("my private words"))
    for _ in range(100):
        await predictor.send({"kind": "assistant_text", "text": "abcde"})
    await predictor.send({"kind": "turn_ended", "text": "stop"})
    await sandboxd.until(lambda: bool(sandboxd.moments) and sandboxd.moments[-1]["kind"] == "turn_ended", "the turn's end")
    assert "private" not in json.dumps(sandboxd.moments)
    assert [m["kind"] for m in sandboxd.moments if m["kind"] != "assistant_text"] == ["turn_started", "user_turn", "turn_ended"]
    deltas = [m["data"]["chars"] for m in sandboxd.moments if m["kind"] == "assistant_text"]
    assert sum(deltas) == 500
    assert len(deltas) <= sandboxd.posts


async def test_moments_carry_the_text_only_when_capture_is_on(start, sandboxd):
    predictor = await start(capture=True)
    await predictor.send(user("my words " + "x" * 5000))
    await sandboxd.until(lambda: bool(sandboxd.moments), "a moment")
    assert sandboxd.moments[0]["detail"].startswith("my words")
    assert len(sandboxd.moments[0]["detail"]) == 4000


async def test_without_planning_digests_and_moments_still_travel(start, sandboxd):
    predictor = await start(planning=False)
    await predictor.send(user("plot sales.csv"), code("import numpy\n"), {"kind": "code_done", "call": "c", "digest": "a" * 64})
    await sandboxd.until(lambda: bool(sandboxd.digests) and len(sandboxd.moments) == 3, "digest and moments")
    assert sandboxd.plans == []


async def test_a_dead_sandboxd_costs_nothing_but_plans_and_they_come_once_it_lives(start, sandboxd):
    await sandboxd.stop()
    predictor = await start()
    for _ in range(20):
        assert await predictor.send(user("plot sales.csv")) == 204

    async def dropped():
        return (await predictor.get("/healthz"))[1]["dropped"]

    async with asyncio.timeout(20):
        while not await dropped():
            await asyncio.sleep(0.01)
    sandboxd.path.unlink(missing_ok=True)
    await sandboxd.start()
    async with asyncio.timeout(20):
        while not sandboxd.plans:
            await predictor.send(user("and again"))
            await asyncio.sleep(0.05)
    assert {want["package"] for want in sandboxd.plans[-1]["wants"]} >= {"pandas", "matplotlib"}


@pytest.mark.parametrize(
    "body",
    [b"", b"\n\n", b"not json\n", b"[]\n", b'{"session": "../x", "at": 1, "kind": "code"}\n', b"\xff\xfe\n", b"[" * 5000, b'{"kind": "nope"}']
)  # fmt: skip
async def test_a_malformed_event_is_counted_and_the_rest_is_read(start, sandboxd, body):
    predictor = await start()
    good = json.dumps({"session": "s", "at": 1, "kind": "user_turn", "text": "plot a histogram"}).encode()
    assert await predictor.raw(body + b"\n" + good) == 204
    await sandboxd.plan()
    health = (await predictor.get("/healthz"))[1]
    assert health["malformed_events"] == (1 if body.strip() else 0)


@pytest.mark.parametrize("line", [
    f"pip install {'a' * 300} pandas", f"pip install pandas=={'1' * 60}\npip install pandas", f"import numpy.{'a' * 300}\nimport pandas", "pip install pandas==1.*",
])  # fmt: skip
async def test_names_that_no_plan_can_carry_do_not_keep_others_out_of_it(start, sandboxd, line):
    predictor = await start()
    assert await predictor.send({"kind": "code", "call": "c", "text": line + "\n"}, {"kind": "code_done", "call": "c"}) == 204
    assert "pandas" in {want["package"] for plan in [await sandboxd.plan(1), *sandboxd.plans] for want in plan["wants"]}


async def test_more_sessions_in_one_batch_than_are_remembered_are_no_trouble(start, sandboxd):
    predictor = await start()
    lines = [json.dumps({"session": f"s{number}", "at": 1.0, "kind": "turn_started"} if number else {"session": "s0", "at": 1.0, **user("plot sales.csv")}) for number in range(2100)]
    assert await predictor.raw("\n".join(lines).encode()) == 204
    assert len(predictor.listener) == 2000


async def test_of_a_long_conversation_that_comes_at_once_the_beginning_and_the_end_are_read(start, sandboxd):
    predictor = await start()
    past = [event for number in range(300) for event in (user(f"number {number}"), {"kind": "tool_result", "text": "the revenue of the region " * 300})]
    await predictor.send(user("Use polars to write a Python script that plots sales.csv"), *past, user("now make a bar chart of it with seaborn"))
    assert len(predictor.listener.belief("s1").turns) == 12
    assert {"polars", "seaborn"} <= {want["package"] for want in (await sandboxd.plan(1))["wants"]}
    await sandboxd.until(lambda: len(sandboxd.moments) == 500, "the moments of all of it")  # as many as wait for one session


async def test_an_unknown_session_is_a_clear_problem(start):
    status, problem = await (await start()).get("/v1/sessions/nobody")
    assert status == 404
    assert problem["id"] == "nobody"
    assert problem["hint"]


async def test_an_idle_conversation_is_forgotten(start, sandboxd):
    predictor = await start(idle_seconds=0.0)
    await predictor.send(user("plot a histogram"))
    await predictor.send(user("hello"), session="s2")
    assert predictor.listener.belief("s1") is None
    assert predictor.listener.belief("s2") is not None


def test_a_setting_that_is_no_good_is_refused_with_what_to_write(monkeypatch):
    monkeypatch.setenv("EPHEMERAL_PREDICTOR", "mine")
    with pytest.raises(ValueError, match="EPHEMERAL_PREDICTOR is 'mine': write ours or none"):
        Configuration.from_settings()


def test_no_conversation_goes_to_k2_without_a_key(monkeypatch):
    monkeypatch.delenv("EPHEMERAL_K2_API_KEY", raising=False)
    assert Configuration.from_settings().k2 is None
    monkeypatch.setenv("EPHEMERAL_K2_API_KEY", "k2-secret")
    assert Configuration.from_settings().k2 is not None
    assert "k2-secret" not in repr(Configuration.from_settings())


async def test_the_process_listens_on_a_private_socket_and_leaves_nothing(folder, sandboxd):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EPHEMERAL_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "ephemeral_predictor"], env={**environment, "EPHEMERAL_STATE": str(folder)}, stderr=subprocess.PIPE
    )
    socket = folder / "predictor.sock"
    try:
        async with asyncio.timeout(60):
            while not socket.exists():
                assert process.poll() is None, process.stderr.read().decode()
                await asyncio.sleep(0.02)
        assert stat.S_IMODE(socket.stat().st_mode) == 0o600
        event = {"session": "s1", "at": 1.0, **user("plot sales.csv")}
        async with aiohttp.ClientSession("http://predictor", connector=aiohttp.UnixConnector(str(socket))) as http:
            async with http.post("/v1/events", data=json.dumps(event)) as answer:
                assert answer.status == 204
        await sandboxd.plan()
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 30) == 0
        assert b"sales.csv" not in process.stderr.read()
        assert not socket.exists()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
