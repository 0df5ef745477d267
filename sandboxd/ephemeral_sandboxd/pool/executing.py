"""From code to its result: whose it is, what it lacks, the run, and the honest account of every millisecond."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from ephemeral import names, settings, wire
from ephemeral.costs import Prices
from ephemeral_sandboxd.errors import BadRequest, Busy, NotFound, Refused, SandboxdError, Unavailable
from ephemeral_sandboxd.pool import needs
from ephemeral_sandboxd.pool.choosing import Terms, best
from ephemeral_sandboxd.pool.connecting import connect
from ephemeral_sandboxd.pool.fleet import Fleet
from ephemeral_sandboxd.pool.late import LateImports
from ephemeral_sandboxd.pool.needs import Needs
from ephemeral_sandboxd.pool.notes import Notes, Stopwatch, note
from ephemeral_sandboxd.pool.preparing import Preparer
from ephemeral_sandboxd.pool.rivals import Rivals
from ephemeral_sandboxd.pool.sandbox import PooledSandbox
from ephemeral_sandboxd.pool.sessions import Session, Sessions
from ephemeral_sandboxd.runtimes import Answer, Gone

log = logging.getLogger(__name__)

Tell = Callable[[wire.Piece], None]
"""Called on the event loop with everything that happens to an execution, as it happens. Must not block or raise."""

FREEZE_AFTER_SECONDS = 0.5
"""A sandbox that just ran something is likely to be asked again: frozen only after this."""
EXPECTED_WITHIN_SECONDS = 3.0
"""Code that was complete in the stream and has not arrived by then is not coming: its sandbox is frozen again."""


@dataclass
class _Account:
    """One execution while it is under way: its clocks and what had to be done for it."""

    request: wire.ExecutionRequest
    arrived: float
    created_at: float = field(default_factory=time.time)
    created: float = field(default_factory=time.perf_counter)
    """The same moment on the clock of ``arrived``, which may be earlier by what the caller took."""
    id: str = field(default_factory=lambda: f"e{secrets.token_hex(6)}")
    stages: dict[str, float] = field(default_factory=dict)
    found_by: Literal["session", "digest", "sandbox", "none"] = "none"
    sandbox: PooledSandbox | None = None
    needs: Needs = field(default_factory=lambda: Needs(frozenset(), {}))
    stood: bool = False
    """A sandbox of this session (or a spare) stood ready when the code came."""
    lived: bool = False
    """The session had a sandbox then, ready or not."""
    loaded: bool = False
    """All third-party modules of the code were imported in it by then."""
    restored: bool = False
    missing: list[str] = field(default_factory=list)
    readiness: Literal["environment", "wheels", "cold"] = "environment"
    sent: float = 0.0
    tell: Tell | None = None
    session: Session | None = None
    notice: str | None = None

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.request.code.encode("utf-8", "replace")).hexdigest()

    def say(self, kind: str, text: str = "", **fields: Any) -> None:
        if self.tell:
            self.tell(wire.Piece.model_validate({"kind": kind, "text": text, **fields}))

    def progress(self, what: str, done: int, total: int) -> None:
        """As environments report it: bytes of a download, wheels of a compilation."""
        self.say("preparing", what, done=done, total=total)

    def hear(self, kind: str, value: Any) -> None:
        """As the box reports it while the code runs."""
        if kind == "output":
            self.say("output", output=value)
        else:
            self.say(kind, value or "")

    def add(self, stage: str, began: float) -> None:
        self.stages[stage] = self.stages.get(stage, 0.0) + (time.perf_counter() - began) * 1000

    def tier(self) -> wire.Tier:
        """Which readiness served it, read off what had to be done after the code came."""
        if self.missing:
            return "partial" if self.lived else self.readiness
        if self.stood and self.loaded:
            return "live"
        return "snapshot" if self.restored and self.loaded else "environment"


class Executor:
    """Runs code for sessions. One execution at a time in a session; the next waits its turn."""

    def __init__(self, sessions: Sessions, fleet: Fleet, preparer: Preparer, rivals: Rivals, late: LateImports, notes: Notes):
        self._sessions = sessions
        self._fleet = fleet
        self._preparer = preparer
        self._rivals = rivals
        self._late = late
        self._notes = notes
        self._prices = Prices.from_settings()
        self._running: dict[str, _Account] = {}

    @property
    def under_way(self) -> int:
        return len(self._running)

    async def execute(self, request: wire.ExecutionRequest, arrived: float, tell: Tell | None = None) -> wire.Execution:
        """Run ``request.code``; ``arrived`` is time.perf_counter() at the request's first byte. ``tell`` hears everything as it happens.

        A death, a refusal or a failing install is a verdict, not an exception; raises errors.Busy when there is no memory, NotFound for a
        session's root filesystem that is gone.
        """
        account = _Account(request, arrived - request.elapsed_ms / 1000, tell=tell)
        self._running[account.id] = account
        try:
            session = await self._find(account)
            session.executions += 1
            account.session = session
            account.say("accepted", execution=self._so_far(account, "preparing"))
            note(self._notes, session.id, "code_arrived", data={"execution": account.id, "chars": len(request.code)})
            account.needs = needs.of_code(request.code, request.packages) if request.language == "python" else Needs(frozenset(), {})
            execution = await self._run_in(session, account)
            session.touch()
            self._notes.session(session.wire())
            self._notes.execution(execution)
            account.say("done", execution=execution)
            return execution
        finally:
            del self._running[account.id]

    async def interrupt(self, execution_id: str) -> None:
        """Stop the code where it is; the session's variables survive. Raises errors.NotFound when nothing of that id runs."""
        account = self._under_way(execution_id)
        if not account.sandbox or not await account.sandbox.box.interrupt():
            raise NotFound("not running", f"execution {execution_id} has not begun, or is over", "GET /v1/executions/{id} says which")

    def feed(self, execution_id: str, feed: wire.Feed) -> None:
        """More standard input for an interactive execution. Raises errors.NotFound, BadRequest for one that is not interactive, Busy when it
        does not read."""
        account = self._under_way(execution_id)
        if not account.request.interactive:
            raise BadRequest("not interactive", f"execution {execution_id} was not asked to read from here", "set interactive: true when you start it")
        if not account.sandbox or not account.sent:
            raise NotFound("not running", f"execution {execution_id} has not begun", "feed it after its `started`")
        if not account.sandbox.box.feed(feed.text, feed.close):
            raise Busy("not read yet", f"execution {execution_id} has not taken its input", "feed it when it has read what it was given")

    def _under_way(self, execution_id: str) -> _Account:
        if execution_id not in self._running:
            raise NotFound("no such execution under way", f"nothing called {execution_id} runs now", "GET /v1/executions lists what ran")
        return self._running[execution_id]

    @contextlib.asynccontextmanager
    async def sandbox_of(self, session_id: str) -> AsyncIterator[PooledSandbox]:
        """The session's sandbox for what is no execution, stood up if there is none; nobody else uses it meanwhile. Raises SandboxdError."""
        session = self._sessions.open(session_id)
        account = _Account(wire.ExecutionRequest(code=""), time.perf_counter())
        async with self._turn(session):
            sandbox = await self._sandbox(session, account)
            sandbox.become("running")
            try:
                yield sandbox
            except Gone as gone:
                raise Unavailable("sandbox lost", gone.reason, "try again: the session gets a new one") from gone
            finally:
                if sandbox.alive:
                    sandbox.become("ready")
                    asyncio.get_running_loop().call_later(FREEZE_AFTER_SECONDS, self._rest, sandbox)
                session.touch()

    @contextlib.asynccontextmanager
    async def _turn(self, session: Session) -> AsyncIterator[None]:
        """Work on the session's sandbox. A session that ends meanwhile leaves none behind, whoever has just started one for it."""
        async with session.lock:
            try:
                yield
            finally:
                if session.ended_at is not None and session.sandbox:
                    self._fleet.give_back(session.sandbox)

    async def expect(self, session: Session) -> None:
        """The session's code is complete in the stream and on its way here: have its sandbox awake when it comes."""
        sandbox = session.sandbox
        if sandbox and sandbox.alive and sandbox.state == "ready" and not session.lock.locked():
            with contextlib.suppress(Gone):  # who comes to use it notices
                await sandbox.box.request("wake")
            loop = asyncio.get_running_loop()
            sandbox.awake_until = loop.time() + EXPECTED_WITHIN_SECONDS
            loop.call_at(sandbox.awake_until, self._rest, sandbox)

    async def _find(self, account: _Account) -> Session:
        began = time.perf_counter()
        request = account.request
        session = None
        if request.session:
            session, account.found_by = self._sessions.open(request.session), "session"
        elif session := await self._sessions.by_digest(account.digest):
            account.found_by = "digest"
        elif request.sandbox and (session := self._sessions.by_sandbox(request.sandbox)):
            account.found_by = "sandbox"
        session = session or self._sessions.open(None, app=request.source)
        account.add("find_session_ms", began)
        return session

    async def _run_in(self, session: Session, account: _Account) -> wire.Execution:
        began = time.perf_counter()
        sandbox = session.sandbox
        account.stood = bool(sandbox and sandbox.alive and sandbox.state in ("ready", "running"))
        account.loaded = account.stood and self._loaded(session, account)
        account.lived = bool(sandbox and sandbox.alive)
        if session.policy not in ("none", "cached"):
            # Now, not when the repair begins: a plan a moment ahead of the code may be adding it already.
            account.missing = _names(self._preparer.lacking(session, account.needs.packages))
        session.hasten(account.needs.packages, account.needs.modules)
        async with self._turn(session):
            account.add("queue_ms", began)
            try:
                sandbox = account.sandbox = await self._sandbox(session, account)
                await self._repair(session, sandbox, account)
                await connect(session, sandbox, self._notes)
            except (SandboxdError, Gone, OSError, IndexError) as problem:
                if isinstance(problem, SandboxdError) and problem.status == 429:
                    raise
                return self._refusal(session, account, problem)
            session.pay(account.needs.packages)
            account.notice, session.lost = session.lost, None
            sandbox.become("running")
            self._fleet.show(sandbox)
            answer = await self._send(session, sandbox, account)
            return await self._conclude(session, sandbox, account, answer)

    def _loaded(self, session: Session, account: _Account) -> bool:
        return session.sandbox is not None and all(session.sandbox.imported(module) for module in account.needs.modules)

    async def _sandbox(self, session: Session, account: _Account) -> PooledSandbox:
        """The session's sandbox, or one now. Raises NotFound for a session that ended while this waited, and what Fleet.take() raises."""
        _still_there(session)
        sandbox = session.sandbox
        if sandbox and not sandbox.alive:
            self._fleet.give_back(sandbox)
            session.lose("the sandbox died")
            sandbox = None
        if sandbox is None:
            began = time.perf_counter()
            if session.policy in ("none", "cached"):
                sandbox, how = await self._rivals.fresh(), "boot"
            else:
                sandbox, how = await self._fleet.take(session.stock, self._start(session, account))
            if sandbox.state != "preparing":
                sandbox.become("preparing")
            sandbox.session = session.id
            session.sandbox = sandbox
            _still_there(session)
            account.stood = how == "spare"
            account.restored = how == "restore"
            account.add({"restore": "restore_ms", "boot": "boot_ms", "spare": "thaw_ms"}[how], began)
            account.loaded = self._loaded(session, account)
            note(self._notes, session.id, how, sandbox.id, (time.perf_counter() - began) * 1000, {"sandbox": sandbox.id})
        elif not account.stood:
            # It was being made ready when the code came: what it came from says which tier it is.
            account.restored = sandbox.started_from != "boot"
            account.loaded = self._loaded(session, account)
        if sandbox.state == "preparing":
            sandbox.become("ready")
        return sandbox

    def _start(self, session: Session, account: _Account) -> wire.Snapshot | None:
        """The snapshot from which the code runs soonest. None for code that wants other versions than a snapshot has."""
        stock = session.stock
        if self._preparer.replacing(session, account.needs.packages):
            return None
        terms = Terms.urgent(self._notes.costs(), self._prices)
        return best(stock.snapshots.all(), needs.canonical(account.needs.modules), stock.base, terms, self._fleet.admission.budget_bytes)

    async def _repair(self, session: Session, sandbox: PooledSandbox, account: _Account) -> None:
        """Add what is missing, and only that. Raises errors.Refused naming the rule."""
        if session.policy in ("none", "cached"):
            permitted = sorted(package for package in account.needs.packages if not session.stock.environments.check(package))
            if permitted:
                account.readiness = "cold" if session.policy == "none" else "wheels"
                account.missing = permitted
                account.stages.update(await self._rivals.install(sandbox, permitted, cached=session.policy == "cached"))
            return
        lacking = self._preparer.lacking(session, account.needs.packages)
        if not lacking:
            return
        explicit = {names.normalize(package) for package in account.request.packages}
        allowed = []
        for requirement in lacking:
            name = requirement.partition("==")[0]
            reason = session.stock.environments.check(requirement)
            if reason and name in explicit:
                raise Refused("package refused", f"{name}: {reason}", "set EPHEMERAL_ALLOW to allow it")
            if not reason:  # an import that policy refuses fails as any missing module does: the code may be prepared for it
                allowed.append(requirement)
        if not allowed:
            return
        with Stopwatch(self._notes, session.id, "repair", " ".join(allowed)):
            account.say("preparing", " ".join(allowed))
            prepared = await session.stock.environments.prepare(allowed, account.progress)
            account.readiness = prepared.readiness
            account.stages.update(prepared.stages)
            began = time.perf_counter()
            await self._preparer.mount(session, sandbox, prepared)
            account.add("compose_ms", began)

    async def _need(self, session: Session, sandbox: PooledSandbox, account: _Account, module: str) -> dict[str, list[str]] | None:
        """The running code imports a module that nothing announced: add it now, under the running sandbox. None when it cannot be had.

        The code waits inside its import, so that the import clock counts this as part of the wait.
        """
        package = names.package_for(module)
        if package is None or session.policy in ("none", "cached") or session.stock.environments.check(package) or sandbox.full:
            return None
        package = names.normalize(package)
        account.needs.packages.setdefault(package, None)
        account.missing = sorted({*account.missing, package})
        try:
            with Stopwatch(self._notes, session.id, "repair", package, sandbox=sandbox.id):
                prepared = await session.stock.environments.prepare([package])
                self._preparer.bind(session, sandbox, prepared)
        except (SandboxdError, OSError, IndexError) as problem:
            log.warning("session %s needs %s: %s", session.id, package, problem)
            return None
        for stage, took in prepared.stages.items():
            account.stages[stage] = account.stages.get(stage, 0.0) + took
        slots, first = sandbox.search_paths()
        return {"slots": slots, "first": first}

    async def _install(self, session: Session, sandbox: PooledSandbox, account: _Account, requirements: list[str]) -> dict[str, Any]:
        """The running code asks for packages (``%pip``, ``!pip``): the same door, the same policy. What it is told is ``text``."""
        if session.policy in ("none", "cached"):
            return {"ok": False, "text": "packages come with the code in this session: name them in the request"}
        environments = session.stock.environments
        if refusals := [reason for requirement in requirements if (reason := environments.check(requirement))]:
            return {"ok": False, "text": "\n".join(refusals)}
        if sandbox.full:
            return {"ok": False, "text": "this sandbox holds as many environments as it can: end the session and start a new one"}
        account.needs.packages.update({names.normalize(requirement.partition("==")[0]): requirement.partition("==")[2] or None for requirement in requirements})
        lacking = self._preparer.lacking(session, {package: account.needs.packages[package] for package in
                                                   (names.normalize(requirement.partition("==")[0]) for requirement in requirements)})
        if lacking:
            account.missing = sorted({*account.missing, *_names(lacking)})
            try:
                with Stopwatch(self._notes, session.id, "repair", " ".join(lacking), sandbox=sandbox.id):
                    prepared = await environments.prepare(lacking, account.progress)
                    self._preparer.bind(session, sandbox, prepared)
            except (SandboxdError, OSError, IndexError) as problem:
                return {"ok": False, "text": f"{problem.detail}: {problem.hint}" if isinstance(problem, SandboxdError) else str(problem)}
        slots, first = sandbox.search_paths()
        have = " ".join(sorted(requirements))
        return {"ok": True, "text": f"Installed: {have}" if lacking else f"Already there: {have}", "slots": slots, "first": first}

    async def _send(self, session: Session, sandbox: PooledSandbox, account: _Account) -> Answer:
        request = account.request
        began = time.perf_counter()

        def sent() -> None:
            account.add("thaw_ms", began)
            account.sent = time.perf_counter()
            # Only now that the guest has it: should this process die, the record says what was running.
            self._notes.execution(self._so_far(account, "running"))

        slots, first = sandbox.search_paths()
        sandbox.executions += 1
        return await sandbox.box.execute(
            request.code, language=request.language, timeout=_time_limit(session, request),
            output_bytes=settings.get("output_bytes"), slots=slots, first=first, on_sent=sent,
            stdin=request.stdin, interactive=request.interactive, one_shot=request.one_shot,
            on_need=lambda module: self._need(session, sandbox, account, module),
            on_install=lambda requirements: self._install(session, sandbox, account, requirements),
            on_event=account.hear if account.tell else None)

    async def _conclude(self, session: Session, sandbox: PooledSandbox, account: _Account, answer: Answer) -> wire.Execution:
        """The record of what happened; the sandbox goes back to rest, or away."""
        fields = answer.fields
        import_ms = _milliseconds(fields.get("import_ms"))
        started = answer.started or answer.ended
        account.stages["dispatch_ms"] = (started - account.sent) * 1000 if account.sent else 0.0
        account.stages["import_ms"] = import_ms
        account.stages["transport_ms"] = account.request.elapsed_ms
        late = [str(module)[:200] for module in fields.get("late") or []][:3000]
        traceback = str(fields["traceback"])[:200_000] if fields.get("traceback") else None
        error = None
        verdict: wire.Verdict
        if answer.gone:
            verdict, error = answer.gone.verdict, f"{answer.gone.reason}. Variables of earlier calls are gone."
        elif answer.interrupted == "asked":
            verdict, error = "interrupted", "it was interrupted; the session's variables are as it left them"
        elif answer.interrupted:
            verdict = "timeout"
            error = f"the code ran longer than {_time_limit(session, account.request):g} s and was interrupted: make it shorter, or ask for more time"
        else:
            verdict = "error" if traceback else "ok"
        execution = self._so_far(account, "done").model_copy(update={
            "verdict": verdict, "tier": account.tier(),
            "started_at": account.created_at + (started - account.created), "ended_at": time.time(),
            "wait_ms": (started - account.arrived) * 1000 + import_ms,
            "run_ms": max(0.0, _milliseconds(fields.get("run_ms")) - import_ms) if fields else (answer.ended - started) * 1000,
            "lead_ms": session.lead_ms(account.needs.packages, account.arrived), "notice": account.notice, "late_imports": late, "stdout": "".join(answer.stdout), "stderr": "".join(answer.stderr),
            "result": str(fields["result"])[:1_000_000] if fields.get("result") is not None else None, "traceback": traceback,
            "outputs": [wire.Output(**output) for output in answer.outputs], "truncated_bytes": int(_milliseconds(fields.get("dropped"))),
            "error": error, "peak_memory_bytes": answer.peak_bytes, "cpu_ms": answer.cpu_ms})
        note(self._notes, session.id, "execution", verdict, (answer.ended - started) * 1000,
             {"execution": account.id, "tier": execution.tier, "wait_ms": execution.wait_ms, "run_ms": execution.run_ms})
        if sandbox.alive:
            sandbox.become("ready")
            for module in account.needs.modules:
                sandbox.modules.setdefault(module, 0.0)
            self._late.learn(session.id, account.needs.modules, late)
            asyncio.get_running_loop().call_later(FREEZE_AFTER_SECONDS, self._rest, sandbox)
        else:
            sandbox.lost()
            self._fleet.give_back(sandbox)
            if answer.gone:
                session.sandbox = None  # the record of this very execution says so
            else:
                session.lose("the sandbox died")
        self._fleet.show(sandbox)
        return execution

    def _rest(self, sandbox: PooledSandbox) -> None:
        if sandbox.state != "ready" or asyncio.get_running_loop().time() < sandbox.awake_until:
            return
        if sandbox.network and sandbox.network.busy:
            asyncio.get_running_loop().call_later(FREEZE_AFTER_SECONDS, self._rest, sandbox)
        else:
            sandbox.box.freeze()

    def _refusal(self, session: Session, account: _Account, problem: Exception) -> wire.Execution:
        """The code did not run: why, and what to do."""
        if isinstance(problem, Gone):
            problem = Unavailable("sandbox lost", problem.reason, "run it again")
        reason = f"{problem.detail}: {problem.hint}" if isinstance(problem, SandboxdError) else str(problem)
        if session.sandbox and not session.sandbox.alive:
            session.sandbox.lost()
            self._fleet.give_back(session.sandbox)
            session.lose("the sandbox died")
        elif session.sandbox:
            asyncio.get_running_loop().call_later(FREEZE_AFTER_SECONDS, self._rest, session.sandbox)
        return self._so_far(account, "done").model_copy(update={"verdict": "refused", "ended_at": time.time(), "error": reason})

    def _so_far(self, account: _Account, state: wire.ExecutionState) -> wire.Execution:
        """What is known of an execution now."""
        session, request = account.session, account.request
        assert session
        return wire.Execution(
            id=account.id, session=session.id, sandbox=account.sandbox.id if account.sandbox else None, source=request.source,
            language=request.language, state=state, found_by=account.found_by, created_at=account.created_at,
            stages=wire.Stages.model_validate(account.stages), predicted=session.record.accepted if session.record else [],
            needed=sorted(account.needs.packages), missing=account.missing, code_sha256=account.digest, code=request.code)


def _still_there(session: Session) -> None:
    if session.ended_at is not None:
        raise NotFound("session ended", f"session {session.id} ended before this had its turn", "send it again: that opens the session anew")


def _time_limit(session: Session, request: wire.ExecutionRequest) -> float:
    """Seconds: what the request says, else its session's plan, else the setting."""
    planned = session.record.plan.timeout_seconds if session.record else None
    return request.timeout_seconds or planned or settings.get("timeout_seconds")


def _names(requirements: list[str]) -> list[str]:
    return sorted(requirement.partition("==")[0] for requirement in requirements)


def _milliseconds(value: object) -> float:
    """A number the guest reported, believed only to be a number."""
    return float(value) if isinstance(value, (int, float)) and 0 <= value < 1e12 else 0.0
