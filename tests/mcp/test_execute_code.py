"""The tool, through the official client, over both transports and both protocol eras."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
from mcp import Client, StdioServerParameters
from mcp_types import ImageContent, TextContent

import ephemeral

Connect = Callable[[], AbstractAsyncContextManager[Client]]
"""Opens a client. Called inside the test: a client's task group must be left by the task that entered it."""


def connector(transport: str, sandboxd: Any, url: str) -> Connect:
    server: Any = f"{url}/mcp"
    if transport == "stdio":
        server = StdioServerParameters(command=sys.executable, args=["-m", "ephemeral_mcp", "--stdio"], env=sandboxd.environment)
    return lambda: Client(server, read_timeout_seconds=60, mode="legacy" if transport == "http legacy" else "auto")


@pytest.fixture(params=["http", "http legacy", "stdio"])
def connect(request: pytest.FixtureRequest, sandboxd, mcp_url: str) -> Connect:
    return connector(request.param, sandboxd, mcp_url)


@pytest.fixture(params=["http", "http legacy"])
def connect_http(request: pytest.FixtureRequest, sandboxd, mcp_url: str) -> Connect:
    """stdio differs in nothing here, and starts a process for every test."""
    return connector(request.param, sandboxd, mcp_url)


def text(result: Any) -> str:
    return "".join(block.text for block in result.content if isinstance(block, TextContent))


async def test_the_one_tool_describes_itself_and_what_it_returns(connect_http: Connect):
    async with connect_http() as client:
        [tool] = (await client.list_tools()).tools
    assert tool.name == "execute_code"
    assert tool.input_schema["required"] == ["code"]
    assert set(tool.input_schema["properties"]) == {"code", "packages", "timeout_seconds"}
    assert {"stdout", "traceback", "tier", "wait_ms"} <= set(tool.output_schema["properties"])
    assert "pip install" in tool.description


async def test_output_comes_back_as_text_and_as_a_typed_record_with_an_honest_wait(connect: Connect):
    async with connect() as client:
        result = await client.call_tool("execute_code", {"code": "print('hello')"})
        value = await client.call_tool("execute_code", {"code": "6 * 7", "packages": ["numpy"], "timeout_seconds": 5})
    assert not result.is_error
    assert text(result) == "hello"
    record = result.structured_content
    assert (record["stdout"], record["verdict"], record["tier"]) == ("hello\n", "ok", "live")
    assert value.structured_content["result"] == "42"
    assert "42" in text(value)
    # The stand-in answers elapsed_ms + 0.5: more than that, and far less than the life of the connection.
    assert 0.5 < value.structured_content["wait_ms"] < 10_000


async def test_an_exception_in_the_code_is_a_result_with_its_traceback(connect_http):
    async with connect_http() as client:
        result = await client.call_tool("execute_code", {"code": "1 / 0"})
        stopped = await client.call_tool("execute_code", {"code": "while True: pass"})
    assert not result.is_error
    assert "ZeroDivisionError" in text(result)
    assert "about to divide" in text(result)
    assert result.structured_content["verdict"] == "error"
    assert not stopped.is_error
    assert "stopped" in text(stopped)


async def test_a_plot_comes_back_as_an_image(connect_http):
    async with connect_http() as client:
        result = await client.call_tool("execute_code", {"code": "plot()"})
    [picture] = [block for block in result.content if isinstance(block, ImageContent)]
    assert picture.mime_type == "image/png"
    assert base64.b64decode(picture.data).startswith(b"\x89PNG")
    assert (text(result), result.structured_content["pictures"]) == ("drawn", 1)


@pytest.mark.parametrize(
    ("code", "words"),
    [("import left_pad", "EPHEMERAL_ALLOW"), ("raise Refused", "EPHEMERAL_ALLOW"), ("raise Busy", "Try again"), ("raise RuntimeError", "log")],
)
async def test_what_the_tool_cannot_do_is_an_error_that_says_what_to_do(connect_http, code: str, words: str):
    async with connect_http() as client:
        result = await client.call_tool("execute_code", {"code": code})
    assert result.is_error
    assert words in text(result)
    assert "SECRET" not in text(result)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "code: Field required"),
        ({"code": 7}, "code: Input should be a valid string"),
        ({"code": "x", "packages": "numpy"}, "packages: Input should be a valid list"),
        ({"code": "x", "packages": [1]}, "packages.0: Input should be a valid string"),
        ({"code": "x", "packages": ["--index-url=http://evil.example"]}, "packages.0"),
        ({"code": "x", "timeout_seconds": "soon"}, "timeout_seconds: Input should be a valid number"),
        ({"code": "x", "timeout_seconds": -1}, "timeout_seconds: Input should be greater than 0"),
        ({"python_code": "SECRET"}, "code: Field required"),
    ],
)
async def test_wrong_arguments_are_named_and_not_repeated(connect_http, arguments: dict[str, Any], words: str):
    async with connect_http() as client:
        result = await client.call_tool("execute_code", arguments)
    assert result.is_error
    assert words in text(result)
    assert "nothing was run" in text(result)
    assert "evil" not in text(result)
    assert "SECRET" not in text(result)


CALL = {
    "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "execute_code", "arguments": {"code": "6 * 7"}},
}  # fmt: skip


def call(url: str, session: bytes | None = None) -> dict[str, Any]:
    """The call as bare HTTP; its structured result."""
    headers: list[tuple[bytes, bytes]] = [(b"Accept", b"application/json"), (b"MCP-Protocol-Version", b"2025-11-25")]
    if session is not None:
        headers.append((b"X-Ephemeral-Session-Id", session))
    return httpx.post(f"{url}/mcp", json=CALL, headers=headers).json()["result"]["structuredContent"]


@pytest.mark.parametrize(("header", "session"), [(b"chat-7", "chat-7"), ("chat 7/ü".encode(), "h-")])
def test_the_session_header_names_the_session(mcp_url: str, header: bytes, session: str):
    assert call(mcp_url, header)["session_id"].startswith(session)


def test_without_a_header_the_code_itself_finds_its_session(mcp_url: str, sandboxd):
    with ephemeral.Client(f"unix:{sandboxd.state}/sandboxd.sock") as client:
        client.claim_digest(hashlib.sha256(b"6 * 7").hexdigest(), "streamed-by")
        assert call(mcp_url)["session_id"] == "streamed-by"


@pytest.mark.parametrize("path", ["/mcp", "/healthz", "/nothing"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "localhost.evil.example:8788"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost.evil.example"}, 403),
        ({"Origin": "http://127.0.0.1@evil.example"}, 403),
    ],
)
def test_strangers_are_turned_away_on_every_route(mcp_url: str, path: str, headers: dict[str, str], status: int):
    assert httpx.post(f"{mcp_url}{path}", json=CALL, headers=headers).status_code == status


@pytest.mark.parametrize(
    "headers", [{}, {"Host": "localhost:1"}, {"Host": "localhost"}, {"Host": "[::1]:1"}, {"Origin": "http://localhost:6274"}]
)
def test_this_machine_is_let_in(mcp_url: str, headers: dict[str, str]):
    assert httpx.get(f"{mcp_url}/healthz", headers=headers).status_code == 200
    accept = {"Accept": "application/json", "MCP-Protocol-Version": "2025-11-25"}
    assert httpx.post(f"{mcp_url}/mcp", json=CALL, headers=accept | headers).status_code == 200


def test_a_taken_port_is_one_sentence(mcp_url: str, sandboxd):
    environment = sandboxd.environment | {"EPHEMERAL_MCP_PORT": mcp_url.rpartition(":")[2]}
    ran = subprocess.run([sys.executable, "-m", "ephemeral_mcp"], env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 1
    assert "EPHEMERAL_MCP_PORT" in ran.stderr
    assert "Traceback" not in ran.stderr
