"""What bets are reckoned with, in every room: what things cost until a host has measured them, and the two prices that make one sum of it.

The default prices are 6 ms for a GiB and second (EPHEMERAL_MEMORY_PRICE_MS_PER_GIB_S) and 0.35 ms for a millisecond of CPU (EPHEMERAL_CPU_PRICE);
the predictor's policy says where they come from.
"""

from __future__ import annotations

from dataclasses import dataclass

from ephemeral import settings
from ephemeral.wire import Costs, Figure, ModuleCosts

_DEAREST = 1e9  # as a price: nothing is imported ahead from far below


@dataclass(frozen=True)
class Prices:
    """``memory``: milliseconds of waiting that a GiB is worth, held for a second. ``cpu``: those that a millisecond of CPU for nothing is worth."""

    memory: float = 6.0
    cpu: float = 0.35

    @classmethod
    def from_settings(cls) -> Prices:
        """Raises settings.SettingError for a price that is none."""
        prices = cls(settings.get("memory_price_ms_per_gib_s"), settings.get("cpu_price"))
        for name, price in (("memory_price_ms_per_gib_s", prices.memory), ("cpu_price", prices.cpu)):
            if not 0 <= price <= _DEAREST:
                raise settings.SettingError(f"EPHEMERAL_{name.upper()} is {price}: write a number from 0 to {_DEAREST:.0f}")
        return prices


def _module(import_ms: float, mebibytes: float) -> ModuleCosts:
    return ModuleCosts(import_ms=Figure(value=import_ms), memory_bytes=Figure(value=mebibytes * (1 << 20)))


PRIORS = Costs(
    boot_ms=Figure(value=400.0),
    restore_ms=Figure(value=300.0),
    import_ms=Figure(value=600.0),
    memory_bytes=Figure(value=60 << 20),
    fetch_ms=Figure(value=3000.0),
    until_used_seconds=Figure(value=10.0),
    until_ended_seconds=Figure(value=300.0),
    modules={
        "PIL": _module(170, 3),
        "cv2": _module(600, 6),
        "duckdb": _module(400, 14),
        "matplotlib": _module(1700, 29),
        "networkx": _module(750, 13),
        "nltk": _module(1000, 20),
        "numpy": _module(330, 7),
        "pandas": _module(1100, 30),
        "polars": _module(800, 19),
        "scipy": _module(2100, 48),
        "seaborn": _module(2900, 45),
        "sklearn": _module(7400, 63),
        "statsmodels": _module(2700, 40),
        "sympy": _module(1900, 39),
        "torch": _module(8400, 203),
    },
)
"""Until the host has said what it measured. Source: the snapshots of a virtual machine with two shared cores (gVisor, systrap), each compared with
the one that lacks only this module; an import includes the package's first use. A module that is not in the table is taken to be a middling one.
The last two are what the conversations of our own replay showed, and the time after which a silent session ends."""


def completed(costs: Costs) -> Costs:
    """``costs`` with PRIORS wherever the host has not measured anything."""
    known = {name: getattr(costs, name) for name in type(costs).model_fields if name != "modules"}
    figures = {name: said if said.n else getattr(PRIORS, name) for name, said in known.items()}
    modules = dict(PRIORS.modules)
    for name, said in costs.modules.items():
        prior = modules.get(name)
        memory = said.memory_bytes if said.memory_bytes.n else prior.memory_bytes if prior else figures["memory_bytes"]
        modules[name] = ModuleCosts(import_ms=said.import_ms, memory_bytes=memory)
    return Costs(**figures, modules=modules)
