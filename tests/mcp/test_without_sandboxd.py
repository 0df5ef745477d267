"""When sandboxd is not there, or goes away, the agent is told what to do and the MCP server stays."""

from __future__ import annotations

from mcp import Client
from mcp_types import TextContent


async def test_sandboxd_gone_is_a_tool_error_that_says_what_to_type(sandboxd, mcp_server):
    async with Client(f"{mcp_server.url}/mcp", read_timeout_seconds=60) as client:
        assert not (await client.call_tool("execute_code", {"code": "6 * 7"})).is_error
        sandboxd.stop()
        for _ in range(2):
            result = await client.call_tool("execute_code", {"code": "6 * 7"})
            assert result.is_error
            [block] = result.content
            assert isinstance(block, TextContent)
            assert "ephemeral up" in block.text
    assert "Traceback" not in mcp_server.stop()
