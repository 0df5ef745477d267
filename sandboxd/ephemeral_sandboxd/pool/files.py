"""Files of a session: written, read, listed and deleted inside its sandbox, by its own user. No path or link leads out of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from pydantic import ValidationError

from ephemeral import wire
from ephemeral_sandboxd.errors import BadRequest, NotFound, Refused, SandboxdError, Unavailable
from ephemeral_sandboxd.pool.executing import Executor
from ephemeral_sandboxd.runtimes import FileProblem

PIECE_BYTES = 4 << 20


class Files:
    """Raises errors.NotFound, Refused, BadRequest; Unavailable when the sandbox died."""

    def __init__(self, executor: Executor):
        self._executor = executor

    async def list(self, session_id: str, path: str) -> list[wire.File]:
        """What the directory ``path`` holds; relative paths are below /scratch."""
        async with self._executor.sandbox_of(session_id) as sandbox:
            try:
                return [_described(entry) for entry in await sandbox.box.list_files(path)]
            except FileProblem as problem:
                raise _error(path, problem) from None

    async def read(self, session_id: str, path: str) -> AsyncGenerator[bytes, None]:
        """The file's content, piece by piece."""
        async with self._executor.sandbox_of(session_id) as sandbox:
            offset = 0
            while True:
                try:
                    piece = await sandbox.box.read_file(path, offset, PIECE_BYTES)
                except FileProblem as problem:
                    raise _error(path, problem) from None
                if piece or not offset:
                    yield piece
                offset += len(piece)
                if len(piece) < PIECE_BYTES:
                    return

    async def write(self, session_id: str, path: str, pieces: AsyncIterator[bytes]) -> wire.File:
        """Replace or make the file; directories on the way to it are made."""
        async with self._executor.sandbox_of(session_id) as sandbox:
            sandbox.holds_files = True
            try:
                begun = False
                async for piece in pieces:
                    await sandbox.box.write_file(path, piece, append=begun)
                    begun = True
                if not begun:
                    await sandbox.box.write_file(path, b"")
                written = await sandbox.box.list_files(path)
                if not written:
                    raise NotFound("no such file", f"{path}: it was gone as soon as it was written", "see what runs in the session")
                return _described(written[0])
            except FileProblem as problem:
                raise _error(path, problem) from None

    async def delete(self, session_id: str, path: str) -> None:
        async with self._executor.sandbox_of(session_id) as sandbox:
            try:
                await sandbox.box.delete_file(path)
            except FileProblem as problem:
                raise _error(path, problem) from None


def _described(entry: dict[str, Any]) -> wire.File:
    """What the guest says of a file. It is nobody's word that has to be believed: what cannot be is no request's fault."""
    try:
        return wire.File.model_validate(entry)
    except ValidationError:
        raise Unavailable("sandbox lost", "its guest describes a file that cannot be", "end the session and start a new one") from None


def _error(path: str, problem: FileProblem) -> SandboxdError:
    where = f"{path}: {problem.reason}"
    kinds: dict[str, Any] = {
        "not_found": lambda: NotFound("no such file", where, "list the directory"),
        "not_allowed": lambda: Refused("not allowed", where, "files of a session live below /scratch and /tmp"),
        "too_large": lambda: BadRequest("too large", where, "split it", 413),
        "no_space": lambda: BadRequest("no space left", where, "delete something, or plan the session with more disk_bytes", 507),
    }
    return kinds.get(problem.kind, lambda: BadRequest("not possible", where, "see the reason"))()
