"""From which snapshot a sandbox starts: the one after which the least is left to pay."""

from __future__ import annotations

import pytest

from ephemeral.costs import PRIORS, Prices
from ephemeral.wire import Costs, Figure, ModuleCosts, Snapshot
from ephemeral_sandboxd.pool.choosing import Terms, best, cost, cost_standing

MIB = 1 << 20
BASE = ["base"]
PRICES = Prices()


def shot(modules: str, mebibytes: int = 60, environments: tuple[str, ...] = ("base",)) -> Snapshot:
    return Snapshot(id=modules.replace(" ", "-"), environments=list(environments), modules=modules.split(), size_bytes=mebibytes * MIB, import_ms=0.0, created_at=0.0)


def host(**modules: tuple[float, float]) -> Costs:
    """Module -> (milliseconds, MiB)."""
    timed = {name: ModuleCosts(import_ms=Figure(value=ms, n=3), memory_bytes=Figure(value=mib * MIB, n=3)) for name, (ms, mib) in modules.items()}
    return PRIORS.model_copy(update={"modules": timed})


HOST = host(numpy=(300, 7), pandas=(1000, 30), scipy=(2000, 48), sklearn=(5000, 60), statsmodels=(2700, 40), rare=(200, 5))
AHEAD = Terms.ahead(HOST, PRICES, 0.9)
BARE, NUMPY, PANDAS = shot("", 15), shot("numpy", 24), shot("numpy pandas")
LEARNING = shot("numpy pandas scipy sklearn", 138)
FAT = shot("numpy pandas scipy sklearn statsmodels torch", 397)
ALL = [BARE, FAT, LEARNING, NUMPY, PANDAS]


def chosen(wanted: str, snapshots: list[Snapshot] = ALL, terms: Terms = AHEAD, **more: int) -> str | None:
    found = best(snapshots, wanted.split(), BASE, terms, **more)
    return found.id if found else None


def test_the_exact_one_where_there_is_one():
    assert chosen("numpy") == "numpy"
    assert chosen("numpy pandas") == "numpy-pandas"
    assert chosen("numpy pandas scipy sklearn") == "numpy-pandas-scipy-sklearn"


def test_one_that_holds_more_where_that_spares_an_import_of_seconds():
    assert chosen("numpy scipy sklearn") == "numpy-pandas-scipy-sklearn"
    assert chosen("numpy scipy statsmodels") == FAT.id


def test_no_more_than_is_wanted_where_the_rest_is_soon_imported():
    assert chosen("numpy rare") == "numpy"
    assert chosen("numpy pandas rare") == "numpy-pandas"
    assert chosen("rare") is None


def test_nothing_where_nothing_is_wanted():
    assert chosen("") is None
    assert chosen("numpy", []) is None
    assert chosen("numpy", [BARE]) is None


def test_memory_that_is_dear_or_held_for_long_makes_a_smaller_one_win():
    dear = Terms.ahead(HOST, Prices(memory=100.0, cpu=0.35), 0.9)
    assert chosen("numpy scipy statsmodels", terms=dear) == "numpy-pandas-scipy-sklearn"
    unlikely = Terms.ahead(HOST, PRICES, 0.05)
    assert cost(["statsmodels"], FAT, unlikely) > cost(["statsmodels"], FAT, AHEAD)


def test_code_that_is_there_pays_for_each_millisecond():
    urgent = Terms.urgent(HOST, PRICES)
    assert urgent.per_ms == 1.0
    only = host(numpy=(300, 7), slow=(700, 5))
    big = shot("numpy slow extra", 340)
    assert best([NUMPY, big], ["numpy", "slow"], BASE, Terms.ahead(only, Prices(memory=20), 0.5)) == NUMPY
    assert best([NUMPY, big], ["numpy", "slow"], BASE, Terms.urgent(only, Prices(memory=20))) == big


def test_only_what_stands_on_these_environments_counts():
    other = shot("numpy pandas", 60, ("base", "fetched"))
    assert best([other], ["numpy", "pandas"], BASE, AHEAD) is None
    assert best([other], ["numpy", "pandas"], ["base", "fetched"], AHEAD) == other
    assert best([PANDAS, other.model_copy(update={"id": "a"})], ["numpy", "pandas"], ["base", "fetched"], AHEAD).environments == ["base", "fetched"]  # type: ignore[union-attr]


def test_one_that_does_not_fit_into_the_memory_there_is_is_left_out():
    assert chosen("numpy scipy statsmodels", most_bytes=200 * MIB) == "numpy-pandas-scipy-sklearn"
    assert chosen("numpy pandas", most_bytes=50 * MIB) is None


def test_a_module_that_was_never_timed_counts_as_a_middling_one():
    assert cost_standing(["unheard"], [], 0, Terms.urgent(host(), PRICES)) == pytest.approx(PRIORS.import_ms.value + 60 / 1024 * 10 * 6)


def test_submodules_count_as_their_package_once():
    terms = Terms.urgent(HOST, Prices(memory=0.0))
    assert cost_standing(["matplotlib.pyplot", "matplotlib"], ["matplotlib.figure"], 0, terms) == 0
    assert cost_standing(["scipy.stats", "scipy"], [], 0, terms) == 2000
