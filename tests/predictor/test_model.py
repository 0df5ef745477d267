"""The trained model: the shipped one, and making another."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ephemeral import names
from ephemeral_predictor import model
from ephemeral_predictor.model import features, train
from ephemeral_predictor.model.shipped import DATA, Model, shipped
from ephemeral_predictor.planner import plan_for
from ephemeral_predictor.state import Belief
from ephemeral_predictor.tasks import rows

TRAINING = sorted((Path(__file__).parents[2] / "predictor/training").glob("*.tsv"))


def likely(text: str) -> set[str]:
    """What is planned for ``text`` once it was said."""
    belief = Belief("s")
    belief.user_turn(text)
    plan = plan_for(belief, at=0.0)
    return {want.package for want in plan.wants} if plan else set()


def test_a_text_is_the_same_vector_everywhere():
    words, pieces = features.counts("Plot it, plot IT")
    assert words == {102281: 2, 30516: 2, 78856: 2, 124430: 1}
    assert all(bucket < features.BUCKETS for bucket in words)
    assert all(features.BUCKETS <= bucket < 2 * features.BUCKETS for bucket in pieces)
    assert features.counts("Plot it, plot IT") == (words, pieces)


@pytest.mark.parametrize("text", ["", " ", "x", "\x00\ud83d", "日本語", "a" * 100_000, "word " * 50_000])
def test_any_text_has_a_prediction(text):
    verdict = model.read(text)
    assert 0 <= verdict.needed <= 1
    assert all(0 < evidence.probability < 1 for evidence in verdict.evidence)
    assert len(likely(text)) <= 6


@pytest.mark.parametrize(
    ("text", "package"),
    [
        ("For each region sum up the column amount of the dataframe and show the three largest.", "pandas"),
        ("Write a function that returns the eigenvalues of a symmetric 2d array, sorted.", "numpy"),
        ("¿Cómo quito la leyenda de la figura y pongo etiquetas en el eje x?", "matplotlib"),
        ("download all links from a website, the ones inside the div with class content", "beautifulsoup4"),
    ],
)
def test_words_that_name_no_package_say_what_is_needed(text, package):
    assert package in likely(text)


@pytest.mark.parametrize("text", ["Write me a poem about the sea.", "What does habeas corpus mean?", "How do I train my dog to sit?", "Merge two sorted linked lists."])
def test_what_needs_nothing_gets_nothing(text):
    assert likely(text) == set()


def test_what_rules_and_model_say_is_planned_and_each_says_whose_it_is():
    belief = Belief("s")
    belief.user_turn("Write Python code that extracts the text of all pages of contract.pdf")
    plan = plan_for(belief, at=0.0)
    said = {want.package: (want.proposer, want.evidence) for want in plan.wants}
    assert said["pypdf"] == ("learned", "file")
    assert ("learned", "model") in said.values()


def test_what_the_model_is_unsure_of_is_made_available_and_not_imported():
    belief = Belief("s")
    belief.user_turn("Write Python code that extracts the text of all pages of contract.pdf")
    plan = plan_for(belief, at=0.0)
    unsure = [want for want in plan.wants if want.probability < 0.25]
    assert unsure
    assert {want.decision for want in unsure} == {"available"}
    assert not set(plan.modules) & {module for want in unsure for module in names.modules_for(want.package)}


def test_the_standard_library_only_means_it():
    belief = Belief("s")
    belief.user_turn("Write Python code, standard library only, that returns the eigenvalues of a symmetric 2d array.")
    assert plan_for(belief, at=0.0) is None


def test_what_ships_is_small_and_knows_only_packages_that_exist():
    assert DATA.stat().st_size < 30 << 20
    known = list(shipped().weights.places)
    unknown = [name for name in known if names.rank(name) is None]
    assert len(unknown) <= len(known) // 20, unknown


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
def test_the_training_files_are_well_formed(path):
    read = list(rows(path))
    assert len(read) > 400
    assert len({json.dumps(row["messages"]) for row in read}) == len(read), "a prompt stands there twice"
    for row in read:
        assert row["messages"][0]["content"].strip()
        assert all(re.fullmatch(r"[a-z0-9-]+", package) for package in row["packages"]), row


@pytest.fixture
def few(tmp_path: Path) -> Path:
    path = tmp_path / "few.tsv"
    lines = [f"pandas\tsum the column of table number {number}" for number in range(8)]
    lines += [f"-\ttell me story number {number}" for number in range(8)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_same_files_give_the_same_weights(few, tmp_path):
    made = [train.train(list(train.examples([few]))) for _ in range(2)]
    for name, array in made[0].weights.arrays().items():
        assert np.array_equal(array, made[1].weights.arrays()[name]), name
    assert np.array_equal(made[0].combining.needed, made[1].combining.needed)
    assert np.array_equal(made[0].combining.package, made[1].combining.package)
    made[0].write(tmp_path / "m.npz")
    again = Model.read(tmp_path / "m.npz")
    assert list(again.weights.places) == ["pandas"]
    assert again.weights.scores("sum the column of that table").of("pandas") > 0 > again.weights.scores("tell me a story").of("pandas")


def test_rows_whose_licence_forbids_it_are_not_learned_from(tmp_path):
    path = tmp_path / "tasks.jsonl"
    task = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "packages": ["pandas"], "source": "s"}
    path.write_text("".join(json.dumps({**task, "license": licence}) + "\n" for licence in ("MIT", "CC-BY-SA-4.0", "proprietary")))
    assert [(example.text, example.packages) for example in train.examples([path])] == [("x", {"pandas"})]


@pytest.mark.parametrize("content", ["no tab here\n", "\n"])
def test_a_file_that_cannot_be_read_is_one_clear_sentence(tmp_path, content):
    path = tmp_path / "bad.tsv"
    path.write_text(content)
    done = subprocess.run([sys.executable, "-m", "ephemeral_cli", "train", str(path), "--output", str(tmp_path / "m.npz")],
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "cannot be read" in done.stderr
    assert not (tmp_path / "m.npz").exists()


def test_tasks_that_all_need_something_teach_nothing_and_that_is_said(tmp_path):
    path = tmp_path / "all.tsv"
    path.write_text("".join(f"pandas\tsum the column of table number {number}\n" for number in range(8)))
    done = subprocess.run([sys.executable, "-m", "ephemeral_cli", "train", str(path), "--output", str(tmp_path / "m.npz")],
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.returncode == 1
    assert "nothing can be learned from 8 tasks" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_makes_a_model(few, tmp_path):
    done = subprocess.run([sys.executable, "-m", "ephemeral_cli", "train", str(few), "--output", str(tmp_path / "m.npz")],
                          capture_output=True, text=True, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "16 tasks, 8 of them with packages; 1 packages" in done.stdout
    assert list(Model.read(tmp_path / "m.npz").weights.places) == ["pandas"]
