"""`GET /metrics`: what sandboxd does and holds, for Prometheus; OpenMetrics when the scraper asks for that.

Counters and histograms are fed by the ledger's bus as things happen; gauges are read from the daemon when scraped. Labels
come from small closed sets (tiers, verdicts, states): never a name of a session, a package or a host, so no token is wanted.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import get_args

from aiohttp import web
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from ephemeral import wire
from ephemeral_sandboxd.api.protocol import Daemon
from ephemeral_sandboxd.ledger import Recorder

disable_created_metrics()  # a second series beside each counter, which nobody asked for

OPENMETRICS = "application/openmetrics-text"

WAIT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
RUN_BUCKETS = (0.001, 0.01, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
LEAD_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""Seconds."""

REMEMBERED = 10_000
"""Plans and executions whose last state is known, so that none is counted twice."""

STATES = get_args(wire.SandboxState)
TIERS = frozenset(get_args(wire.Tier))
VERDICTS = frozenset(get_args(wire.Verdict))
LANGUAGES = frozenset(get_args(wire.Language))
PROPOSERS = frozenset(get_args(wire.Proposer))
OUTCOMES = frozenset(get_args(wire.PlanRecord.model_fields["outcome"].annotation))
EGRESS = frozenset({"allowed", "refused", "failed"})
STEPS = frozenset({"build", "boot", "restore", "spare", "mount", "preload", "snapshot", "repair", "resize", "released"})
"""Kinds of moments that are work of ours."""
OTHER = "other"


class Metrics:
    """One registry, from now on. Nothing is added to the pool: it reads what is published, and asks when it is scraped."""

    def __init__(self, daemon: Daemon, recorder: Recorder) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(_Now(daemon, recorder))
        self._seen: OrderedDict[str, str] = OrderedDict()
        self._built: dict[str, tuple[int, int, float]] = {}
        registry = self._registry
        self._executions = Counter("ephemeral_executions", "Executions that are over.", ["tier", "verdict", "language"], registry=registry)
        self._wait = Histogram("ephemeral_wait_seconds", "From the code's arrival to its first instruction, its own imports included.",
                               ["tier"], buckets=WAIT_BUCKETS, registry=registry)  # fmt: skip
        self._run = Histogram("ephemeral_run_seconds", "From the first instruction to the end.", ["tier"], buckets=RUN_BUCKETS, registry=registry)
        self._lead = Histogram("ephemeral_lead_seconds", "From the plan that named all that the code needed to the code.", buckets=LEAD_BUCKETS, registry=registry)
        self._stages = Counter("ephemeral_stage_seconds", "What the waits consisted of.", ["stage"], registry=registry)
        self._predictions = Counter("ephemeral_predictions", "Executions that needed packages, by how many of those were predicted.", ["outcome"], registry=registry)
        self._plans = Counter("ephemeral_plans", "Plans, counted once under each outcome that they have had.", ["proposer", "outcome"], registry=registry)
        self._builds = Counter("ephemeral_builds", "What was begun for sessions before their code came.", registry=registry)
        self._wasted = Counter("ephemeral_builds_wasted", "Builds that no execution had used when their session ended.", registry=registry)
        self._memory_seconds = Counter("ephemeral_memory_gibibyte_seconds", "Memory of sessions' sandboxes over time.", registry=registry)
        self._ended = Counter("ephemeral_sessions_ended", "Sessions that have ended.", registry=registry)
        self._steps = Counter("ephemeral_steps", "Steps of preparing and repairing.", ["step", "result"], registry=registry)
        self._step_seconds = Counter("ephemeral_steps_seconds", "How long they took.", ["step"], registry=registry)
        self._egress = Counter("ephemeral_egress_connections", "What code in sandboxes wanted to reach.", ["verdict"], registry=registry)
        recorder.bus.observe(self._observe)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The page and its Content-Type."""
        if OPENMETRICS in accept:
            return openmetrics.generate_latest(self._registry), openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4

    def _observe(self, live: wire.Live) -> None:
        if live.execution is not None:
            self._execution(live.execution)
        elif live.moment is not None:
            self._moment(live.moment)
        elif live.plan is not None:
            if self._first_time(f"plan {live.plan.id}", live.plan.outcome):
                self._plans.labels(_within(live.plan.plan.proposer, PROPOSERS), _within(live.plan.outcome, OUTCOMES)).inc()
        elif live.session is not None:
            self._session(live.session)

    def _execution(self, execution: wire.Execution) -> None:
        if execution.state != "done" or not self._first_time(f"execution {execution.id}", "done"):
            return
        tier = _within(execution.tier, TIERS)
        self._executions.labels(tier, _within(execution.verdict, VERDICTS), _within(execution.language, LANGUAGES)).inc()
        if execution.wait_ms is not None:
            self._wait.labels(tier).observe(execution.wait_ms / 1000)
            for name, milliseconds in execution.stages:
                if milliseconds > 0:
                    self._stages.labels(name.removesuffix("_ms")).inc(milliseconds / 1000)
        if execution.run_ms is not None:
            self._run.labels(tier).observe(execution.run_ms / 1000)
        if execution.lead_ms is not None:
            self._lead.observe(execution.lead_ms / 1000)
        if execution.needed:
            foretold = sum(package in execution.predicted for package in execution.needed)
            self._predictions.labels("hit" if foretold == len(execution.needed) else "partial" if foretold else "miss").inc()

    def _moment(self, moment: wire.Moment) -> None:
        if moment.kind == "egress":
            self._egress.labels(_within(moment.data.get("verdict"), EGRESS)).inc()
        elif moment.kind in STEPS:
            self._steps.labels(moment.kind, "failed" if moment.data.get("failed") else "ok").inc()
            if moment.duration_ms is not None and moment.duration_ms > 0:
                self._step_seconds.labels(moment.kind).inc(moment.duration_ms / 1000)

    def _session(self, session: wire.Session) -> None:
        """Sessions tell their sums so far: counted is what was added since the last time."""
        known = self._built.pop(session.id, None)
        if known is None and session.state == "ended":
            return  # told before
        builds, wasted, memory = known or (0, 0, 0.0)
        self._builds.inc(max(0, session.builds - builds))
        self._wasted.inc(max(0, session.wasted - wasted))
        self._memory_seconds.inc(max(0.0, session.memory_seconds - memory))
        if session.state == "ended":
            self._ended.inc()
        else:
            self._built[session.id] = (session.builds, session.wasted, session.memory_seconds)

    def _first_time(self, what: str, state: str) -> bool:
        """False for a record that comes again unchanged."""
        if self._seen.get(what) == state:
            return False
        self._seen[what] = state
        self._seen.move_to_end(what)
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return True


class _Now(Collector):
    """What there is at this moment, asked of the daemon and the ledger at every scrape."""

    def __init__(self, daemon: Daemon, recorder: Recorder) -> None:
        self._daemon = daemon
        self._recorder = recorder

    def describe(self) -> Iterable[Metric]:
        return ()  # the daemon need not have started when the registry is made

    def collect(self) -> Iterator[Metric]:
        host, sandboxes = self._daemon.host(), self._daemon.sandboxes()
        yield _info("ephemeral_build", "What runs here.", version=host.version, runtime=host.runtime, isolation=host.isolation)
        yield _gauge("ephemeral_ready", "1 when executions can be served.", self._daemon.ready() is None)
        yield from self._sandboxes(host, sandboxes)
        yield _gauge("ephemeral_sessions_active", "Sessions that have not ended.", host.sessions)
        yield _gauge("ephemeral_waiting", "Sessions that wait for a sandbox.", host.waiting)
        yield _counter("ephemeral_refused", "Requests answered 429: no memory left.", host.refused)
        yield from self._stored(host)
        yield from self._ledger()

    def _sandboxes(self, host: wire.Host, sandboxes: list[wire.Sandbox]) -> Iterator[Metric]:
        by_state = Tally(sandbox.state for sandbox in sandboxes)
        states = GaugeMetricFamily("ephemeral_sandboxes", "Sandboxes there are.", labels=["state"])
        for state in STATES:
            states.add_metric([state], by_state[state])
        yield states
        yield _gauge("ephemeral_sandboxes_frozen", "Sandboxes that get no CPU until code comes.", sum(sandbox.frozen for sandbox in sandboxes))
        yield _gauge("ephemeral_spares", "Sandboxes that stand booted for sessions nobody planned.", host.spares)
        yield _gauge("ephemeral_sandboxes_memory_bytes", "Memory that they hold (PSS).", sum(sandbox.memory_bytes for sandbox in sandboxes))
        yield _gauge("ephemeral_sandboxes_memory_limit_bytes", "Sum of their memory limits.", sum(sandbox.memory_limit_bytes for sandbox in sandboxes))
        yield _gauge("ephemeral_sandboxes_cpus", "Sum of their CPU limits.", sum(sandbox.cpus for sandbox in sandboxes))
        yield _gauge("ephemeral_memory_used_bytes", "Memory of the budget that is used, starting sandboxes included.", host.memory_used_bytes)
        yield _gauge("ephemeral_memory_budget_bytes", "Memory that all sandboxes may hold together.", host.memory_budget_bytes)
        yield _gauge("ephemeral_cpu_budget", "CPUs that all sandboxes may use together.", host.cpu_budget)
        yield _gauge("ephemeral_machine_memory_bytes", "This machine's memory.", host.memory_bytes)
        yield _gauge("ephemeral_machine_cores", "This machine's cores.", host.cores)

    def _stored(self, host: wire.Host) -> Iterator[Metric]:
        snapshots, environments = self._daemon.snapshots(), self._daemon.environments()
        yield _gauge("ephemeral_environments", "Environments that stand ready.", len(environments))
        yield _gauge("ephemeral_snapshots", "Snapshots that stand ready.", len(snapshots))
        yield _gauge("ephemeral_snapshots_restores", "Restores of the snapshots there are.", sum(snapshot.restores for snapshot in snapshots))
        yield _gauge("ephemeral_snapshots_failures", "Failed restores of the snapshots there are.", sum(snapshot.failures for snapshot in snapshots))
        kinds = GaugeMetricFamily("ephemeral_disk_bytes", "Disk that is taken. Environments share wheels, each counts them all.", labels=["kind"])
        kinds.add_metric(["environments"], sum(environment.size_bytes for environment in environments))
        kinds.add_metric(["snapshots"], sum(snapshot.size_bytes for snapshot in snapshots))
        kinds.add_metric(["ledger"], self._recorder.figures().size_bytes)
        yield kinds
        yield _gauge("ephemeral_store_bytes", "Disk that the store and the snapshots take together.", host.disk_bytes)
        yield _gauge("ephemeral_store_budget_bytes", "Disk that the store may take.", host.disk_budget_bytes)

    def _ledger(self) -> Iterator[Metric]:
        figures = self._recorder.figures()
        yield _gauge("ephemeral_ledger_failing", "1 while the database cannot be written.", figures.failing)
        yield _gauge("ephemeral_ledger_queue", "Records that wait to be written.", figures.queued)
        yield _counter("ephemeral_ledger_failures", "Commits that failed.", figures.failures)
        dropped = CounterMetricFamily("ephemeral_ledger_dropped", "Records that were lost.", labels=["kind"])
        dropped.add_metric(["row"], figures.dropped_rows)
        dropped.add_metric(["moment"], figures.dropped_moments)
        yield dropped
        yield _counter("ephemeral_live_dropped", "Messages that a live listener was too slow for.", figures.live_dropped)


METRICS = web.AppKey("metrics", Metrics)


async def get_metrics(request: web.Request) -> web.Response:
    body, kind = request.app[METRICS].render(request.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": kind})


def _gauge(name: str, help: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help, value=float(value))


def _counter(name: str, help: str, value: float) -> Metric:
    return CounterMetricFamily(name, help, value=float(value))


def _info(name: str, help: str, **values: str) -> Metric:
    return InfoMetricFamily(name, help, value=values)


def _within(word: object, words: frozenset[str]) -> str:
    """Labels stay few, whatever a newer part of the house may say: `none` where there is nothing to say."""
    return "none" if word is None else word if isinstance(word, str) and word in words else OTHER
