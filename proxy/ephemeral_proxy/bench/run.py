"""All measures in order: each target alone in front of the same provider, under the same load, between two looks at what no proxy costs."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ephemeral import bench
from ephemeral_proxy.bench import traffic
from ephemeral_proxy.bench.goals import goals, ratios
from ephemeral_proxy.bench.processes import Cores, NotMeasured, helper, load, pss_mb, settled
from ephemeral_proxy.bench.targets import TARGETS, Target, health

PREFIX = "ephemeral-proxy-bench-"
OURS = "ephemeral"
CONNECTIONS = {"rps32": 32, "rps256": 256}
STREAMS_AT = 32
"""Connections that the streams of the memory figure come over."""
MEASURES = {
    "direct": ("rps32", "rps256"),
    OURS: ("added_ttft_ms", "added_chunk_ms", "rps32", "rps256", "rss_mb", "all_cores"),
    "mitmdump": ("added_ttft_ms", "added_chunk_ms", "rps32", "rps256", "rss_mb"),
    "litellm": ("added_ttft_ms", "added_chunk_ms", "rps32", "rps256", "rss_mb"),
}
"""Target -> what is measured of it. rss_mb brings rss_mb_start, rss_mb_end and streams."""

Progress = Callable[[str, int, int], None]


class UnknownName(Exception):
    """A name that is no measure. The message says which there are."""


@dataclass(frozen=True)
class Scale:
    """How much of everything. ``firsts`` and ``paced`` are streams that are timed, each way; ``longest`` is what a window may last that sees
    fewer answers than connections; ``streams`` are those between the two looks at the memory, which for the peers end after ``peer_seconds``."""

    firsts: int
    paced: int
    seconds: float
    windows: int
    longest: float
    warm_up: int
    streams: int
    peer_seconds: float


FULL = Scale(firsts=500, paced=15, seconds=3.0, windows=3, longest=30.0, warm_up=1000, streams=20_000, peer_seconds=60.0)
QUICK = Scale(firsts=60, paced=3, seconds=0.5, windows=1, longest=20.0, warm_up=100, streams=500, peer_seconds=10.0)
OURS_SECONDS = 600.0
"""What our own streams may take together."""
WARM_UP_SECONDS = 30.0
"""What the warm-up may take: a slow target gets a shorter one."""


async def measure(*, quick: bool, only: Sequence[str], with_peers: bool, progress: Progress) -> dict[str, Any]:
    """The result: ``direct``, ``ephemeral``, ``mitmdump``, ``litellm``, ``byte_identical``, ``ratios``, ``goals``, ``how``, ``machine``, ``quick``.

    Raises UnknownName, and NotMeasured when ours cannot be measured; of a peer that cannot, the result says why (``missing``).
    """
    wanted = selected(only, with_peers=with_peers)
    machine = bench.machine()
    cores = Cores.of_this_machine()
    os.sched_setaffinity(0, cores.others)  # provider, load and predictor inherit it
    scale = QUICK if quick else FULL
    targets = [name for name in TARGETS if wanted.get(name)]
    parts = ["direct", *targets]
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder:
        async with helper("provider") as provider:
            run = _Run(Path(folder), provider.ready["port"], cores, scale)
            for number, name in enumerate(parts):
                run.progress = _placed(progress, name, number, len(parts))
                if name == "direct":
                    result[name] = await run.direct(wanted.get(name, ()))
                else:
                    result[name] = {}
                    try:
                        await run.target(name, wanted[name], result[name])
                    except NotMeasured as reason:
                        if name == OURS:
                            raise
                        result[name] = {**_nothing(wanted[name]), **result[name], "missing": str(reason)}
    progress("done", len(parts), len(parts))
    result["direct"] |= {name: _figure(samples) for name, samples in (("ttft_ms", run.whole), ("chunk_ms", run.chunks)) if samples}
    if OURS in result:
        result["byte_identical"] = _identical(run.judged)
    return {**result, "ratios": ratios(result), "goals": goals(result), "how": _how(cores, scale), "machine": machine, "quick": quick}


def selected(only: Sequence[str], *, with_peers: bool) -> dict[str, tuple[str, ...]]:
    """Target -> its measures, all or those called in ``only``. Raises UnknownName."""
    names = {target: measures for target, measures in MEASURES.items() if with_peers or target in ("direct", OURS)}
    known = [f"{target}.{measure}" for target, measures in names.items() for measure in measures]
    for name in only:
        if not any(_below(one, name) for one in known):
            raise UnknownName(f"no such measure: {name}")
    return {target: found for target, measures in names.items()
            if (found := tuple(one for one in measures if not only or any(_below(f"{target}.{one}", name) for name in only)))}


def _below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


@dataclass
class _Run:
    """``whole`` and ``chunks``: milliseconds to the first token, and that a delta took, without a proxy. ``judged``: answers through ours."""

    folder: Path
    provider: int
    cores: Cores
    scale: Scale
    progress: Callable[[str], None] = field(default=lambda _: None)
    whole: list[float] = field(default_factory=list)
    chunks: list[float] = field(default_factory=list)
    judged: Counter[str] = field(default_factory=Counter)

    async def direct(self, wanted: Sequence[str]) -> dict[str, Any]:
        judged: Counter[str] = Counter()
        rates = await self._rates(self.provider, wanted, judged)
        if set(judged) - {traffic.IDENTICAL}:
            raise NotMeasured(f"the load went wrong without any proxy: {dict(judged)}")
        return rates

    async def target(self, name: str, wanted: Sequence[str], found: dict[str, Any]) -> None:
        """Its part of the result goes into ``found``, one measure after the other. Raises NotMeasured."""
        judged: Counter[str] = Counter()
        if set(wanted) - {"all_cores"}:
            self.progress("starting")
            async with TARGETS[name](self._place(name), self.provider, self.cores.target) as target:
                found |= {"version": target.version, "command": target.command, "cores": sorted(self.cores.target)}
                await self._warm(target, judged)
                if "rss_mb" in wanted:
                    found |= await self._memory(name, target, judged)
                found |= await self._times(target, wanted, judged)
                found |= await self._rates(target.port, wanted, judged)
                found |= await self._events(target)
        if "all_cores" in wanted:
            self.progress("starting on all cores")
            async with TARGETS[name](self._place(f"{name}-all"), self.provider, self.cores.all) as target:
                await self._warm(target, judged)
                found["all_cores"] = {"cores": sorted(self.cores.all), **await self._rates(target.port, tuple(CONNECTIONS), judged)}
        found["answers"] = dict(judged)
        if failed := {verdict: count for verdict, count in judged.items() if verdict not in (traffic.IDENTICAL, traffic.REFRAMED, traffic.SAME)}:
            found["failed"] = failed
        if name == OURS:
            self.judged += judged

    def _place(self, name: str) -> Path:
        place = self.folder / name
        place.mkdir()
        return place

    # ------------------------------------------------------------------------------------------------ the measures

    async def _warm(self, target: Target, judged: Counter[str]) -> None:
        """Raises NotMeasured when the first answers are no good: figures of another stream would say nothing."""
        self.progress("warm-up")
        found = await load(WARM_UP_SECONDS + 60, do="streams", port=target.port, connections=STREAMS_AT, count=self.scale.warm_up,
                           longest=WARM_UP_SECONDS)
        judged.update(found["judged"])
        if not _good(found["judged"]):
            raise NotMeasured(f"no answer came through as it should: {found['judged'] or 'none came at all'}")

    async def _memory(self, name: str, target: Target, judged: Counter[str]) -> dict[str, Any]:
        await settled(target.pid)
        before = pss_mb(target.pid)
        self.progress(f"memory over {self.scale.streams:,} streams")
        longest = OURS_SECONDS if name == OURS else self.scale.peer_seconds
        found = await load(longest + 60, do="streams", port=target.port, connections=STREAMS_AT, count=self.scale.streams, longest=longest)
        await settled(target.pid)
        judged.update(found["judged"])
        return {"rss_mb_start": round(before, 2), "rss_mb_end": round(pss_mb(target.pid), 2), "streams": _good(found["judged"])}

    async def _times(self, target: Target, wanted: Sequence[str], judged: Counter[str]) -> dict[str, Any]:
        figures = {}
        for name, model, samples in (("added_ttft_ms", traffic.FIRST, self.scale.firsts), ("added_chunk_ms", traffic.PACED, self.scale.paced)):
            if name not in wanted:
                continue
            self.progress(f"{name}, in turn with none")
            found = await load(120 + samples * 2, do="times", model=model, ports=[self.provider, target.port], samples=samples)
            judged.update(found["judged"][1])
            without, through = found["times"]
            if not without or not through:
                raise NotMeasured(f"no stream could be timed: {found['judged'][1]}")
            if model == traffic.FIRST:
                figures[name] = _figure(added([out + back for out, back, _ in without], [out + back for out, back, _ in through]))
                self.whole += [whole for _, _, whole in without]
            else:
                figures[name] = _figure(added([back for _, back, _ in without], [back for _, back, _ in through]))
                self.chunks += [back for _, back, _ in without]
        return figures

    async def _rates(self, port: int, wanted: Sequence[str], judged: Counter[str]) -> dict[str, Any]:
        scale, figures = self.scale, {}
        for name, connections in CONNECTIONS.items():
            if name not in wanted:
                continue
            self.progress(f"{connections} connections")
            seconds = (scale.windows + 1) * max(scale.seconds, scale.longest) + 60
            found = await load(seconds, do="rate", port=port, connections=connections, seconds=scale.seconds, windows=scale.windows, longest=scale.longest)
            judged.update(found["judged"])
            figures[name] = round(statistics.median(found["rates"]), 1)
        return figures

    async def _events(self, target: Target) -> dict[str, Any]:
        if target.predictor is None:
            return {}
        await settled(target.pid)
        said = await asyncio.to_thread(health, target.port)
        received = (await target.predictor.finish())["events"]
        return {"events": {"sent": said.get("events_sent"), "dropped": said.get("events_dropped"), "received": received}, "health": said}


def added(without: Sequence[float], through: Sequence[float]) -> list[float]:
    """What each sample through a proxy took longer than the median without one: its tail counts whole, as the proxy's."""
    usual = statistics.median(without)
    return [sample - usual for sample in through]


def _figure(samples: Sequence[float]) -> dict[str, Any]:
    figure: dict[str, Any] = {"n": len(samples), **bench.describe(samples), "unit": "ms"}
    if 0 < len(samples) < bench.P99_SAMPLES:
        figure["p99_is"] = "max"
    return figure


def _nothing(measures: Iterable[str]) -> dict[str, Any]:
    """The keys of a target that could not be measured."""
    keys: dict[str, Any] = {}
    for measure in measures:
        if measure.endswith("_ms"):
            keys[measure] = _figure([])
        else:
            keys |= dict.fromkeys(("rss_mb_start", "rss_mb_end") if measure == "rss_mb" else (measure,))
    return keys


def _good(judged: Mapping[str, int]) -> int:
    return sum(judged.get(verdict, 0) for verdict in (traffic.IDENTICAL, traffic.REFRAMED, traffic.SAME))


def _identical(judged: Counter[str]) -> dict[str, int]:
    """``checked``: all requests through ours that were answered. ``identical``: where every byte was the same both ways."""
    return {"checked": judged.total(), "identical": judged[traffic.IDENTICAL], "reframed": judged[traffic.REFRAMED]}


def _placed(progress: Progress, name: str, number: int, parts: int) -> Callable[[str], None]:
    return lambda what: progress(f"{name}: {what}", number, parts)


def _how(cores: Cores, scale: Scale) -> dict[str, str]:
    """What the figures are, in sentences."""
    shared = cores.target & cores.others
    return {
        "load": f"streamed Chat Completions with a tool call, {len(traffic.CONTENT)} content deltas, {len(traffic.BODY):,} bytes in one write "
                "(paced only where deltas are timed); keep-alive, closed loop, HTTP without TLS on 127.0.0.1; every request is a new conversation, every answer is checked",
        "cores": f"every target has core {sorted(cores.target)[0]} to itself; provider, load and predictor have {sorted(cores.others)}"
                 if not shared else "one core for everything: targets share it with provider and load",
        "added_ttft_ms": "one connection, in turn with one that goes direct. A sample is the request's way to the provider plus the first token's way "
                         "back, less the median of the same without a proxy: the whole tail counts as the proxy's",
        "added_chunk_ms": "a delta's way from provider to client, 10 ms apart, less the median of the same without a proxy",
        "rps": f"good answers a second, the median of {scale.windows} window(s) of {scale.seconds:g} s, or until each connection had an answer "
               f"(at most {scale.longest:g} s), after a warm-up as long",
        "rss_mb": f"PSS of all its processes, idle, after {scale.warm_up:,} streams for warm-up (at most {WARM_UP_SECONDS:g} s) and after `streams` more over {STREAMS_AT} connections "
                  f"({scale.streams:,}; peers: those that end within {scale.peer_seconds:g} s)",
        "byte_identical": "of all answers through ours: status line, headers, chunk framing and data as the provider sent them, and its SHA-256 of the "
                          "request, Host header aside, as the client computed it (reframed: all of that but the framing)",
    }
