"""Every route of the API answers with its wire type; every mistake with a problem that says what to do."""

from __future__ import annotations

import asyncio
import json
import time

import aiohttp
import pytest
from openapi_spec_validator import validate

from ephemeral import wire
from ephemeral_sandboxd.api import serve
from ephemeral_sandboxd.api.routes import ROUTES
from ephemeral_sandboxd.errors import Unavailable


async def problem(response: aiohttp.ClientResponse) -> wire.Problem:
    assert response.content_type == "application/problem+json", await response.text()
    found = wire.Problem.model_validate_json(await response.read())
    assert found.status == response.status
    return found


async def test_an_execution_comes_back_with_its_output_and_can_be_read_again(house):
    before = time.perf_counter()
    async with house.unix.post("/v1/executions", json={"code": "print('hello')", "session": "s1", "elapsed_ms": 3}) as response:
        ran = wire.Execution.model_validate_json(await response.read())
    assert (ran.stdout, ran.session, ran.verdict, ran.stages.transport_ms) == ("hello\n", "s1", "ok", 3)
    assert before < house.daemon.arrivals[0] < time.perf_counter()
    async with house.unix.get(f"/v1/executions/{ran.id}") as response:
        again = wire.Execution.model_validate_json(await response.read())
    assert (again.id, again.tier, again.stdout) == (ran.id, "live", ""), "capture is off: output is answered, never kept"


async def test_a_session_opens_once_plans_and_ends(house):
    async with house.unix.post("/v1/sessions", json={"id": "s1", "app": "demo"}) as response:
        opened = wire.Session.model_validate_json(await response.read())
    async with house.unix.post("/v1/sessions", json={"id": "s1"}) as response:
        assert wire.Session.model_validate_json(await response.read()) == opened
    plan = {"session": "s1", "proposer": "seen", "wants": [{"package": "numpy", "probability": 1, "proposer": "seen"}]}
    async with house.unix.put("/v1/sessions/s1/plan", json=plan) as response:
        assert wire.PlanRecord.model_validate_json(await response.read()).accepted == ["numpy"]
    moments = [{"session": "s1", "at": 2.0, "kind": "ready"}, {"session": "s1", "at": 1.0, "kind": "plan"}]
    async with house.unix.post("/v1/sessions/s1/moments", json=moments) as response:
        assert response.status == 204
    async with house.unix.get("/v1/sessions/s1/moments") as response:
        assert [item["kind"] for item in (await response.json())["items"]] == ["plan", "ready"]
    async with house.unix.get("/v1/sessions/s1/plans") as response:
        assert [item["accepted"] for item in (await response.json())["items"]] == [["numpy"]]
    async with house.unix.delete("/v1/sessions/s1") as response:
        assert (await response.json())["state"] == "ended"
    async with house.unix.get("/v1/sessions/s1") as response:
        assert (await response.json())["state"] == "ended"
    async with house.unix.delete("/v1/sessions/s1") as response:
        assert "s1" in (await problem(response)).detail


async def test_a_claimed_digest_ties_code_to_its_session(house):
    digest = "c20ad4d76fe97759aa27a0c99bff6710" * 2
    async with house.unix.put(f"/v1/digests/{digest}", json={"session": "s7"}) as response:
        assert response.status == 204
    assert house.daemon.claims == {digest: "s7"}
    async with house.unix.put("/v1/digests/xyz", json={"session": "s7"}) as response:
        assert (await problem(response)).status == 422


async def test_what_stands_ready_is_listed_and_a_sandbox_can_be_killed(house):
    for path, first in (("environments", "env1"), ("snapshots", "snap1"), ("sandboxes", "box1")):
        async with house.unix.get(f"/v1/{path}") as response:
            assert [item["id"] for item in (await response.json())["items"]] == [first]
    async with house.unix.delete("/v1/sandboxes/box1") as response:
        assert response.status == 204
    async with house.unix.delete("/v1/sandboxes/box1") as response:
        assert (await problem(response)).status == 404
    async with house.unix.get("/v1/host") as response:
        assert wire.Host.model_validate_json(await response.read()).sandboxes == 0


async def test_pages_are_cut_and_continued(house):
    for number in range(5):
        async with house.unix.post("/v1/executions", json={"code": "6 * 7", "session": f"s{number % 2}"}):
            pass
    seen, before = [], {}
    while before is not None:
        async with house.unix.get("/v1/executions", params={"session": "s0", "limit": 2, **before}) as response:
            page = wire.Page[wire.Execution].model_validate_json(await response.read())
        seen += [item.id for item in page.items]
        before = {"before": page.next} if page.next else None
    assert len(seen) == len(set(seen)) == 3
    for bad in ({"limit": "0"}, {"limit": "many"}, {"limit": "501"}, {"before": "nonsense"}):
        async with house.unix.get("/v1/executions", params=bad) as response:
            assert (await problem(response)).status == 400


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "not JSON"),
        (b"", 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b"[]", 422, "object"),
        (b'{"packages": []}', 422, "code: Field required"),
        (b'{"code": 7}', 422, "code: Input should be a valid string"),
        (b'{"code": "x", "packages": ["--index-url=http://evil"]}', 422, "packages.0"),
        (b'{"code": "x", "packages": ["a\\nb"]}', 422, "packages.0"),
        (b'{"code": "x", "timeout_seconds": -1}', 422, "timeout_seconds"),
        (b'{"code": "x", "session": "../etc"}', 422, "session"),
        (b'{"code": "x", "language": "ruby"}', 422, "language"),
    ],
)
async def test_a_malformed_request_is_told_which_field_and_what_it_wants(house, body: bytes, status: int, words: str):
    async with house.unix.post("/v1/executions", data=body) as response:
        found = await problem(response)
    assert found.status == status
    assert words in found.detail
    assert found.hint
    assert "evil" not in found.detail, "what was sent is not repeated"


async def test_the_address_and_the_body_must_name_the_same_session(house):
    async with house.unix.put("/v1/sessions/s1/plan", json={"session": "s2", "proposer": "seen"}) as response:
        assert (await problem(response)).status == 400
    async with house.unix.post("/v1/sessions/s1/moments", json=[{"session": "s2", "at": 1, "kind": "plan"}]) as response:
        assert (await problem(response)).status == 400


async def test_refusals_and_pressure_keep_their_words_and_status(house):
    async with house.unix.post("/v1/executions", json={"code": "raise Busy"}) as response:
        assert (await problem(response)).status == 429
        assert response.headers["Retry-After"] == "3"
    async with house.unix.post("/v1/executions", json={"code": "raise Refused"}) as response:
        found = await problem(response)
    assert (found.status, found.title) == (403, "Package refused")
    assert "EPHEMERAL_ALLOW" in found.hint


async def test_a_defect_of_ours_is_a_problem_whose_id_is_in_the_log(house, caplog: pytest.LogCaptureFixture):
    async with house.unix.post("/v1/executions", json={"code": "raise RuntimeError"}) as response:
        found = await problem(response)
    assert found.status == 500
    assert found.id is not None
    assert found.id in caplog.text
    assert "SECRET" not in found.model_dump_json()


async def test_unknown_addresses_methods_and_oversized_bodies_are_problems(house):
    async with house.unix.get("/v1/nothing") as response:
        assert (await problem(response)).status == 404
    async with house.unix.patch("/v1/host") as response:
        assert (await problem(response)).status == 405
        assert "GET" in response.headers["Allow"]
    async with house.unix.post("/v1/executions", data=b" " * (17 << 20)) as response:
        assert (await problem(response)).status == 413


async def test_health_and_readiness_differ(house):
    house.daemon.missing = "the base environment is being built"
    async with house.tcp.get("/healthz") as response:
        assert response.status == 200
    async with house.tcp.get("/readyz") as response:
        assert "base environment" in (await problem(response)).detail
    house.daemon.missing = None
    async with house.tcp.get("/readyz") as response:
        assert response.status == 200


async def test_the_openapi_document_is_valid_and_names_every_route(house):
    async with house.tcp.get("/openapi.json") as response:
        document = await response.json()
    validate(document)
    assert document["openapi"].startswith("3.1")
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert described == {(route.method, route.path) for route in ROUTES}
    ids = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids))


async def test_the_stream_sends_the_host_and_then_whatever_happens(house):
    async with house.unix.get("/v1/stream") as response:
        assert response.content_type == "text/event-stream"
        lines = response.content
        heard: list[tuple[str, wire.Live]] = []
        async with asyncio.timeout(60):
            while len(heard) < 3:
                line = (await lines.readline()).decode()
                if line.startswith("event: "):
                    data = (await lines.readline()).decode().removeprefix("data: ")
                    heard.append((line.removeprefix("event: ").strip(), wire.Live.model_validate_json(data)))
                    if len(heard) == 1:
                        house.daemon.open_session(wire.SessionRequest(id="s1"))
                        house.daemon.add_moments([wire.Moment(session="s1", at=1.0, kind="ready")])
                        continue
                    assert set(json.loads(data)) == {"kind", heard[-1][0]}
    assert [kind for kind, _ in heard] == ["host", "session", "moment"]
    assert heard[1][1].session is not None
    assert heard[1][1].session.id == "s1"


async def test_a_stream_ends_when_the_server_closes(house):
    async with house.unix.get("/v1/stream") as response:
        await response.content.readline()
        house.recorder.bus.close()
        await asyncio.wait_for(response.read(), 60)


async def test_a_taken_port_and_a_second_sandboxd_are_refused_by_name(house, tmp_path):
    from aiohttp import web

    with pytest.raises(Unavailable, match=f"Port {house.port} is taken"):
        await serve(web.Application(), tmp_path / "other.sock", house.port)
    with pytest.raises(Unavailable, match="Another sandboxd"):
        await serve(web.Application(), house.socket, 0)
    async with house.unix.get("/healthz") as response:
        assert response.status == 200, "the first one is left alone"


async def test_a_socket_left_by_a_dead_process_is_replaced_and_is_private(house, tmp_path):
    import socket

    from aiohttp import web

    stale = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))
    served = await serve(web.Application(), stale, 0)
    assert stale.stat().st_mode & 0o777 == 0o600
    await served.close()
    assert not stale.exists()


async def test_costs_say_what_was_measured_and_what_is_only_expected(house):
    house.recorder.sandbox(wire.Sandbox(id="b", state="booting", start_ms=321.0, created_at=1.0))
    async with house.tcp.get("/v1/costs", headers=house.bearer) as answer:
        assert answer.status == 200
        costs = wire.Costs.model_validate(await answer.json())
    assert costs.boot_ms == wire.Figure(value=321, n=1, source="measured")
    assert (costs.restore_ms.n, costs.restore_ms.source) == (0, "prior")
