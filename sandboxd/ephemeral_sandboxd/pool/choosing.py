"""Which snapshot a sandbox starts from: the one after which the least is left to pay. No I/O.

A start costs what remains to be done after it, and what it holds meanwhile, in milliseconds of somebody's waiting, at the two prices of the
predictor's policy:

    (restore + imports that are left) × price of a millisecond  +  GiB held × seconds × memory price

A millisecond has the CPU's price while a plan is made ready behind the answer, and counts whole once the code is there. A snapshot may
hold modules that nobody wants: they cost memory and a slower restore, nothing else. So one of a hundred MiB more is taken where it spares an
import of a second; and the fat snapshot (twenty packages, 400 MiB), which a rival restores for every session, is ours for those in which it pays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ephemeral.costs import Prices, completed
from ephemeral.wire import Costs, Snapshot

TYPICAL_SANDBOX_BYTES = 150 << 20
"""What a sandbox with a science stack imported holds (measured 125-150 MB): the reservation for one that is booting."""
EMPTY_SANDBOX_BYTES = 40 << 20
"""What one holds that was restored with nothing imported (measured 34 MB)."""
RESTORE_MS_PER_MIB = 1.5
"""By how much a larger snapshot is slower to restore (measured on two shared cores: 14 MiB 144 ms, 82 MiB 250 ms, 155 MiB 400 ms)."""
_WAITED_FOR = 1.0  # price of a millisecond when the code is there
_GIB = 1 << 30


@dataclass(frozen=True)
class Terms:
    """What a start is reckoned with. ``costs`` are the host's, none missing; ``per_ms`` is the price of a millisecond of work."""

    costs: Costs
    memory_price: float
    per_ms: float
    probability: float = 1.0
    """Of the sandbox's being used."""

    @classmethod
    def ahead(cls, costs: Costs, prices: Prices, probability: float) -> Terms:
        """For a plan: the work is done before anybody waits."""
        return cls(completed(costs), prices.memory, prices.cpu, probability)

    @classmethod
    def urgent(cls, costs: Costs, prices: Prices) -> Terms:
        """For code that has arrived."""
        return cls(completed(costs), prices.memory, _WAITED_FOR)


def best(snapshots: Iterable[Snapshot], wanted: Collection[str], environments: Collection[str], terms: Terms, most_bytes: int | None = None) -> Snapshot | None:
    """The snapshot to start from for the modules ``wanted``; None where a sandbox with nothing imported costs least.

    It holds none but ``environments``, and takes at most ``most_bytes`` of memory.
    """
    allowed = set(environments)
    fitting = [snapshot for snapshot in snapshots
               if snapshot.modules and allowed.issuperset(snapshot.environments) and (most_bytes is None or expected_bytes(snapshot) <= most_bytes)]
    # Of two that cost the same, the one with more of the wanted environments: less has to be mounted.
    chosen = min(fitting, key=lambda snapshot: (cost(wanted, snapshot, terms), -len(snapshot.environments), snapshot.id), default=None)
    return chosen if chosen and cost(wanted, chosen, terms) < cost(wanted, None, terms) else None


def cost(wanted: Iterable[str], snapshot: Snapshot | None, terms: Terms) -> float:
    """What it costs to start from ``snapshot`` (None: from nothing imported), in milliseconds of waiting."""
    has = snapshot.modules if snapshot else ()
    restore_ms = terms.costs.boot_ms.value + RESTORE_MS_PER_MIB * snapshot.size_bytes / (1 << 20) if snapshot else terms.costs.boot_ms.value
    return restore_ms * terms.per_ms + cost_standing(wanted, has, EMPTY_SANDBOX_BYTES + (snapshot.size_bytes if snapshot else 0), terms)


def cost_standing(wanted: Iterable[str], has: Collection[str], memory_bytes: int, terms: Terms) -> float:
    """What is left to pay for a sandbox that stands, holds ``memory_bytes`` and has the modules ``has`` imported."""
    left_ms = left_bytes = 0.0
    for top in {module.partition(".")[0] for module in wanted} - {module.partition(".")[0] for module in has}:
        timed = terms.costs.modules.get(top)
        left_ms += (timed.import_ms if timed else terms.costs.import_ms).value
        left_bytes += (timed.memory_bytes if timed else terms.costs.memory_bytes).value
    seconds = terms.probability * terms.costs.until_used_seconds.value + (1 - terms.probability) * terms.costs.until_ended_seconds.value
    return left_ms * terms.per_ms + (memory_bytes + left_bytes) / _GIB * seconds * terms.memory_price


def expected_bytes(snapshot: Snapshot | None) -> int:
    """Memory to reserve for a sandbox that is starting; a restored one holds its snapshot's pages and little more."""
    return TYPICAL_SANDBOX_BYTES if snapshot is None else EMPTY_SANDBOX_BYTES + snapshot.size_bytes
