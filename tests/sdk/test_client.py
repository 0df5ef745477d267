"""The client against sandboxd's real API, over both doors."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from ephemeral import AsyncClient, Client, Sandbox, errors, wire

STAND_IN = Path(__file__).parents[1] / "api" / "stand_in.py"


class Server(NamedTuple):
    unix: str
    tcp: str
    token: str


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    state = tmp_path_factory.mktemp("state")
    with subprocess.Popen(
        [sys.executable, str(STAND_IN), str(state), "secret"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield Server(f"unix:{state}/sandboxd.sock", f"http://127.0.0.1:{port}", "secret")
        process.communicate("", timeout=60)


@pytest.fixture(params=["unix", "tcp"])
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[Client]:
    with Client(getattr(server, request.param), server.token if request.param == "tcp" else None) as client:
        yield client


def test_every_route_has_a_method_that_answers_with_its_type(client: Client):
    session = client.open_session(app="demo")
    assert client.open_session(session.id).id == session.id
    plan = wire.Plan(session=session.id, proposer="seen", wants=[wire.Want(package="numpy", probability=1, proposer="seen")])
    assert client.put_plan(plan).accepted == ["numpy"]
    client.add_moments(session.id, [wire.Moment(session=session.id, at=1.0, kind="ready")])
    client.claim_digest("0" * 64, session.id)
    ran = client.execute(wire.ExecutionRequest(code="6 * 7", session=session.id))
    assert (ran.result, ran.session) == ("42", session.id)
    assert client.execution(ran.id) == ran
    assert [found.id for found in client.executions(session.id).items] == [ran.id]
    assert [found.plan for found in client.plans(session.id).items] != []
    assert [moment.kind for moment in client.moments(session.id).items] == ["ready"]
    assert session.id in [found.id for found in client.sessions(limit=500).items]
    assert client.session(session.id).app == "demo"
    assert client.environments().items[0].packages == {"numpy": "2.3"}
    assert client.snapshots().items[0].modules == ["numpy"]
    assert isinstance(client.host(), wire.Host)
    assert client.end_session(session.id).state == "ended"


def test_pages_go_on_where_the_last_one_ended(client: Client):
    session = client.open_session()
    ids = [client.execute(wire.ExecutionRequest(code="6 * 7", session=session.id)).id for _ in range(3)]
    first = client.executions(session.id, limit=2)
    second = client.executions(session.id, limit=2, before=first.next)
    assert [found.id for found in [*first.items, *second.items]] == ids[::-1]
    assert second.next is None


def test_errors_are_of_their_kind_and_say_what_to_do(client: Client):
    with pytest.raises(errors.NotFound, match="No session nobody"):
        client.end_session("nobody")
    with pytest.raises(errors.Refused, match="EPHEMERAL_ALLOW") as refused:
        client.execute(wire.ExecutionRequest(code="raise Refused"))
    assert refused.value.problem is not None
    assert refused.value.problem.status == 403
    with pytest.raises(errors.Busy) as busy:
        client.execute(wire.ExecutionRequest(code="raise Busy"))
    assert busy.value.retry_after_seconds == 3
    with pytest.raises(errors.ServerError, match="recorded as") as broken:
        client.execute(wire.ExecutionRequest(code="raise RuntimeError"))
    assert broken.value.problem is not None
    assert broken.value.problem.id
    with pytest.raises(errors.BadRequest, match="Invalid limit"):
        client.sessions(limit=0)


def test_over_tcp_a_wrong_token_is_named_as_such(server: Server):
    with Client(server.tcp, "wrong") as client, pytest.raises(errors.Unauthorized, match="token"):
        client.host()


@pytest.mark.parametrize("address", ["unix:/nowhere/sandboxd.sock", "http://127.0.0.1:1"])
def test_when_nothing_runs_it_says_what_to_type(address: str):
    with Client(address, "x") as client, pytest.raises(errors.NotRunning, match="ephemeral up"):
        client.host()


def test_an_address_that_is_none_is_refused():
    with pytest.raises(errors.BadRequest, match="unix:/path"):
        Client("127.0.0.1:8789")


def test_the_address_comes_from_the_settings(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EPHEMERAL_HOST", server.tcp)
    monkeypatch.setenv("EPHEMERAL_TOKEN", server.token)
    with Client() as client:
        assert client.host().cores == 2


def test_the_stream_tells_what_happens(client: Client):
    stream = client.stream()
    assert next(stream).kind == "host"
    opening = threading.Thread(target=client.open_session)
    opening.start()
    heard = next(live for live in stream if live.kind == "session")
    opening.join(60)  # the message may come before the answer: the client stays open for it
    assert heard.session is not None
    stream.close()


def test_a_sandbox_plans_its_packages_runs_code_and_ends(client: Client):
    with Sandbox(["numpy"], client=client, app="mine") as sandbox:
        assert sandbox.session is not None
        session = sandbox.session.id
        ran = sandbox.run("print('hello')")
        failed = sandbox.run("1 / 0", timeout_seconds=5)
    assert (ran.stdout, ran.session, ran.source, ran.needed) == ("hello\n", session, "sdk", ["numpy"])
    assert failed.traceback is not None
    assert "ZeroDivisionError" in failed.traceback
    assert client.plans(session).items[0].accepted == ["numpy"]
    assert client.session(session).state == "ended"
    with pytest.raises(errors.BadRequest, match="with Sandbox"):
        sandbox.run("1")


def test_a_sandbox_makes_its_own_client_and_refuses_what_is_no_package_name(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EPHEMERAL_HOST", server.unix)
    with Sandbox() as sandbox:
        assert sandbox.run("6 * 7").result == "42"
    with pytest.raises(errors.BadRequest, match="package"), Sandbox(["--index-url=x"]):
        pass


async def test_the_async_client_does_the_same(server: Server):
    async with AsyncClient(server.unix) as client:
        session = await client.open_session()
        ran = await client.execute(wire.ExecutionRequest(code="6 * 7", session=session.id))
        assert await client.execution(ran.id) == ran
        stream = client.stream()
        assert (await anext(stream)).kind == "host"
        await stream.aclose()
        with pytest.raises(errors.NotFound):
            await client.delete_sandbox("nothing")
    async with AsyncClient("unix:/nowhere") as client:
        with pytest.raises(errors.NotRunning, match="ephemeral up"):
            await client.host()
