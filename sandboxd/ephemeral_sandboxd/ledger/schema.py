"""The database's shape, as numbered migrations. A migration that has shipped is never edited: add the next one.

Times are ISO-8601 UTC text, durations milliseconds, sizes bytes, lists and maps JSON. The foreign keys are declared, so
that readers (datasette, sqlite-utils, a person) can follow them, but not enforced: a row whose parent was lost is
better than no row. An operator reads them with `datasette ephemeral.db`, which lists the views below the tables:

    sessions_summary                 one session: how long, what ran, what was predicted, what it held and wasted
    waits_by_tier                    a tier under a policy: how often, wait quantiles, the mean of every stage
    predictions                      one execution: hit (all that it needed was predicted), partial, miss, or none needed
    packages_predicted_vs_needed     one package: in how many sessions predicted, needed, both, predicted for nothing
    daily_savings                    one day: waits, and the milliseconds of work that was done before the code came
    memory_seconds_by_session        one session: GiB-seconds held, a GiB-second for each execution
    waits, tiers, packages, proposers, waste, savings    the first ones: a row an execution, a tier, a package, …
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


@migrations()
def m007_roots_networks_and_notices(db: Database) -> None:
    """What sandboxes are made of, what code may reach, what its caller was told."""
    for table in ("sessions", "sandboxes", "environments", "snapshots"):
        _table(db, table).add_column("root", str, not_null_default="default")
    _table(db, "sessions").add_column("network", str, not_null_default="[]")
    _table(db, "sandboxes").add_column("disk_bytes", int, not_null_default=0)
    _table(db, "environments").add_column("pinned", int, not_null_default=0)
    for name, kind in (("root", str), ("disk_bytes", int), ("timeout_seconds", float)):
        _table(db, "plans").add_column(name, kind)
    _table(db, "executions").add_column("language", str, not_null_default="python")
    _table(db, "executions").add_column("notice", str)


@migrations()
def m008_pruning(db: Database) -> None:
    """Finding the oldest ended sessions, and their sandboxes by execution, without reading everything."""
    _table(db, "sessions").create_index(["state", "ended_at"])
    _table(db, "executions").create_index(["sandbox_id"])


@migrations()
def m009_clear_views(db: Database) -> None:
    db.create_view(
        "sessions_summary",
        """
        select s.id as session_id, s.app, s.policy, s.root, s.state, s.started_at, s.ended_at,
               round((julianday(coalesce(s.ended_at, s.last_at)) - julianday(s.started_at)) * 86400, 3) as seconds,
               (select count(*) from plans p where p.session_id = s.id) as plans, count(e.id) as executions,
               sum(e.verdict = 'ok') as ok, sum(e.verdict <> 'ok') as not_ok,
               round(sum(e.wait_ms), 3) as wait_ms, round(max(e.wait_ms), 3) as wait_max_ms, round(sum(e.run_ms), 3) as run_ms,
               max(e.peak_memory_bytes) as peak_memory_bytes, s.builds, s.wasted, s.memory_gib_seconds
        from sessions s left join executions e on e.session_id = s.id
        group by s.id order by s.started_at desc
        """,
    )
    means = ", ".join(f"round(avg(json_extract(stages, '$.{stage}_ms')), 3) as {stage}_mean_ms" for stage in _STAGES)
    db.create_view(
        "waits_by_tier",
        f"""
        with ranked as (
            select e.tier, s.policy, e.wait_ms, e.run_ms, e.lead_ms, e.stages,
                   row_number() over (partition by e.tier, s.policy order by e.wait_ms) as place,
                   count(*) over (partition by e.tier, s.policy) as executions
            from executions e left join sessions s on s.id = e.session_id where e.tier is not null and e.wait_ms is not null
        )
        select tier, policy, max(executions) as executions, min(wait_ms) as wait_min_ms,
               max(case when place = (executions + 1) / 2 then wait_ms end) as wait_p50_ms,
               max(case when place = (executions * 95 + 99) / 100 then wait_ms end) as wait_p95_ms,
               max(case when place = (executions * 99 + 99) / 100 then wait_ms end) as wait_p99_ms,
               max(wait_ms) as wait_max_ms, round(avg(run_ms), 3) as run_mean_ms, round(avg(lead_ms), 3) as lead_mean_ms, {means}
        from ranked group by tier, policy order by policy, wait_p50_ms
        """,  # noqa: S608
    )
    db.view("predictions").drop()
    db.create_view(
        "predictions",
        """
        with counted as (
            select e.id as execution_id, e.session_id, e.tier, json_array_length(e.needed) as needed,
                   (select count(*) from json_each(e.needed) n
                     where n.value in (select value from json_each(e.predicted))) as foretold,
                   json_array_length(e.predicted) as predicted, json_array_length(e.missing) as missing, e.created_at
            from executions e where e.state = 'done'
        )
        select *, case when needed = 0 then 'none needed' when foretold = needed then 'hit' when foretold > 0 then 'partial'
                  else 'miss' end as outcome
        from counted
        """,
    )
    db.create_view(
        "packages_predicted_vs_needed",
        """
        with predicted as (
            select distinct p.session_id, k.package from plan_packages k join plans p on p.id = k.plan_id
        ), needed as (
            select distinct e.session_id, n.value as package from executions e, json_each(e.needed) n where e.state = 'done'
        ), pairs as (
            select session_id, package, 1 as predicted, 0 as needed from predicted
            union all select session_id, package, 0, 1 from needed
        ), sided as (
            select session_id, package, max(predicted) as predicted, max(needed) as needed from pairs group by session_id, package
        )
        select package, sum(predicted) as sessions_predicted, sum(needed) as sessions_needed,
               sum(predicted and needed) as sessions_both, sum(predicted and not needed) as predicted_in_vain,
               sum(needed and not predicted) as not_foreseen
        from sided group by package order by sessions_needed desc, sessions_predicted desc
        """,
    )
    db.create_view(
        "daily_savings",
        """
        with code as (
            select session_id, min(created_at) as came_at from executions group by session_id
        ), ahead as (
            select substr(c.came_at, 1, 10) as day, sum(m.duration_ms) as ahead_ms
            from code c join moments m on m.session_id = c.session_id and m.at < c.came_at
            where m.kind in ('build', 'boot', 'restore', 'mount', 'preload') group by 1
        ), daily as (
            select substr(created_at, 1, 10) as day, count(*) as executions, sum(tier = 'live') as live,
                   sum(wait_ms) as wait_ms, sum(run_ms) as run_ms
            from executions where state = 'done' group by 1
        )
        select d.day, d.executions, d.live, round(d.wait_ms, 3) as wait_ms, round(d.run_ms, 3) as run_ms,
               round(coalesce(a.ahead_ms, 0), 3) as done_before_code_ms
        from daily d left join ahead a on a.day = d.day order by d.day desc
        """,
    )
    db.create_view(
        "memory_seconds_by_session",
        """
        select id as session_id, app, policy, state, memory_gib_seconds, executions,
               round(memory_gib_seconds / nullif(executions, 0), 3) as gib_seconds_an_execution, started_at, ended_at
        from sessions order by memory_gib_seconds desc
        """,
    )


@migrations()
def m010_decisions(db: Database) -> None:
    """Why a package was imported ahead, or only made available: what that was expected to save, and to cost."""
    for name, kind in (("decision", str), ("saves_ms", float), ("costs_ms", float)):
        _table(db, "plan_packages").add_column(name, kind)


@migrations()
def m011_starts(db: Database) -> None:
    """How long sandboxes took to start, those included that nobody had asked for yet."""
    _table(db, "sandboxes").add_column("start_ms", float)


_STAGES = (
    "transport", "find_session", "queue", "resolve", "download", "compose", "boot", "restore", "preload", "thaw", "dispatch", "import",
)  # fmt: skip
"""Those there were when m009 was written."""


def _table(db: Database, name: str) -> Table:
    return db.table(name)
