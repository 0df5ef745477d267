"""Wire models to rows of the schema and back. Nothing here touches a database."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ephemeral import wire

Values = dict[str, Any]


class Row(NamedTuple):
    """One upsert: `values` hold the key's columns too."""

    table: str
    key: tuple[str, ...]
    values: Values


LATEST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()


def text_time(at: float | None) -> str | None:
    """Unix seconds as ISO-8601 UTC text, to the microsecond. What a calendar has no name for becomes its first or last day."""
    if at is None:
        return None
    return datetime.fromtimestamp(min(LATEST, max(0.0, at)), UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def unix_time(text: str | None) -> float | None:
    return None if text is None else datetime.fromisoformat(text).timestamp()


def of_session(s: wire.Session) -> list[Row]:
    values = s.model_dump(exclude={"sandbox", "memory_seconds"}) | _times(s, "started_at", "last_at", "ended_at") | _json(s, "network")
    return [Row("sessions", ("id",), values | {"sandbox_id": s.sandbox, "memory_gib_seconds": s.memory_seconds})]


def to_session(row: Values) -> wire.Session:
    return wire.Session.model_validate(
        _times_back(row, "started_at", "last_at", "ended_at")
        | _json_back(row, "network")
        | {"sandbox": row["sandbox_id"], "memory_seconds": row["memory_gib_seconds"]}
    )


def of_sandbox(s: wire.Sandbox) -> list[Row]:
    values = s.model_dump(exclude={"session"}) | _times(s, "created_at") | _json(s, "environments", "modules")
    return [Row("sandboxes", ("id",), values | {"session_id": s.session})]


def of_plan(p: wire.PlanRecord) -> list[Row]:
    plan = p.plan
    rows = [
        Row(
            "plans",
            ("id",),
            {
                "id": p.id,
                "session_id": p.session,
                "at": text_time(plan.at),
                "proposer": plan.proposer,
                "action": plan.action,
                "app": plan.app,
                "needs_code": plan.needs_code,
                "memory_bytes": plan.memory_bytes,
                "cpus": plan.cpus,
                "disk_bytes": plan.disk_bytes,
                "timeout_seconds": plan.timeout_seconds,
                "root": plan.root,
                "modules": json.dumps(plan.modules),
                "outcome": p.outcome,
                "ready_at": text_time(p.ready_at),
                "error": p.error,
            },
        )
    ]
    # What was accepted can be more than what was wanted in so many words, and a name may be spelt in normal form there.
    wants = {want.package: want for want in plan.wants}
    for package in dict.fromkeys([*wants, *p.accepted, *p.refused]):
        want = wants.get(package)
        rows.append(
            Row(
                "plan_packages",
                ("plan_id", "package"),
                {
                    "plan_id": p.id,
                    "package": package,
                    "version": want.version if want else None,
                    "probability": want.probability if want else None,
                    "proposer": want.proposer if want else None,
                    "evidence": want.evidence if want else None,
                    "decision": want.decision if want else None,
                    "saves_ms": want.saves_ms if want else None,
                    "costs_ms": want.costs_ms if want else None,
                    "accepted": int(package in p.accepted),
                    "refusal": p.refused.get(package),
                },
            )
        )
    return rows


def to_plan(row: Values, packages: list[Values]) -> wire.PlanRecord:
    """`packages` are the plan's rows of `plan_packages`, in the order they were written."""
    plan = {
        "session": row["session_id"],
        "proposer": row["proposer"],
        "action": row["action"],
        "wants": [package for package in packages if package["proposer"] is not None],
        "modules": json.loads(row["modules"]),
        "memory_bytes": row["memory_bytes"],
        "cpus": row["cpus"],
        "disk_bytes": row["disk_bytes"],
        "timeout_seconds": row["timeout_seconds"],
        "root": row["root"],
        "needs_code": row["needs_code"],
        "app": row["app"],
        "at": unix_time(row["at"]),
    }
    return wire.PlanRecord.model_validate(
        {
            "id": row["id"],
            "session": row["session_id"],
            "plan": plan,
            "accepted": [package["package"] for package in packages if package["accepted"]],
            "refused": {package["package"]: package["refusal"] for package in packages if package["refusal"] is not None},
            "outcome": row["outcome"],
            "ready_at": unix_time(row["ready_at"]),
            "error": row["error"],
        }
    )


class Sizes(NamedTuple):
    """Bytes of what an execution printed and returned: all that stays of it when capture is off."""

    stdout: int
    stderr: int
    outputs: tuple[tuple[str, int], ...]
    """(mime, bytes of `data`) of each."""


def sizes_of(e: wire.Execution) -> Sizes:
    return Sizes(
        stdout=len(e.stdout.encode(errors="surrogatepass")),
        stderr=len(e.stderr.encode(errors="surrogatepass")),
        outputs=tuple((output.mime, len(output.data)) for output in e.outputs),
    )


def without_content(e: wire.Execution) -> wire.Execution:
    """The same execution without what the code was, printed and returned."""
    return e.model_copy(
        update={"code": None, "stdout": "", "stderr": "", "result": None, "traceback": None, "outputs": []}
    )


def of_execution(e: wire.Execution, sizes: Sizes) -> list[Row]:
    """`sizes` are those of the execution before its content was taken out, if it was."""
    values = e.model_dump(exclude={"session", "sandbox", "stages", "outputs"})
    values |= _times(e, "created_at", "started_at", "ended_at") | _json(e, "predicted", "needed", "missing", "late_imports")
    values |= {
        "session_id": e.session,
        "sandbox_id": e.sandbox,
        "stages": e.stages.model_dump_json(),
        "outputs": len(sizes.outputs),
        "stdout_bytes": sizes.stdout,
        "stderr_bytes": sizes.stderr,
    }
    rows = [Row("executions", ("id",), values)]
    for position, (mime, size) in enumerate(sizes.outputs):
        data = e.outputs[position].data if e.outputs else None
        output = {"execution_id": e.id, "position": position, "mime": mime, "data": data, "size_bytes": size}
        rows.append(Row("execution_outputs", ("execution_id", "position"), output))
    return rows


def to_execution(row: Values, outputs: list[Values]) -> wire.Execution:
    """`outputs` are the execution's rows of `execution_outputs` in order; those without data are left out."""
    values = _times_back(row, "created_at", "started_at", "ended_at")
    values |= _json_back(row, "stages", "predicted", "needed", "missing", "late_imports")
    values |= {
        "session": row["session_id"],
        "sandbox": row["sandbox_id"],
        "outputs": [output for output in outputs if output["data"] is not None],
    }
    return wire.Execution.model_validate(values)


def of_moment(m: wire.Moment) -> list[Row]:
    """Moments are never updated: their key is the rowid that SQLite gives them."""
    return [
        Row(
            "moments",
            (),
            {
                "session_id": m.session,
                "at": text_time(m.at),
                "kind": m.kind,
                "duration_ms": m.duration_ms,
                "detail": m.detail,
                "data": json.dumps(m.data),
            },
        )
    ]


def to_moment(row: Values) -> wire.Moment:
    return wire.Moment.model_validate(_times_back(row, "at") | _json_back(row, "data") | {"session": row["session_id"]})


def of_environment(e: wire.Environment) -> list[Row]:
    values = e.model_dump() | _times(e, "created_at", "last_used_at") | _json(e, "requested", "packages")
    return [Row("environments", ("id",), values)]


def of_snapshot(s: wire.Snapshot) -> list[Row]:
    values = s.model_dump() | _times(s, "created_at") | _json(s, "environments", "modules")
    return [Row("snapshots", ("id",), values)]


def _times(model: wire.Wire, *names: str) -> Values:
    return {name: text_time(getattr(model, name)) for name in names}


def _times_back(row: Values, *names: str) -> Values:
    return row | {name: unix_time(row[name]) for name in names}


def _json(model: wire.Wire, *names: str) -> Values:
    return {name: json.dumps(getattr(model, name)) for name in names}


def _json_back(row: Values, *names: str) -> Values:
    return {name: json.loads(row[name]) for name in names}
