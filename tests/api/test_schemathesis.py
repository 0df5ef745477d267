"""The API does what its own OpenAPI document says, whatever it is sent: schemathesis tries every operation with data that
fits and data that does not, other methods, other content types, no token."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from ephemeral import wire
from ephemeral_sandboxd.api import build, openapi, routes, serve
from ephemeral_sandboxd.errors import BadRequest, NotFound, Refused
from ephemeral_sandboxd.ledger import Recorder

TOKEN = "correct-horse"
NEVER_ENDS = "/v1/stream"

_spec = importlib.util.spec_from_file_location("stand_in", Path(__file__).with_name("stand_in.py"))
assert _spec is not None
assert _spec.loader is not None
stand_in = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(stand_in)

_config = schemathesis.Config.from_dict({"generation": {"mode": "all"}, "phases": {"stateful": {"enabled": False}}, "auth": {"openapi": {"token": {"bearer": TOKEN}}}})
schema = schemathesis.openapi.from_dict(openapi.document(routes.ROUTES), config=_config)


class Whole(stand_in.StandIn):
    """The stand-in with all of the rest of the API: sessions' files in a dictionary, executions that are over at once."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(recorder)
        self.kept: dict[tuple[str, str], bytes] = {}
        self.made: dict[str, wire.Environment] = {}
        self._counted = itertools.count(1)

    async def execute(self, request: wire.ExecutionRequest, arrived: float, tell: Any = None) -> wire.Execution:
        execution = await super().execute(request, arrived)
        if tell is not None:
            tell(wire.Piece(kind="accepted", execution=execution))
            tell(wire.Piece(kind="stdout", text="some"))
        return execution

    async def interrupt(self, execution_id: str) -> None:
        raise NotFound("nothing runs", execution_id, "GET /v1/executions lists them")

    def feed(self, execution_id: str, feed: wire.Feed) -> None:
        raise NotFound("nothing runs", execution_id, "GET /v1/executions lists them")

    async def grant_network(self, session_id: str, grant: wire.NetworkGrant) -> wire.Session:
        session = self.open_session(wire.SessionRequest(id=session_id)).model_copy(update={"network": grant.allow})
        self.recorder.session(session)
        return session

    async def make_environment(self, request: wire.EnvironmentRequest) -> wire.Environment:
        if any(not name.isascii() for name in request.packages):
            raise Refused("not a package", "a name is none that packages have", "EPHEMERAL_ALLOW")
        made = wire.Environment(id=f"env{next(self._counted)}", python="3.11", requested=request.packages, packages={}, created_at=time.time())
        self.made[made.id] = made
        self.recorder.environment(made)
        return made

    async def drop_environment(self, environment_id: str) -> None:
        if self.made.pop(environment_id, None) is None:
            raise NotFound("no such environment", environment_id, "GET /v1/environments lists them")

    async def pin_environment(self, environment_id: str, pinned: bool) -> wire.Environment:
        if environment_id not in self.made:
            raise NotFound("no such environment", environment_id, "GET /v1/environments lists them")
        return self.made[environment_id].model_copy(update={"pinned": pinned})

    def roots(self) -> list[wire.RootFilesystem]:
        return [wire.RootFilesystem(name="default", id="r1", python="3.11", glibc="2.36")]

    @property
    def files(self) -> Whole:
        return self

    async def list(self, session_id: str, path: str) -> list[wire.File]:
        return [self._file(name, data) for (session, name), data in self.kept.items() if session == session_id]

    async def read(self, session_id: str, path: str) -> AsyncIterator[bytes]:
        if (session_id, path) not in self.kept:
            raise NotFound("no such file", path, "list the directory")
        yield self.kept[session_id, path]

    async def write(self, session_id: str, path: str, pieces: AsyncIterator[bytes]) -> wire.File:
        data = b"".join([piece async for piece in pieces])
        if len(data) > 1 << 20:
            raise BadRequest("too large", path, "split it", 413)
        self.kept[session_id, path] = data
        return self._file(path, data)

    async def delete(self, session_id: str, path: str) -> None:
        if self.kept.pop((session_id, path), None) is None:
            raise NotFound("no such file", path, "list the directory")

    def _file(self, path: str, data: bytes) -> wire.File:
        return wire.File(path=path, kind="file", size_bytes=len(data), modified_at=1.0)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Served from a thread of its own: schemathesis calls without asyncio."""
    state = tmp_path_factory.mktemp("state")
    started: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        stop = asyncio.Event()
        recorder = Recorder(state / "ledger.db", capture=True)
        served = await serve(build(Whole(recorder), recorder, token=TOKEN, dashboard=None), state / "s.sock", 0)
        started.set_result((served.port, asyncio.get_running_loop(), stop))
        await stop.wait()
        await served.close()
        await recorder.close()

    thread = threading.Thread(target=asyncio.run, args=[run()], daemon=True)
    thread.start()
    port, loop, stop = started.result(60)
    yield f"http://127.0.0.1:{port}"
    loop.call_soon_threadsafe(stop.set)
    thread.join(60)


@schema.exclude(path=NEVER_ENDS).parametrize()
@settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
def test_the_api_keeps_to_its_document(case: schemathesis.Case, address: str) -> None:
    positive = case.meta is None or case.meta.generation.mode.is_positive
    if positive and (case.path_parameters or {}).get("id"):
        # That both name the same session is a rule that a schema cannot say.
        bodies = case.body if isinstance(case.body, list) else [case.body]
        for body in bodies:
            if isinstance(body, dict) and "session" in body:
                body["session"] = unquote(case.path_parameters["id"])
    # That a cursor comes from a page is another one.
    excluded = [positive_data_acceptance] if "before" in (case.query or {}) else []
    case.call_and_validate(base_url=address, timeout=60, excluded_checks=excluded)
