"""What happened in a session, in order, and what it was good for. No I/O: the ledger's records in, one JSON object out.

``{"session", "outcome", "packages", "plans", "executions", "timeline", "belief", "belief_missing"}``. Every ``at`` is in Unix seconds, every ``ms``
in milliseconds; ``after_ms`` counts from the session's first sign. It holds no text of the conversation, whatever was captured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ephemeral import names, wire
from ephemeral_cli.explain.fetching import Material

BUILDING = ("spare", "boot", "restore", "build", "mount", "preload", "snapshot")
"""Moments of work for a sandbox: before the code a bet, after it a wait."""
CONVERSATION = (
    "turn_started", "user_turn", "tool_declared", "assistant_text", "reasoning_text", "tool_call_started", "code", "code_done", "tool_result", "turn_ended",
)
_OURS = (*BUILDING, "repair", "ready", "frozen", "resize", "released", "network", "egress", "ended")
"""Moments whose detail sandboxd wrote: names and reasons. That of any other kind may be text of the conversation."""
_OF_K2 = ("k2_prompt", "k2_answer")
_TOLD_OF_K2 = ("outcome", "action", "packages", "sandboxes", "model", "tokens_read", "tokens_written", "cost")
_TOLD_OTHERWISE = ("plan", "code_arrived", "execution")  # moments of which there is a better record

Entry = dict[str, Any]


def tell(material: Material) -> Entry:
    """The whole story of one session."""
    session, executions = material.session, material.executions
    plan_times = _plan_times(material)
    steps = _Steps(material, plan_times)
    needed = {names.normalize(package) for execution in executions if execution.verdict != "refused" for package in execution.needed}

    plans = [_plan(record, plan_times[record.id], steps.of_plan(record.id), needed, session) for record in material.plans]
    runs = [_execution(execution, steps.of_execution(execution.id)) for execution in executions]
    story: Entry = {
        "session": session.model_dump(mode="json"),
        "outcome": _outcome(session, executions, plans, steps),
        "packages": list(_packages(material.plans, plan_times, executions, session)),
        "plans": plans,
        "executions": runs,
        "timeline": _timeline(material, plans, runs),
        "belief": material.belief,
        "belief_missing": material.belief_missing,
    }
    # What is noted when it was over began before: a step, and the code whose arrival opened the session.
    begin = min([session.started_at, *(entry["at"] for entry in story["timeline"])])
    for entry in (*plans, *runs, *story["packages"], *story["timeline"]):
        entry["after_ms"] = _rounded((entry["at"] - begin) * 1000) if entry["at"] is not None else None
    return story


# ----------------------------------------------------------------------------------------------------- plans and packages


def _plan_times(material: Material) -> dict[int, float]:
    """When each plan came, by sandboxd's clock where its timeline has it: the predictor's may be another machine's."""
    marked = {moment.data.get("plan"): moment.at for moment in material.moments if moment.kind == "plan"}
    return {record.id: marked.get(record.id) or record.plan.at or material.session.started_at for record in material.plans}


def _plan(record: wire.PlanRecord, at: float, steps: Sequence[wire.Moment], needed: set[str], session: wire.Session) -> Entry:
    plan = record.plan
    return {
        "id": record.id, "at": at, "proposer": plan.proposer, "action": plan.action, "needs_code": plan.needs_code,
        "wants": [want.model_dump(mode="json") for want in plan.wants],
        "modules": list(plan.modules), "memory_bytes": plan.memory_bytes, "cpus": plan.cpus,
        "accepted": record.accepted, "refused": record.refused, "outcome": record.outcome, "error": record.error,
        "saves_ms": _sum(want.saves_ms for want in plan.wants if want.decision == "import"),
        "costs_ms": _sum(want.costs_ms for want in plan.wants if want.decision == "import"),
        # Clocks of two machines may disagree: what would have been ready before it was planned says nothing.
        "ready_after_ms": _rounded((record.ready_at - at) * 1000) if record.ready_at and record.ready_at >= at else None,
        "built": _costs(steps), "built_ms": _milliseconds(steps),
        "used": sorted(package for package in record.accepted if names.normalize(package) in needed),
        "unused": sorted(package for package in record.accepted if names.normalize(package) not in needed) if session.state == "ended" else [],
    }  # fmt: skip


def _packages(records: Sequence[wire.PlanRecord], times: dict[int, float], executions: Sequence[wire.Execution], session: wire.Session) -> Iterator[Entry]:
    """The evidence: a row for each package that was wanted, by when it was first, then for those that nobody foresaw.

    ``fate``: ``used`` (code imported it: ``use`` tells which), ``unused`` (none did, and the session is over), ``open`` (none did so far),
    ``refused``, ``missed`` (code imported it, and no plan had named it). The dashboard judges alike (decisions/decisions.ts).
    """
    rows: dict[str, Entry] = {}
    uses: dict[str, Entry] = {}
    for execution in executions:
        if execution.verdict != "refused":
            for package in execution.needed:
                uses.setdefault(names.normalize(package), _use(package, execution))
    for record in records:
        for want in record.plan.wants:
            sign = {
                "at": times[record.id], "plan": record.id, "kind": want.evidence, "probability": want.probability, "proposer": want.proposer,
                "decision": want.decision, "saves_ms": _rounded(want.saves_ms), "costs_ms": _rounded(want.costs_ms),
            }  # fmt: skip
            row = rows.setdefault(want.package, {"package": want.package, "at": sign["at"], "evidence": [], "refused": "", "wanted_last": False})
            before = row["evidence"][-1] if row["evidence"] else None
            if before is None or any(before[key] != sign[key] for key in ("kind", "probability", "proposer", "decision")):
                row["evidence"].append(sign)
            row["refused"] = record.refused.get(want.package, "")
    last = {want.package for want in records[-1].plan.wants} if records else set()
    for package, row in rows.items():
        row["wanted_last"] = package in last
        row["use"] = uses.get(names.normalize(package))
        row["fate"] = "refused" if row["refused"] else "used" if row["use"] else "unused" if session.state == "ended" else "open"
        yield row
    named = {names.normalize(package) for record in records for package in (*record.accepted, *(want.package for want in record.plan.wants))}
    for package in sorted(set(uses) - named):
        yield {"package": package, "at": None, "evidence": [], "refused": "", "wanted_last": False, "use": uses[package], "fate": "missed"}


def _use(package: str, execution: wire.Execution) -> Entry:
    """The first code that imported ``package``; ``loaded``: whether its modules were there already, or imported while the code waited and ran."""
    late = {module.partition(".")[0] for module in execution.late_imports}
    return {
        "execution": execution.id, "tier": execution.tier, "wait_ms": _rounded(execution.wait_ms),
        "loaded": late.isdisjoint(module.partition(".")[0] for module in names.modules_for(package)),
    }  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- outcomes


def foretold(execution: wire.Execution) -> str:
    """``hit``: a plan held all that the code imported; ``partial``: some of it; ``miss``: none; ``none needed``. As the ledger counts."""
    if not execution.needed:
        return "none needed"
    held = sum(package in execution.predicted for package in execution.needed)
    return "hit" if held == len(execution.needed) else "partial" if held else "miss"


def _execution(execution: wire.Execution, steps: Sequence[wire.Moment]) -> Entry:
    return {
        "id": execution.id, "at": execution.created_at, "state": execution.state, "verdict": execution.verdict, "tier": execution.tier,
        "foretold": foretold(execution), "predicted": execution.predicted, "needed": execution.needed, "missing": execution.missing,
        "late_imports": execution.late_imports, "found_by": execution.found_by, "source": execution.source,
        "lead_ms": _rounded(execution.lead_ms), "wait_ms": _rounded(execution.wait_ms), "run_ms": _rounded(execution.run_ms),
        "stages": {name: _rounded(value) for name, value in execution.stages if value > 0},
        "built": _costs(steps), "peak_memory_bytes": execution.peak_memory_bytes, "error": execution.error, "notice": execution.notice,
    }  # fmt: skip


def _outcome(session: wire.Session, executions: Sequence[wire.Execution], plans: Sequence[Entry], steps: _Steps) -> Entry:
    """``verdict``: that of the executions together (``hit``, ``partial``, ``miss``, ``none needed``); without any, ``wasted`` when something was
    built for a session that has ended, ``nothing`` when nothing was, ``open`` while the session is active."""
    built_ms = sum(plan["built_ms"] for plan in plans) + _milliseconds(steps.unplanned)
    kinds = {foretold(execution) for execution in executions if execution.state == "done" and execution.verdict != "refused"}
    if kinds:
        some = kinds - {"none needed"}
        verdict = "none needed" if not some else some.pop() if len(some) == 1 else "partial"
    elif executions:
        verdict = "refused" if all(execution.verdict == "refused" for execution in executions) else "open"
    elif session.state == "active":
        verdict = "open"
    else:
        verdict = "wasted" if session.builds or built_ms else "nothing"
    return {
        "verdict": verdict, "executions": len(executions), "plans": len(plans), "builds": session.builds,
        "wasted": session.wasted if session.state == "ended" else None,
        "built_ms": _rounded(built_ms),
        "memory_gib_seconds": session.memory_seconds,
        "peak_memory_bytes": max((execution.peak_memory_bytes or 0 for execution in executions), default=0) or None,
    }  # fmt: skip


# ----------------------------------------------------------------------------------------------------------------- costs


class _Steps:
    """Whose work each building step was: an execution's that waited for it when it began, else that of the latest plan before it."""

    def __init__(self, material: Material, plan_times: dict[int, float]) -> None:
        self.unplanned: list[wire.Moment] = []
        self._by_plan: dict[int, list[wire.Moment]] = {}
        self._by_execution: dict[str, list[wire.Moment]] = {}
        for moment in material.moments:
            if moment.kind in BUILDING or moment.kind == "repair":
                began = moment.at - (moment.duration_ms or 0) / 1000
                waiting = [e.id for e in material.executions if e.created_at <= began and (e.ended_at is None or began < e.ended_at)]
                before = [number for number, at in plan_times.items() if at <= began + _SAME_INSTANT_SECONDS]
                if waiting:
                    self._by_execution.setdefault(waiting[-1], []).append(moment)
                elif before:
                    self._by_plan.setdefault(before[-1], []).append(moment)
                else:
                    self.unplanned.append(moment)

    def of_plan(self, number: int) -> list[wire.Moment]:
        return self._by_plan.get(number, [])

    def of_execution(self, identity: str) -> list[wire.Moment]:
        return self._by_execution.get(identity, [])


_SAME_INSTANT_SECONDS = 0.05
"""A plan's moment is noted when its work has been begun: a step may seem a little older."""


def _costs(moments: Iterable[wire.Moment]) -> dict[str, Entry]:
    """Kind of step -> how many there were, milliseconds, how many failed."""
    costs: dict[str, Entry] = {}
    for moment in moments:
        cost = costs.setdefault(moment.kind, {"n": 0, "ms": 0.0, "failed": 0})
        cost["n"] += 1
        cost["ms"] = _rounded(cost["ms"] + (moment.duration_ms or 0))
        cost["failed"] += bool(moment.data.get("failed"))
    return costs


def _milliseconds(moments: Iterable[wire.Moment]) -> float:
    """Of work that sandboxd did: a ``build`` and the ``mount`` in it are told one after the other, so nothing counts twice."""
    return round(sum(moment.duration_ms or 0 for moment in moments), 3)


# -------------------------------------------------------------------------------------------------------------- timeline


def _timeline(material: Material, plans: Sequence[Entry], executions: Sequence[Entry]) -> list[Entry]:
    """Everything in order. Runs of the same kind (pieces of an answer, imports) are one entry that counts them; each question to K2, in however many
    parts it was noted, and each of its answers has its own."""
    entries: list[Entry] = [{"at": plan["at"], "kind": "plan", "plan": plan["id"]} for plan in plans]
    entries += [{"at": execution["at"], "kind": "execution", "execution": execution["id"]} for execution in executions]
    told = [moment for moment in material.moments if moment.kind not in _TOLD_OTHERWISE]
    runs: list[list[wire.Moment]] = []
    for moment in told:
        alone = moment.kind in _OF_K2 and moment.data.get("part", 1) == 1
        if runs and runs[-1][-1].kind == moment.kind and not alone:
            runs[-1].append(moment)
        else:
            runs.append([moment])
    entries += [_entry(run[0].kind, run) for run in runs]
    return sorted(entries, key=lambda entry: entry["at"])  # stable: a plan stands before what was built at its instant


def _entry(kind: str, moments: list[wire.Moment]) -> Entry:
    entry: Entry = {"at": moments[0].at, "kind": kind, "n": len(moments)}
    if kind in CONVERSATION:
        entry["characters"] = sum(chars for moment in moments if isinstance(chars := moment.data.get("chars"), int))
        entry["names"] = list(dict.fromkeys(name for moment in moments if isinstance(name := moment.data.get("name"), str)))
    else:
        if kind not in _OF_K2:  # its answer is told when it was there: the question has an entry of its own
            entry["at"] -= (moments[0].duration_ms or 0) / 1000  # noted when it was over
        entry["ms"] = _milliseconds(moments)
        entry["failed"] = sum(bool(moment.data.get("failed")) for moment in moments)
        details = [moment.detail for moment in moments if moment.detail and kind in _OURS]
        entry["names"] = _slowest_first(moments) if kind == "preload" else list(dict.fromkeys(details))
    if kind in _OF_K2:
        entry["k2"] = {name: moment.data[name] for moment in moments for name in _TOLD_OF_K2 if name in moment.data}
    return entry


def _slowest_first(preloads: Iterable[wire.Moment]) -> list[str]:
    """The top levels of what was imported ahead: two hundred submodules are one name."""
    spent: dict[str, float] = {}
    for moment in preloads:
        top = moment.detail.partition(".")[0]
        spent[top] = spent.get(top, 0.0) + (moment.duration_ms or 0)
    return sorted(spent, key=lambda name: -spent[name])


def _sum(values: Iterable[float | None]) -> float | None:
    """None where nothing is known."""
    known = [value for value in values if value is not None]
    return round(sum(known), 3) if known else None


def _rounded(value: Any) -> Any:
    return round(value, 3) if value is not None else None
