"""`ephemeral bench sandbox`, as a person types it: real sandboxes of the tests' store."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, model_validator

from ephemeral_sandboxd.bench.catalogue import CATALOGUE
from ephemeral_sandboxd.bench.place import PREFIX
from ephemeral_sandboxd.runtimes import cgroups

REPOSITORY = Path(__file__).parent.parent.parent
BASE = REPOSITORY / "tests" / "base.txt"


class Figure(BaseModel):
    """What every figure looks like."""

    model_config = ConfigDict(extra="allow")

    n: int
    min: float | None
    p50: float | None
    p99: float | None
    max: float | None
    unit: str
    what: str
    goal: dict[str, float] | None = None
    met: bool | None = None
    missing: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> "Figure":
        statistics = (self.min, self.p50, self.p99, self.max)
        if self.n:
            assert self.missing is None
            assert list(statistics) == sorted(value for value in statistics if value is not None)
            assert (self.met is None) == (self.goal is None)
        else:
            assert self.missing
            assert statistics == (None,) * 4
        return self


def at(result: dict[str, Any], name: str) -> Any:
    place: Any = result
    for part in name.split("."):
        place = place[part]
    return place


def begin(store: Path, *arguments: str) -> subprocess.Popen[str]:
    variables = {"EPHEMERAL_STORE": str(store), "EPHEMERAL_BASE": str(BASE), "DOCKER_HOST": "unix:///nowhere.sock"}
    return subprocess.Popen([sys.executable, "-m", "ephemeral_cli", "bench", "sandbox", *arguments], text=True, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **variables})


def left() -> list[str]:
    """State directories, and processes that work on one."""
    found = [str(path) for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*")]
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if PREFIX in line or "ephemeral_sandboxd.bench" in line:
            found.append(line)
    return found


@pytest.mark.timeout(300)
def test_a_quick_run_measures_all_that_the_store_has_and_leaves_nothing(store: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "bench.json"
    with begin(store, "--quick", "--no-peers", "--json", f"--output={output}") as bench:
        said, errors = bench.communicate(timeout=280)
    assert bench.returncode == 0, errors
    result = json.loads(said)
    assert result == json.loads(output.read_text())
    figures = {entry.name: Figure.model_validate(at(result, entry.name)) for entry in CATALOGUE if not entry.name.startswith("peers.")}
    lacking = {name: figure.missing for name, figure in figures.items() if not figure.n}
    # tests/base.txt is small: no torch, no scipy, fewer than twenty wheels.
    assert set(lacking) == {"restore_ms.science", "restore_ms.torch", "compose_ms.wheels20", "compose_ms.torch", "environment_ms.science",
                            "environment_ms.torch", "idle_pss_mb.torch"}
    assert all("the store's base environment has" in (reason or "") for reason in lacking.values())
    assert figures["burst100_ms"].n == 100
    assert figures["idle_cpu_percent"].max == 0
    assert set(result["machine"]) >= {"cores", "model", "memory_bytes", "kernel", "cgroup_version", "runsc", "platform", "load_average", "python",
                                      "engine", "date"}
    assert "peers" not in result
    assert left() == []


@pytest.mark.timeout(120)
def test_an_interrupted_bench_clears_up(store: Path, tmp_path: Path) -> None:
    with begin(store, "--only=boot_ms", "--only=teardown_ms", f"--output={tmp_path / 'x.json'}") as bench:
        deadline = time.monotonic() + 60
        while not (running := list(Path(tempfile.gettempdir()).glob(f"{PREFIX}*/run/runsc/*.state"))):
            assert time.monotonic() < deadline
            assert bench.poll() is None
            time.sleep(0.05)
        group = cgroups.group_of(running[0].parents[2])
        bench.send_signal(signal.SIGINT)
        _, errors = bench.communicate(timeout=60)
    assert bench.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "x.json").exists()
    assert left() == []
    assert not list(Path("/sys/fs/cgroup").rglob(group.rpartition("/")[2]))


@pytest.mark.timeout(120)
def test_what_a_killed_bench_left_is_reaped_by_the_next(store: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ephemeral_sandboxd.bench", "--only=exec_live_ms"]
    variables = {**os.environ, "EPHEMERAL_STORE": str(store), "EPHEMERAL_BASE": str(BASE)}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=variables) as killed:
        deadline = time.monotonic() + 60
        while not any(Path(tempfile.gettempdir()).glob(f"{PREFIX}*/run/runsc/*.state")):
            assert time.monotonic() < deadline
            assert killed.poll() is None
            time.sleep(0.05)
        killed.kill()
    assert left()
    with begin(store, "--only=compose_ms", "--json", f"--output={tmp_path / 'x.json'}") as bench:
        _, errors = bench.communicate(timeout=100)
    assert bench.returncode == 0, errors
    assert left() == []


def test_an_unknown_figure_is_one_sentence_that_names_those_there_are(store: Path, tmp_path: Path) -> None:
    with begin(store, "--only=speed", f"--output={tmp_path / 'x.json'}") as bench:
        _, errors = bench.communicate(timeout=60)
    assert bench.returncode == 1
    assert "no such measure: speed" in errors
    assert "next: one or more of: exec_live_ms" in errors
    assert "Traceback" not in errors


def test_a_machine_without_setup_is_told_what_to_type(tmp_path: Path) -> None:
    with begin(tmp_path / "store", f"--output={tmp_path / 'x.json'}") as bench:
        _, errors = bench.communicate(timeout=60)
    assert bench.returncode == 1
    assert "next: ephemeral setup" in errors


def test_without_an_engine_the_peers_are_missing_with_the_reason(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "programs"  # a PATH that has what a bench needs, and no dockerd
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    with begin(store, "--quick", "--only=peers.docker_exec_ms", "--json", f"--output={tmp_path / 'x.json'}") as bench:
        said, errors = bench.communicate(timeout=100)
    assert bench.returncode == 0, errors
    figure = Figure.model_validate(json.loads(said)["peers"]["docker_exec_ms"]["pandas"])
    assert "no engine" in (figure.missing or "")
    assert "docker.io" in (figure.missing or "")
