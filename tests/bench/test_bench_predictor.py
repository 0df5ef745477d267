"""`ephemeral bench predictor`, as a person types it."""

import asyncio
import gzip
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ephemeral_cli.bench import predictor_table
from ephemeral_predictor import tasks
from ephemeral_predictor.bench import figures, records
from ephemeral_predictor.bench.conversation import Conversation, Prediction, predict

PATIENCE = 120.0
KEYS = ("hit", "recall", "precision", "mean_size", "calibration_error", "negatives_empty", "covered", "tail_hit", "n", "ms_p50", "ms_p99")

PLOT = {"id": "1", "messages": [{"role": "user", "content": "Plot sales.csv with pandas and matplotlib, in Python."}], "packages": ["pandas", "matplotlib", "numpy"]}
TALK = {"id": "2", "messages": [{"role": "user", "content": "What is the capital of France?"}], "packages": []}
RARE = {"id": "3", "messages": [{"role": "user", "content": "Write Python code that counts words."}], "packages": ["humanize"],
        "code": "import humanize\n\nfor number in range(1000):\n    print(humanize.intcomma(number))\n"}


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def command(state: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    environment = {**os.environ, "EPHEMERAL_STATE": str(state)}
    return [sys.executable, "-m", "ephemeral_cli", "bench", "predictor", f"--output={state / 'bench.json'}", *arguments], environment


def bench(state: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    line, environment = command(state, *arguments)
    return subprocess.run(line, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment | variables, cwd=state, timeout=PATIENCE, check=False)


def result_of(state: Path, *arguments: str) -> dict[str, Any]:
    done = bench(state, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found == json.loads((state / "bench.json").read_text())
    return found


def without_times(result: Any) -> Any:
    if isinstance(result, dict):
        return {name: without_times(value) for name, value in result.items() if not name.startswith("ms_") and name not in ("machine", "date")}
    return [without_times(item) for item in result] if isinstance(result, list) else result


# ------------------------------------------------------------------------------------------------ the command


def test_one_file_gives_every_promised_key_for_the_ladder_and_each_of_its_steps(state: Path) -> None:
    result = result_of(state, str(written(state / "tasks.jsonl", PLOT, TALK, RARE)))
    for part in (result["combined"], *result["steps"].values()):
        assert set(part["prompt_only"]) >= set(KEYS)
        assert list(part["with_code"]) == ["0.25", "0.5", "1.0"]
        assert all(set(moment) >= set(KEYS) for moment in part["with_code"].values())
    assert list(result["steps"]) == ["seen", "learned"]
    before = result["combined"]["prompt_only"]
    assert (before["n"], before["hit"], before["tail_hit"], before["covered"], before["negatives_empty"]) == (3, 0.5, 0.0, 0.5, 1.0)
    assert before["ms_p99"] >= before["ms_p50"] > 0
    seen = result["steps"]["seen"]["with_code"]["1.0"]
    assert (seen["n"], seen["hit"], seen["recall"], seen["tail_hit"], seen["covered"]) == (1, 1.0, 1.0, 1.0, 1.0)
    assert result["file"] == "tasks.jsonl"
    assert result["machine"]["cores"]
    assert result["date"]
    assert result["definitions"]["hit"]


def test_several_files_are_reported_each_by_itself_and_as_their_macro_average(state: Path) -> None:
    first = written(state / "a.jsonl", PLOT, TALK)
    talk = state / "b.jsonl.gz"
    talk.write_bytes(gzip.compress(json.dumps(TALK).encode()))
    result = result_of(state, str(first), str(talk))
    assert list(result["files"]) == ["a.jsonl", "b.jsonl.gz"]
    assert result["files"]["b.jsonl.gz"]["combined"]["prompt_only"]["hit"] is None
    assert "with_code" not in result["files"]["a.jsonl"]["combined"]
    average = result["macro"]["combined"]["prompt_only"]
    assert (average["hit"], average["negatives_empty"], average["n"]) == (1.0, 1.0, 3)
    assert "b.jsonl.gz" in result["macro"]["left_out"]["positives"]
    assert without_times(result_of(state, str(first), str(talk))) == without_times(result)


def test_a_person_gets_a_table_and_what_each_figure_means(state: Path) -> None:
    done = bench(state, str(written(state / "tasks.jsonl", PLOT, RARE, "no json", {**TALK, "packages": ["Nobody_knows.this"]})))
    assert done.returncode == 0, done.stderr
    assert "25% of code" in done.stdout
    assert "1 lines could not be used: line 3: no JSON" in done.stdout
    assert "packages that nobody knows: nobody-knows-this" in done.stdout
    assert "tail_hit: hit over the records" in done.stdout


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"", "holds no record, it is empty"), (b"\n\n", "holds no record"), (b'{"id": 1}\n', "line 1: `messages` must be a list"), (b"\x1f\x8bbroken", "is a broken gzip archive"),
     (b"\xff\xfe\n", "holds no record"), (None, "No such file")],
)
def test_a_file_without_records_is_one_sentence(state: Path, content: bytes | None, sentence: str) -> None:
    file = state / "tasks.jsonl"
    if content is not None:
        file.write_bytes(content)
    done = bench(state, "--json", str(file))
    assert done.returncode == 1
    assert f"{file} " in done.stderr
    assert sentence in done.stderr
    assert "next: one JSON object a line" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (state / "bench.json").exists()


async def test_with_a_key_k2_is_asked_and_is_a_step_of_its_own(state: Path) -> None:
    spec = importlib.util.spec_from_file_location("fake_k2_of_bench", Path(__file__).parents[1] / "fakes/k2.py")
    assert spec
    assert spec.loader
    fake = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = fake
    spec.loader.exec_module(fake)
    server = fake.K2()
    server.will(fake.Behaviour(answer="package humanize\ndone\n"))
    await server.start()
    try:
        line, environment = command(state, "--json", str(written(state / "tasks.jsonl", RARE)))
        environment |= {"EPHEMERAL_K2_API_KEY": server.key, "EPHEMERAL_K2_BASE_URL": server.base_url, "EPHEMERAL_K2_MODEL": fake.MODEL}
        process = await asyncio.create_subprocess_exec(*line, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=state)
        said, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
    finally:
        await server.stop()
    assert process.returncode == 0, errors.decode()
    result = json.loads(said)
    assert result["k2"]["answered"] == 1
    assert result["steps"]["reasoned"]["prompt_only"]["hit"] == 1.0
    assert result["combined"]["prompt_only"]["hit"] == 1.0
    assert result["steps"]["learned"]["prompt_only"]["hit"] == 0.0


# ------------------------------------------------------------------------------------------------- what it rests on


def prediction(*packages: str, **candidates: float) -> Prediction:
    return Prediction(frozenset(packages), candidates)


def test_a_hit_counts_dependencies_and_covered_the_base_environment_too() -> None:
    tally = figures.Tally()
    tally.add(frozenset(("pandas", "numpy")), prediction("pandas"))  # numpy comes with pandas
    tally.add(frozenset(("requests",)), prediction("numpy"))  # wrong, but in the base environment
    tally.add(frozenset(("humanize",)), prediction("humanize"))
    tally.add(frozenset(("zarr", "numpy")), prediction("numpy"))
    tally.add(frozenset(), prediction())
    tally.add(frozenset(), prediction("numpy"))
    found = tally.figures()
    assert (found["hit"], found["covered"], found["tail_hit"], found["negatives_empty"]) == (0.5, 0.75, 0.5, 0.5)
    assert (found["n"], found["positives"], found["tails"], found["negatives"]) == (6, 4, 2, 2)
    assert (found["recall"], found["precision"], found["mean_size"]) == (round(4 / 6, 4), 0.6, 1.0)


def test_a_file_with_few_records_of_a_kind_is_left_out_of_the_average_unless_all_have_few() -> None:
    def file(hit: float, positives: int) -> dict[str, Any]:
        moment = dict.fromkeys(KEYS) | {"hit": hit, "n": positives, "positives": positives, "tails": 0, "negatives": 0, "pairs": 0}
        return {"combined": {"prompt_only": moment}, "steps": {}}

    average = figures.macro({"whole": file(0.8, 200), "other": file(0.6, 30), "handful": file(0.0, 3)})
    assert average["combined"]["prompt_only"]["hit"] == 0.7
    assert average["combined"]["prompt_only"]["positives"] == 233
    assert average["left_out"]["positives"] == ["handful"]
    assert figures.macro({"a": file(1.0, 2), "b": file(0.0, 3)})["combined"]["prompt_only"]["hit"] == 0.5


def test_what_no_record_can_say_is_none() -> None:
    found = figures.Tally().figures()
    assert {name for name in KEYS if found[name] is None} == set(KEYS) - {"n"}


def test_calibration_compares_what_was_said_with_what_was_and_never_parts_equal_probabilities() -> None:
    honest = [(0.2, number < 20) for number in range(100)] + [(0.8, number < 80) for number in range(100)]
    bins = figures.calibration(honest)
    assert [(each["n"], round(each["said"], 3), each["was"]) for each in bins] == [(100, 0.2, 0.2), (100, 0.8, 0.8)]
    tally = figures.Tally()
    for number in range(10):
        tally.add(frozenset(("numpy",)) if number < 5 else frozenset(), prediction(numpy=0.9, torch=0.01))
    assert tally.figures()["calibration_error"] == 0.4
    assert tally.figures()["pairs"] == 10
    spread = figures.calibration([(number / 1000, number % 2 == 0) for number in range(1000)])
    assert [each["n"] for each in spread] == [100] * 10


def test_packages_are_read_in_any_spelling_and_modules_of_python_itself_need_nothing(tmp_path: Path) -> None:
    read = records.read(written(tmp_path / "tasks.jsonl", {**TALK, "packages": ["Scikit_Learn", "sklearn", "cv2", "PIL", "json", "Pillow"]}))
    assert read.found[0].needed == {"scikit-learn", "opencv-python-headless", "pillow"}
    assert not read.unknown


def test_earlier_turns_are_read_as_the_proxy_read_them(tmp_path: Path) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "execute_code", "arguments": json.dumps({"code": "import xarray\nprint(1)\n"})}}
    wanted = {want.package for want in predict([
        {"role": "system", "content": "You answer."}, {"role": "user", "content": [{"type": "text", "text": "Open the file."}]},
        {"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c1", "content": "1"},
        {"role": "user", "content": "thanks, now the next one"}])}
    assert "xarray" in wanted


def test_strange_messages_and_code_are_read_like_any() -> None:
    strange: list[dict[str, Any]] = [{"role": "user"}, {"role": "user", "content": 5}, {"role": "user", "content": "\ud800 \0"},
                                     {"role": "assistant", "tool_calls": [5]}, {"role": "nobody", "content": {}}, {"role": "assistant", "content": ["x"]}]
    conversation = Conversation(strange)
    assert conversation.prompt() >= 0
    assert [fraction for fraction, _ in conversation.code("x = '\ud83d \\\\ \" \0'\nimport humanize\n" * 50)] == [0.25, 0.5, 1.0]
    assert "humanize" in conversation.prediction("seen").packages
    assert "humanize" not in conversation.prediction("learned").packages


def test_the_table_of_dependencies_is_whole() -> None:
    assert {"numpy", "pandas", "torch", "markupsafe", "soupsieve"} <= tasks.base()
    assert "humanize" not in tasks.base()
    assert tasks.covered({"geopandas"}) >= {"geopandas", "pandas", "numpy", "shapely"}


def test_every_figure_has_its_column_and_what_is_missing_a_dash() -> None:
    moment = dict.fromkeys(KEYS) | {"n": 3, "hit": 0.5}
    part = {"combined": {"prompt_only": moment, "with_code": {"0.25": moment}}, "steps": {"seen": {"prompt_only": moment}}}
    console = Console(width=140, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(predictor_table.figures("x", part))
    lines = [line.split() for line in console.export_text().splitlines() if "0.500" in line]
    assert len(lines) == 3
    assert lines[0] == ["prompt", "only", "0.500", *["-"] * 7, "3", "-", "-"]
    assert set(predictor_table.COLUMNS) == set(KEYS)
