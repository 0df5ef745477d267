"""One conversation from its opening to its session's end, and what was recorded of it."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ephemeral import wire
from ephemeral.errors import NotFound
from ephemeral.identity import Identity
from ephemeral.streams import chat_completions
from ephemeral_cli.replay.house import House
from ephemeral_cli.replay.orders import Order, Outcome
from ephemeral_cli.replay.tasks import Task

LOOK_BACK = 200
"""Executions and sessions looked through for those of a conversation: more than may be under way at once."""


@dataclass
class Held:
    """A conversation as it went. ``session`` is None when sandboxd never heard of it."""

    task: Task
    outcome: Outcome
    session: wire.Session | None = None
    executions: list[wire.Execution] = field(default_factory=list)
    predicted: list[str] = field(default_factory=list)
    """Packages of the session's last plan."""

    @property
    def execution(self) -> wire.Execution | None:
        """The last one: what the conversation came for."""
        return self.executions[-1] if self.executions else None

    @property
    def ok(self) -> bool:
        """Held to its end; its code ran well and put out what was expected; without code, nothing ran, or was built because it was predicted."""
        if self.outcome.error:
            return False
        if self.task.code is None:
            # Rivals build when a session begins, whatever it is about: that is counted as wasted.
            return not self.executions and not (self.session and self.session.policy == "ours" and self.session.builds)
        if self.execution is None or self.execution.verdict != "ok":
            return False
        return bool(self.outcome.outputs) and self.task.expect in self.outcome.outputs[-1]


async def hold(task: Task, house: House, model: str, policy: wire.Policy = "ours") -> Held:
    """Hold the conversation of ``task`` and end its session; every policy but ``ours`` opens the session beforehand and
    names it in headers, for nothing but a prediction could tie the code to it."""
    named = "" if policy == "ours" else f"replay-{secrets.token_hex(8)}"
    if named:
        await house.sandboxd.open_session(named, policy=policy)
    started = time.time()
    order = Order(id=secrets.token_hex(8), messages=task.messages, model=model, mcp=house.addresses.mcp, session=named,
                  wrapped_base_url=house.provider if task.wrapped else "", streamed=task.streamed)
    held = Held(task, await house.talker.hold(order))
    await _collect(held, house, named, started)
    return held


async def strays(house: House, conversations: Sequence[Held], since: float) -> list[wire.Session]:
    """Sessions begun after ``since`` that belong to no conversation's code: what was built for them was built too. They are ended.

    One comes about when a conversation's code was not recognised, and got a session of its own.
    """
    known = {held.session.id for held in conversations if held.session}
    found: list[wire.Session] = []
    before: str | None = None
    while True:
        page = await house.sandboxd.sessions(limit=LOOK_BACK, before=before)
        found += [session for session in page.items if session.started_at >= since and session.id not in known]
        before = page.next
        if before is None or all(session.started_at < since for session in page.items):
            break
    return [await _ended(house, session) for session in found]


async def _ended(house: House, session: wire.Session) -> wire.Session:
    if session.state == "active":
        with contextlib.suppress(NotFound):  # it ended by itself
            return await house.sandboxd.end_session(session.id)
        return await house.sandboxd.session(session.id)
    return session


async def _collect(held: Held, house: House, named: str, started: float) -> None:
    digests = {hashlib.sha256(code.encode()).hexdigest() for code in held.outcome.codes}
    recent = await house.sandboxd.executions(limit=LOOK_BACK)
    held.executions = sorted((execution for execution in recent.items if execution.created_at >= started and execution.code_sha256 in digests),
                             key=lambda execution: execution.created_at)
    identity = named or (held.execution.session if held.execution else await _unnamed(held.task, house, started))
    if not identity:
        return
    try:
        plans = await house.sandboxd.plans(identity)
        if plans.items:
            latest = max(plans.items, key=lambda record: record.id)
            held.predicted = sorted(want.package for want in latest.plan.wants)
        held.session = await house.sandboxd.end_session(identity)
    except NotFound:
        pass  # it ended by itself
    if held.session is None:
        held.session = await house.sandboxd.session(identity)


async def _unnamed(task: Task, house: House, started: float) -> str:
    """The session of a conversation that ran no code: its id begins with what the first turn hashes to."""
    prefix = Identity().session_of({}, {}, chat_completions.turn({"messages": task.messages}))[0].rpartition("-")[0]
    recent = await house.sandboxd.sessions(limit=LOOK_BACK)
    return next((session.id for session in recent.items if session.started_at >= started and session.id.startswith(prefix + "-")), "")
