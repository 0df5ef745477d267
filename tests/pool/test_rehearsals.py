"""Rehearsals: what is run once after a module's import, so that what it loads lazily is there before the user's code."""

from __future__ import annotations

import ast

import pytest

from ephemeral import names
from ephemeral.imports import scan
from ephemeral_sandboxd.environments.base import read_requirements
from ephemeral_sandboxd.pool import needs
from ephemeral_sandboxd.pool.rehearsals import FOLDER, rehearsal

MODULES = sorted(file.name.removesuffix(".py") for file in FOLDER.glob("*.py"))
BASE = {names.normalize(name) for name in read_requirements(FOLDER.parent / "base.txt")}
IN_THE_TEST_STORE = ["numpy", "PIL.Image", "PIL", "matplotlib.pyplot", "pandas", "dateutil"]
"""What tests/base.txt brings along, in an order in which the first ones are there for the last."""


@pytest.mark.parametrize("module", MODULES)
def test_every_rehearsal_is_a_program_that_imports_the_module_it_is_named_after(module: str) -> None:
    program = rehearsal(module)
    tree = ast.parse(program, f"{module}.py", feature_version=(3, 9))
    assert tree.body
    assert module.partition(".")[0] in {found.name.partition(".")[0] for found in scan(program)}


@pytest.mark.parametrize("module", MODULES)
def test_every_rehearsal_is_of_a_package_that_sandboxes_get(module: str) -> None:
    package = names.package_for(module.partition(".")[0])
    assert package, f"nothing is known to provide {module}"
    assert names.normalize(package) in BASE or module in names.modules_for(package)


@pytest.mark.parametrize("module", MODULES)
def test_every_rehearsal_has_the_name_under_which_its_module_is_wanted(module: str) -> None:
    package = names.package_for(module.partition(".")[0])
    assert package
    assert module in needs.canonical([module]) or module in names.modules_for(package)


def test_a_module_without_a_rehearsal_has_an_empty_one() -> None:
    assert rehearsal("no_such_module") == ""


@pytest.mark.asyncio(loop_scope="module")
async def test_rehearsals_run_twice_without_an_error_a_word_or_a_figure_left_behind(house) -> None:
    programs = [(module, rehearsal(module)) for module in IN_THE_TEST_STORE]
    code = f"""
import contextlib, importlib, io, os, random, warnings
def state():
    import matplotlib, matplotlib.pyplot, matplotlib.units, numpy
    return (matplotlib.pyplot.get_fignums(), dict(matplotlib.rcParams), set(matplotlib.units.registry), random.getstate(),
            repr(numpy.random.get_state()), list(warnings.filters), sorted(os.listdir(".")), dict(os.environ))
for name, program in {programs!r}:
    importlib.import_module(name)
    importlib.import_module("matplotlib.pyplot")
    for _ in range(2):
        before, said = state(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            exec(compile(program, name, "exec"), {{"__name__": "rehearsal"}})
        assert not said.getvalue(), (name, said.getvalue())
        changed = [number for number, (old, new) in enumerate(zip(before, state())) if old != new]
        assert not changed, (name, changed)
print("rehearsed")
"""
    execution = await house.run(code, timeout_seconds=50)
    assert execution.verdict == "ok", execution.stderr
    assert execution.stdout == "rehearsed\n"
