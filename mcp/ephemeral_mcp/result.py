"""An execution as an MCP tool result: text and pictures for the model, a typed record for the program around it."""

from __future__ import annotations

from mcp_types import CallToolResult, ContentBlock, ImageContent, TextContent
from pydantic import BaseModel, Field

from ephemeral import wire

PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")


class ExecutionResult(BaseModel):
    """What the code did, and how long it waited and ran."""

    execution_id: str
    session_id: str
    verdict: str = Field(description="ok, error (the code raised), timeout, memory, output, killed or crashed")
    tier: str | None = Field(description="What stood ready when the code arrived: live is best, cold worst")
    wait_ms: float | None = Field(description="From the code's arrival to its first instruction, imports included")
    run_ms: float | None
    stdout: str
    stderr: str
    result: str | None = Field(description="repr of the last expression's value")
    traceback: str | None
    error: str | None = Field(description="Why the code was stopped, when it was")
    pictures: int = Field(description="How many images follow the text")


def tool_result(execution: wire.Execution) -> CallToolResult:
    """Code that raises is a result like any other. Code that was refused never ran: that is the tool's error."""
    if execution.verdict == "refused":
        return tool_error(execution.error or "The code was refused.")
    pictures = [output for output in execution.outputs if output.mime in PICTURES]
    content: list[ContentBlock] = [TextContent(type="text", text=_text(execution, len(pictures)))]
    content += [ImageContent(type="image", data=picture.data, mime_type=picture.mime) for picture in pictures]
    record = ExecutionResult(
        execution_id=execution.id,
        session_id=execution.session,
        verdict=execution.verdict or "crashed",
        tier=execution.tier,
        wait_ms=execution.wait_ms,
        run_ms=execution.run_ms,
        stdout=execution.stdout,
        stderr=execution.stderr,
        result=execution.result,
        traceback=execution.traceback,
        error=execution.error,
        pictures=len(pictures),
    )
    return CallToolResult(content=content, structured_content=record.model_dump(mode="json"))


def tool_error(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


def _text(execution: wire.Execution, pictures: int) -> str:
    """What it printed comes first and bare; the rest is named."""
    parts = [execution.stdout.rstrip("\n")]
    if execution.truncated_bytes:
        parts.append(f"[{execution.truncated_bytes} bytes of output were dropped]")
    if execution.stderr.strip():
        parts.append("[stderr]\n" + execution.stderr.rstrip("\n"))
    if execution.result is not None:
        parts.append("[result]\n" + execution.result)
    if execution.traceback:
        parts.append("[traceback]\n" + execution.traceback.rstrip("\n"))
    if execution.error:
        parts.append(f"[{execution.verdict}] {execution.error}")
    return "\n".join(part for part in parts if part) or ("[pictures only]" if pictures else "[no output]")
