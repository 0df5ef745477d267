"""sandboxd's HTTP API, typed: `Client` and `AsyncClient` have one method for each route, with the same names.

Both find sandboxd by themselves (EPHEMERAL_HOST, else the Unix socket in the state directory) and raise the errors of
`ephemeral.errors`. A client keeps its connections; close it, or use it in a `with`.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

import httpx
from pydantic import TypeAdapter, ValidationError

from ephemeral import errors, remote, settings, wire

T = TypeVar("T")

CONNECT_SECONDS = 5.0
PATIENCE_SECONDS = 30.0
"""How long the answer to a request may take. Executions are exempt: they end by their own limit, which sandboxd keeps, and
preparing one may mean a long download before that."""


@dataclass(frozen=True)
class _Call(Generic[T]):
    """One request, and the type of its answer."""

    method: str
    path: str
    answer: type[T]
    body: wire.Wire | bytes | None = None
    params: dict[str, str | int] | None = None
    patience_seconds: float | None = PATIENCE_SECONDS

    @property
    def timeout(self) -> httpx.Timeout:
        return httpx.Timeout(self.patience_seconds, connect=CONNECT_SECONDS)

    @property
    def content(self) -> bytes | None:
        if isinstance(self.body, wire.Wire):
            # Only what was said: defaults are the server's business, and an older server may not know the newest.
            return self.body.model_dump_json(exclude_unset=True).encode()
        return self.body

    def read(self, response: httpx.Response) -> T:
        if response.is_error:
            raise _error(response)
        if self.answer is type(None):
            return cast(T, None)
        if self.answer is bytes:
            return cast(T, response.content)
        try:
            return TypeAdapter(self.answer).validate_json(response.content)
        except ValidationError as problem:
            raise errors.ServerError(
                f"{self.method} {self.path}: the answer is not a {self.answer.__name__} ({problem.error_count()} problems).",
                hint="Check that the address is sandboxd's, and that SDK and sandboxd are of the same version.",
            ) from problem


class _Calls:
    """The requests, one method a route, for both clients."""

    def _open_session(self, session_id: str | None, app: str, policy: wire.Policy, root: str | None, network: Sequence[str]) -> _Call[wire.Session]:
        fields = {"id": session_id, "app": app, "policy": policy, "root": root, "network": list(network)}
        try:
            request = wire.SessionRequest.model_validate({name: value for name, value in fields.items() if value})
        except ValidationError as problem:
            raise _invalid(problem) from problem
        return _Call("POST", "/v1/sessions", wire.Session, request)

    def _grant_network(self, session_id: str, allow: Sequence[str]) -> _Call[wire.Session]:
        try:
            grant = wire.NetworkGrant(allow=list(allow))
        except ValidationError as problem:
            raise _invalid(problem) from problem
        return _Call("PUT", f"/v1/sessions/{session_id}/network", wire.Session, grant)

    def _files(self, session_id: str, path: str) -> _Call[wire.Page[wire.File]]:
        return _Call("GET", f"/v1/sessions/{session_id}/files", wire.Page[wire.File], params={"path": path})

    def _read_file(self, session_id: str, path: str) -> _Call[bytes]:
        return _Call("GET", f"/v1/sessions/{session_id}/files/content", bytes, params={"path": path}, patience_seconds=None)

    def _write_file(self, session_id: str, path: str, content: bytes) -> _Call[wire.File]:
        return _Call("PUT", f"/v1/sessions/{session_id}/files/content", wire.File, content, params={"path": path}, patience_seconds=None)

    def _delete_file(self, session_id: str, path: str) -> _Call[None]:
        return _Call("DELETE", f"/v1/sessions/{session_id}/files/content", type(None), params={"path": path})

    def _interrupt(self, execution_id: str) -> _Call[None]:
        return _Call("POST", f"/v1/executions/{execution_id}/interrupt", type(None))

    def _feed(self, execution_id: str, text: str, close: bool) -> _Call[None]:
        return _Call("POST", f"/v1/executions/{execution_id}/stdin", type(None), wire.Feed(text=text, close=close))

    def _make_environment(self, packages: Sequence[str], root: str) -> _Call[wire.Environment]:
        return _Call("POST", "/v1/environments", wire.Environment, wire.EnvironmentRequest(packages=list(packages), root=root), patience_seconds=None)

    def _drop_environment(self, environment_id: str) -> _Call[None]:
        return _Call("DELETE", f"/v1/environments/{environment_id}", type(None))

    def _pin_environment(self, environment_id: str, pinned: bool) -> _Call[wire.Environment]:
        return _Call("PUT" if pinned else "DELETE", f"/v1/environments/{environment_id}/pin", wire.Environment)

    def _prune(self, older_than_days: float | None, dry_run: bool, vacuum: bool) -> _Call[wire.Pruned]:
        request = wire.PruneRequest(older_than_days=older_than_days, dry_run=dry_run, vacuum=vacuum)
        return _Call("POST", "/v1/prune", wire.Pruned, request, patience_seconds=None)

    def _roots(self) -> _Call[wire.Page[wire.RootFilesystem]]:
        return _Call("GET", "/v1/roots", wire.Page[wire.RootFilesystem])

    def _end_session(self, session_id: str) -> _Call[wire.Session]:
        return _Call("DELETE", f"/v1/sessions/{session_id}", wire.Session)

    def _sessions(self, limit: int, before: str | None) -> _Call[wire.Page[wire.Session]]:
        return _Call("GET", "/v1/sessions", wire.Page[wire.Session], params=_page(limit, before))

    def _session(self, session_id: str) -> _Call[wire.Session]:
        return _Call("GET", f"/v1/sessions/{session_id}", wire.Session)

    def _put_plan(self, plan: wire.Plan) -> _Call[wire.PlanRecord]:
        return _Call("PUT", f"/v1/sessions/{plan.session}/plan", wire.PlanRecord, plan)

    def _plans(self, session_id: str) -> _Call[wire.Page[wire.PlanRecord]]:
        return _Call("GET", f"/v1/sessions/{session_id}/plans", wire.Page[wire.PlanRecord])

    def _add_moments(self, session_id: str, moments: Sequence[wire.Moment]) -> _Call[None]:
        body = TypeAdapter(list[wire.Moment]).dump_json(list(moments))
        return _Call("POST", f"/v1/sessions/{session_id}/moments", type(None), body)

    def _moments(self, session_id: str) -> _Call[wire.Page[wire.Moment]]:
        return _Call("GET", f"/v1/sessions/{session_id}/moments", wire.Page[wire.Moment])

    def _claim_digest(self, digest: str, session_id: str) -> _Call[None]:
        return _Call("PUT", f"/v1/digests/{digest}", type(None), wire.DigestClaim(session=session_id))

    def _execute(self, request: wire.ExecutionRequest) -> _Call[wire.Execution]:
        return _Call("POST", "/v1/executions", wire.Execution, request, patience_seconds=None)

    def _executions(self, session_id: str | None, limit: int, before: str | None) -> _Call[wire.Page[wire.Execution]]:
        params = _page(limit, before)
        if session_id is not None:
            params["session"] = session_id
        return _Call("GET", "/v1/executions", wire.Page[wire.Execution], params=params)

    def _execution(self, execution_id: str) -> _Call[wire.Execution]:
        return _Call("GET", f"/v1/executions/{execution_id}", wire.Execution)

    def _environments(self) -> _Call[wire.Page[wire.Environment]]:
        return _Call("GET", "/v1/environments", wire.Page[wire.Environment])

    def _snapshots(self) -> _Call[wire.Page[wire.Snapshot]]:
        return _Call("GET", "/v1/snapshots", wire.Page[wire.Snapshot])

    def _sandboxes(self) -> _Call[wire.Page[wire.Sandbox]]:
        return _Call("GET", "/v1/sandboxes", wire.Page[wire.Sandbox])

    def _delete_sandbox(self, sandbox_id: str) -> _Call[None]:
        return _Call("DELETE", f"/v1/sandboxes/{sandbox_id}", type(None))

    def _host(self) -> _Call[wire.Host]:
        return _Call("GET", "/v1/host", wire.Host)


class Client(_Calls):
    """The API, blocking. Thread-safe, as httpx's client is."""

    def __init__(self, address: str | None = None, token: str | None = None) -> None:
        """`address`: `unix:/path` or `http(s)://host:port`; default: settings. `token`: for TCP; default: settings."""
        self._address = address or settings.sandboxd_address()
        base, path = _split(self._address)
        transport = httpx.HTTPTransport(uds=path) if path else None
        self._http = httpx.Client(
            base_url=base, headers=_headers(self._address, path, token), transport=transport, verify=_verify(self._address), trust_env=False,
        )  # fmt: skip

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def open_session(
        self, session_id: str | None = None, *, app: str = "", policy: wire.Policy = "ours", root: str | None = None, network: Sequence[str] = ()
    ) -> wire.Session:
        """The session of that id, opened when it is new; without an id a new one. `root` names its root filesystem, `network` the domains
        that its code may reach."""
        return self._send(self._open_session(session_id, app, policy, root, network))

    def end_session(self, session_id: str) -> wire.Session:
        """End it; its sandbox is gone within 5 s."""
        return self._send(self._end_session(session_id))

    def sessions(self, limit: int = 100, before: str | None = None) -> wire.Page[wire.Session]:
        """Newest first; `before` is the `next` of the page before."""
        return self._send(self._sessions(limit, before))

    def session(self, session_id: str) -> wire.Session:
        return self._send(self._session(session_id))

    def put_plan(self, plan: wire.Plan) -> wire.PlanRecord:
        """Replace the session's plan. Returns at once; what it asks for is built behind."""
        return self._send(self._put_plan(plan))

    def plans(self, session_id: str) -> wire.Page[wire.PlanRecord]:
        return self._send(self._plans(session_id))

    def add_moments(self, session_id: str, moments: Sequence[wire.Moment]) -> None:
        self._send(self._add_moments(session_id, moments))

    def moments(self, session_id: str) -> wire.Page[wire.Moment]:
        """The session's timeline, oldest first."""
        return self._send(self._moments(session_id))

    def claim_digest(self, digest: str, session_id: str) -> None:
        """Code with this sha256 (hex) belongs to that session."""
        self._send(self._claim_digest(digest, session_id))

    def execute(self, request: wire.ExecutionRequest) -> wire.Execution:
        """Run code and wait until it is done."""
        return self._send(self._execute(request))

    def execute_streamed(self, request: wire.ExecutionRequest) -> Iterator[wire.Piece]:
        """Run code; everything that happens to it as it happens, the whole record in the last piece. Leaving early interrupts the code."""
        call = self._execute(request)
        try:
            with self._http.stream("POST", call.path, content=call.content, headers=_STREAMED, timeout=call.timeout) as response:
                if response.is_error:
                    response.read()
                    raise _error(response)
                yield from _Pieces().of(response.iter_lines())
        except httpx.TransportError as problem:
            raise _unreachable(self._address, problem) from problem

    def grant_network(self, session_id: str, allow: Sequence[str]) -> wire.Session:
        """The domains that the session's code may reach from now on; none takes the network away."""
        return self._send(self._grant_network(session_id, allow))

    def files(self, session_id: str, path: str = ".") -> wire.Page[wire.File]:
        """What a directory in the session's sandbox holds; relative paths are below /scratch."""
        return self._send(self._files(session_id, path))

    def read_file(self, session_id: str, path: str) -> bytes:
        return self._send(self._read_file(session_id, path))

    def write_file(self, session_id: str, path: str, content: bytes) -> wire.File:
        return self._send(self._write_file(session_id, path, content))

    def delete_file(self, session_id: str, path: str) -> None:
        self._send(self._delete_file(session_id, path))

    def interrupt(self, execution_id: str) -> None:
        """Stop the code where it is; the session's variables survive."""
        self._send(self._interrupt(execution_id))

    def feed(self, execution_id: str, text: str, *, close: bool = False) -> None:
        """More standard input for an interactive execution; `close`: this is all."""
        self._send(self._feed(execution_id, text, close))

    def make_environment(self, packages: Sequence[str], *, root: str = "default") -> wire.Environment:
        """Have packages ready to be mounted. Returns when they are."""
        return self._send(self._make_environment(packages, root))

    def drop_environment(self, environment_id: str) -> None:
        self._send(self._drop_environment(environment_id))

    def pin_environment(self, environment_id: str, pinned: bool = True) -> wire.Environment:
        """A pinned environment is never dropped for the disk budget."""
        return self._send(self._pin_environment(environment_id, pinned))

    def prune(self, older_than_days: float | None = None, *, dry_run: bool = False, vacuum: bool = False) -> wire.Pruned:
        """Forget sessions that ended longer ago than that (default: EPHEMERAL_RETENTION_DAYS of sandboxd)."""
        return self._send(self._prune(older_than_days, dry_run, vacuum))

    def roots(self) -> wire.Page[wire.RootFilesystem]:
        """Root filesystems, the default first."""
        return self._send(self._roots())

    def executions(
        self, session_id: str | None = None, limit: int = 100, before: str | None = None
    ) -> wire.Page[wire.Execution]:
        """Newest first, of one session or of all."""
        return self._send(self._executions(session_id, limit, before))

    def execution(self, execution_id: str) -> wire.Execution:
        return self._send(self._execution(execution_id))

    def environments(self) -> wire.Page[wire.Environment]:
        return self._send(self._environments())

    def snapshots(self) -> wire.Page[wire.Snapshot]:
        return self._send(self._snapshots())

    def sandboxes(self) -> wire.Page[wire.Sandbox]:
        return self._send(self._sandboxes())

    def delete_sandbox(self, sandbox_id: str) -> None:
        self._send(self._delete_sandbox(sandbox_id))

    def host(self) -> wire.Host:
        return self._send(self._host())

    def stream(self) -> Iterator[wire.Live]:
        """Everything as it happens, from now on; ends when sandboxd does."""
        try:
            with self._http.stream("GET", "/v1/stream", timeout=PATIENCE_SECONDS) as response:
                if response.is_error:
                    response.read()
                    raise _error(response)
                for line in response.iter_lines():
                    if line.startswith("data:"):
                        yield wire.Live.model_validate_json(line[5:])
        except httpx.TransportError as problem:
            raise _unreachable(self._address, problem) from problem

    def _send(self, call: _Call[T]) -> T:
        try:
            response = self._http.request(
                call.method, call.path, content=call.content, params=call.params, timeout=call.timeout
            )
        except httpx.TransportError as problem:
            raise _unreachable(self._address, problem) from problem
        return call.read(response)


class AsyncClient(_Calls):
    """The API, for asyncio. The methods are those of `Client`."""

    def __init__(self, address: str | None = None, token: str | None = None) -> None:
        self._address = address or settings.sandboxd_address()
        base, path = _split(self._address)
        transport = httpx.AsyncHTTPTransport(uds=path) if path else None
        self._http = httpx.AsyncClient(
            base_url=base, headers=_headers(self._address, path, token), transport=transport, verify=_verify(self._address), trust_env=False,
        )  # fmt: skip

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def open_session(
        self, session_id: str | None = None, *, app: str = "", policy: wire.Policy = "ours", root: str | None = None, network: Sequence[str] = ()
    ) -> wire.Session:
        return await self._send(self._open_session(session_id, app, policy, root, network))

    async def end_session(self, session_id: str) -> wire.Session:
        return await self._send(self._end_session(session_id))

    async def sessions(self, limit: int = 100, before: str | None = None) -> wire.Page[wire.Session]:
        return await self._send(self._sessions(limit, before))

    async def session(self, session_id: str) -> wire.Session:
        return await self._send(self._session(session_id))

    async def put_plan(self, plan: wire.Plan) -> wire.PlanRecord:
        return await self._send(self._put_plan(plan))

    async def plans(self, session_id: str) -> wire.Page[wire.PlanRecord]:
        return await self._send(self._plans(session_id))

    async def add_moments(self, session_id: str, moments: Sequence[wire.Moment]) -> None:
        await self._send(self._add_moments(session_id, moments))

    async def moments(self, session_id: str) -> wire.Page[wire.Moment]:
        return await self._send(self._moments(session_id))

    async def claim_digest(self, digest: str, session_id: str) -> None:
        await self._send(self._claim_digest(digest, session_id))

    async def execute(self, request: wire.ExecutionRequest) -> wire.Execution:
        return await self._send(self._execute(request))

    async def execute_streamed(self, request: wire.ExecutionRequest) -> AsyncIterator[wire.Piece]:
        call = self._execute(request)
        try:
            async with self._http.stream("POST", call.path, content=call.content, headers=_STREAMED, timeout=call.timeout) as response:
                if response.is_error:
                    await response.aread()
                    raise _error(response)
                pieces = _Pieces()
                async for line in response.aiter_lines():
                    if piece := pieces.line(line):
                        yield piece
        except httpx.TransportError as problem:
            raise _unreachable(self._address, problem) from problem

    async def grant_network(self, session_id: str, allow: Sequence[str]) -> wire.Session:
        return await self._send(self._grant_network(session_id, allow))

    async def files(self, session_id: str, path: str = ".") -> wire.Page[wire.File]:
        return await self._send(self._files(session_id, path))

    async def read_file(self, session_id: str, path: str) -> bytes:
        return await self._send(self._read_file(session_id, path))

    async def write_file(self, session_id: str, path: str, content: bytes) -> wire.File:
        return await self._send(self._write_file(session_id, path, content))

    async def delete_file(self, session_id: str, path: str) -> None:
        await self._send(self._delete_file(session_id, path))

    async def interrupt(self, execution_id: str) -> None:
        await self._send(self._interrupt(execution_id))

    async def feed(self, execution_id: str, text: str, *, close: bool = False) -> None:
        await self._send(self._feed(execution_id, text, close))

    async def make_environment(self, packages: Sequence[str], *, root: str = "default") -> wire.Environment:
        return await self._send(self._make_environment(packages, root))

    async def drop_environment(self, environment_id: str) -> None:
        await self._send(self._drop_environment(environment_id))

    async def pin_environment(self, environment_id: str, pinned: bool = True) -> wire.Environment:
        return await self._send(self._pin_environment(environment_id, pinned))

    async def prune(self, older_than_days: float | None = None, *, dry_run: bool = False, vacuum: bool = False) -> wire.Pruned:
        return await self._send(self._prune(older_than_days, dry_run, vacuum))

    async def roots(self) -> wire.Page[wire.RootFilesystem]:
        return await self._send(self._roots())

    async def executions(
        self, session_id: str | None = None, limit: int = 100, before: str | None = None
    ) -> wire.Page[wire.Execution]:
        return await self._send(self._executions(session_id, limit, before))

    async def execution(self, execution_id: str) -> wire.Execution:
        return await self._send(self._execution(execution_id))

    async def environments(self) -> wire.Page[wire.Environment]:
        return await self._send(self._environments())

    async def snapshots(self) -> wire.Page[wire.Snapshot]:
        return await self._send(self._snapshots())

    async def sandboxes(self) -> wire.Page[wire.Sandbox]:
        return await self._send(self._sandboxes())

    async def delete_sandbox(self, sandbox_id: str) -> None:
        await self._send(self._delete_sandbox(sandbox_id))

    async def host(self) -> wire.Host:
        return await self._send(self._host())

    async def stream(self) -> AsyncIterator[wire.Live]:
        try:
            async with self._http.stream("GET", "/v1/stream", timeout=PATIENCE_SECONDS) as response:
                if response.is_error:
                    await response.aread()
                    raise _error(response)
                async for line in response.aiter_lines():
                    if line.startswith("data:"):
                        yield wire.Live.model_validate_json(line[5:])
        except httpx.TransportError as problem:
            raise _unreachable(self._address, problem) from problem

    async def _send(self, call: _Call[T]) -> T:
        try:
            response = await self._http.request(
                call.method, call.path, content=call.content, params=call.params, timeout=call.timeout
            )
        except httpx.TransportError as problem:
            raise _unreachable(self._address, problem) from problem
        return call.read(response)


_STREAMED = {"Accept": "text/event-stream"}


class _Pieces:
    """Reads the server-sent events of a streamed execution."""

    def __init__(self) -> None:
        self._kind = ""

    def of(self, lines: Iterator[str]) -> Iterator[wire.Piece]:
        for line in lines:
            if piece := self.line(line):
                yield piece

    def line(self, line: str) -> wire.Piece | None:
        """The piece that this line completes. Raises the error that the server tells of."""
        field, _, value = line.partition(":")
        if field == "event":
            self._kind = value.strip()
        elif field == "data" and self._kind == "problem":
            problem = wire.Problem.model_validate_json(value)
            raise _problem(problem, problem.status, None)
        elif field == "data":
            return wire.Piece.model_validate_json(value)
        return None


class Sandbox:
    """A session of one's own, its packages prepared from the start.

        with Sandbox(packages=["pandas"]) as sandbox:
            print(sandbox.run("import pandas; pandas.__version__").result)

    Variables and files stay from one `run` to the next. Leaving the block ends the session and its sandbox.
    """

    def __init__(
        self, packages: Sequence[str] = (), *, session: str | None = None, app: str = "", client: Client | None = None
    ) -> None:
        """`packages`: names to have ready. `session`: an id to go on with. `client`: one to share; it is not closed."""
        self._packages = list(packages)
        self._wanted = session
        self._app = app
        self._client = client
        self._owned: Client | None = None
        self.session: wire.Session | None = None
        """Set while the block runs."""

    def __enter__(self) -> Sandbox:
        client = self._client
        if client is None:
            client = self._client = self._owned = Client()
        try:
            self.session = client.open_session(self._wanted, app=self._app)
            if self._packages:
                client.put_plan(self._plan(self.session.id))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def run(self, code: str, *, timeout_seconds: float | None = None) -> wire.Execution:
        """Run Python code and wait. What the code does wrong is in the answer (`verdict`, `traceback`), not raised."""
        if self._client is None or self.session is None:
            raise errors.BadRequest("This sandbox is not open.", hint="Use it in a block: with Sandbox(...) as sandbox: ...")
        asked: dict[str, Any] = {"code": code, "session": self.session.id, "packages": self._packages, "source": "sdk"}
        if timeout_seconds is not None:
            asked["timeout_seconds"] = timeout_seconds
        try:
            request = wire.ExecutionRequest(**asked)
        except ValidationError as problem:
            raise _invalid(problem) from problem
        return self._client.execute(request)

    def close(self) -> None:
        """End the session. Does nothing the second time."""
        session, self.session = self.session, None
        try:
            if session is not None and self._client is not None:
                self._client.end_session(session.id)
        except errors.NotFound:
            pass  # it has ended by itself: idle for too long
        finally:
            if self._owned is not None:
                self._owned.close()
                self._owned = self._client = None

    def _plan(self, session_id: str) -> wire.Plan:
        try:
            wants = [
                wire.Want(package=package, probability=1.0, proposer="seen", evidence="pip install")
                for package in self._packages
            ]
            return wire.Plan(session=session_id, proposer="seen", wants=wants, app=self._app)
        except ValidationError as problem:
            raise _invalid(problem) from problem


def _split(address: str) -> tuple[str, str | None]:
    """(base URL, path of the Unix socket or None)."""
    if address.startswith("unix:"):
        return "http://sandboxd", address.removeprefix("unix:")
    if address.startswith(("http://", "https://")):
        return address.rstrip("/"), None
    raise errors.BadRequest(
        f"{address!r} is no address of sandboxd.", hint="Write unix:/path/to/sandboxd.sock or http://127.0.0.1:8789."
    )


def _verify(address: str) -> ssl.SSLContext | bool:
    """How the other side is known: a remote sandboxd by its own authority, and we by our certificate."""
    return remote.context(address) if remote.is_remote(address) else False  # nothing else speaks TLS


def _headers(address: str, socket_path: str | None, token: str | None) -> dict[str, str]:
    given = token if token is not None else remote.token(address) if remote.is_remote(address) else "" if socket_path else settings.token()
    return {"Authorization": f"Bearer {given}"} if given else {}


def _page(limit: int, before: str | None) -> dict[str, str | int]:
    return {"limit": limit} | ({"before": before} if before is not None else {})


def _unreachable(address: str, problem: httpx.TransportError) -> errors.EphemeralError:
    if told := remote.explain(address, problem):
        return told
    if isinstance(problem, httpx.ReadTimeout):
        return errors.ServerError(f"sandboxd at {address} did not answer in time.", hint="Type: ephemeral doctor")
    return errors.NotRunning(
        f"Nothing answers at {address} ({problem or type(problem).__name__}).",
        hint="Start it with: ephemeral up (or point EPHEMERAL_HOST at where it runs).",
    )


def _invalid(problem: ValidationError) -> errors.BadRequest:
    first = problem.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    return errors.BadRequest(f"{problem.title}: {field}: {first['msg']}.")


_BY_STATUS: dict[int, type[errors.EphemeralError]] = {
    401: errors.Unauthorized, 403: errors.Refused, 404: errors.NotFound,
}  # fmt: skip


def _error(response: httpx.Response) -> errors.EphemeralError:
    try:
        problem = wire.Problem.model_validate_json(response.content)
    except ValidationError:
        problem = wire.Problem(title=f"HTTP {response.status_code}", status=response.status_code)
    return _problem(problem, response.status_code, response.headers.get("Retry-After"))


def _problem(problem: wire.Problem, status: int, retry_after: str | None) -> errors.EphemeralError:
    message = f"{problem.title}: {problem.detail}" if problem.detail else problem.title
    if status == 429:
        return errors.Busy(message, hint=problem.hint, problem=problem, retry_after_seconds=_seconds(retry_after))
    kind = _BY_STATUS.get(status, errors.BadRequest if status < 500 else errors.ServerError)
    return kind(message, hint=problem.hint, problem=problem)


def _seconds(text: str | None) -> float:
    return float(text) if text and text.isascii() and text.isdigit() else 1.0
