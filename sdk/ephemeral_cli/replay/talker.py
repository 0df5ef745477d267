"""The talking program's process, seen from here: orders in, outcomes out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path

from ephemeral_cli.errors import CommandError
from ephemeral_cli.replay.orders import Order, Outcome

LINE_LIMIT_BYTES = 64 << 20


class Talker:
    """Runs ``ephemeral_cli.replay.client`` with ``environment`` added to ours; ``log`` takes what it complains of.

    ``async with Talker(...) as talker: outcome = await talker.hold(order)``; many orders may be under way at once.
    """

    def __init__(self, environment: dict[str, str], log: Path):
        self._environment = {**os.environ, **environment}
        self._log = log
        self._waiting: dict[str, asyncio.Future[Outcome]] = {}

    async def __aenter__(self) -> Talker:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "ephemeral_cli.replay.client", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                stderr=log, env=self._environment, limit=LINE_LIMIT_BYTES, start_new_session=True,
            )
        self._reader = asyncio.create_task(self._read(), name="read outcomes")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()  # it ends when its orders do
        if self._waiting:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()
        await self._reader

    async def hold(self, order: Order) -> Outcome:
        """Have one conversation held. Raises CommandError when the process died over it."""
        if self._process.returncode is not None:
            raise CommandError("the talking program has ended", f"its log is {self._log}")
        assert self._process.stdin is not None
        future = self._waiting[order.id] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(order.model_dump_json().encode() + b"\n")
        try:
            await self._process.stdin.drain()
            return await future
        except ConnectionError:
            raise CommandError("the talking program has ended", f"its log is {self._log}") from None
        finally:
            self._waiting.pop(order.id, None)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            outcome = Outcome.model_validate_json(line)
            future = self._waiting.get(outcome.id)
            if future and not future.done():
                future.set_result(outcome)
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(CommandError("the talking program ended in the middle of a conversation", f"its log is {self._log}"))
