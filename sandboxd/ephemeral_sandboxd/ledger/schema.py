"""The database's shape, as numbered migrations. A migration that has shipped is never edited: add the next one.

Times are ISO-8601 UTC text, durations milliseconds, sizes bytes, lists and maps JSON. The foreign keys are declared, so
that readers (datasette, sqlite-utils, a person) can follow them, but not enforced: a row whose parent was lost is
better than no row.
"""

from __future__ import annotations

from sqlite_utils import Database, Migrations
from sqlite_utils.db import Table

migrations = Migrations("ephemeral")


def newer_than_ours(db: Database) -> list[str]:
    """Names of migrations that were applied by a sandboxd newer than this one."""
    ours = {migration.name for migration in migrations._migrations}
    return [applied.name for applied in migrations.applied(db) if applied.name not in ours]


@migrations()
def m001_sessions_and_sandboxes(db: Database) -> None:
    _table(db, "sessions").create(
        {
            "id": str,
            "app": str,
            "policy": str,
            "state": str,
            "started_at": str,
            "last_at": str,
            "ended_at": str,
            "sandbox_id": str,
            "executions": int,
            "builds": int,
            "wasted": int,
            "memory_gib_seconds": float,
        },
        pk="id",
        not_null={"policy", "state", "started_at", "last_at"},
    )
    _table(db, "sandboxes").create(
        {
            "id": str,
            "session_id": str,
            "runtime": str,
            "isolation": str,
            "state": str,
            "frozen": int,
            "started_from": str,
            "environments": str,
            "modules": str,
            "memory_bytes": int,
            "memory_limit_bytes": int,
            "cpus": float,
            "executions": int,
            "created_at": str,
        },
        pk="id",
        not_null={"state", "created_at"},
        foreign_keys=[("session_id", "sessions", "id")],
    )
    _table(db, "sandboxes").create_index(["session_id"])


@migrations()
def m002_plans(db: Database) -> None:
    _table(db, "plans").create(
        {
            "id": int,
            "session_id": str,
            "at": str,
            "proposer": str,
            "action": str,
            "app": str,
            "needs_code": float,
            "memory_bytes": int,
            "cpus": float,
            "modules": str,
            "outcome": str,
            "ready_at": str,
            "error": str,
        },
        pk="id",
        not_null={"session_id", "at", "proposer", "action", "outcome"},
        foreign_keys=[("session_id", "sessions", "id")],
    )
    _table(db, "plans").create_index(["session_id"])
    _table(db, "plan_packages").create(
        {
            "plan_id": int,
            "package": str,
            "version": str,
            "probability": float,
            "proposer": str,
            "evidence": str,
            "accepted": int,
            "refusal": str,
        },
        pk=("plan_id", "package"),
        not_null={"accepted"},
        foreign_keys=[("plan_id", "plans", "id")],
    )
    _table(db, "plan_packages").create_index(["package"])


@migrations()
def m003_executions(db: Database) -> None:
    _table(db, "executions").create(
        {
            "id": str,
            "session_id": str,
            "sandbox_id": str,
            "source": str,
            "state": str,
            "verdict": str,
            "tier": str,
            "found_by": str,
            "created_at": str,
            "started_at": str,
            "ended_at": str,
            "wait_ms": float,
            "run_ms": float,
            "lead_ms": float,
            "stages": str,
            "predicted": str,
            "needed": str,
            "missing": str,
            "late_imports": str,
            "stdout": str,
            "stderr": str,
            "result": str,
            "traceback": str,
            "stdout_bytes": int,
            "stderr_bytes": int,
            "outputs": int,
            "truncated_bytes": int,
            "error": str,
            "peak_memory_bytes": int,
            "cpu_ms": float,
            "code_sha256": str,
            "code": str,
        },
        pk="id",
        not_null={"session_id", "state", "created_at"},
        foreign_keys=[("session_id", "sessions", "id"), ("sandbox_id", "sandboxes", "id")],
    )
    _table(db, "executions").create_index(["session_id"])
    _table(db, "execution_outputs").create(
        {"execution_id": str, "position": int, "mime": str, "data": str, "size_bytes": int},
        pk=("execution_id", "position"),
        not_null={"mime", "size_bytes"},
        foreign_keys=[("execution_id", "executions", "id")],
    )


@migrations()
def m004_moments(db: Database) -> None:
    _table(db, "moments").create(
        {
            "id": int,
            "session_id": str,
            "at": str,
            "kind": str,
            "duration_ms": float,
            "detail": str,
            "data": str,
        },
        pk="id",
        not_null={"session_id", "at", "kind"},
        foreign_keys=[("session_id", "sessions", "id")],
    )
    _table(db, "moments").create_index(["session_id", "at"])


@migrations()
def m005_environments_and_snapshots(db: Database) -> None:
    _table(db, "environments").create(
        {
            "id": str,
            "python": str,
            "requested": str,
            "packages": str,
            "size_bytes": int,
            "compiled": int,
            "base": int,
            "created_at": str,
            "last_used_at": str,
        },
        pk="id",
        not_null={"python", "created_at"},
    )
    _table(db, "snapshots").create(
        {
            "id": str,
            "environments": str,
            "modules": str,
            "size_bytes": int,
            "import_ms": float,
            "created_at": str,
            "restores": int,
            "failures": int,
        },
        pk="id",
        not_null={"created_at"},
    )


@migrations()
def m006_views(db: Database) -> None:
    """Summaries that a person wants first; `datasette ephemeral.db` lists them beside the tables."""
    db.create_view(
        "waits",
        """
        select e.id as execution_id, e.session_id, s.app, s.policy, e.source, e.tier, e.verdict, e.wait_ms, e.run_ms,
               e.lead_ms, json_extract(e.stages, '$.transport_ms') as transport_ms,
               json_extract(e.stages, '$.find_session_ms') as find_session_ms,
               json_extract(e.stages, '$.queue_ms') as queue_ms, json_extract(e.stages, '$.resolve_ms') as resolve_ms,
               json_extract(e.stages, '$.download_ms') as download_ms,
               json_extract(e.stages, '$.compose_ms') as compose_ms, json_extract(e.stages, '$.boot_ms') as boot_ms,
               json_extract(e.stages, '$.restore_ms') as restore_ms,
               json_extract(e.stages, '$.preload_ms') as preload_ms, json_extract(e.stages, '$.thaw_ms') as thaw_ms,
               json_extract(e.stages, '$.dispatch_ms') as dispatch_ms,
               json_extract(e.stages, '$.import_ms') as import_ms, e.created_at
        from executions e left join sessions s on s.id = e.session_id
        where e.wait_ms is not null
        """,
    )
    db.create_view(
        "tiers",
        """
        with ranked as (
            select tier, wait_ms, run_ms, lead_ms,
                   row_number() over (partition by tier order by wait_ms) as place,
                   count(*) over (partition by tier) as executions
            from executions where tier is not null and wait_ms is not null
        )
        select tier, max(executions) as executions, min(wait_ms) as wait_min_ms,
               max(case when place = (executions + 1) / 2 then wait_ms end) as wait_p50_ms,
               max(case when place = (executions * 95 + 99) / 100 then wait_ms end) as wait_p95_ms,
               max(wait_ms) as wait_max_ms, avg(run_ms) as run_mean_ms, avg(lead_ms) as lead_mean_ms
        from ranked group by tier order by wait_p50_ms
        """,
    )
    db.create_view(
        "predictions",
        """
        select e.id as execution_id, e.session_id, e.tier, json_array_length(e.needed) as needed,
               (select count(*) from json_each(e.needed) n
                 where n.value in (select value from json_each(e.predicted))) as foretold,
               json_array_length(e.predicted) as predicted, json_array_length(e.missing) as missing, e.created_at
        from executions e where e.state = 'done'
        """,
    )
    db.create_view(
        "packages",
        """
        select p.package, count(*) as plans, sum(p.accepted) as accepted, max(p.refusal) as refusal,
               (select count(*) from executions e, json_each(e.needed) n where n.value = p.package) as executions
        from plan_packages p group by p.package order by plans desc
        """,
    )
    db.create_view(
        "proposers",
        """
        select proposer, action, count(*) as plans, sum(outcome = 'ready') as ready, sum(outcome = 'failed') as failed,
               sum(outcome = 'superseded') as superseded
        from plans group by proposer, action order by plans desc
        """,
    )
    db.create_view(
        "waste",
        """
        select app, policy, count(*) as sessions, sum(executions) as executions, sum(builds) as builds,
               sum(wasted) as wasted, sum(memory_gib_seconds) as memory_gib_seconds
        from sessions group by app, policy
        """,
    )
    db.create_view(
        "savings",
        """
        select id as snapshot_id, restores, import_ms, restores * import_ms as imports_saved_ms, size_bytes, failures
        from snapshots order by imports_saved_ms desc
        """,
    )


def _table(db: Database, name: str) -> Table:
    return db.table(name)
