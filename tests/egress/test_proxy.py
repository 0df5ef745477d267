"""What goes through the tunnel, what is refused and how it is told, and that no frame or byte of a hostile guest does harm."""

import asyncio
import random
import ssl
import string

import httpx
import pytest

from ephemeral_sandboxd.egress.hello import NotAHello, needed, server_name


def client_hello(name: str) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


async def test_https_goes_through_to_an_allowed_host(joined, servers):
    tunnel = joined([f"localhost:{servers.https}"])
    async with httpx.AsyncClient(proxy=tunnel.proxy, verify=ssl.create_default_context(cafile=servers.authority)) as client:
        answer = await client.get(f"https://localhost:{servers.https}/secret?key=1")
        big = await client.get(f"https://localhost:{servers.https}/big")
    assert answer.text.startswith("/secret?key=1")
    assert len(big.content) == 2 << 20
    await asyncio.sleep(0.1)
    record = tunnel.records[0]
    assert (record.host, record.port, record.scheme, record.verdict) == ("localhost", servers.https, "https", "allowed")
    assert record.bytes_down > 2 << 20
    assert "secret" not in repr(tunnel.records)


async def test_plain_http_goes_through_with_the_host_that_was_checked(joined, servers):
    tunnel = joined([f"localhost:{servers.http}"])
    async with httpx.AsyncClient(proxy=tunnel.proxy) as client:
        first = await client.get(f"http://localhost:{servers.http}/a?b=c", headers={"Host": "elsewhere.example", "Proxy-Authorization": "Basic eA=="})
        assert first.text == f"/a?b=c localhost:{servers.http} None"
        posted = await client.post(f"http://localhost:{servers.http}/echo", content=b"y" * 100_000)
        assert posted.content == b"y" * 100_000

        async def pieces():
            for _ in range(3):
                yield b"piece"

        assert (await client.post(f"http://localhost:{servers.http}/echo", content=pieces())).content == b"piece" * 3
        assert len((await client.get(f"http://localhost:{servers.http}/big")).content) == 2 << 20


async def test_what_was_not_granted_is_refused_with_the_rule(joined, servers):
    tunnel = joined(["example.com"])
    async with httpx.AsyncClient(proxy=tunnel.proxy) as client:
        answer = await client.get(f"http://localhost:{servers.http}/")
        assert answer.status_code == 403
        assert 'network=["localhost"]' in answer.text
        with pytest.raises(httpx.ProxyError):
            await client.get(f"https://localhost:{servers.https}/")
    assert [record.verdict for record in tunnel.records] == ["refused", "refused"]


@pytest.mark.parametrize("target", ["169.254.169.254", "127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1"])
async def test_private_and_metadata_addresses_are_refused_even_when_they_are_allowed_by_name(tunnel, target):
    allow = [target.strip("[]")] if target[0].isdigit() and "x" not in target and "." in target else ["localhost"]
    answer = await tunnel(allow, permit=()).answer(1, f"GET http://{target}/latest/meta-data HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 403")


async def test_connect_carries_only_tls_and_only_for_the_host_that_was_named(tunnel, servers):
    connect = f"CONNECT localhost:{servers.https} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    ours = tunnel([f"localhost:{servers.https}"])
    fronted = await ours.answer(1, connect + client_hello("evil.example"))
    plain = await ours.answer(2, connect + b"SSH-2.0-OpenSSH_9.2\r\n")
    assert fronted == plain == b"HTTP/1.1 200 Connection established\r\n\r\n"
    assert [record.verdict for record in ours.records] == ["refused", "refused"]
    assert "evil.example" in ours.records[0].reason


@pytest.mark.parametrize("request_bytes", [
    b"POST http://localhost:1/ HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabc",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET ftp://localhost/ HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"GET http://a b/ HTTP/1.1\r\n\r\n",
    b"CONNECT localhost HTTP/1.1\r\nHost: x\r\n\r\n", b"GET http://user:pw@localhost/ HTTP/1.1\r\nHost: x\r\n\r\n", b"A" * 100_000])
async def test_what_is_ambiguous_or_no_request_is_refused(tunnel, request_bytes):
    answer = await tunnel(["localhost"]).answer(1, request_bytes)
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 403"))


async def test_twenty_connections_at_once(joined, servers):
    tunnel = joined([f"localhost:{servers.http}"])
    async with httpx.AsyncClient(proxy=tunnel.proxy, limits=httpx.Limits(max_connections=20), timeout=60) as client:
        answers = await asyncio.gather(*(client.get(f"http://localhost:{servers.http}/{number}") for number in range(20)))
    assert sorted(answer.text.split()[0] for answer in answers) == sorted(f"/{number}" for number in range(20))


async def test_a_reader_that_takes_nothing_holds_a_window_and_no_more(tunnel, servers):
    ours = tunnel([f"localhost:{servers.http}"])
    await ours.say(1, f"GET http://localhost:{servers.http}/big HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await asyncio.sleep(1)
    assert 0 < len(ours.heard(1)) <= 256 << 10
    assert ours.egress.active == 1


async def test_connections_beyond_the_allowance_are_closed(tunnel, monkeypatch):
    monkeypatch.setenv("EPHEMERAL_EGRESS_CONNECTIONS", "3")
    ours = tunnel(["localhost"])
    for number in range(1000):
        ours.egress.receive({"op": "net_open", "c": number})
    assert ours.egress.active == 3
    assert sum(frame["op"] == "net_close" for frame in ours.sent) == 997


async def test_hostile_frames_are_contained(tunnel):
    ours = tunnel(["localhost"])
    chance = random.Random(7)
    values = [None, True, -1, 0, 1, 2**70, 1.5, "x", "A" * 400_000, [], {}, "!!!!"]
    for _ in range(3000):
        op = chance.choice(["net_open", "net_data", "net_eof", "net_close", "net_credit", "net_", "".join(chance.choices(string.printable, k=5)), None])
        ours.egress.receive({"op": op, "c": chance.choice(values), "data": chance.choice(values), "bytes": chance.choice(values)})
    assert ours.egress.active <= 32


def test_a_clienthello_tells_its_name_and_anything_else_is_none():
    hello = client_hello("api.example.com")
    assert server_name(hello[:needed(hello)]) == "api.example.com"
    chance = random.Random(3)
    for _ in range(2000):
        damaged = bytearray(hello)
        for _ in range(3):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            server_name(bytes(damaged[:needed(damaged)]))
        except NotAHello:
            pass
