"""A forward proxy over the connections of one sandbox: CONNECT for HTTPS, absolute addresses for HTTP. TLS is not opened; its server name is checked.

HTTP is spoken by h11: a request goes on as h11 understood it, written anew, on a connection of its own, with the host that was checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

import h11

from ephemeral_sandboxd.egress import hello, reaching, rules
from ephemeral_sandboxd.egress.limits import Limits, Pace
from ephemeral_sandboxd.egress.records import EgressRecord, OnRecord
from ephemeral_sandboxd.egress.rules import Domain, Network, NoHost, Refusal, bracketed

READ_BYTES = 64 << 10
LINGER_BYTES = 1 << 20
LINGER_SECONDS = 5.0
HOP_BY_HOP = frozenset({b"connection", b"expect", b"host", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
                        b"trailer", b"transfer-encoding", b"upgrade"})


class Stream(Protocol):
    """The program's end of a connection."""

    async def read(self) -> bytes:
        """The next bytes; empty at the end. Raises ProgramGone."""
        ...

    async def write(self, data: bytes) -> None:
        """Raises ProgramGone."""
        ...

    def end(self) -> None:
        """Nothing more will be written."""
        ...


class ProgramGone(ConnectionResetError):
    """The program has closed its end altogether."""


class Unreachable(Exception):
    """Allowed, and yet there is no connection. ``str()`` is one sentence."""


class Unclear(Exception):
    """A request that this proxy does not take, whatever it is for. ``str()`` is one sentence."""


class Budget:
    """Bytes that the connections of one sandbox may still move, each way."""

    def __init__(self, limits: Limits):
        self._left = {"up": limits.bytes, "down": limits.bytes}

    def check(self) -> None:
        """Raises Refusal when one way is used up."""
        for way, left in self._left.items():
            if left <= 0:
                raise Refusal(f"this sandbox has moved all the bytes {way} that it may (EPHEMERAL_EGRESS_BYTES): start a new session, or have the operator raise it")

    def spend(self, way: Literal["up", "down"], data: bytes, record: EgressRecord) -> None:
        """Raises Refusal when ``data`` is more than is left."""
        self._left[way] -= len(data)
        self.check()
        if way == "up":
            record.bytes_up += len(data)
        else:
            record.bytes_down += len(data)


class Proxy:
    """What the connections of one sandbox share."""

    def __init__(self, allow: Collection[Domain], on_record: OnRecord, limits: Limits, pace: Pace, permit: Collection[Network], resolve: reaching.Resolve):
        self.allow = allow
        self.on_record = on_record
        self.limits = limits
        self.pace = pace
        self.permit = permit
        self.resolve = resolve
        self.budget = Budget(limits)

    async def serve(self, stream: Stream) -> None:
        """One connection, until either side ends it. Raises OSError when it breaks off (ProgramGone, TimeoutError among them)."""
        await _Conversation(self, stream).hold()

    @contextlib.asynccontextmanager
    async def reached(self, record: EgressRecord) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection to where ``record`` says, if the rules allow it. Raises Refusal, Unreachable."""
        self.budget.check()
        rules.check_name(self.allow, record.host, record.port)
        there = f"{record.host}:{record.port} is allowed, but cannot be reached"
        try:
            async with asyncio.timeout(self.limits.connect_seconds):
                reader, writer = await reaching.reach(record.host, record.port, self.resolve, self.permit)
        except TimeoutError:
            raise Unreachable(f"{there}: no answer within {self.limits.connect_seconds:g} s") from None
        except OSError as problem:
            raise Unreachable(f"{there}: {problem.strerror or problem}") from None
        except Refusal as refusal:
            raise Refusal(f"{record.host} is allowed, but {refusal}", refusal.detail) from None
        try:
            yield reader, writer
        finally:
            await reaching.leave(writer)


class _Conversation:
    """One connection of a program: requests one after the other, or a CONNECT and what it carries."""

    def __init__(self, proxy: Proxy, stream: Stream):
        self._proxy = proxy
        self._stream = stream
        self._program = h11.Connection(h11.SERVER, max_incomplete_event_size=proxy.limits.head_bytes)

    async def hold(self) -> None:
        program = self._program
        while True:
            try:
                async with asyncio.timeout(self._proxy.limits.idle_seconds):
                    request = await _event(program, self._stream)
            except h11.RemoteProtocolError:
                request = None
            if isinstance(request, h11.ConnectionClosed):
                return
            await asyncio.sleep(self._proxy.pace.wait_seconds())
            if isinstance(request, h11.Request):
                await self._answer(request)
            else:
                async with self._recorded("http") as record:
                    await self._refuse(record, 400, "this is no HTTP request, or its head is too large")
            if program.our_state is not h11.DONE or program.their_state is not h11.DONE:
                return
            program.start_next_cycle()

    async def _answer(self, request: h11.Request) -> None:
        connect = request.method == b"CONNECT"
        async with self._recorded("https" if connect else "http") as record:
            try:
                if connect:
                    record.host, record.port = _authority(request)
                else:
                    record.host, record.port, target = _address(request)
                async with self._proxy.reached(record) as (reader, writer):
                    if connect:
                        await self._carry(reader, writer, record)
                    else:
                        await self._exchange(_onward(request, target, record), reader, writer, record)
            except Unclear as problem:
                await self._refuse(record, 400, str(problem))
            except Refusal as refusal:
                await self._refuse(record, 403, str(refusal), refusal.detail)
            except Unreachable as problem:
                record.verdict, record.reason = "failed", str(problem)
                await self._say(502, str(problem))

    # ------------------------------------------------------------------------------------------------ HTTPS

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: EgressRecord) -> None:
        """Both ways, once the program's TLS names the server that it asked for. Raises Refusal."""
        await _event(self._program, self._stream)  # the end of a request that has no body
        self._program.send(h11.Response(status_code=200, headers=[]))  # the state alone: h11 would add a header that curl warns of
        await self._stream.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        first = await self._hello(record.host)

        async def up(moved: Callable[[], None]) -> None:
            data = first
            while data:
                self._proxy.budget.spend("up", data, record)
                moved()
                writer.write(data)
                await writer.drain()
                data = await self._stream.read()
            if writer.can_write_eof():
                writer.write_eof()

        async def down(moved: Callable[[], None]) -> None:
            while data := await reader.read(READ_BYTES):
                self._proxy.budget.spend("down", data, record)
                moved()
                await self._stream.write(data)
            self._stream.end()

        async with self._idle() as moved:
            await _together(up(moved), down(moved))

    async def _hello(self, host: str) -> bytes:
        """What the program says first: a TLS ClientHello for the very host that it asked for. Raises Refusal."""
        first = self._program.trailing_data[0]
        try:
            async with asyncio.timeout(self._proxy.limits.connect_seconds):
                while len(first) < (needed := hello.needed(first)):
                    more = await self._stream.read()
                    if not more:
                        raise hello.NotAHello("it ended too early")
                    first += more
            named = hello.server_name(first[:needed])
        except TimeoutError:
            raise Refusal(f"only TLS may go through CONNECT: nothing came within {self._proxy.limits.connect_seconds:g} s") from None
        except hello.NotAHello as problem:
            raise Refusal(f"only TLS may go through CONNECT: {problem}") from None
        if named is not None and named.lower() != host:
            raise Refusal(f"the TLS handshake names {named[:80]!r}, but the connection is for {host}: both have to be the same")
        return first

    # ------------------------------------------------------------------------------------------------ HTTP

    async def _exchange(self, request: h11.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: EgressRecord) -> None:
        """One request and its answer. Raises Refusal when the bytes are used up."""
        origin = h11.Connection(h11.CLIENT, max_incomplete_event_size=self._proxy.limits.head_bytes)

        async def up(moved: Callable[[], None]) -> None:
            data = origin.send(request) or b""
            while True:
                if self._program.they_are_waiting_for_100_continue:
                    await self._stream.write(self._program.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
                event = await _event(self._program, self._stream)
                if not isinstance(event, (h11.Data, h11.EndOfMessage)):
                    raise ProgramGone
                data += origin.send(event if isinstance(event, h11.Data) else h11.EndOfMessage()) or b""  # what trails the chunks stays here
                self._proxy.budget.spend("up", data, record)
                moved()
                with contextlib.suppress(OSError):  # a server may answer and close before it has heard all: the answer is read below
                    writer.write(data)
                    await writer.drain()
                if isinstance(event, h11.EndOfMessage):
                    return
                data = b""

        async def down(moved: Callable[[], None]) -> None:
            while True:
                try:
                    event = await _event(origin, _Reading(reader))
                except (h11.RemoteProtocolError, OSError):
                    raise Unreachable(f"{record.host} gave an answer that is none") from None
                moved()
                if isinstance(event, h11.InformationalResponse):
                    continue
                if isinstance(event, h11.Response):
                    event = h11.Response(status_code=event.status_code, reason=event.reason, headers=_passed(event.headers))
                elif isinstance(event, h11.EndOfMessage):
                    event = h11.EndOfMessage()
                elif not isinstance(event, h11.Data):
                    raise Unreachable(f"{record.host} closed the connection before its answer was whole")
                data = self._program.send(event) or b""
                self._proxy.budget.spend("down", data, record)
                await self._stream.write(data)
                if isinstance(event, h11.EndOfMessage):
                    return

        try:
            async with self._idle() as moved:
                await _together(up(moved), down(moved), until_second=True)
        except h11.RemoteProtocolError:
            raise Unclear("the request's body is not as its head says") from None

    # ------------------------------------------------------------------------------------------------ both

    @contextlib.asynccontextmanager
    async def _recorded(self, scheme: Literal["http", "https"]) -> AsyncIterator[EgressRecord]:
        began = time.perf_counter()
        record = EgressRecord(at=time.time(), host="", port=0, scheme=scheme)
        try:
            yield record
        except OSError as problem:
            if record.verdict == "allowed":  # else it says already why it ended
                if isinstance(problem, ProgramGone):
                    record.reason = "the program closed the connection"
                elif isinstance(problem, TimeoutError):
                    record.verdict, record.reason = "failed", f"no byte moved for {self._proxy.limits.idle_seconds:g} s"
                else:
                    record.verdict, record.reason = "failed", "the connection broke off"
            raise
        finally:
            record.duration_ms = (time.perf_counter() - began) * 1000
            self._proxy.on_record(record)

    @contextlib.asynccontextmanager
    async def _idle(self) -> AsyncIterator[Callable[[], None]]:
        """Raises TimeoutError once what it yields was not called for the idle time."""
        loop, seconds = asyncio.get_running_loop(), self._proxy.limits.idle_seconds
        async with asyncio.timeout(seconds) as deadline:
            def moved() -> None:
                if not deadline.expired():
                    deadline.reschedule(loop.time() + seconds)

            yield moved

    async def _refuse(self, record: EgressRecord, status: int, sentence: str, detail: str = "") -> None:
        record.verdict, record.reason = "refused", f"{sentence} ({detail})" if detail else sentence
        await self._say(status, sentence)

    async def _say(self, status: int, sentence: str) -> None:
        """Answer in our own words, where an answer can still be given, and end the connection."""
        if self._program.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = f"{sentence}\n".encode()
            head = h11.Response(status_code=status, headers=[
                ("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))), ("Connection", "close")])
            events: list[h11.Event] = [head, h11.Data(data=body), h11.EndOfMessage()]
            await self._stream.write(b"".join(self._program.send(event) or b"" for event in events))
            await self._linger()
        self._stream.end()

    async def _linger(self) -> None:
        """Take what the program still sends of its request's body: a connection closed over unread bytes takes the answer with it."""
        left = LINGER_BYTES
        with contextlib.suppress(h11.RemoteProtocolError, TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while left > 0 and self._program.their_state is h11.SEND_BODY:
                    event = await _event(self._program, self._stream)
                    left -= len(event.data) if isinstance(event, h11.Data) else left


class _Reading:
    """A StreamReader, read as a Stream is."""

    def __init__(self, reader: asyncio.StreamReader):
        self._reader = reader

    async def read(self) -> bytes:
        return await self._reader.read(READ_BYTES)


class _Readable(Protocol):
    async def read(self) -> bytes: ...


async def _event(connection: h11.Connection, stream: _Readable) -> h11.Event | type[h11.PAUSED]:
    """The next event. Raises h11.RemoteProtocolError."""
    while True:
        event = connection.next_event()
        if event is not h11.NEED_DATA:
            return event  # type: ignore[return-value]  # h11 has no type for "all but NEED_DATA"
        connection.receive_data(await stream.read())


async def _together(first: Coroutine[Any, Any, None], second: Coroutine[Any, Any, None], *, until_second: bool = False) -> None:
    """Both at once, until both are done (or ``until_second`` is). Raises what the first to fail raised; the other is then cancelled."""
    try:
        async with asyncio.TaskGroup() as group:
            beside = group.create_task(first)
            await group.create_task(second)
            if until_second:
                beside.cancel()
    except BaseExceptionGroup as problems:
        raise problems.exceptions[0] from None


def _authority(request: h11.Request) -> tuple[str, int]:
    """Host (in normal form) and port of a CONNECT. Raises Unclear, Refusal."""
    if {name for name, _ in request.headers} & {b"content-length", b"transfer-encoding"}:
        raise Unclear("CONNECT has no body")
    try:
        name, port = rules.split_port(request.target.decode("ascii"))
        if port is None:
            raise ValueError
    except ValueError:
        raise Unclear("CONNECT wants host:port, for example example.com:443") from None
    return _host(name), port


def _address(request: h11.Request) -> tuple[str, int, bytes]:
    """Host (in normal form), port, and the target for the server. Raises Unclear, Refusal."""
    names = [name for name, _ in request.headers]
    if b"content-length" in names and b"transfer-encoding" in names:
        raise Unclear("a request has a length or chunks, not both")
    try:
        parts = urlsplit(request.target.decode("ascii"))
        if parts.scheme != "http" or "@" in parts.netloc:
            raise ValueError
        name, port = rules.split_port(parts.netloc)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    except ValueError:
        raise Unclear("a proxy wants the whole address, http://host/path, and no password in it; HTTPS goes by CONNECT") from None
    return _host(name), port or 80, target.encode()


def _host(name: str) -> str:
    """In normal form. Raises Refusal."""
    try:
        return rules.normal(name)
    except NoHost as problem:
        raise Refusal(f"the host of this request is none that could be allowed: {problem}") from None


def _onward(request: h11.Request, target: bytes, record: EgressRecord) -> h11.Request:
    """The request as it goes to the server, with the host that was checked, whatever its Host header said."""
    host = bracketed(record.host) + ("" if record.port == 80 else f":{record.port}")
    chunked = [(b"Transfer-Encoding", b"chunked")] if any(name == b"transfer-encoding" for name, _ in request.headers) else []
    return h11.Request(method=request.method, target=target, headers=[
        (b"Host", host.encode()), *_passed(request.headers), *chunked, (b"Connection", b"close")])


def _passed(headers: Any) -> list[tuple[bytes, bytes]]:
    """Headers that mean something to the other end; those that Connection names are this connection's own."""
    own = {name.strip().lower() for key, value in headers if key == b"connection" for name in value.split(b",")} - {b"content-length"}
    chunked = {b"content-length"} if any(name == b"transfer-encoding" for name, _ in headers) else set()
    return [(name, value) for name, value in headers.raw_items() if name.lower() not in HOP_BY_HOP | own | chunked]
