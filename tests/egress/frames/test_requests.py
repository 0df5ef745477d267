"""HTTP and CONNECT as programs in a sandbox send them, and as they should not."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest
import trustme

from ephemeral_sandboxd.egress.limits import Limits

OK = "HTTP/1.1 200"


def get(url: str, host: str = "x", *headers: str) -> bytes:
    return "\r\n".join([f"GET {url} HTTP/1.1", f"Host: {host}", *headers, "", ""]).encode()


def connect(authority: str) -> bytes:
    return f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()


class Tls:
    """A TLS client whose bytes travel in a program's frames."""

    def __init__(self, program: Any, context: ssl.SSLContext, name: str | None):
        self._program = program
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=name)

    async def handshake(self) -> None:
        await self._until(self._tls.do_handshake)

    async def ask(self, data: bytes, wanted: bytes) -> None:
        """Send, and read until ``wanted`` has come."""
        self._tls.write(data)
        said = b""
        while wanted not in said:
            said += await self._until(lambda: self._tls.read(65536))

    async def _until(self, step: Callable[[], Any]) -> Any:
        while True:
            try:
                result = step()
                self._program.send(self._out.read())
                return result
            except ssl.SSLWantReadError:
                if self._out.pending:
                    self._program.send(self._out.read())
                await self._program.until(lambda: self._program.arrived or self._program.ended)
                if not self._program.arrived:
                    raise ConnectionError("the proxy closed the connection") from None
                self._in.write(self._program.arrived)
                self._program.arrived = b""


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def recorded(guest: Any, count: int = 1) -> list[Any]:
    """The records, once there are so many."""
    async with asyncio.timeout(30):
        while len(guest.records) < count:
            await asyncio.sleep(0.005)
    return guest.records


# ------------------------------------------------------------------------------------------------- HTTPS


async def test_tls_passes_unopened_to_the_host_that_it_names(guest, secure, trusting):
    one = guest([f"api.example.com:{secure.port}"])
    program = one.open()
    assert (await program.line(connect(f"API.example.com.:{secure.port}"))).startswith(OK)
    tls = Tls(program, trusting, "api.example.com")
    await tls.handshake()
    await tls.ask(get("/path?key=secret", "api.example.com", "Authorization: secret", "Connection: close"), b"hello")
    one.put("net_eof", program.number)
    await program.until(lambda: program.closed)
    (record,) = await recorded(one)
    assert (record.host, record.port, record.scheme, record.verdict, record.reason) == ("api.example.com", secure.port, "https", "allowed", "")
    assert record.bytes_up > 100
    assert record.bytes_down > 100
    assert "secret" not in repr(record)


@pytest.mark.parametrize("name", ["other.example.com", "api.example.com.evil.net", "evil.net", "example.com"])
async def test_tls_that_names_another_host_never_reaches_the_server(guest, secure, trusting, name):
    one = guest([f"*.example.com:{secure.port}"])  # even another that is allowed
    program = one.open()
    assert (await program.line(connect(f"api.example.com:{secure.port}"))).startswith(OK)
    with pytest.raises(ConnectionError):
        await Tls(program, trusting, name).handshake()
    (record,) = await recorded(one)
    assert record.verdict == "refused"
    assert name in record.reason
    assert record.bytes_up == 0


async def test_tls_without_a_name_passes(guest, secure, trusting):
    trusting.check_hostname = False
    program = guest([f"api.example.com:{secure.port}"]).open()
    await program.line(connect(f"api.example.com:{secure.port}"))
    await Tls(program, trusting, None).handshake()


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00" * 600, b"\x16\x03\x01\x00\x04\x02\x00\x00\x00"])
async def test_what_is_not_tls_does_not_go_through_connect(guest, web, first):
    one = guest([f"api.example.com:{web.port}"])
    program = one.open()
    await program.line(connect(f"api.example.com:{web.port}"))
    await program.exchange(first)
    (record,) = await recorded(one)
    assert (record.verdict, record.bytes_up) == ("refused", 0)
    assert "only TLS" in record.reason
    assert web.seen == []


async def test_a_hello_that_comes_a_byte_at_a_time_or_with_the_connect_is_read_all_the_same(guest, secure, trusting):
    one = guest([f"api.example.com:{secure.port}"])
    for together in (True, False):
        outgoing = ssl.MemoryBIO()
        client = trusting.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="api.example.com")
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        first = outgoing.read()
        program = one.open()
        if together:
            await program.line(connect(f"api.example.com:{secure.port}") + first)
        else:
            await program.line(connect(f"api.example.com:{secure.port}"))
            for byte in first:
                program.send(bytes([byte]))
        await program.until(lambda program=program: program.arrived[:1] == b"\x16")  # the server's own hello


@pytest.mark.parametrize("target", ["api.example.com:22", "api.example.com:8443", "api.example.com:1"])
async def test_connect_to_another_port_is_refused_with_what_to_ask_for(guest, target):
    one = guest(["api.example.com"])
    answer = await one.open().exchange(connect(target))
    assert answer.startswith("HTTP/1.1 403")
    assert f'network=["{target}"]' in answer
    assert one.records[0].verdict == "refused"


@pytest.mark.parametrize("target", ["api.example.com", "api.example.com:", "api.example.com:0", "api.example.com:99999", "api.example.com:4 43", "api.example.com:+443",
                                    "api.example.com:443:443", "http://api.example.com:443", "user:secret@api.example.com:443", "", ":443", "api.example.com:٤٤٣"])
async def test_connect_to_what_is_no_host_and_port_is_refused(guest, target, names):
    one = guest(["*.example.com", "api.example.com"])
    answer = await one.open().exchange(connect(target))
    assert answer[:12] in ("HTTP/1.1 400", "HTTP/1.1 403")
    assert names.asked == []
    assert "secret" not in repr(one.records)


# ------------------------------------------------------------------------------------------------- HTTP


async def test_each_request_of_a_connection_is_checked_anew(guest, web):
    one = guest([f"api.example.com:{web.port}"])
    program = one.open()
    for path in ("/a", "/b"):
        head = await program.line(get(f"http://api.example.com:{web.port}{path}?q=1"))
        assert head.startswith(OK)
        await program.until(lambda: b"hello" in program.arrived)
        program.arrived = b""
    answer = await program.exchange(get("http://evil.example.net/"))
    assert answer.startswith("HTTP/1.1 403")
    assert "evil.example.net" in answer
    assert [seen[1] for seen in web.seen] == ["/a?q=1", "/b?q=1"]
    assert [record.verdict for record in one.records] == ["allowed", "allowed", "refused"]


async def test_the_server_sees_the_host_that_was_checked_whatever_the_host_header_says(guest, web):
    program = guest([f"api.example.com:{web.port}"]).open()
    answer = await program.exchange(get(f"http://api.example.com:{web.port}/", "evil.example.net", "Proxy-Authorization: Basic c2VjcmV0", "X-Own: 1",
                                        "Connection: close, X-Hop, Content-Length", "X-Hop: 1"))
    assert answer.startswith(OK)
    ((_, _, headers),) = web.seen
    assert headers == {"Host": f"api.example.com:{web.port}", "X-Own": "1", "Connection": "close"}


@pytest.mark.parametrize("body", [
    ("Content-Length: 5", "Transfer-Encoding: chunked"), ("Content-Length: 5", "Content-Length: 6"), ("Content-Length: 5, 6",), ("Content-Length: +5",), ("Content-Length: -1",),
    ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), ("Transfer-Encoding: identity, chunked",), ("Transfer-Encoding: xchunked",), ("Transfer-Encoding : chunked",),
    ("Transfer-Encoding: chunked\r\n\tx",), ("X: a\r\n b", "Content-Length: x"), ("Bad Header: 1",), ("X: \x00",),
])
async def test_a_request_that_two_servers_may_read_differently_reaches_none(guest, web, body):
    one = guest([f"api.example.com:{web.port}"])
    request = "\r\n".join([f"POST http://api.example.com:{web.port}/ HTTP/1.1", "Host: x", *body, "", ""]).encode() + b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"
    answer = await one.open().exchange(request)
    assert answer.startswith("HTTP/1.1 400")
    assert web.seen == []
    assert [record.verdict for record in one.records] == ["refused"]


async def test_what_follows_a_request_is_a_request_of_its_own(guest, web):
    one = guest([f"api.example.com:{web.port}"])
    request = b"POST http://api.example.com:%d/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n" % web.port
    answer = await one.open().exchange(request)
    assert answer.startswith(OK)
    assert "HTTP/1.1 400" in answer
    assert [seen[1] for seen in web.seen] == ["/echo"]


async def test_a_damaged_body_ends_the_request(guest, web):
    one = guest([f"api.example.com:{web.port}"])
    await one.open().exchange(b"POST http://api.example.com:%d/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\nzz\r\n" % web.port)
    (record,) = await recorded(one)
    assert record.verdict == "refused"
    assert "body" in record.reason


@pytest.mark.parametrize("target", [
    "/", "*", "https://api.example.com/", "ftp://api.example.com/", "//api.example.com/", "http:///", "http://", "http:api.example.com/", "http://user:secret@api.example.com/",
    "http://@api.example.com/", "http://api.example.com:x/", "http://api.example.com:0/", "http://api.example.com:99999/", "http://[::1/", "http://api.example.com\\@evil.net/", "api.example.com",
])
async def test_what_is_no_address_for_a_proxy_is_refused(guest, target, names):
    one = guest(["api.example.com"])
    answer = await one.open().exchange(get(target, "api.example.com"))
    assert answer[:12] in ("HTTP/1.1 400", "HTTP/1.1 403")
    assert names.asked == []
    assert [record.verdict for record in one.records] == ["refused"]
    assert "secret" not in repr(one.records)


async def test_a_body_of_unknown_length_and_an_answer_without_one_pass(guest, web):
    one = guest([f"api.example.com:{web.port}"])
    answer = await one.open().exchange(b"POST http://api.example.com:%d/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
                                       b"5\r\n12345\r\n3\r\nabc\r\n0\r\nX-Trailer: 1\r\n\r\n" % web.port)
    assert answer.startswith(OK)
    assert "8\r\n12345abc\r\n" in answer
    old = await one.open().exchange(b"POST http://api.example.com:%d/ HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc" % web.port)
    assert old.endswith("\r\n\r\nabc")
    assert "chunked" not in old.lower()


async def test_a_program_that_waits_to_be_told_to_send_its_body_is_told(guest, web):
    program = guest([f"api.example.com:{web.port}"]).open()
    head = await program.line(b"POST http://api.example.com:%d/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n" % web.port)
    assert head.startswith("HTTP/1.1 100")
    assert "abc" in await program.exchange(b"abc")


async def test_a_head_request_has_its_length_and_no_body(guest, web):
    answer = await guest([f"api.example.com:{web.port}"]).open().exchange(b"HEAD http://api.example.com:%d/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % web.port)
    assert "Content-Length: 5\r\n" in answer
    assert answer.endswith("\r\n\r\n")


async def test_a_refusal_is_heard_although_the_body_is_still_on_its_way(guest):
    one = guest(["api.example.com"])
    program = one.open()
    head = await program.line(b"POST http://evil.net/ HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n")
    assert head.startswith("HTTP/1.1 403")
    assert not program.closed
    assert "evil.net" in await program.exchange(b"x" * 200_000)


async def test_a_program_that_does_not_wait_for_its_refusal_is_recorded_as_refused(guest):
    one = guest(["api.example.com"])
    program = one.open()
    await program.line(b"POST http://evil.net/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
    one.put("net_close", program.number)
    (record,) = await recorded(one)
    assert record.verdict == "refused"
    assert "evil.net" in record.reason


async def test_a_server_that_answers_nonsense_or_nothing_is_a_bad_gateway(guest):
    for nonsense in (b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n"):
        async def answer(reader, writer, nonsense=nonsense):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(nonsense)
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            one = guest([f"api.example.com:{port}"])
            assert (await one.open().exchange(get(f"http://api.example.com:{port}/"))).startswith("HTTP/1.1 502")
            assert one.records[0].verdict == "failed"


async def test_an_answer_may_come_before_the_request_is_whole(guest):
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        program = guest([f"api.example.com:{port}"]).open()
        head = await program.line(b"POST http://api.example.com:%d/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nx" % port)
        assert head.startswith("HTTP/1.1 413")
        await program.until(lambda: program.closed)


# ------------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize("answer", ["10.0.0.1", "169.254.169.254", "fd00:ec2::254", "100.100.100.200", "127.0.0.1", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "93.184.215.14 10.0.0.1"])
async def test_an_allowed_name_that_leads_to_an_address_that_is_not_public_is_refused(guest, names, answer):
    names.point("api.example.com", answer)
    one = guest(["api.example.com"], permit=())
    for request in (get("http://api.example.com/"), connect("api.example.com:443")):
        said = await one.open().exchange(request)
        assert said.startswith("HTTP/1.1 403")
        assert "not public" in said
        assert answer.split()[-1] not in said
    assert [record.verdict for record in one.records] == ["refused", "refused"]
    assert answer.split()[-1] in one.records[0].reason


async def test_a_name_that_changes_its_address_after_the_check_gains_nothing(guest, names, web):
    names.point("api.example.com", "127.0.0.1", "10.0.0.1")
    one = guest([f"api.example.com:{web.port}"])
    assert (await one.open().exchange(get(f"http://api.example.com:{web.port}/", "x", "Connection: close"))).startswith(OK)
    assert names.asked == ["api.example.com"], "the address that was checked is the one that is connected to"
    assert (await one.open().exchange(get(f"http://api.example.com:{web.port}/"))).startswith("HTTP/1.1 403")


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f000001", "017700000001", "0177.0.0.1", "127.1", "127.0.0.1.", "[::1]", "[::ffff:127.0.0.1]", "[fe80::1%25eth0]",
                                  "169.254.169.254", "metadata.google.internal", "localhost", "0", "0.0.0.0"])
async def test_an_address_or_a_name_that_was_not_granted_is_never_looked_up(guest, names, host):
    one = guest(["api.example.com"])
    for request in (get(f"http://{host}/latest/meta-data"), connect(f"{host}:443")):
        assert (await one.open().exchange(request)).startswith("HTTP/1.1 403")
    assert names.asked == []
    assert [record.verdict for record in one.records] == ["refused", "refused"]


async def test_an_address_that_was_granted_exactly_is_reached(guest, names, web):
    names.point("127.0.0.1", "127.0.0.1")
    assert (await guest([f"127.0.0.1:{web.port}"]).open().exchange(get(f"http://127.0.0.1:{web.port}/", "x", "Connection: close"))).startswith(OK)


async def test_a_name_without_an_address_and_a_closed_port_are_bad_gateways(guest):
    with socket.socket() as bound:  # and nobody listens
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        one = guest(["nowhere.example.com", f"api.example.com:{port}"])
        for target in ("nowhere.example.com:443", f"api.example.com:{port}"):
            assert (await one.open().exchange(connect(target))).startswith("HTTP/1.1 502")
            assert one.records[-1].verdict == "failed"
            assert f"{target} is allowed, but cannot be reached" in one.records[-1].reason


# ------------------------------------------------------------------------------------------------- limits


async def test_a_sandbox_that_has_moved_its_bytes_moves_no_more(guest, web):
    one = guest([f"api.example.com:{web.port}"], Limits(bytes=300_000))
    first = await one.open().exchange(get(f"http://api.example.com:{web.port}/bytes/5000000"))
    assert len(first) < 300_000
    assert one.records[0].bytes_down <= 300_000
    second = await one.open().exchange(get(f"http://api.example.com:{web.port}/"))
    assert second.startswith("HTTP/1.1 403")
    assert "EPHEMERAL_EGRESS_BYTES" in second
    assert [record.verdict for record in one.records] == ["refused", "refused"]


async def test_a_connection_on_which_nothing_moves_ends(guest, web, secure, trusting):
    limits = Limits(idle_seconds=0.3, connect_seconds=0.3)
    one = guest([f"api.example.com:{web.port}", f"api.example.com:{secure.port}"], limits)
    silent = one.open()
    await silent.until(lambda: silent.closed)
    waiting = one.open()
    await waiting.exchange(get(f"http://api.example.com:{web.port}/silent"))
    mute = one.open()
    await mute.exchange(connect(f"api.example.com:{secure.port}"))
    records = await recorded(one, 2)
    assert [record.verdict for record in records] == ["failed", "refused"]
    assert "nothing came" in records[1].reason


async def test_a_head_that_is_too_large_is_refused(guest):
    one = guest(["api.example.com"])
    program = one.open()
    program.send(b"GET http://api.example.com/ HTTP/1.1\r\nX: ")
    answer = await program.exchange(b"y" * 100_000)
    assert answer.startswith("HTTP/1.1 400")


async def test_requests_beyond_the_pace_wait_and_are_answered(guest):
    one = guest(["api.example.com"], Limits(burst=2, requests_per_second=50))
    answers = await asyncio.gather(*(one.open().exchange(get("http://evil.net/")) for _ in range(12)))
    assert all(answer.startswith("HTTP/1.1 403") for answer in answers)
