"""The way to sandboxd. Whatever happens to it, nobody here waits for it: what cannot be delivered is dropped and counted."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import aiohttp

from ephemeral import remote
from ephemeral.tasks import Tasks
from ephemeral.wire import Moment, Plan

log = logging.getLogger(__name__)

_SECONDS = 5.0  # for one request
_BACKOFF_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Sandboxd:
    """A client of sandboxd at ``address`` (``unix:/path`` or ``http(s)://host:port``), with ``token`` over TCP.

    After a failed connection nothing but digests is tried for a while. ``sent`` and ``dropped`` count requests.
    """

    def __init__(self, address: str, token: str = "") -> None:
        self.sent = 0
        self.dropped = 0
        self._address = address
        self._token = token
        self._session: aiohttp.ClientSession | None = None
        self._failures = 0
        self._down_until = 0.0

    async def open(self) -> None:
        """Get ready to send; connects to nothing yet. Raises ephemeral.errors.Unauthorized when this machine has no certificate for a remote host."""
        unix = self._address.startswith("unix:")
        self._session = aiohttp.ClientSession(
            base_url="http://localhost" if unix else self._address,
            connector=aiohttp.UnixConnector(self._address.removeprefix("unix:")) if unix else aiohttp.TCPConnector(
                ssl=remote.context(self._address) if remote.is_remote(self._address) else True),
            headers={"Authorization": f"Bearer {self._token}"} if self._token else None,
            timeout=aiohttp.ClientTimeout(total=_SECONDS),
        )

    async def close(self) -> None:
        if self._session:
            await self._session.close()

    async def claim(self, digest: str, session: str) -> bool:
        """Tell that the code with this sha256 belongs to ``session``. Tried even while sandboxd seems down: it is tiny, and
        the code itself follows within milliseconds."""
        return await self._send("PUT", f"/v1/digests/{digest}", json.dumps({"session": session}), urgent=True)

    async def put_plan(self, plan: Plan) -> bool:
        return await self._send("PUT", f"/v1/sessions/{quote(plan.session)}/plan", plan.model_dump_json())

    async def post_moments(self, session: str, moments: list[Moment]) -> bool:
        body = "[" + ",".join(moment.model_dump_json() for moment in moments) + "]"
        return await self._send("POST", f"/v1/sessions/{quote(session)}/moments", body)

    async def get(self, path: str, seconds: float) -> Any:
        """The JSON at ``path``; None when it does not come within ``seconds``."""
        if self._session is None or time.monotonic() < self._down_until:
            return None
        try:
            async with self._session.get(path, timeout=aiohttp.ClientTimeout(total=seconds)) as answer:
                return await answer.json() if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError):  # the last: a thousand brackets
            return None

    async def _send(self, method: str, path: str, body: str, urgent: bool = False) -> bool:
        if self._session is None or (time.monotonic() < self._down_until and not urgent):
            self.dropped += 1
            return False
        try:
            async with self._session.request(
                method, path, data=body, headers={"Content-Type": "application/json"}
            ) as answer:
                accepted = answer.status < 300
                self._failures, self._down_until = 0, 0.0
                if not accepted:
                    log.warning("sandboxd refused %s %s with status %d", method, path, answer.status)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            accepted = False
            if self._failures == 0:
                log.warning(
                    "sandboxd does not answer at %s (%s): plans are dropped until it does; is `ephemeral up` running?",
                    self._address, type(error).__name__,
                )  # fmt: skip
            self._down_until = time.monotonic() + _BACKOFF_SECONDS[min(self._failures, len(_BACKOFF_SECONDS) - 1)]
            self._failures += 1
        if accepted:
            self.sent += 1
        else:
            self.dropped += 1
        return accepted


class Plans:
    """Sends plans in order, one at a time a session; a newer plan replaces one that still waits.

    ``lost`` is called with a plan that could not be delivered.
    """

    def __init__(self, client: Sandboxd, tasks: Tasks, lost: Callable[[Plan], None]) -> None:
        self._client = client
        self._tasks = tasks
        self._lost = lost
        self._waiting: dict[str, Plan] = {}
        self._sending: dict[str, asyncio.Task[None]] = {}

    def submit(self, plan: Plan) -> None:
        self._waiting[plan.session] = plan
        if plan.session not in self._sending:
            self._sending[plan.session] = self._tasks.start(self._send(plan.session), "plans")

    async def _send(self, session: str) -> None:
        try:
            while plan := self._waiting.pop(session, None):
                if not await self._client.put_plan(plan) and session not in self._waiting:
                    self._lost(plan)
        finally:
            del self._sending[session]
