"""Recorded tasks and what is told of them."""

import gzip
import json
from pathlib import Path

import pytest

from ephemeral import wire
from ephemeral_cli.demo import command as demo
from ephemeral_cli.demo import table
from ephemeral_cli.demo.rivals import Rivals
from ephemeral_cli.errors import CommandError
from ephemeral_cli.replay import report
from ephemeral_cli.replay.conversation import Held
from ephemeral_cli.replay.orders import Outcome
from ephemeral_cli.replay.tasks import Task, load


def held(number: int, tier: wire.Tier = "live", wait: float = 1.0, output: str = "42") -> Held:
    task = Task(id=f"t{number}", messages=[{"role": "user", "content": "x"}], code="print(42)", expect="42")
    execution = wire.Execution(id=f"e{number}", session="s", tier=tier, verdict="ok", created_at=1.0, wait_ms=wait, run_ms=2.0, lead_ms=900.0, needed=["numpy"])
    session = wire.Session(id="s", started_at=0, last_at=0, builds=2, wasted=1, memory_seconds=0.5)
    return Held(task, Outcome(id="o", outputs=[output], first_ms=1000.0), session, [execution])


def test_quantiles_are_of_nearest_rank() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [report.quantile(values, percent) for percent in (50, 95, 99, 100)] == [50, 95, 99, 100]
    assert report.quantile([7.0], 99) == 7.0
    with pytest.raises(ValueError, match="no values"):
        report.quantile([], 50)


def test_the_summary_splits_waits_by_tier_and_adds_up_builds() -> None:
    figures = report.summary([held(1), held(2, "partial", 80.0), held(3, wait=3.0)])
    assert figures["tiers"] == {"live": 2, "partial": 1}
    assert figures["wait_by_tier_ms"]["live"]["p50"] == 1.0
    assert figures["wait_ms"]["max"] == 80.0
    assert (figures["builds"], figures["wasted"], figures["memory_gib_seconds"]) == (6, 3, 1.5)
    assert (figures["ok"], figures["broken"]) == (3, 0)


def test_a_summary_of_nothing_has_no_figures_and_does_not_fail() -> None:
    assert report.summary([])["wait_ms"] is None
    report.show(report.summary([]))


def test_output_that_is_not_what_was_expected_is_not_ok() -> None:
    assert held(1).ok
    assert not held(1, output="41").ok


def test_a_conversation_without_code_is_ok_only_when_nothing_was_built() -> None:
    talk = Task(id="talk", messages=[{"role": "user", "content": "hello"}])
    assert Held(talk, Outcome(id="o")).ok
    assert not Held(talk, Outcome(id="o"), wire.Session(id="s", started_at=0, last_at=0, builds=1)).ok


def test_the_demos_json_has_the_promised_fields(tmp_path: Path) -> None:
    figures = table.figures([held(1)], Rivals(tmp_path / "rivals.json"))
    promised = {"name", "needed", "predicted", "tier", "lead_ms", "wait_ms", "run_ms", "cold_ms", "cold_cached_ms", "fat_snapshot_ms", "ok"}
    assert promised <= set(figures["tasks"][0])
    assert figures["summary"]["median_live_wait_ms"] == 1.0
    json.dumps(figures)
    table.show(figures)
    table.remarks(figures)


def test_rivals_remembered_for_other_code_are_not_believed(tmp_path: Path) -> None:
    file = tmp_path / "rivals.json"
    file.write_text(json.dumps({"t1 none": {"ms": 5.0, "at": 1.0, "code": "another", "ok": True}}))
    assert Rivals(file).figure(held(1).task, "none") is None
    file.write_text("{broken")
    assert Rivals(file).figure(held(1).task, "none") is None


def test_the_bundled_tasks_cover_what_the_demo_promises() -> None:
    tasks = load(demo.TASKS)
    packages = {package for task in tasks for package in task.packages}
    assert {"pandas", "matplotlib", "scikit-learn", "scipy", "torch", "polars", "duckdb"} <= packages
    assert packages & {"pillow", "opencv-python-headless"}
    assert any(task.code is None for task in tasks)
    assert any(task.code and not task.packages for task in tasks)
    assert any(task.wrapped for task in tasks)
    assert len({task.opening for task in tasks}) == len(tasks) >= 12
    for task in tasks:
        if task.code:
            assert task.expect
            compile(task.code, task.id, "exec")


def test_tasks_are_read_plain_and_gzipped_and_drawn_the_same_with_one_seed(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps({"id": str(n), "messages": [{"role": "user", "content": str(n)}]}) for n in range(50))
    (tmp_path / "a.jsonl").write_text(lines + "\n\n")
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write(lines)
    assert len(load(tmp_path / "a.jsonl")) == len(load(tmp_path / "a.jsonl.gz")) == 50
    drawn = [task.id for task in load(tmp_path / "a.jsonl", limit=5, seed=3)]
    assert drawn == [task.id for task in load(tmp_path / "a.jsonl", limit=5, seed=3)]
    assert len(drawn) == 5


@pytest.mark.parametrize(("text", "words"), [
    ("", "holds no task"),
    ('{"id": "a"}', "line 1: messages"),
    ('{"id": "a", "messages": []}', "line 1: messages"),
    ("{oops", "line 1 is no JSON"),
])
def test_a_file_that_holds_no_tasks_is_an_error_that_names_the_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "bad.jsonl").write_text(text)
    with pytest.raises(CommandError, match=words):
        load(tmp_path / "bad.jsonl")
    with pytest.raises(CommandError, match="cannot be read"):
        load(tmp_path / "missing.jsonl")
