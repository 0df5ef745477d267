"""The daemon: everything a sandboxd is made of, in the order it is put together, and what the API may ask of it."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import time
from pathlib import Path

from ephemeral import settings, wire
from ephemeral.tasks import Tasks
from ephemeral_sandboxd import version
from ephemeral_sandboxd.environments import Environments
from ephemeral_sandboxd.errors import NotFound, SandboxdError
from ephemeral_sandboxd.pool import needs
from ephemeral_sandboxd.pool.executing import Executor
from ephemeral_sandboxd.pool.fleet import Fleet, bring_to_rest
from ephemeral_sandboxd.pool.idle import IdleWork
from ephemeral_sandboxd.pool.late import LateImports
from ephemeral_sandboxd.pool.notes import Notes, note
from ephemeral_sandboxd.pool.photographer import Photographer
from ephemeral_sandboxd.pool.preparing import Preparer
from ephemeral_sandboxd.pool.rivals import Rivals
from ephemeral_sandboxd.pool.sessions import Session, Sessions
from ephemeral_sandboxd.pool.snapshots import Snapshots
from ephemeral_sandboxd.runtimes import Runtime, Size

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0


class Daemon:
    """One sandboxd on one state directory. ``start()`` before anything else, ``close()`` at the end."""

    def __init__(self, state: Path, store: Path, runtime: Runtime, environments: Environments, notes: Notes):
        self._state = state
        self._runtime = runtime
        self._environments = environments
        self._notes = notes
        self._store = store
        self._tasks = Tasks()
        self._idle = IdleWork()
        self._ready: str | None = "starting"
        self._closing = False

    async def start(self) -> None:
        """Reap what an earlier daemon left, stand spares up. Raises SandboxdError."""
        await self._runtime.check()
        reaped = await self._runtime.reap()
        if reaped:
            log.warning("reaped %d sandboxes that an earlier daemon left", reaped)
        size = Size(memory_bytes=settings.get("sandbox_memory_bytes"), cpus=settings.get("sandbox_cpus"),
                    pids=settings.get("sandbox_pids"), disk_bytes=settings.get("sandbox_disk_bytes"))
        self._snapshots = Snapshots(self._runtime.fingerprint(), self._store / "snapshots", self._state / "snapshots", self._notes.snapshot)
        self._fleet = Fleet(self._runtime, self._environments, self._snapshots, size=size, spares=settings.get("spares"),
                            budget_bytes=settings.get("memory_budget_bytes") or _machine_memory() // 2, changed=self._notes.sandbox)
        self._fleet.evict = self._evict
        self._photographer = Photographer(self._fleet, self._environments, self._snapshots)
        self._late = LateImports(self._state / "late.json")
        self._sessions = Sessions()
        self._preparer = Preparer(self._fleet, self._environments, self._snapshots, self._photographer, self._late, self._notes, self._idle)
        self._rivals = Rivals(self._fleet, self._environments, self._snapshots, self._photographer, self._store / "rivals")
        self._executor = Executor(self._sessions, self._fleet, self._environments, self._preparer, self._rivals, self._late, self._notes)
        for environment in self._environments.list():
            self._notes.environment(environment)
        for snapshot in self._snapshots.all():
            self._notes.snapshot(snapshot)
        await self._fleet.fill()
        needs.of_code("import numpy")  # reads the tables of names: 10 ms that the first code should not wait for
        self._tasks.start(self._tick(), "tick")
        self._ready = None

    # --------------------------------------------------------------------------------------------- sessions

    def open_session(self, request: wire.SessionRequest) -> wire.Session:
        """Idempotent for a given id. Policies ``base`` and ``fat-snapshot`` stand a sandbox up at once, in the background."""
        known = request.id is not None and self._sessions.get(request.id) is not None
        session = self._sessions.open(request.id, request.app, request.policy)
        if not known and session.policy in ("base", "fat-snapshot"):
            session.builder = self._tasks.start(self._stand_up_rival(session), f"stand up {session.policy}")
        self._notes.session(session.wire())
        return session.wire()

    async def _stand_up_rival(self, session: Session) -> None:
        async with session.lock:
            try:
                if session.policy == "fat-snapshot":
                    sandbox = await self._rivals.fat()
                    sandbox.become("preparing")
                else:
                    sandbox, _ = await self._fleet.take([], [])
            except SandboxdError as problem:
                log.warning("session %s starts without a sandbox: %s", session.id, problem)
                return
            if sandbox.state != "preparing":
                sandbox.become("preparing")
            sandbox.session, session.sandbox = session.id, sandbox
            await bring_to_rest(sandbox)
            sandbox.become("ready")
            self._fleet.show(sandbox)

    async def end_session(self, session_id: str) -> wire.Session:
        session = self._sessions.get(session_id)
        if session is None:
            raise NotFound("no such session", f"no active session is called {session_id}", "GET /v1/sessions lists them")
        await self._end(session, "closed")
        return session.wire()

    async def _end(self, session: Session, why: str) -> None:
        self._sessions.remove(session)
        await self._preparer.stop(session)
        session.ended_at = time.time()
        if session.sandbox:
            self._fleet.give_back(session.sandbox)
        self._late.forget(session.id)
        note(self._notes, session.id, "ended", why)
        self._notes.session(session.wire())

    def _evict(self) -> bool:
        """Give the sandbox back that is worth least: never used and silent for longest first."""
        idle = [session for session in self._sessions.all() if session.sandbox and not session.lock.locked() and session.sandbox.state == "ready"]
        victim = min(idle, key=lambda session: (session.executions > 0, session.last_seen), default=None)
        if victim is None or victim.sandbox is None:
            return False
        note(self._notes, victim.id, "released", "its memory was needed elsewhere")
        self._fleet.give_back(victim.sandbox)
        victim.sandbox = None
        return True

    # --------------------------------------------------------------------------------------------- what the API asks

    async def put_plan(self, plan: wire.Plan) -> wire.PlanRecord:
        session = self._sessions.open(plan.session, plan.app)
        record = self._preparer.plan(session, plan)
        note(self._notes, session.id, "plan", data={
            "plan": record.id, "proposer": plan.proposer, "action": plan.action, "refused": record.refused,
            "wants": [{"package": want.package, "probability": want.probability, "proposer": want.proposer} for want in plan.wants]})
        self._notes.session(session.wire())
        return record

    def claim_digest(self, digest: str, session_id: str) -> None:
        self._sessions.claim(digest, session_id)
        if session := self._sessions.get(session_id):
            self._tasks.start(self._executor.expect(session), "wake")

    def add_moments(self, moments: list[wire.Moment]) -> None:
        for moment in moments:
            if session := self._sessions.get(moment.session):
                session.touch()
            else:
                self._notes.session(self._sessions.open(moment.session).wire())
            self._notes.moment(moment)

    async def execute(self, request: wire.ExecutionRequest, arrived: float) -> wire.Execution:
        return await self._executor.execute(request, arrived)

    def sandboxes(self) -> list[wire.Sandbox]:
        return [sandbox.wire() for sandbox in self._fleet.all()]

    async def delete_sandbox(self, sandbox_id: str) -> None:
        sandbox = self._fleet.get(sandbox_id)
        if sandbox is None:
            raise NotFound("no such sandbox", f"no sandbox is called {sandbox_id}", "GET /v1/sandboxes lists them")
        if session := self._sessions.by_sandbox(sandbox_id):
            session.sandbox = None
        if (deletion := self._fleet.give_back(sandbox)) is not None:
            await deletion

    def environments(self) -> list[wire.Environment]:
        return self._environments.list()

    def snapshots(self) -> list[wire.Snapshot]:
        return self._snapshots.all()

    def host(self) -> wire.Host:
        base = self._environments.base
        return wire.Host(
            version=version.VERSION, runtime=self._runtime.name, isolation=self._runtime.isolation, platform=platform.platform(),
            cores=os.cpu_count() or 1, memory_bytes=_machine_memory(), memory_budget_bytes=self._fleet.budget_bytes,
            memory_used_bytes=self._fleet.memory_used_bytes, sandboxes=len(self._fleet.all()), spares=len(self._fleet.spares()),
            sessions=len(self._sessions.all()), base=base.id if base else None, base_packages=sorted(base.packages) if base else [],
            python=self._environments.python, capture=settings.get("capture"), snapshots=len(self._snapshots.all()), facts={**self._notes.health(), **_addresses()})

    def ready(self) -> str | None:
        return self._ready

    # --------------------------------------------------------------------------------------------- housekeeping

    def _busy(self) -> bool:
        return self._executor.under_way > 0 or any(session.builder and not session.builder.done() for session in self._sessions.all())

    async def _tick(self) -> None:
        """Once a second: memory measured, silent sessions ended, spares stood up, idle work done while nothing else runs."""
        while not self._closing:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            self._fleet.measure()
            for session in self._sessions.all():
                if session.sandbox:
                    session.memory_seconds += session.sandbox.memory_bytes / (1 << 30) * TICK_SECONDS
                if now - session.last_seen > settings.get("idle_seconds") and not session.lock.locked():
                    await self._end(session, "idle")
            self._idle.tick(self._busy())
            self._fleet.fill_soon()

    async def photograph_ahead(self, sets: list[list[str]]) -> list[wire.Snapshot]:
        """Make the bare snapshot and those of ``sets`` that do not exist yet, for every daemon on this store. Raises SandboxdError."""
        self._snapshots.clear_out()
        base = [self._environments.base.id] if self._environments.base else []
        made = []
        for modules in sets:
            if not self._snapshots.exact(modules, base):
                made.append(await self._photographer.take(modules, base, [False] * len(base), shared=True))
        return made

    async def close(self) -> None:
        """End every session, delete every sandbox, wait until nothing is left."""
        self._closing = True
        self._ready = "stopping"
        await self._tasks.cancel()
        await self._idle.close()
        await self._preparer.close()
        for session in self._sessions.all():
            await self._end(session, "sandboxd stopped")
        await self._fleet.close()
        await self._rivals.close()
        await self._environments.close()
        await self._runtime.close()


def _addresses() -> dict[str, str]:
    """Where an app and an agent connect, for the dashboard's first page."""
    return {"proxy_address": f"http://127.0.0.1:{settings.get('proxy_port')}/v1", "mcp_address": f"http://127.0.0.1:{settings.get('mcp_port')}/mcp"}


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


