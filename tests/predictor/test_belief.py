"""From what is said to what is planned: no I/O."""

import pytest

from ephemeral_predictor import seen
from ephemeral_predictor.bench.conversation import predict
from ephemeral_predictor.planner import is_material, plan_for
from ephemeral_predictor.state import Belief


def wanted(text: str) -> set[str]:
    return {want.package for want in predict([{"role": "user", "content": text}])}


@pytest.mark.parametrize(
    "text",
    [
        "What is the capital of France?",
        "explain why the sky is blue",
        "How are you?",
        "Write a poem about the sea.",
        "I would like two requests: click here, and get rich.",
        "Translate 'the records are in the box' into German.",
        "SOLVE THIS IN C++: sort an array of integers.",
        "Write a JavaScript function that plots a chart of the data.",
        "",
        "\x00\ud83d\ude00" * 50,
    ],
)
def test_a_conversation_that_needs_no_python_package_gets_nothing(text):
    assert wanted(text) == set()


@pytest.mark.parametrize(
    ("text", "packages"),
    [
        ("Use pandas to group the rows", {"pandas"}),
        ("write a PyTorch training loop", {"torch"}),
        ("a script with sklearn and OpenCV", {"scikit-learn", "opencv-python-headless"}),
        ("Write code with `requests.get(url)`", {"requests"}),
        ("Write a script using the click library", {"click"}),
        ("write a window with the PyQt6 library in python", {"pyqt6"}),
        ("Here is sales.csv. Which region sold most?", {"pandas"}),
        ("Sum the totals in report.xlsx", {"openpyxl", "pandas"}),
        ("Plot a histogram of 1000 normal samples", {"matplotlib"}),
        ("resize photo.png to 200x200", {"pillow"}),
        ("Train a random forest classifier on the data", {"scikit-learn"}),
        ("run edge detection on the image", {"opencv-python-headless"}),
        ("Don't use pandas; use polars to group sales.csv by region", {"polars"}),
        ("fix this:\n```python\nimport networkx as nx\n```", {"networkx"}),
        ("データフレーム`df`の列を削除する", {"pandas"}),
    ],
)
def test_names_files_and_concepts_tell_packages(text, packages):
    assert packages <= wanted(text)
    assert "pandas" in packages or "don't" not in text.lower() or "pandas" not in wanted(text)


def test_an_unwanted_library_is_not_planned_and_an_earlier_guess_is_withdrawn():
    belief = Belief("s")
    belief.user_turn("Plot the data frame")
    assert "matplotlib" in {want.package for want in plan_for(belief, 0.0).wants}
    belief.user_turn("Write it without matplotlib, please, with plotly instead")
    packages = {want.package for want in plan_for(belief, 0.0).wants}
    assert "plotly" in packages
    assert "matplotlib" not in packages


def test_only_the_standard_library_means_no_guess():
    assert wanted("Using only the standard library, write a script that plots sales.csv") == set()


def test_a_version_that_the_user_pins_is_wanted():
    (want,) = [w for w in predict([{"role": "user", "content": "write code for pandas==2.2.3"}]) if w.package == "pandas"]
    assert want.version == "2.2.3"


def test_a_text_that_lists_many_libraries_asks_for_none_of_them():
    inventory = "Write python code. Installed: " + ", ".join(
        ["numpy", "pandas", "scipy", "torch", "plotly", "duckdb", "polars", "nltk", "sympy", "flask"]
    )
    assert not wanted(inventory) & {"numpy", "pandas", "scipy", "torch", "plotly", "duckdb", "polars", "nltk", "sympy", "flask"}


def test_a_declared_tool_alone_plans_nothing_until_evidence_shows_up():
    belief = Belief("s")
    belief.tool_declared("execute_code")
    belief.user_turn("You are a helpful assistant. You can run Python code, make plots with matplotlib and read files.")
    belief.user_turn("What is the capital of France?")
    assert plan_for(belief, 0.0) is None
    belief.user_turn("Then plot its population by year.")
    assert plan_for(belief, 0.0).wants[0].package == "matplotlib"


def test_a_file_that_a_tool_result_names_counts_once_code_is_asked_for():
    belief = Belief("s")
    belief.tool_result("sales.csv\nREADME")
    assert plan_for(belief, 0.0) is None
    belief.user_turn("Write a script that sums it up")
    assert [want.package for want in plan_for(belief, 0.0).wants] == ["pandas"]


def test_code_that_needs_no_package_gets_a_bare_sandbox_only_where_a_tool_takes_code():
    belief = Belief("s")
    belief.user_turn("Write a function that gives the first 20 primes and run it.")
    assert plan_for(belief, 0.0) is None
    belief.tool_declared("run_python")
    plan = plan_for(belief, 0.0)
    assert plan.action == "provision"
    assert plan.wants == []


def test_the_first_code_plans_a_bare_sandbox_and_each_import_refines_it():
    belief = Belief("s")
    assert belief.call_started("execute_code")
    first = plan_for(belief, 0.0)
    assert (first.wants, first.proposer) == ([], "seen")
    assert not belief.code("c1", "import nump")
    assert belief.code("c1", "y as np\n")
    second = plan_for(belief, 0.0, first)
    assert is_material(second, first)
    assert [(want.package, want.probability, want.evidence) for want in second.wants] == [("numpy", 1.0, "import")]
    assert second.modules == ["numpy"]
    belief.code("c1", "import os, made_up_module_of_nobody\nprint(np.zeros(3))\n")
    assert not is_material(plan_for(belief, 0.0, second), second)


def test_submodules_are_imported_ahead_exactly_as_the_code_names_them():
    belief = Belief("s")
    belief.code("c", "from sklearn.linear_model import LinearRegression\nfrom PIL import Image\nimport torch\n")
    belief.code("c", "from matplotlib import pyplot as plt\nfrom scipy import optimize, floor\n")
    modules = plan_for(belief, 0.0).modules
    for module in ("sklearn.linear_model", "PIL.Image", "torch", "matplotlib.pyplot", "scipy.optimize"):
        assert module in modules
    assert "scipy.floor" not in modules


def test_a_guess_is_preloaded_with_what_is_usually_imported():
    belief = Belief("s")
    belief.user_turn("plot a histogram")
    assert "matplotlib.pyplot" in plan_for(belief, 0.0).modules


def test_an_import_in_a_fence_of_the_answer_counts_at_the_end_of_its_line():
    belief = Belief("s")
    belief.user_turn("hello")
    assert not belief.assistant_text("Sure, import pandas.\n```python\nimport pol")
    assert belief.assistant_text("ars as pl\n")
    plan = plan_for(belief, 0.0)
    assert [(want.package, want.probability) for want in plan.wants] == [("polars", seen.FENCE_PROBABILITY)]


def test_an_explicit_install_counts_with_its_version():
    belief = Belief("s")
    belief.code("c", "!pip install seaborn==0.13.2\n")
    (want,) = plan_for(belief, 0.0).wants
    assert (want.package, want.version, want.evidence) == ("seaborn", "0.13.2", "pip install")


def test_the_last_line_counts_when_the_code_is_done_without_a_newline():
    belief = Belief("s")
    belief.code("c", "import numpy")
    assert belief.code_done("c")
    assert [want.package for want in plan_for(belief, 0.0).wants] == ["numpy"]


def test_a_hostile_conversation_cannot_make_a_plan_larger_than_the_wire_allows():
    belief = Belief("s")
    names = ["numpy", "pandas", "scipy", "torch", "flask", "django", "nltk", "sympy", "plotly", "polars", "duckdb", "lxml"]
    belief.code("c", "".join(f"import {name}.m{n}\n" for n in range(40) for name in names))
    belief.code("d", "".join(f"!pip install made-up-{n}\n" for n in range(1000)))
    for n in range(200):
        belief.user_turn(f"turn {n} " + "x" * 10_000)
    plan = plan_for(belief, 0.0)
    assert len(plan.wants) <= 64
    assert len(plan.modules) <= 64
    assert len(belief.turns) <= 16
