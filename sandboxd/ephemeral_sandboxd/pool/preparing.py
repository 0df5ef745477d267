"""From a plan to a sandbox that stands ready: policy, environment, the nearest start, mounts, imports.

One builder a session, at most; a newer plan is taken up as soon as the step under way is over, and code that arrives
makes the builder skip what that code does not need.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from ephemeral import names, wire
from ephemeral.costs import Prices
from ephemeral.tasks import Tasks
from ephemeral_sandboxd.environments import Prepared
from ephemeral_sandboxd.errors import SandboxdError
from ephemeral_sandboxd.pool import needs
from ephemeral_sandboxd.pool.admission import Declined
from ephemeral_sandboxd.pool.choosing import Terms, best, cost, cost_standing, expected_bytes
from ephemeral_sandboxd.pool.connecting import connect
from ephemeral_sandboxd.pool.fleet import Fleet, bring_to_rest
from ephemeral_sandboxd.pool.idle import IdleWork
from ephemeral_sandboxd.pool.late import LateImports
from ephemeral_sandboxd.pool.notes import Notes, Stopwatch, note
from ephemeral_sandboxd.pool.photographer import Photographer
from ephemeral_sandboxd.pool.sandbox import PooledSandbox
from ephemeral_sandboxd.pool.sessions import Build, Session
from ephemeral_sandboxd.pool.stock import Stock, Stocks
from ephemeral_sandboxd.pool.worth import imports_ms, of_plan
from ephemeral_sandboxd.runtimes import Gone, Size

log = logging.getLogger(__name__)

SWAP_MS = 100.0
"""What it takes to delete an unused sandbox for which a restored one is swapped."""
SNAPSHOT_PAYS_MS = 150.0
"""Imports that took longer are worth a snapshot for the next session that wants the same."""


class Preparer:
    """Fulfils plans, and leaves what would serve the next session better as work for quiet times."""

    def __init__(self, fleet: Fleet, stocks: Stocks, photographer: Photographer, late: LateImports, notes: Notes, idle: IdleWork):
        self._fleet = fleet
        self._stocks = stocks
        self._late = late
        self._notes = notes
        self._photographer = photographer
        self._idle = idle
        self._prices = Prices.from_settings()
        self._tasks = Tasks()

    def plan(self, session: Session, plan: wire.Plan) -> wire.PlanRecord:
        """Take up a plan: it replaces the one before. Returns at once; the work goes on behind. Raises NotFound for a root that is none."""
        if plan.root and not session.executions and not (session.sandbox and session.sandbox.used):
            session.stock = self._stocks.get(plan.root)
        refused = {want.package: reason for want in plan.wants if (reason := session.stock.environments.check(want.package))}
        accepted = sorted({names.normalize(want.package) for want in plan.wants} - {names.normalize(name) for name in refused})
        nothing = plan.action == "nothing" or session.policy != "ours"  # the rivals do without prediction
        record = wire.PlanRecord(id=self._notes.next_plan_id(), session=session.id, plan=plan, accepted=accepted, refused=refused,
                                 outcome="nothing" if nothing else "building")
        self._notes.plan(record)
        if plan.action == "resize" and not nothing:
            self._tasks.start(self._resize_now(session, record), f"resize {session.id}")
            return record  # what is wanted, and what is being built of it, stays
        now = time.perf_counter()
        if plan.action == "provision":
            session.first_plan = session.first_plan or now
            for package in accepted:
                session.named.setdefault(package, now)
        if session.pending:
            self._outcome(session.pending, "superseded")
            session.pending = None
        session.record = record
        if not nothing:
            session.pending = record
            session.hurry.clear()
            if session.builder is None or session.builder.done():
                session.builder = self._tasks.start(self._build(session), f"build {session.id}")
        return record

    async def stop(self, session: Session) -> None:
        """No more building for this session."""
        session.pending = None
        if session.builder and not session.builder.done():
            session.builder.cancel()
            await asyncio.wait([session.builder])

    async def close(self) -> None:
        await self._tasks.cancel()

    # --------------------------------------------------------------------------------------------- one plan

    async def _build(self, session: Session) -> None:
        while session.pending:
            record, session.pending = session.pending, None
            try:
                async with session.lock:
                    await self._fulfil(session, record)
            except Declined as reason:
                self._outcome(record, "declined", error=str(reason))
            except (SandboxdError, Gone, OSError, IndexError) as problem:
                log.warning("plan %s of session %s: %s", record.id, session.id, problem)
                self._outcome(record, "failed", error=str(problem)[:500])
            await self._leave_at_rest(session)

    async def _leave_at_rest(self, session: Session) -> None:
        """What a plan that failed, or one that a newer one ended, has left half ready is of use as it is."""
        async with session.lock:
            sandbox = session.sandbox
            if sandbox and sandbox.alive and sandbox.state == "preparing" and not session.pending:
                with contextlib.suppress(Gone):
                    await self._rest(session, sandbox)

    async def _fulfil(self, session: Session, record: wire.PlanRecord) -> None:
        plan = record.plan
        if plan.action == "release":
            if session.sandbox:
                self._fleet.give_back(session.sandbox)
                session.lose("the sandbox was given back because no more code was expected")
                note(self._notes, session.id, "released", "the plan gave the sandbox back")
            return self._outcome(record, "released")
        if await self.provision(session, record):
            return self._outcome(record, "ready")
        return self._outcome(record, "superseded" if session.pending else "unchanged")

    async def provision(self, session: Session, record: wire.PlanRecord) -> bool:
        """Make the session's sandbox what the plan wants. False when nothing had to be done, or something newer came.

        What has to be fetched is fetched while what is there is imported, unless it replaces what is there.
        """
        plan = record.plan
        no_more = {names.normalize(want.package) for want in plan.wants if want.decision == "available"}
        modules = list(plan.modules) or [module for package in record.accepted if package not in no_more for module in names.modules_for(package)]
        wanted = needs.canonical(modules)
        versions = {names.normalize(want.package): want.version for want in plan.wants}
        packages = {package: versions.get(package) for package in record.accepted}
        lacking = self.lacking(session, packages)
        replaces = self.replacing(session, packages)
        fetch = asyncio.get_running_loop().create_task(session.stock.environments.prepare(lacking)) if lacking else None
        try:
            environments = session.stock.base
            if fetch:
                # A resolution that is cached answers at once, and then a snapshot of this very environment may exist.
                await asyncio.wait([fetch], timeout=0.05)
                if fetch.done() and not fetch.exception():
                    environments = [*environments, fetch.result().environment.id]
                    replaces = fetch.result().replaces_base
            changed = await self._stand_up(session, plan, record, wanted, environments, replaces)
            assert session.sandbox is not None
            before = session.sandbox.by_hand_ms
            if fetch:
                if not replaces and not fetch.done():
                    there = _provided(wanted, {requirement.partition("==")[0] for requirement in lacking})
                    changed = await self._import(session, session.sandbox, there) or changed
                changed = await self._mount_when_fetched(session, record, wanted, fetch) or changed
        finally:
            if fetch and not fetch.done():
                fetch.cancel()
        return await self._finish(session, session.sandbox, wanted, modules, before) or changed

    def lacking(self, session: Session, packages: dict[str, str | None]) -> list[str]:
        """Requirements among ``packages`` that neither the base environment nor what is mounted provides."""
        stock, sandbox = session.stock, session.sandbox
        have = stock.environments.provided_by(sandbox.environments if sandbox else stock.base)
        return [needs.requirement(package, version) for package, version in sorted(packages.items())
                if package not in have or _other_version(stock, package, version)]

    def replacing(self, session: Session, packages: dict[str, str | None]) -> bool:
        """Whether other versions are wanted of packages that the base environment holds: nothing of the base may be imported before they are there."""
        return any(_other_version(session.stock, package, version) for package, version in packages.items())

    async def _stand_up(self, session: Session, plan: wire.Plan, record: wire.PlanRecord, wanted: list[str], environments: list[str], replaces: bool) -> bool:
        """Give the session a sandbox, or a better one as long as nothing has run in its own. ``replaces``: only what stands with all of the
        ``environments`` will do, or nothing imported."""
        sandbox = session.sandbox
        if sandbox and not sandbox.alive:
            self._fleet.give_back(sandbox)
            session.lose("the sandbox died")
            sandbox = None
        if sandbox and sandbox.stock is not session.stock and not sandbox.used:
            self._fleet.give_back(sandbox)  # the plan has found another root filesystem
            sandbox = session.sandbox = None
        began = time.perf_counter()
        costs = self._notes.costs()
        terms = Terms.ahead(costs, self._prices, plan.needs_code)
        fetched = set(environments) - set(session.stock.base)
        snapshots = [] if replaces and not fetched else session.stock.snapshots.all()
        if replaces:
            snapshots = [snapshot for snapshot in snapshots if fetched.issubset(snapshot.environments)]
        chosen = best(snapshots, wanted, environments, terms, self._fleet.admission.budget_bytes)
        stale = replaces and sandbox is not None and bool(sandbox.modules) and not sandbox.replaces_base(fetched)
        if sandbox and (sandbox.used or not (stale or _better(chosen, sandbox, wanted, terms))):
            if plan.memory_bytes or plan.cpus:
                self._resize(session, plan)
            return False
        worth = of_plan(plan, imports_ms(wanted, chosen, costs), expected_bytes(chosen), costs)
        fresh, how = await self._fleet.take(session.stock, chosen, size=self._size(plan), worth=worth)
        if fresh.state != "preparing":
            fresh.become("preparing")
        fresh.session = session.id
        if sandbox:
            self._fleet.give_back(sandbox)
        session.sandbox = fresh
        session.builds.append(Build(frozenset(record.accepted)))
        note(self._notes, session.id, how, f"{fresh.id}: {' '.join(sorted(fresh.modules)) or 'nothing imported yet'}",
             (time.perf_counter() - began) * 1000, {"sandbox": fresh.id, "modules": sorted(fresh.modules)})
        self._fleet.show(fresh)
        self._notes.session(session.wire())
        return True

    async def _mount_when_fetched(self, session: Session, record: wire.PlanRecord, wanted: list[str], fetch: asyncio.Task[Prepared]) -> bool:
        """Mount what had to be fetched; not waited for when code arrives that does not need it."""
        packages = frozenset(record.accepted)
        with Stopwatch(self._notes, session.id, "build", "packages: " + " ".join(sorted(packages))) as watch:
            hurried = asyncio.get_running_loop().create_task(session.hurry.wait())
            await asyncio.wait([fetch, hurried], return_when=asyncio.FIRST_COMPLETED)
            hurried.cancel()
            if not fetch.done() and not packages & session.hurry_packages:
                return False
            prepared = await fetch
            watch.data |= {"readiness": prepared.readiness, "fetch_ms": round(sum(prepared.stages.values()), 3)}
        if prepared.replaces_base:
            # What was imported of the base environment meanwhile is of another version than what came.
            await self._stand_up(session, record.plan, record, wanted, [*session.stock.base, prepared.environment.id], True)
        assert session.sandbox is not None
        await self.mount(session, session.sandbox, prepared)
        session.builds.append(Build(frozenset(names.normalize(name.partition("==")[0]) for name in prepared.environment.requested)))
        return True

    async def mount(self, session: Session, sandbox: PooledSandbox, prepared: Prepared) -> None:
        """One bind mount, whatever its size; then the guest looks again. Raises runtimes.Gone, IndexError, OSError."""
        self.bind(session, sandbox, prepared)
        await sandbox.look()

    def bind(self, session: Session, sandbox: PooledSandbox, prepared: Prepared) -> None:
        """The mount alone, for a guest that is told of it otherwise. Raises IndexError, OSError."""
        self._notes.environment(prepared.environment)
        if not prepared.environment.compiled:
            self._idle.add(f"byte-compile {session.stock.name}", session.stock.environments.compile_pending)
        with Stopwatch(self._notes, session.id, "mount", " ".join(prepared.environment.requested), sandbox=sandbox.id):
            sandbox.mount(prepared.environment.id, first=prepared.replaces_base)

    async def _finish(self, session: Session, sandbox: PooledSandbox, wanted: list[str], modules: list[str], by_hand_ms: float) -> bool:
        """Import what is still to be imported, and have the sandbox at rest. ``by_hand_ms``: what imports had taken in it before this plan."""
        if not await self._import(session, sandbox, wanted, [*modules, *self._late.usual(wanted)]) and sandbox.state != "preparing":
            return False
        if session.pending:
            # Its state stays `preparing`; the newer plan goes on from here.
            return True
        await self._rest(session, sandbox)
        if sandbox.by_hand_ms - by_hand_ms > SNAPSHOT_PAYS_MS and not any(module in sandbox.broken for module in wanted):
            stock, environments, firsts = sandbox.stock, sandbox.environments, [mounted.first for mounted in sandbox.mounted]
            self._idle.add(f"snapshot of {' '.join(wanted)} on {stock.name}", lambda: self._photographer.take_if_missing(stock, wanted, environments, firsts))
        return True

    async def _import(self, session: Session, sandbox: PooledSandbox, wanted: list[str], rest: Sequence[str] = ()) -> bool:
        """Import ahead, module by module: a newer plan or arriving code is noticed between two of them. False when all of it is there already."""
        todo = [module for module in dict.fromkeys((*wanted, *rest)) if module not in sandbox.modules and module not in sandbox.broken]
        if not todo:
            return False
        _must_stand(sandbox)
        if sandbox.state != "preparing":
            sandbox.become("preparing")
        for module in todo:
            if session.pending or (session.hurry.is_set() and module.partition(".")[0] not in session.hurry_modules):
                continue
            with Stopwatch(self._notes, session.id, "preload", module, sandbox=sandbox.id) as watch:
                held = sandbox.held_bytes() if module in wanted else None
                await sandbox.preload(module)
                if not session.hurry.is_set() and not session.pending:
                    await sandbox.rehearse(module)
                if module in sandbox.broken:
                    watch.data["failed"] = "import"
                elif held is not None and (now := sandbox.held_bytes()) is not None:
                    watch.data["memory_bytes"] = max(0, now - held)
        return True

    async def _rest(self, session: Session, sandbox: PooledSandbox) -> None:
        await connect(session, sandbox, self._notes)
        if not session.hurry.is_set():
            await bring_to_rest(sandbox)
        _must_stand(sandbox)
        sandbox.become("ready")
        note(self._notes, session.id, "ready", f"{sandbox.id}: {' '.join(needs.canonical(sandbox.modules)) or 'nothing imported'}",
             data={"sandbox": sandbox.id, "modules": sorted(sandbox.modules)})
        if sandbox.box.frozen:
            note(self._notes, session.id, "frozen", sandbox.id, data={"sandbox": sandbox.id})
        self._fleet.show(sandbox)

    # --------------------------------------------------------------------------------------------- sizes and ends

    def _size(self, plan: wire.Plan) -> Size:
        size = self._fleet.default_size
        return replace(size, memory_bytes=plan.memory_bytes or size.memory_bytes, cpus=plan.cpus or size.cpus,
                       disk_bytes=plan.disk_bytes or size.disk_bytes)

    async def _resize_now(self, session: Session, record: wire.PlanRecord) -> None:
        """The sandbox that stands, whatever runs in it; else the one that is being started."""
        if session.sandbox is None:
            async with session.lock:
                pass
        try:
            self._resize(session, record.plan)
        except OSError as problem:
            self._outcome(record, "failed", error=str(problem)[:500])
        else:
            self._outcome(record, "ready")

    def _resize(self, session: Session, plan: wire.Plan) -> None:
        if session.sandbox and session.sandbox.alive:
            now = session.sandbox.box.size
            size = replace(now, memory_bytes=plan.memory_bytes or now.memory_bytes, cpus=plan.cpus or now.cpus)
            if size != now:
                session.sandbox.box.resize(size)
                note(self._notes, session.id, "resize", f"{size.memory_bytes >> 20} MiB, {size.cpus:g} CPUs")
                self._fleet.show(session.sandbox)

    def _outcome(self, record: wire.PlanRecord, outcome: str, error: str = "") -> None:
        self._notes.plan(record.model_copy(update={"outcome": outcome, "error": error, "ready_at": time.time() if outcome == "ready" else None}))


def _better(chosen: wire.Snapshot | None, sandbox: PooledSandbox, wanted: list[str], terms: Terms) -> bool:
    """Whether starting from ``chosen`` costs less than what ``sandbox`` still lacks."""
    if chosen is None or all(module in sandbox.modules or module in sandbox.broken for module in wanted):
        return False
    standing = cost_standing(wanted, {*sandbox.modules, *sandbox.broken}, sandbox.memory_bytes, terms)
    return standing - cost(wanted, chosen, terms) > SWAP_MS * terms.per_ms


def _other_version(stock: Stock, package: str, version: str | None) -> bool:
    base = stock.environments.base
    return bool(version and base and base.packages.get(package, version) != version)


def _provided(modules: list[str], fetched: set[str]) -> list[str]:
    """Those of ``modules`` that no package of ``fetched`` brings."""
    return [module for module in modules if names.normalize(names.package_for(module.partition(".")[0]) or module) not in fetched]


def _must_stand(sandbox: PooledSandbox) -> None:
    """Raises Gone for one that was given back or died while it was made ready."""
    if not sandbox.alive:
        raise Gone("killed", f"{sandbox.id} was deleted while it was made ready")
