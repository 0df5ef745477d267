"""Who is talking: sessions, which code is whose, what was built for them and whether it paid."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from ephemeral import wire
from ephemeral_sandboxd.pool.sandbox import PooledSandbox
from ephemeral_sandboxd.pool.stock import DEFAULT, Stock, Stocks

CLAIM_WAIT_SECONDS = 0.05
"""How long an execution that names no session waits for the proxy's claim of its code (the tee runs beside the call)."""
CLAIMS_KEPT = 10_000
CLAIMS_OF_ONE_CODE = 100
PAST_KEPT = 10_000
"""Ended sessions that are remembered: a conversation may go on after it was silent for long."""
BEGINS = frozenset(("turn_started", "user_turn"))
"""Kinds of moments with which a conversation goes on. Others may come late, when its session has ended."""


@dataclass
class Build:
    """Something begun for a session before its code came. Used when an execution needed one of ``packages``, or, where
    it was only a sandbox, when anything was executed."""

    packages: frozenset[str]
    used: bool = False


@dataclass
class Session:
    """One conversation, as the pool knows it. ``lock`` is held by whoever works on its sandbox."""

    id: str
    stock: Stock
    app: str = ""
    policy: wire.Policy = "ours"
    network: tuple[str, ...] = ()
    """Domains that its code may reach."""
    lost: str | None = None
    """Why the sandbox it had is gone, until it has been told so."""
    started_at: float = field(default_factory=time.time)
    last_at: float = field(default_factory=time.time)
    last_seen: float = field(default_factory=time.monotonic)
    ended_at: float | None = None
    record: wire.PlanRecord | None = None
    pending: wire.PlanRecord | None = None
    named: dict[str, float] = field(default_factory=dict)
    """Package -> when (perf_counter) a plan first named it."""
    first_plan: float | None = None
    sandbox: PooledSandbox | None = None
    builder: asyncio.Task[None] | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    hurry_packages: frozenset[str] = frozenset()
    hurry_modules: frozenset[str] = frozenset()
    builds: list[Build] = field(default_factory=list)
    executions: int = 0
    memory_seconds: float = 0.0
    before: wire.Session | None = None
    """What it was when it ended an earlier time: it is the same session, and its figures go on."""

    def lose(self, why: str) -> None:
        """Its sandbox is gone. What had run in it is worth a word to whoever executes next."""
        if self.sandbox and self.sandbox.used:
            self.lost = f"{why}: variables and files of earlier calls are gone"
        self.sandbox = None

    def touch(self) -> None:
        self.last_at, self.last_seen = time.time(), time.monotonic()

    def hasten(self, packages: Iterable[str], modules: Iterable[str]) -> None:
        """Code is waiting: the builder does only what it needs."""
        self.hurry_packages, self.hurry_modules = frozenset(packages), frozenset(modules)
        self.hurry.set()

    def pay(self, needed: Iterable[str]) -> None:
        """An execution came: what it needed was not built in vain."""
        wanted = frozenset(needed)
        for build in self.builds:
            build.used = build.used or not build.packages or bool(build.packages & wanted)

    def lead_ms(self, needed: Iterable[str], arrived: float) -> float | None:
        """From the plan that first named all of ``needed`` to the code; None when no plan did."""
        needed = list(needed)
        if self.first_plan is None or any(package not in self.named for package in needed):
            return None
        return (arrived - max([self.first_plan, *(self.named[package] for package in needed)])) * 1000

    def wire(self) -> wire.Session:
        before = self.before
        return wire.Session(
            id=self.id, app=self.app, policy=self.policy, state="ended" if self.ended_at else "active",
            root=self.stock.name, network=list(self.network), started_at=before.started_at if before else self.started_at,
            last_at=self.last_at, ended_at=self.ended_at, sandbox=self.sandbox.id if self.sandbox else None,
            executions=self.executions + (before.executions if before else 0), builds=len(self.builds) + (before.builds if before else 0),
            wasted=(sum(not build.used for build in self.builds) if self.ended_at else 0) + (before.wasted if before else 0),
            memory_seconds=round(self.memory_seconds + (before.memory_seconds if before else 0.0), 3))


class Sessions:
    """The active sessions, and the claims that tie streamed code to them."""

    def __init__(self, stocks: Stocks) -> None:
        self._stocks = stocks
        self._bereaved: dict[str, str] = {}
        self._active: dict[str, Session] = {}
        self._past: OrderedDict[str, wire.Session] = OrderedDict()
        self._claims: OrderedDict[str, deque[str]] = OrderedDict()
        self._claimed = asyncio.Event()

    def all(self) -> list[Session]:
        return list(self._active.values())

    def get(self, session_id: str) -> Session | None:
        return self._active.get(session_id)

    def bereave(self, session_id: str, why: str) -> None:
        """A session of an earlier daemon whose sandbox, in which something had run, died with it."""
        self._bereaved[session_id] = f"{why}: variables and files of earlier calls are gone"

    def open(self, session_id: str | None, app: str = "", policy: wire.Policy = "ours", root: str = DEFAULT) -> Session:
        """The active session of that id, opened when it is new. Raises NotFound for a root filesystem that is none."""
        session_id = session_id or f"x{secrets.token_hex(6)}"
        session = self._active.get(session_id)
        if session is None:
            before = self._past.pop(session_id, None)
            session = Session(
                session_id, self._stocks.get(root), app=app or (before.app if before else ""), policy=policy,
                lost=self._bereaved.pop(session_id, None), before=before,
            )  # fmt: skip
            self._active[session_id] = session
        elif app and not session.app:  # a moment opened it, which does not say whose it is
            session.app = app
        session.touch()
        return session

    def went_on(self, moment: wire.Moment) -> bool:
        """Whether a moment belongs to a session that is to be opened: a new one, or one that ended and goes on."""
        return moment.session not in self._past or moment.kind in BEGINS

    def remove(self, session: Session) -> None:
        self._active.pop(session.id, None)

    def ended(self, session: Session) -> None:
        """Its figures are final, unless it goes on."""
        self._past[session.id] = session.wire()
        while len(self._past) > PAST_KEPT:
            self._past.popitem(last=False)

    def by_sandbox(self, sandbox_id: str) -> Session | None:
        return next((session for session in self._active.values() if session.sandbox and session.sandbox.id == sandbox_id), None)

    def claim(self, digest: str, session_id: str) -> None:
        """Code of this digest streamed by in that session. Two sessions may stream the same code: first come, first served."""
        self._claims.setdefault(digest, deque(maxlen=CLAIMS_OF_ONE_CODE)).append(session_id)
        self._claims.move_to_end(digest)
        while len(self._claims) > CLAIMS_KEPT:
            self._claims.popitem(last=False)
        self._claimed.set()
        self._claimed.clear()

    async def by_digest(self, digest: str) -> Session | None:
        """Whose code this is. Waits briefly for a claim that is still on its way, but only while some session was planned
        and has not executed all that it streamed."""
        deadline = time.monotonic() + CLAIM_WAIT_SECONDS
        while digest not in self._claims:
            left = deadline - time.monotonic()
            if left <= 0 or not any(session.record for session in self._active.values()):
                return None
            await self._next_claim(left)
        claims = self._claims[digest]
        session_id = claims[0]
        if len(claims) > 1:  # the last one stays: the same code may be run again
            claims.popleft()
        return self._active.get(session_id)

    async def _next_claim(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._claimed.wait()
        except TimeoutError:
            return
