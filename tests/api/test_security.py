"""Who may talk to sandboxd, and from where."""

from __future__ import annotations

import asyncio

import pytest

EVIL = "http://evil.example"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Basic correct-horse"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": "correct-horse"}, 401),
        ({"Authorization": "Bearer ümlaut"}, 401),
        ({"Cookie": "ephemeral=correct-horse"}, 401),
        ({"Authorization": "Bearer correct-horse"}, 200),
        ({"Authorization": "bearer correct-horse"}, 200),
    ],
)
async def test_v1_over_tcp_wants_the_token(house, headers: dict[str, str], status: int):
    async with house.tcp.get("/v1/host", headers=headers) as response:
        assert response.status == status


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/nothing", "/%761/host", "/v1/../v1/host", "/v1/stream", "/V1/../v1/host"])
async def test_no_spelling_of_an_address_gets_around_the_token(house, path: str):
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    assert b"memory_budget_bytes" not in answer
    assert answer.split()[1] in (b"401", b"404") or b"make dashboard" in answer


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json", "/", "/sessions/x"])
async def test_what_needs_no_token_answers_without(house, path: str):
    async with house.tcp.get(path) as response:
        assert response.status == 200


async def test_the_unix_socket_needs_neither_token_nor_host(house):
    async with house.unix.get("/v1/host", headers={"Host": "whatever", "Origin": EVIL}) as response:
        assert response.status == 200


@pytest.mark.parametrize("path", ["/v1/host", "/healthz", "/openapi.json", "/"])
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example:80", 421),
        ("[::2]:1", 421),
        ("", 421),
        ("localhost", 200),
        ("LOCALHOST:1234", 200),
        ("[::1]:8789", 200),
        ("ephemeral.example:443", 200),
    ],
)
async def test_the_host_must_be_ours_on_every_route(house, path: str, host: str, status: int):
    async with house.tcp.get(path, headers=house.bearer | {"Host": host}) as response:
        assert response.status == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://evil.example", 403),
        ("null", 403),
        ("http://127.0.0.1", 403),
        ("http://127.0.0.1:1", 403),
        ("http://localhost:OURS", 403),
        ("http://127.0.0.1:OURS.evil.example", 403),
        ("http://127.0.0.1:OURS", 200),
        ("http://localhost:5173", 200),
    ],
)
async def test_an_origin_must_be_ours(house, origin: str, status: int):
    headers = house.bearer | {"Origin": origin.replace("OURS", str(house.port))}
    async with house.tcp.post("/v1/sessions", json={}, headers=headers) as response:
        assert response.status == status


async def test_the_dashboards_address_trades_the_token_for_a_cookie(house):
    async with house.tcp.get("/", params={"token": house.token}, allow_redirects=False) as response:
        cookie = response.cookies["ephemeral"]
        assert (response.status, response.headers["Location"]) == (303, "/")
    assert cookie["httponly"]
    assert cookie["samesite"] == "Strict"
    assert house.token not in cookie.value
    async with house.tcp.get("/v1/host") as response:  # the client's jar holds it now
        assert response.status == 200
    async with house.tcp.post("/v1/sessions", json={}, headers={"Origin": EVIL}) as response:
        assert response.status == 403, "a cookie does not make another page ours"


async def test_a_wrong_token_in_the_address_sets_no_cookie(house):
    async with house.tcp.get("/", params={"token": "wrong"}, allow_redirects=False) as response:
        assert response.status == 403
        assert "Set-Cookie" not in response.headers


async def test_the_dashboard_says_how_to_build_it_when_it_is_not_there(house):
    async with house.tcp.get("/") as response:
        assert "make dashboard" in await response.text()


async def test_the_built_dashboard_is_served_for_every_page_with_a_strict_policy(house):
    (house.dashboard / "assets").mkdir(parents=True)
    (house.dashboard / "index.html").write_text("<p>the dashboard</p>")
    (house.dashboard / "assets" / "app-1a2b.js").write_text("let x")
    for page in ("/", "/sessions/x", "/executions"):
        async with house.tcp.get(page) as response:
            assert "the dashboard" in await response.text()
            assert "script-src 'self'" in response.headers["Content-Security-Policy"]
            assert response.headers["X-Content-Type-Options"] == "nosniff"
    async with house.tcp.get("/assets/app-1a2b.js") as response:
        assert response.content_type in ("text/javascript", "application/javascript")
        assert "immutable" in response.headers["Cache-Control"]
    async with house.tcp.get("/assets/gone.js") as response:
        assert response.status == 404


@pytest.mark.parametrize("path", ["/../ledger.db", "/assets/../../ledger.db", "/%2e%2e/ledger.db", "/..%2fledger.db", "//etc/passwd", "/%00"])
async def test_no_address_reaches_a_file_outside_the_dashboard(house, path: str):
    house.dashboard.mkdir()
    (house.dashboard / "index.html").write_text("index")
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    assert b"SQLite" not in answer
    assert b"root:" not in answer
