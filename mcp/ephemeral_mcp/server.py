"""The MCP server and its one tool."""

from __future__ import annotations

import time
from typing import Annotated, Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, InputRequiredResult, ToolAnnotations
from pydantic import Field, ValidationError
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ephemeral import wire
from ephemeral.identity import session_id
from ephemeral_mcp.arrival import ARRIVAL, Arrival
from ephemeral_mcp.link import Link, LinkError
from ephemeral_mcp.result import ExecutionResult, tool_error, tool_result

DESCRIPTION = """\
Run Python code in an isolated sandbox. Returns what the code printed, the value of its last expression, its traceback if \
it raised, and its plots as images.

- Send a complete program: every import it needs, no placeholders. Do not rely on variables of an earlier call.
- Just import what you need (numpy, pandas, matplotlib, scipy, sklearn, PIL, …); never pip install. Name in `packages` what \
cannot be told from the imports.
- print() what you want to see, or end with an expression. Show plots with plt.show().
- There is no network. The working directory can be written and does not last.
- Code that raises is a normal result: read the traceback, correct the code, call again."""

Code = Annotated[str, Field(description="The Python source to run")]
Packages = Annotated[
    list[str],
    Field(description="PyPI names of packages whose name differs from what is imported, or that must be there besides"),
]
Timeout = Annotated[float | None, Field(description="Seconds the code may run; 60 when not given")]


def build(link: Link, *, stdio: bool) -> MCPServer:
    """The server, for one transport; it asks sandboxd through `link`. Over HTTP it must stand behind a `Door`."""
    server = _Server(
        "ephemeral",
        title="Ephemeral",
        instructions="Runs Python code in sandboxes that stand ready before the code exists.",
        log_level="WARNING",
        middleware=[_stamp] if stdio else [],
    )

    @server.tool(
        description=DESCRIPTION,
        annotations=ToolAnnotations(
            title="Run Python code", read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
        ),
    )
    async def execute_code(
        code: Code, packages: Packages = [], timeout_seconds: Timeout = None  # noqa: B006 - it becomes a JSON schema's default
    ) -> Annotated[CallToolResult, ExecutionResult]:
        arrival = ARRIVAL.get()
        asked: dict[str, Any] = {"code": code, "packages": packages, "source": "mcp"}
        if timeout_seconds is not None:
            asked["timeout_seconds"] = timeout_seconds
        if arrival.session:
            asked["session"] = session_id(arrival.session)
        try:
            request = wire.ExecutionRequest(**asked, elapsed_ms=arrival.elapsed_ms)
        except ValidationError as problem:
            return tool_error(_explain(problem))
        try:
            return tool_result(await link.execute(request))
        except LinkError as problem:
            return tool_error(str(problem))

    @server.custom_route("/healthz", methods=["GET"])
    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    return server


class _Server(MCPServer):
    """Says which argument is wrong and what it wants, without repeating it (it may be a whole program)."""

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            if isinstance(error.__cause__, ValidationError):
                raise ToolError(_explain(error.__cause__)) from None
            raise


async def _stamp(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Over stdio nothing of ours sees a call sooner than this."""
    ARRIVAL.set(Arrival(time.perf_counter()))
    return await call_next(ctx)


def _explain(problem: ValidationError) -> str:
    wrong = [
        f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
        for item in problem.errors(include_url=False, include_input=False, include_context=False)
    ]
    return (
        f"The arguments are wrong, so nothing was run. {'; '.join(wrong[:5])}. execute_code takes: code (text, required), "
        "packages (list of package names), timeout_seconds (number, up to 3600)."
    )
