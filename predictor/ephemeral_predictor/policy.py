"""Whether a bet pays: to import a package ahead, or only to have it there. No I/O, no clock.

Importing ahead saves the time of the import when the package is needed, with probability p. It costs memory, for as long as the sandbox stands
until code comes (p) or until its session ends (1 - p), and, when it was for nothing, the processor's time. Two prices make one sum of it, in
milliseconds of somebody's waiting:

    saves = p × import
    costs = GiB × (p × seconds until used + (1 - p) × seconds until ended) × memory price  +  (1 - p) × import × CPU price

It pays when it saves more than it costs. That a package is there costs no memory and next to no time, so what is wanted and does not pay is
made available: the cheaper tier.

The default prices are 6 ms for a GiB and second (EPHEMERAL_MEMORY_PRICE_MS_PER_GIB_S) and 0.35 ms for a millisecond of CPU (EPHEMERAL_CPU_PRICE). They
were chosen so that a middling package, 600 ms and 60 MiB, breaks even where the rule before this one had its threshold, at p = .35, on a host where
code comes after 10 s and a session without code ends after 300:

    saves  .35 × 600 = 210      costs  .0586 × (3.5 + 195) × 6 = 70  +  .65 × 600 × .35 = 137      207 in all

From there every package is judged by what it takes on this host. One that holds no memory to speak of is imported from p = .26 (.35 ÷ 1.35, the
CPU alone); torch, with 4 s and 400 MiB, from .35 like the middling one, and from .28 where it takes 8.4 s and 203 MiB, as on the machine
that the priors are from; 400 MiB for one second only from .51. A host on which sandboxes are used or ended within seconds has memory to spare for longer shots.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ephemeral.costs import Prices
from ephemeral.wire import Costs

NEUTRAL = 0.5
"""The share of sessions with code that says nothing about an app."""
_SUREST = 0.94  # of what a few sessions of an app show: plain talk (.05) stays below even odds, whatever the app usually does


@dataclass(frozen=True)
class Bet:
    """To import a package ahead: what that saves and costs, in milliseconds."""

    saves_ms: float
    costs_ms: float

    @property
    def pays(self) -> bool:
        return self.saves_ms > self.costs_ms


def bet(probability: float, modules: Iterable[str], costs: Costs, prices: Prices) -> Bet:
    """The bet on a package that is needed with ``probability`` and has these ``modules``."""
    import_ms, memory_bytes = _taken(modules, costs)
    seconds = probability * costs.until_used_seconds.value + (1 - probability) * costs.until_ended_seconds.value
    held = memory_bytes / (1 << 30) * seconds * prices.memory
    return Bet(probability * import_ms, held + (1 - probability) * import_ms * prices.cpu)


def _taken(modules: Iterable[str], costs: Costs) -> tuple[float, float]:
    """Milliseconds and bytes of importing ``modules``: a top-level module counts once."""
    import_ms = memory_bytes = 0.0
    for top in {module.partition(".")[0] for module in modules}:
        timed = costs.modules.get(top)
        import_ms += (timed.import_ms if timed else costs.import_ms).value
        memory_bytes += (timed.memory_bytes if timed else costs.memory_bytes).value
    return import_ms, memory_bytes


def needs_code(said: float, rate: float | None) -> float:
    """The probability that code will run: what the conversation says, and the share of the app's sessions that ran some (None: unknown).

    The share moves the log-odds by as much as it differs from NEUTRAL.
    """
    if rate is None or not 0 < said < 1:
        return said
    odds = said / (1 - said)
    rate = min(_SUREST, max(1 - _SUREST, rate))
    odds *= rate / (1 - rate) * (1 - NEUTRAL) / NEUTRAL
    return odds / (1 + odds)
