"""What the rules make of a text before the model has its say."""

from __future__ import annotations

import pytest

from ephemeral_predictor import model, seen
from ephemeral_predictor.evidence import LIKELY, NEEDED
from ephemeral_predictor.model import signals


def named(text: str) -> set[str]:
    return {evidence.package for evidence in seen.mentions(text).found}


@pytest.mark.parametrize(
    ("text", "package"),
    [
        ("Write me a testbench for a multiplier in cocotb", "cocotb"),
        ("Using pandas-ta, find where the close crosses the average", "pandas-ta"),
        ("the cartesian product of two arrays in Jax", "jax"),
        ("QTextEdit (pyside6): the current selection", "pyside6"),
        ("transpose the score with music21", "music21"),
        ("un bot con aiogram que responde", "aiogram"),
        ("use netmiko to log in to the switch", "netmiko"),
    ],
)
def test_any_popular_package_is_recognised_where_a_text_says_to_use_it(text, package):
    assert package in named(text)
    assert package in seen.mentions(text).directed


@pytest.mark.parametrize(
    "text",
    [
        "with love, in spring, using docker",
        "plot it in color using the file",
        "play an mp3 on the esp32 via i2c in html5, with sha256 and oauth2",
        "an iPhone app in JavaScript on GitHub, with ChatGPT and PowerPoint",
        "write it with passion, in depth, using transitions and a path",
    ],
)
def test_ordinary_words_name_no_package_even_where_packages_are_called_so(text):
    assert named(text) == set()


def test_a_package_that_is_only_spoken_of_is_not_one_to_use():
    assert seen.mentions("My pandas script is slow.").directed == frozenset()
    assert seen.mentions("Do it with pandas, not with polars. Don't use duckdb.").directed >= {"pandas"}
    assert "duckdb" in seen.mentions("Don't use duckdb.").rejected


def test_what_does_the_same_work_as_a_named_package_is_no_concept_of_the_text():
    said = signals.read("use polars to group the rows of the data frame")
    assert "pandas" in said.replaced
    assert "pandas" not in said.concepts


def test_a_long_text_is_looked_at_from_both_ends():
    text = signals.excerpt("first " + "x" * 100_000 + " last")
    assert text.startswith("first")
    assert text.endswith("last")
    assert len(text) < 7_000


def test_a_package_that_the_text_says_to_use_is_a_need_whatever_else_it_says():
    verdict = model.read("How can I print to a textbox in pyqt6?")
    assert verdict.needed >= NEEDED
    assert verdict.evidence[0].package == "pyqt6"
    assert verdict.evidence[0].kind == "mention"


def test_a_list_of_what_is_installed_makes_none_of_it_likely():
    listed = ["numpy", "pandas", "scipy", "torch", "plotly", "duckdb", "polars", "nltk", "sympy", "flask"]
    verdict = model.read("Write python code. Installed: " + ", ".join(listed))
    assert all(evidence.probability < LIKELY for evidence in verdict.evidence if evidence.package in listed)


def test_probabilities_are_ordered_and_the_same_each_time():
    first, second = (model.read("Plot a heat map of the correlations in sales.csv") for _ in range(2))
    assert first == second
    assert [e.probability for e in first.evidence] == sorted((e.probability for e in first.evidence), reverse=True)
