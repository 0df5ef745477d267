"""Samples in, figures out, a table of them."""

import pytest
from rich.console import Console

from ephemeral_cli.bench import table
from ephemeral_sandboxd.bench.catalogue import CATALOGUE, Entry, selected
from ephemeral_sandboxd.bench.figures import Figures, figure
from ephemeral_sandboxd.errors import BadRequest

PROMISED = (
    "exec_live_ms", "exec_frozen_ms", "boot_ms", "teardown_ms", "checkpoint_ms", "idle_cpu_percent", "starts_per_second_per_core", "burst100_ms",
    "sessions2000_mb", *(f"restore_ms.{kind}" for kind in ("bare", "numpy", "pandas", "science", "torch")), "compose_ms.wheels20", "compose_ms.torch",
    *(f"idle_pss_mb.{kind}" for kind in ("bare", "pandas", "torch")), "environment_ms.science", "environment_ms.torch",
)


def test_the_catalogue_has_every_promised_figure_and_peers() -> None:
    names = [entry.name for entry in CATALOGUE]
    assert set(PROMISED) <= set(names)
    assert len(names) == len(set(names))
    assert any(name.startswith("peers.docker_run_pip") for name in names)


def test_with_fewer_than_a_hundred_samples_p99_is_the_largest_and_says_so() -> None:
    entry = Entry("x", "ms", "something")
    few = figure(entry, [3.0, 1.0, 2.0])
    assert (few["n"], few["min"], few["p50"], few["p99"], few["p99_is"]) == (3, 1.0, 2.0, 3.0, "max")
    many = figure(entry, [float(number) for number in range(1, 1002)])
    assert (many["p50"], many["p99"], many["max"]) == (501.0, 991.0, 1001.0)
    assert "p99_is" not in many


def test_a_goal_is_met_only_when_nothing_failed() -> None:
    entry = Entry("x", "ms", "something", {"p50": 2, "max": 4})
    assert figure(entry, [1, 2, 4])["met"] is True
    assert figure(entry, [1, 2, 5])["met"] is False
    assert figure(entry, [1, 2, 4], failed=1)["met"] is False
    assert "met" not in figure(entry, [], missing="no engine")


def test_only_names_one_figure_or_all_below_it() -> None:
    assert [entry.name for entry in selected(["restore_ms.numpy", "boot_ms"], peers=True)] == ["restore_ms.numpy", "boot_ms"]
    assert len(selected(["restore_ms"], peers=False)) == 5
    assert not any(entry.name.startswith("peers") for entry in selected([], peers=False))
    with pytest.raises(BadRequest, match="restore_m"):
        selected(["restore_m"], peers=True)


def test_what_was_not_measured_is_in_the_result_with_its_reason() -> None:
    figures = Figures(selected(["restore_ms"], peers=False))
    figures.add("restore_ms.bare", [100.0])
    figures.add("boot_ms", [1.0])  # nobody asked
    figures.missing("restore_ms", "no room")
    result = figures.result()
    assert list(result) == ["restore_ms"]
    assert result["restore_ms"]["bare"]["n"] == 1
    assert result["restore_ms"]["torch"] == {
        "n": 0, "min": None, "p50": None, "p99": None, "max": None, "unit": "ms", "goal": {"p50": 350}, "missing": "no room",
        "what": "restore of a snapshot, asked to the answer of 1+1: torch imported"}


def test_the_table_marks_what_is_met_what_is_not_and_what_is_missing() -> None:
    figures = Figures(selected([], peers=True))
    figures.add("exec_live_ms", [0.4] * 100)
    figures.add("restore_ms.pandas", [260.0, 250.0])
    figures.add("burst100_ms", [5000.0] * 99, failed=1)
    figures.missing("peers", "no engine: none answers")
    machine = {"cores": 2, "model": "some", "memory_bytes": 8 << 30, "kernel": "6.18", "cgroup_version": 1, "runsc": "2024", "engine": "28.0",
               "load_average": [0.1, 0.2, 0.3], "date": "2026-01-01T00:00:00Z"}
    result = {**figures.result(), "machine": machine, "quick": True}
    console = Console(width=110, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table.machine(result))
    console.print(table.show(result))
    shown = console.export_text()
    lines = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
    assert lines["exec_live_ms"].rstrip().endswith("met")
    assert "not met" in lines["restore_ms.pandas"]
    assert "260*" in lines["restore_ms.pandas"]
    assert "1 failed" in lines["burst100_ms"]
    assert "missing" in lines["peers.docker_run_pip_ms"]
    assert "2 cores" in shown
    remarks = table.remarks(result)
    assert "1 of 3 goals met (with few samples: --quick)" in remarks
    assert any("no engine" in line and "peers.docker_exec_ms.bare" in line for line in remarks)
