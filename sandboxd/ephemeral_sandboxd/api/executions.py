"""A streamed execution: everything that happens to it as server-sent events, each a wire.Piece, the whole record last."""

from __future__ import annotations

import asyncio

from aiohttp import web

from ephemeral import wire
from ephemeral_sandboxd.api.keys import ARRIVED, DAEMON, RECORDER
from ephemeral_sandboxd.errors import SandboxdError

HEARTBEAT_SECONDS = 5.0
"""After this long without a piece a comment is sent, which finds out whether the reader is still there."""
WAITING_PIECES = 10_000
"""Pieces that a slow reader may be behind; what is beyond is left out of the stream, and complete in the record at its end."""

_SILENCE = wire.Piece(kind="preparing")


async def streamed_execution(request: web.Request, asked: wire.ExecutionRequest) -> web.StreamResponse:
    """Refusals before the first piece are ordinary problem answers. A reader who goes interrupts the code: nobody waits for it."""
    pieces: asyncio.Queue[wire.Piece | None] = asyncio.Queue(WAITING_PIECES)
    identity = ""

    def tell(piece: wire.Piece) -> None:
        nonlocal identity
        if piece.kind == "accepted" and piece.execution:
            identity = piece.execution.id
        if not pieces.full() and piece.kind != "done":
            pieces.put_nowait(piece)

    execution = asyncio.create_task(request.app[DAEMON].execute(asked, request[ARRIVED], tell), name="streamed execution")
    execution.add_done_callback(lambda _: pieces.put_nowait(None) if not pieces.full() else None)
    first = await _next(pieces, execution)
    if first is None:
        await execution  # raises what there is to say
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"})
    try:
        await response.prepare(request)
        piece = first
        while piece is not None:
            await response.write(_event(piece))
            while (piece := await _next(pieces, execution, HEARTBEAT_SECONDS)) is _SILENCE:
                await response.write(b":\n\n")
        done = await execution
        await request.app[RECORDER].flush()
        await response.write(_event(wire.Piece(kind="done", execution=done)))
    except SandboxdError as problem:
        text = wire.Problem(title=problem.title, status=problem.status, detail=problem.detail, hint=problem.hint).model_dump_json()
        await response.write(f"event: problem\ndata: {text}\n\n".encode())
    except (ConnectionResetError, asyncio.CancelledError):
        await _give_up(request, identity, execution)
        raise
    return response


async def _next(pieces: asyncio.Queue[wire.Piece | None], execution: asyncio.Task[wire.Execution], patience: float | None = None) -> wire.Piece | None:
    """The next piece; None when the execution is over and all was taken; _SILENCE after ``patience`` seconds without any."""
    if execution.done() and pieces.empty():
        return None
    try:
        async with asyncio.timeout(patience):
            return await pieces.get()
    except TimeoutError:
        return _SILENCE


async def _give_up(request: web.Request, identity: str, execution: asyncio.Task[wire.Execution]) -> None:
    if not execution.done():
        try:
            await request.app[DAEMON].interrupt(identity)
        except SandboxdError:
            execution.cancel()  # it has not begun, and need not
    await asyncio.shield(asyncio.wait([execution]))


def _event(piece: wire.Piece) -> bytes:
    return f"event: {piece.kind}\ndata: {piece.model_dump_json(exclude_defaults=True)}\n\n".encode()
