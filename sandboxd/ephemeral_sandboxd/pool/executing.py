"""From code to its result: whose it is, what it lacks, the run, and the honest account of every millisecond."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
import time
from dataclasses import dataclass, field
from typing import Literal

from ephemeral import names, settings, wire
from ephemeral_sandboxd.environments import Environments
from ephemeral_sandboxd.errors import Refused, SandboxdError, Unavailable
from ephemeral_sandboxd.pool import needs
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

    def __init__(self, sessions: Sessions, fleet: Fleet, environments: Environments, preparer: Preparer, rivals: Rivals,
                 late: LateImports, notes: Notes):
        self._sessions = sessions
        self._fleet = fleet
        self._environments = environments
        self._preparer = preparer
        self._rivals = rivals
        self._late = late
        self._notes = notes
        self.under_way = 0

    async def execute(self, request: wire.ExecutionRequest, arrived: float) -> wire.Execution:
        """Run ``request.code``; ``arrived`` is time.perf_counter() at the request's first byte.

        A death, a refusal or a failing install is a verdict, not an exception; raises errors.Busy when there is no memory.
        """
        account = _Account(request, arrived - request.elapsed_ms / 1000)
        self.under_way += 1
        try:
            session = await self._find(account)
            session.executions += 1
            note(self._notes, session.id, "code_arrived", data={"execution": account.id, "chars": len(request.code)})
            account.needs = needs.of_code(request.code, request.packages) if request.language == "python" else Needs(frozenset(), {})
            execution = await self._run_in(session, account)
            session.touch()
            self._notes.session(session.wire())
            self._notes.execution(execution)
            return execution
        finally:
            self.under_way -= 1

    async def expect(self, session: Session) -> None:
        """The session's code is complete in the stream and on its way here: have its sandbox awake when it comes."""
        sandbox = session.sandbox
        if sandbox and sandbox.alive and sandbox.state == "ready" and not session.lock.locked():
            with contextlib.suppress(Gone):  # who comes to use it notices
                await sandbox.box.request("wake")
            asyncio.get_running_loop().call_later(EXPECTED_WITHIN_SECONDS, self._rest, sandbox)

    async def _find(self, account: _Account) -> Session:
        began = time.perf_counter()
        request = account.request
        session = None
        if request.session:
            session, account.found_by = self._sessions.open(request.session), "session"
        elif session := await self._sessions.by_digest(hashlib.sha256(request.code.encode("utf-8", "replace")).hexdigest()):
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
            account.missing = _names(self._preparer.lacking(sandbox, account.needs.packages))
        session.hasten(account.needs.packages, account.needs.modules)
        async with session.lock:
            account.add("queue_ms", began)
            try:
                sandbox = account.sandbox = await self._sandbox(session, account)
                await self._repair(session, sandbox, account)
            except (SandboxdError, Gone, OSError, IndexError) as problem:
                if isinstance(problem, SandboxdError) and problem.status == 429:
                    raise
                return self._refusal(session, account, problem)
            session.pay(account.needs.packages)
            sandbox.become("running")
            self._fleet.show(sandbox)
            answer = await self._send(session, sandbox, account)
            return await self._conclude(session, sandbox, account, answer)

    def _loaded(self, session: Session, account: _Account) -> bool:
        return session.sandbox is not None and all(session.sandbox.imported(module) for module in account.needs.modules)

    async def _sandbox(self, session: Session, account: _Account) -> PooledSandbox:
        """The session's sandbox, or one now."""
        sandbox = session.sandbox
        if sandbox and not sandbox.alive:
            self._fleet.give_back(sandbox)
            sandbox = session.sandbox = None
        if sandbox is None:
            began = time.perf_counter()
            if session.policy in ("none", "cached"):
                sandbox, how = await self._rivals.fresh(), "boot"
            else:
                modules = needs.canonical(account.needs.modules)
                base = [self._environments.base.id] if self._environments.base else []
                sandbox, how = await self._fleet.take(modules, base)
            if sandbox.state != "preparing":
                sandbox.become("preparing")
            sandbox.session = session.id
            session.sandbox = sandbox
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

    async def _repair(self, session: Session, sandbox: PooledSandbox, account: _Account) -> None:
        """Add what is missing, and only that. Raises errors.Refused naming the rule."""
        if session.policy in ("none", "cached"):
            if account.needs.packages:
                account.readiness = "cold" if session.policy == "none" else "wheels"
                account.missing = sorted(account.needs.packages)
                account.stages.update(await self._rivals.install(sandbox, sorted(account.needs.packages), cached=session.policy == "cached"))
            return
        lacking = self._preparer.lacking(sandbox, account.needs.packages)
        if not lacking:
            return
        explicit = {package.lower() for package in account.request.packages}
        allowed = []
        for requirement in lacking:
            name = requirement.partition("==")[0]
            reason = self._environments.check(requirement)
            if reason and name in explicit:
                raise Refused("package refused", f"{name}: {reason}", "set EPHEMERAL_ALLOW to allow it")
            if not reason:  # an import that policy refuses fails as any missing module does: the code may be prepared for it
                allowed.append(requirement)
        if not allowed:
            return
        with Stopwatch(self._notes, session.id, "repair", " ".join(allowed)):
            prepared = await self._environments.prepare(allowed)
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
        if package is None or session.policy in ("none", "cached") or self._environments.check(package):
            return None
        package = names.normalize(package)
        account.needs.packages.setdefault(package, None)
        account.missing = sorted({*account.missing, package})
        try:
            with Stopwatch(self._notes, session.id, "repair", package, sandbox=sandbox.id):
                prepared = await self._environments.prepare([package])
                self._preparer.bind(session, sandbox, prepared)
        except (SandboxdError, OSError, IndexError) as problem:
            log.warning("session %s needs %s: %s", session.id, package, problem)
            return None
        for stage, took in prepared.stages.items():
            account.stages[stage] = account.stages.get(stage, 0.0) + took
        slots, first = sandbox.search_paths()
        return {"slots": slots, "first": first}

    async def _send(self, session: Session, sandbox: PooledSandbox, account: _Account) -> Answer:
        request = account.request
        began = time.perf_counter()

        def sent() -> None:
            account.add("thaw_ms", began)
            account.sent = time.perf_counter()

        slots, first = sandbox.search_paths()
        sandbox.executions += 1
        return await sandbox.box.execute(
            request.code, language=request.language, timeout=request.timeout_seconds or settings.get("timeout_seconds"),
            output_bytes=settings.get("output_bytes"), slots=slots, first=first, on_sent=sent,
            on_need=lambda module: self._need(session, sandbox, account, module))

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
        elif answer.interrupted:
            verdict = "timeout"
            error = f"the code ran longer than {account.request.timeout_seconds or settings.get('timeout_seconds'):g} s and was interrupted: make it shorter, or ask for more time"
        else:
            verdict = "error" if traceback else "ok"
        try:
            peak = sandbox.box.usage().peak_bytes
        except OSError:
            peak = None
        execution = wire.Execution(
            id=account.id, session=session.id, sandbox=sandbox.id, source=account.request.source, state="done", verdict=verdict,
            tier=account.tier(), found_by=account.found_by, created_at=account.created_at,
            started_at=account.created_at + (started - account.arrived), ended_at=time.time(),
            wait_ms=(started - account.arrived) * 1000 + import_ms,
            run_ms=max(0.0, _milliseconds(fields.get("run_ms")) - import_ms) if fields else (answer.ended - started) * 1000,
            lead_ms=session.lead_ms(account.needs.packages, account.arrived), stages=wire.Stages.model_validate(account.stages),
            predicted=session.record.accepted if session.record else [], needed=sorted(account.needs.packages), missing=account.missing,
            late_imports=late, stdout="".join(answer.stdout), stderr="".join(answer.stderr),
            result=str(fields["result"])[:1_000_000] if fields.get("result") is not None else None, traceback=traceback,
            outputs=[wire.Output(**output) for output in answer.outputs], truncated_bytes=int(_milliseconds(fields.get("dropped"))),
            error=error, peak_memory_bytes=peak, cpu_ms=_milliseconds(fields.get("cpu_ms")),
            code_sha256=hashlib.sha256(account.request.code.encode("utf-8", "replace")).hexdigest(), code=account.request.code)
        note(self._notes, session.id, "execution", verdict, (answer.ended - started) * 1000,
             {"execution": account.id, "tier": execution.tier, "wait_ms": execution.wait_ms, "run_ms": execution.run_ms})
        if sandbox.alive:
            sandbox.become("ready")
            for module in account.needs.modules:
                sandbox.modules.setdefault(module, 0.0)
            self._late.learn(session.id, account.needs.modules, late)
            asyncio.get_running_loop().call_later(FREEZE_AFTER_SECONDS, self._rest, sandbox)
        else:
            sandbox.become("lost")
            self._fleet.give_back(sandbox)
            session.sandbox = None
        self._fleet.show(sandbox)
        return execution

    def _rest(self, sandbox: PooledSandbox) -> None:
        if sandbox.state == "ready":
            sandbox.box.freeze()

    def _refusal(self, session: Session, account: _Account, problem: Exception) -> wire.Execution:
        """The code did not run: why, and what to do."""
        if isinstance(problem, Gone):
            problem = Unavailable("sandbox lost", problem.reason, "run it again")
        reason = f"{problem.detail}: {problem.hint}" if isinstance(problem, SandboxdError) else str(problem)
        if session.sandbox and not session.sandbox.alive:
            session.sandbox.become("lost")
            self._fleet.give_back(session.sandbox)
            session.sandbox = None
        return wire.Execution(
            id=account.id, session=session.id, source=account.request.source, state="done", verdict="refused",
            found_by=account.found_by, created_at=account.created_at, ended_at=time.time(), stages=wire.Stages.model_validate(account.stages),
            predicted=session.record.accepted if session.record else [], needed=sorted(account.needs.packages), missing=account.missing,
            error=reason, code_sha256=hashlib.sha256(account.request.code.encode("utf-8", "replace")).hexdigest(), code=account.request.code)


def _names(requirements: list[str]) -> list[str]:
    return sorted(requirement.partition("==")[0] for requirement in requirements)


def _milliseconds(value: object) -> float:
    """A number the guest reported, believed only to be a number."""
    return float(value) if isinstance(value, (int, float)) and 0 <= value < 1e12 else 0.0
