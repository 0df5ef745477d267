"""The conversation's shape for the dashboard's timeline: what happened when and how much, without a word of it."""

from __future__ import annotations

import asyncio

from ephemeral.wire import Event, Moment
from ephemeral_predictor.sandboxd import Sandboxd

_PERIOD_SECONDS = 0.2  # deltas of one session are put together for this long
_DETAIL = 4000
_WAITING = 500  # moments of one session that wait; the rest is dropped and counted
_DELTAS = frozenset(("assistant_text", "reasoning_text", "code"))


class Moments:
    """Collects moments and sends them a few times a second. With ``capture`` they carry the text too."""

    def __init__(self, client: Sandboxd, capture: bool) -> None:
        self.dropped = 0
        self._client = client
        self._capture = capture
        self._waiting: dict[str, list[Moment]] = {}
        self._some = asyncio.Event()

    def note(self, event: Event) -> None:
        """Keep the shape of ``event`` to send it soon."""
        waiting = self._waiting.setdefault(event.session, [])
        self._some.set()
        if event.kind in _DELTAS and waiting:
            last = waiting[-1]
            if last.kind == event.kind and last.data.get("call", "") == event.call:
                chars = last.data["chars"]
                assert isinstance(chars, int)
                detail = (last.detail + event.text)[:_DETAIL] if self._capture else ""
                waiting[-1] = last.model_copy(
                    update={"data": {**last.data, "chars": chars + len(event.text)}, "detail": detail}
                )
                return
        if len(waiting) >= _WAITING:
            self.dropped += 1
            return
        data: dict[str, object] = {"chars": len(event.text)}
        data |= {name: value for name in ("call", "name", "model") if (value := getattr(event, name))}
        detail = event.text[:_DETAIL] if self._capture else ""
        waiting.append(Moment(session=event.session, at=event.at, kind=event.kind, detail=detail, data=data))

    def add(self, moment: Moment) -> None:
        """Keep a moment of ours to send it soon. Its ``detail`` is conversation text, and goes only with capture."""
        waiting = self._waiting.setdefault(moment.session, [])
        self._some.set()
        if len(waiting) >= _WAITING:
            self.dropped += 1
            return
        waiting.append(moment if self._capture else moment.model_copy(update={"detail": ""}))

    async def run(self) -> None:
        """Send what comes, until cancelled."""
        while True:
            await self._some.wait()
            await asyncio.sleep(_PERIOD_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Send all that waits."""
        self._some.clear()
        batch, self._waiting = self._waiting, {}
        for session, moments in batch.items():
            if not await self._client.post_moments(session, moments):
                self.dropped += len(moments)
