"""The daemon: everything a sandboxd is made of, in the order it is put together, and what the API may ask of it."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

from ephemeral import settings, wire
from ephemeral.tasks import Tasks
from ephemeral_sandboxd import host, version
from ephemeral_sandboxd.egress import parse_domains
from ephemeral_sandboxd.errors import BadRequest, NotFound, SandboxdError
from ephemeral_sandboxd.pool import needs
from ephemeral_sandboxd.pool.connecting import connect
from ephemeral_sandboxd.pool.executing import Executor, Tell
from ephemeral_sandboxd.pool.files import Files
from ephemeral_sandboxd.pool.fleet import Fleet, bring_to_rest
from ephemeral_sandboxd.pool.idle import IdleWork
from ephemeral_sandboxd.pool.late import LateImports
from ephemeral_sandboxd.pool.notes import Notes, note
from ephemeral_sandboxd.pool.photographer import Photographer, fingerprint
from ephemeral_sandboxd.pool.preparing import Preparer
from ephemeral_sandboxd.pool.rivals import Rivals
from ephemeral_sandboxd.pool.sessions import Build, Session, Sessions
from ephemeral_sandboxd.pool.snapshots import Snapshots
from ephemeral_sandboxd.pool.stock import Stock, Stocks
from ephemeral_sandboxd.pool.upkeep import Upkeep
from ephemeral_sandboxd.pool.worth import least
from ephemeral_sandboxd.runtimes import Runtime, Size

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0


class Daemon:
    """One sandboxd on one state directory. ``start()`` before anything else, ``close()`` at the end."""

    def __init__(self, state: Path, store: Path, runtime: Runtime, notes: Notes, find: Callable[[str], host.Found]):
        """``find`` opens the environments of a root filesystem by its name, or raises KeyError."""
        self._state = state
        self._runtime = runtime
        self._find = find
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
        bereaved = self._notes.mark_lost()
        size = Size(memory_bytes=settings.get("sandbox_memory_bytes"), cpus=settings.get("sandbox_cpus"),
                    pids=settings.get("sandbox_pids"), disk_bytes=settings.get("sandbox_disk_bytes"))
        budget = settings.get("memory_budget_bytes") or _machine_memory() // 2
        self._runtime.limit(budget, settings.get("cpu_budget") or float(os.cpu_count() or 1))
        self._stocks = Stocks(self._open_stock)
        self._fleet = Fleet(self._runtime, self._stocks, size=size, spares=settings.get("spares"), budget_bytes=budget, changed=self._notes.sandbox)
        self._fleet.evict = self._evict
        self._photographer = Photographer(self._fleet)
        self._late = LateImports(self._state / "late.json")
        self._sessions = Sessions(self._stocks)
        for session_id in bereaved:
            self._sessions.bereave(session_id, "sandboxd was restarted")
        self._preparer = Preparer(self._fleet, self._stocks, self._photographer, self._late, self._notes, self._idle)
        self._rivals = Rivals(self._fleet, self._stocks.default, self._photographer, self._store / "rivals")
        self._executor = Executor(self._sessions, self._fleet, self._preparer, self._rivals, self._late, self._notes)
        self._files = Files(self._executor)
        self._upkeep = Upkeep(self._stocks, self._fleet, self._notes, self._idle)
        await self._fleet.fill()
        needs.of_code("import numpy")  # reads the tables of names: 10 ms that the first code should not wait for
        self._tasks.start(self._tick(), "tick")
        self._ready = None

    def _open_stock(self, name: str) -> Stock:
        root, environments = self._find(name)
        # Learned and shared ones are kept apart: many daemons may use one store.
        snapshots = Snapshots(fingerprint(self._runtime, root.path), self._store / "snapshots", self._state / "snapshots", self._notes.snapshot, root.name)
        for environment in environments.list():
            self._notes.environment(environment)
        for snapshot in snapshots.all():
            self._notes.snapshot(snapshot)
        return Stock(root, environments, snapshots)

    # --------------------------------------------------------------------------------------------- sessions

    def open_session(self, request: wire.SessionRequest) -> wire.Session:
        """Idempotent for a given id. Policies ``base`` and ``fat-snapshot`` stand a sandbox up at once, in the background."""
        if request.policy in ("none", "cached", "fat-snapshot") and request.root != self._stocks.default.name:
            raise BadRequest("not with this root filesystem", f"the policy {request.policy} is for the default one, to compare with", "leave root out, or the policy")
        known = request.id is not None and self._sessions.get(request.id) is not None
        network = tuple(parse_domains(request.network))
        session = self._sessions.open(request.id, request.app, request.policy, request.root)
        if not known:
            session.network = network
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
                    sandbox, _ = await self._fleet.take(session.stock, None)
            except SandboxdError as problem:
                log.warning("session %s starts without a sandbox: %s", session.id, problem)
                return
            if sandbox.state != "preparing":
                sandbox.become("preparing")
            sandbox.session, session.sandbox = session.id, sandbox
            session.builds.append(Build(frozenset()))
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
        session.ended_at = time.time()  # whoever waits for it, or starts a sandbox for it, gives up
        self._sessions.ended(session)  # what comes late does not open it again
        await self._preparer.stop(session)
        if session.sandbox:
            self._fleet.give_back(session.sandbox)
        self._late.forget(session.id)
        note(self._notes, session.id, "ended", why)
        self._sessions.ended(session)
        self._notes.session(session.wire())

    def _evict(self, worth: float) -> bool:
        """Give the idle sandbox back that is worth least, if that is less than ``worth``."""
        found = least(self._sessions.all(), self._notes.costs())
        if found is None or found[1] >= worth:
            return False
        victim = found[0]
        assert victim.sandbox
        note(self._notes, victim.id, "released", "its memory was needed elsewhere")
        self._fleet.give_back(victim.sandbox)
        victim.lose("the sandbox's memory was needed elsewhere")
        self._notes.session(victim.wire())
        return True

    async def grant_network(self, session_id: str, grant: wire.NetworkGrant) -> wire.Session:
        """What the session's code may reach from its next execution on. Raises NotFound, BadRequest."""
        allow = tuple(parse_domains(grant.allow))
        session = self._sessions.get(session_id)
        if session is None:
            raise NotFound("no such session", f"no active session is called {session_id}", "POST /v1/sessions opens one")
        async with session.lock:
            session.network = allow
            if session.sandbox and session.sandbox.alive and session.sandbox.network:
                await connect(session, session.sandbox, self._notes)
        note(self._notes, session.id, "network", " ".join(allow) or "none")
        self._notes.session(session.wire())
        return session.wire()

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
            elif self._sessions.went_on(moment):
                self._notes.session(self._sessions.open(moment.session).wire())
            self._notes.moment(moment)

    async def execute(self, request: wire.ExecutionRequest, arrived: float, tell: Tell | None = None) -> wire.Execution:
        return await self._executor.execute(request, arrived, tell)

    async def interrupt(self, execution_id: str) -> None:
        await self._executor.interrupt(execution_id)

    def feed(self, execution_id: str, feed: wire.Feed) -> None:
        self._executor.feed(execution_id, feed)

    @property
    def files(self) -> Files:
        return self._files

    def sandboxes(self) -> list[wire.Sandbox]:
        return [sandbox.wire() for sandbox in self._fleet.all()]

    async def delete_sandbox(self, sandbox_id: str) -> None:
        sandbox = self._fleet.get(sandbox_id)
        if sandbox is None:
            raise NotFound("no such sandbox", f"no sandbox is called {sandbox_id}", "GET /v1/sandboxes lists them")
        if session := self._sessions.by_sandbox(sandbox_id):
            session.lose("the sandbox was killed by its operator")
        if (deletion := self._fleet.give_back(sandbox)) is not None:
            await asyncio.shield(deletion)

    def environments(self) -> list[wire.Environment]:
        return [environment for stock in self._stocks for environment in stock.environments.list()]

    async def make_environment(self, request: wire.EnvironmentRequest) -> wire.Environment:
        """Raises SandboxdError: refused by policy, not resolvable, no index."""
        prepared = await self._stocks.get(request.root).environments.prepare(request.packages)
        self._notes.environment(prepared.environment)
        return prepared.environment

    async def drop_environment(self, environment_id: str) -> None:
        """Raises NotFound; Refused while something has it mounted."""
        mounted = {environment for sandbox in self._fleet.all() for environment in sandbox.environments}
        await self._stock_of(environment_id).environments.drop(environment_id, mounted)

    async def pin_environment(self, environment_id: str, pinned: bool) -> wire.Environment:
        environments = self._stock_of(environment_id).environments
        await environments.pin(environment_id, pinned)
        for environment in environments.list():
            if environment.id == environment_id:
                return environment
        raise NotFound("no such environment", environment_id, "GET /v1/environments lists them")  # it was evicted at this moment

    def _stock_of(self, environment_id: str) -> Stock:
        for stock in self._stocks:
            if any(environment.id == environment_id for environment in stock.environments.list()):
                return stock
        raise NotFound("no such environment", environment_id, "GET /v1/environments lists them")

    def snapshots(self) -> list[wire.Snapshot]:
        return [snapshot for stock in self._stocks for snapshot in stock.snapshots.all()]

    def roots(self) -> list[wire.RootFilesystem]:
        return host.root_filesystems(self._store)

    def host(self) -> wire.Host:
        stock, admission = self._stocks.default, self._fleet.admission
        base = stock.environments.base
        usage = self._upkeep.usage
        return wire.Host(
            version=version.VERSION, runtime=self._runtime.name, isolation=self._runtime.isolation, platform=platform.platform(),
            cores=os.cpu_count() or 1, memory_bytes=_machine_memory(), memory_budget_bytes=admission.budget_bytes,
            memory_used_bytes=self._fleet.memory_used_bytes + admission.starting_bytes, cpu_budget=settings.get("cpu_budget") or float(os.cpu_count() or 1),
            disk_bytes=usage.bytes, disk_budget_bytes=usage.budget_bytes, frozen=sum(sandbox.box.frozen for sandbox in self._fleet.all()),
            waiting=admission.waiting, refused=admission.refused, sandboxes=len(self._fleet.all()), spares=len(self._fleet.spares()),
            sessions=len(self._sessions.all()), base=base.id if base else None, base_packages=sorted(base.packages) if base else [],
            python=stock.environments.python, capture=settings.get("capture"), snapshots=len(self.snapshots()), facts={**self._notes.health(), **_addresses()})

    def ready(self) -> str | None:
        return self._ready

    # --------------------------------------------------------------------------------------------- housekeeping

    def _busy(self) -> bool:
        return self._executor.under_way > 0 or any(session.builder and not session.builder.done() for session in self._sessions.all())

    async def _tick(self) -> None:
        """Once a second: memory measured, silent sessions ended, spares stood up, idle work done while nothing else runs."""
        while not self._closing:
            await asyncio.sleep(TICK_SECONDS)
            try:
                await self._keep_house()
            except Exception:  # one bad second must not be the last one: without this a daemon fills up
                log.exception("housekeeping")

    async def _keep_house(self) -> None:
        now = time.monotonic()
        self._fleet.measure()
        for session in self._sessions.all():
            if session.sandbox:
                session.memory_seconds += session.sandbox.memory_bytes / (1 << 30) * TICK_SECONDS
            if now - session.last_seen > settings.get("idle_seconds") and not session.lock.locked():
                await self._end(session, "idle")
        self._upkeep.tick()
        self._idle.tick(self._busy())
        self._fleet.fill_soon()

    async def photograph_ahead(self, sets: list[list[str]]) -> list[wire.Snapshot]:
        """Make the bare snapshot and those of ``sets`` that do not exist yet, for every daemon on this store. Raises SandboxdError."""
        stock = self._stocks.default
        made = []
        for modules in sets:
            if not stock.snapshots.exact(modules, stock.base):
                made.append(await self._photographer.take(stock, modules, stock.base, [False] * len(stock.base), shared=True))
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
        for stock in self._stocks:
            await stock.environments.close()
        await self._runtime.close()


def _addresses() -> dict[str, str]:
    """Where an app and an agent connect, for the dashboard's first page."""
    return {"proxy_address": f"http://127.0.0.1:{settings.get('proxy_port')}/v1", "mcp_address": f"http://127.0.0.1:{settings.get('mcp_port')}/mcp"}


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


