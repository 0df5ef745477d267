"""A guest that keeps to no rule: contained, in bounded memory, and never an exception out of receive()."""

from __future__ import annotations

import asyncio
import base64

from hypothesis import given, settings
from hypothesis import strategies as st

from ephemeral_sandboxd.egress import Egress
from ephemeral_sandboxd.egress.limits import Limits
from ephemeral_sandboxd.egress.tunnel import WINDOW_BYTES

ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.lists(st.integers(), max_size=3), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2))
NUMBERS = st.one_of(st.integers(0, 3), ANYTHING)
FRAMES = st.fixed_dictionaries({}, optional={
    "op": st.one_of(st.sampled_from(["net_open", "net_data", "net_eof", "net_close", "net_credit", "net_", "open"]), ANYTHING), "c": NUMBERS,
    "data": st.one_of(st.binary(max_size=50).map(lambda data: base64.b64encode(data).decode()), ANYTHING), "bytes": ANYTHING})


@settings(max_examples=150, deadline=None)
@given(st.lists(FRAMES, max_size=30))
def test_no_frame_raises(frames):
    async def run():
        sent = []
        egress = Egress(["api.example.com"], sent.append, lambda record: None)
        for index, frame in enumerate(frames):
            egress.receive(frame)
            if index % 7 == 0:
                await asyncio.sleep(0)
        assert egress.active <= 4
        await egress.close()
        assert egress.active == 0
        return sent

    assert all(frame["op"].startswith("net_") for frame in asyncio.run(run()))


def held(guest) -> int:
    """Bytes that wait in the tunnel for the proxy."""
    return sum(len(stream._arrived) for stream in guest.egress._streams.values())


async def test_data_beyond_the_window_cuts_the_connection_and_is_not_kept(guest, web):
    one = guest([f"api.example.com:{web.port}"])
    one.generous = False
    program = one.open()
    # The answer is not read, so the proxy stops reading as well, and the requests after it wait.
    program.send(b"GET http://api.example.com:%d/bytes/50000000 HTTP/1.1\r\nHost: x\r\n\r\n" % web.port)
    await program.until(lambda: len(program.arrived) == WINDOW_BYTES)
    for _ in range(1000):
        program.send(b"x" * (32 << 10))
        assert held(one) <= WINDOW_BYTES
    await program.until(lambda: program.closed)
    assert len(program.arrived) == WINDOW_BYTES, "no more than its credit was sent"


async def test_one_huge_frame_is_not_even_decoded(guest):
    one = guest(["api.example.com"])
    program = one.open()
    one.put("net_data", program.number, data="A" * (60 << 20))
    assert held(one) == 0
    await program.until(lambda: program.closed)


async def test_credit_that_was_not_due_cuts_the_connection(guest):
    one = guest(["api.example.com"])
    for more in (1, 0, -1, WINDOW_BYTES, 1 << 70, "5", 1.5, None, [5]):
        program = one.open()
        one.put("net_credit", program.number, bytes=more)
        await program.until(lambda program=program: program.closed)


async def test_what_comes_for_connections_that_are_not_open_is_nothing(guest):
    one = guest(["api.example.com"])
    for number in (7, 0, -1, 1 << 80, "1", None, 1.0, [], {}):
        for op in ("net_data", "net_eof", "net_close", "net_credit"):
            one.put(op, number, data="AAAA", bytes=5)
    assert one.frames == []
    assert one.egress.active == 0


async def test_thousands_of_opens_hold_no_more_than_is_allowed_and_each_is_answered_at_most_twice(guest):
    one = guest(["api.example.com"], Limits(connections=4, burst=100))
    for _ in range(5000):
        one.open()
    assert one.egress.active == 4
    assert sum(frame["op"] == "net_close" for frame in one.frames) == 4996
    assert len(one.records) < 200, "nor can it fill the ledger"
    told = base64.b64decode(next(frame["data"] for frame in one.frames if frame["op"] == "net_data"))
    assert b"EPHEMERAL_EGRESS_CONNECTIONS" in told


async def test_opening_and_closing_without_end_leaves_nothing(guest):
    one = guest(["api.example.com"], Limits(connections=4))
    for _ in range(2000):
        program = one.open()
        program.send(b"GET http://evil.net/ HTTP/1.1\r\n")
        one.put("net_close", program.number)
        await asyncio.sleep(0)
    async with asyncio.timeout(30):
        while one.egress.active:
            await asyncio.sleep(0.005)
    assert not any(frame["op"] == "net_data" for frame in one.frames)


async def test_a_reader_that_takes_nothing_makes_the_server_wait(guest, web):
    one = guest([f"api.example.com:{web.port}"])
    one.generous = False
    program = one.open()
    program.send(b"GET http://api.example.com:%d/bytes/3000000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % web.port)
    await program.until(lambda: len(program.arrived) == WINDOW_BYTES)
    one.generous = True
    one.put("net_credit", program.number, bytes=WINDOW_BYTES)
    await program.until(lambda: program.closed)
    assert len(program.arrived) > 3_000_000


async def test_after_close_nothing_is_open_and_nothing_is_heard(guest, web, open_connections):
    before = open_connections()
    one = guest([f"api.example.com:{web.port}"])
    programs = [one.open() for _ in range(5)]
    for program in programs:
        program.send(b"GET http://api.example.com:%d/silent HTTP/1.1\r\nHost: x\r\n\r\n" % web.port)
    async with asyncio.timeout(30):
        while len(web.seen) < 5:
            await asyncio.sleep(0.005)
    one.open()  # has not even begun
    await one.egress.close()
    assert one.egress.active == 0
    assert all(program.closed for program in programs)
    assert len(one.records) == 5
    count = len(one.frames)
    one.open()
    assert len(one.frames) == count
    web.over.set()
    async with asyncio.timeout(30):
        while open_connections() - before:
            await asyncio.sleep(0.005)
