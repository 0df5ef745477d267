"""``python -m ephemeral_proxy.bench.load JSON``: one load, and what came of it as a line of JSON. Keep-alive connections, closed loop:
each asks again as soon as it has its answer, and every answer is judged.

JSON is ``{"do": "rate", "port", "connections", "seconds", "windows", "longest"}``: answers a second, in each window
       or ``{"do": "streams", "port", "connections", "count", "longest"}``: so many answers, within so many seconds
       or ``{"do": "times", "model", "ports", "samples"}``: one connection to each port, asked in turn, and each delta's time under way
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, cast

from ephemeral_proxy.bench import traffic

CLOSED = "connection closed"
REFUSED = "connection refused"
WARM_UP = 20
"""Answers on a connection before its times count."""
SILENCE_SECONDS = 120.0
"""An answer that takes longer has failed."""


class Connection(asyncio.Protocol):
    """One request at a time. ``times``: of each timed delta of the last answer, when the request was sent, when it arrived, when the delta
    was sent, when it arrived (nanoseconds)."""

    def __init__(self, requests: traffic.Requests):
        self._requests = requests
        self._answer: asyncio.Future[str] | None = None
        self.times: list[tuple[int, int, int, int]] = []
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's derives from nothing

    async def ask(self) -> str:
        """The verdict on the answer: see ``traffic.judge``."""
        if self.closed:
            return CLOSED
        request, self._digest = self._requests.next()
        self._raw = bytearray()
        self._seen = 0
        self.times.clear()
        self._answer = asyncio.get_running_loop().create_future()
        self._sent = time.monotonic_ns()
        self._transport.write(request)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self._raw += data
        if self._answer is None or self._answer.done():
            self.abort()  # nobody asked
            return
        if self._requests.timed:
            for stamp in traffic.STAMP.finditer(self._raw, self._seen):
                self._seen = stamp.end()
                if sent := int(stamp[2]):
                    self.times.append((self._sent, int(stamp[1]), sent, now))
        if traffic.complete(self._raw):
            self._answer.set_result(traffic.judge(bytes(self._raw), self._digest))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._answer and not self._answer.done():
            self._answer.set_result(CLOSED)

    def abort(self) -> None:
        self._transport.abort()


class Crowd:
    """``connections`` clients of one server; ``judged`` counts their answers by verdict."""

    def __init__(self, port: int, connections: int, count: int | None = None):
        self.judged: Counter[str] = Counter()
        self._port = port
        self._requests = traffic.Requests(traffic.WHOLE, port, os.getpid())
        self._left = count
        self._clients = [asyncio.create_task(self._client()) for _ in range(connections)]

    async def finish(self, seconds: float) -> None:
        """Until ``count`` answers were asked for and have come, or for so many seconds."""
        await asyncio.wait(self._clients, timeout=seconds)

    async def stop(self) -> None:
        for client in self._clients:
            client.cancel()
        for ended in await asyncio.gather(*self._clients, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    def _take(self) -> bool:
        if self._left is None:
            return True
        self._left -= 1
        return self._left >= 0

    async def _client(self) -> None:
        connection: Connection | None = None
        try:
            while self._take():
                if connection is None or connection.closed:
                    connection = await connect(self._requests, self._port)
                if connection is None:
                    self.judged[REFUSED] += 1
                    await asyncio.sleep(0.1)  # not to ask a dead server a million times
                    continue
                try:
                    async with asyncio.timeout(SILENCE_SECONDS):
                        self.judged[await connection.ask()] += 1
                except TimeoutError:
                    self.judged[f"no answer within {SILENCE_SECONDS:g} s"] += 1
                    connection.abort()
                    connection = None
        finally:
            if connection:
                connection.abort()


async def connect(requests: traffic.Requests, port: int) -> Connection | None:
    try:
        _, connection = await asyncio.get_running_loop().create_connection(lambda: Connection(requests), "127.0.0.1", port)
    except OSError:
        return None
    return connection


async def rate(port: int, connections: int, seconds: float, windows: int, longest: float) -> dict[str, Any]:
    """``rates``: good answers a second. A window, and the warm-up before the first, lasts until there were as many answers as connections,
    too, but no longer than ``longest`` seconds."""
    crowd = Crowd(port, connections)
    rates = []
    try:
        for number in range(windows + 1):
            before, began = good(crowd.judged), time.monotonic()
            await asyncio.sleep(seconds)
            while good(crowd.judged) - before < connections and time.monotonic() - began < longest:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            if number:
                rates.append((good(crowd.judged) - before) / (time.monotonic() - began))
    finally:
        await crowd.stop()
    return {"rates": rates, "judged": crowd.judged}


async def streams(port: int, connections: int, count: int, longest: float) -> dict[str, Any]:
    crowd = Crowd(port, connections, count)
    try:
        await crowd.finish(longest)
    finally:
        await crowd.stop()
    return {"judged": crowd.judged}


async def times(model: str, ports: list[int], samples: int) -> dict[str, Any]:
    """``times``, ``judged``: for each port. A time is ``[out, back, whole]`` in milliseconds: the request's way to the provider, the delta's
    way from it, and from the question to the delta."""
    found: list[list[list[float]]] = [[] for _ in ports]
    judged: list[Counter[str]] = [Counter() for _ in ports]
    requests = [traffic.Requests(model, port, os.getpid() + number * 10**9) for number, port in enumerate(ports)]
    connections: list[Connection | None] = [None for _ in ports]
    warm_up = min(WARM_UP, samples)
    for number in range(warm_up + samples):
        for index, port in enumerate(ports):  # in turn, so that what disturbs one disturbs the other
            connection = connections[index]
            if connection is None or connection.closed:
                connection = connections[index] = await connect(requests[index], port)
            if connection is None:
                judged[index][REFUSED] += 1
                continue
            try:
                async with asyncio.timeout(SILENCE_SECONDS):
                    verdict = await connection.ask()
            except TimeoutError:
                verdict = f"no answer within {SILENCE_SECONDS:g} s"
                connection.abort()
            judged[index][verdict] += 1
            if number >= warm_up and verdict in (traffic.IDENTICAL, traffic.REFRAMED, traffic.SAME):
                found[index] += [[(arrived - asked) / 1e6, (came - sent) / 1e6, (came - asked) / 1e6] for asked, arrived, sent, came in connection.times]
    for connection in connections:
        if connection:
            connection.abort()
    return {"times": found, "judged": judged}


def good(judged: Counter[str]) -> int:
    return judged[traffic.IDENTICAL] + judged[traffic.REFRAMED] + judged[traffic.SAME]


async def main() -> None:
    work: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {"rate": rate, "streams": streams, "times": times}
    wanted = json.loads(sys.argv[1])
    sys.stdout.write(json.dumps(await work[wanted.pop("do")](**wanted)) + "\n")


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
