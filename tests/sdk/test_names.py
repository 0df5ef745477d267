from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from ephemeral import names

ROOT = Path(__file__).parents[2]
PREDICTOR = ROOT / "predictor/ephemeral_predictor/data"
RARE = Path(__file__).with_name("rare.txt")
"""Allowed though they are not popular: the file says why."""


@pytest.mark.parametrize(("module", "package"), [
    ("cv2", "opencv-python-headless"), ("sklearn", "scikit-learn"), ("PIL", "pillow"), ("yaml", "pyyaml"), ("bs4", "beautifulsoup4"),
    ("docx", "python-docx"), ("fitz", "pymupdf"), ("Crypto", "pycryptodome"), ("dateutil", "python-dateutil"), ("dotenv", "python-dotenv"),
    ("skimage", "scikit-image"), ("mpl_toolkits.mplot3d", "matplotlib"), ("google.protobuf", "protobuf"), ("google.genai.types", "google-genai"),
    ("google.cloud.storage", "google-cloud-storage"), ("pandas", "pandas"), ("numpy.linalg", "numpy"), ("humanize", "humanize"), ("jwt", "pyjwt"),
    ("speech_recognition", "speechrecognition"), ("pkg_resources", "setuptools"), ("psycopg2", "psycopg2-binary"),
    ("whisper", "openai-whisper"), ("nmap", "python-nmap"), ("surprise", "scikit-surprise"), ("osgeo.gdal", "gdal"), ("airflow", "apache-airflow"), ("llama_cpp", "llama-cpp-python"),
])
def test_an_import_name_leads_to_its_package(module: str, package: str) -> None:
    assert names.package_for(module) == package


@pytest.mark.parametrize("module", [
    "os", "os.path", "json", "__future__", "google", "utils", "config", "task_func", "no_such_module_zzqx", "scikit_learn", "pillow", "", ".", "..x", "café",
])
def test_the_standard_library_own_modules_and_the_unknown_lead_nowhere(module: str) -> None:
    assert names.package_for(module) is None


def test_every_package_of_the_table_is_popular_or_hand_picked() -> None:
    packages = {package for package in names._modules().values() if package}
    assert len([package for package in packages if names.rank(package) is None]) < 10


@pytest.mark.parametrize(("package", "modules"), [
    ("scikit-learn", ["sklearn"]), ("opencv-python", ["cv2"]), ("Pillow", ["PIL", "PIL.Image"]), ("matplotlib", ["matplotlib", "matplotlib.pyplot"]),
    ("torch", ["torch"]), ("PyYAML", ["yaml"]), ("opencv-contrib-python", ["cv2"]), ("openai-whisper", ["whisper"]), ("apache-airflow", ["airflow"]), ("python-louvain", ["community"]), ("pygobject", ["gi"]), ("llama-cpp-python", ["llama_cpp"]),
    ("no-such-package-zzqx", []),
])
def test_a_package_names_the_modules_worth_preloading(package: str, modules: list[str]) -> None:
    assert names.modules_for(package) == modules


def test_names_have_one_normal_form() -> None:
    assert names.normalize("Foo.Bar__baz-.Q") == "foo-bar-baz-q"


def test_rank_tells_the_popular_from_the_rest() -> None:
    numpy, humanize = names.rank("NumPy"), names.rank("humanize")
    assert numpy is not None
    assert humanize is not None
    assert numpy < humanize <= 15_000
    assert names.rank("no-such-package-zzqx") is None


def test_the_list_of_popular_names_says_how_long_it_is_and_of_what_day() -> None:
    count, day = names.popular()
    assert count == len(names.most_popular(20_000))
    assert 14_000 < count <= 15_000
    assert date(2026, 11, 1) <= day <= date.today()
    assert [names.rank(name) for name in names.most_popular(3)] == [1, 2, 3]


def requirements(file: Path) -> set[str]:
    return {names.normalize(re.split(r"[ ;=<>#]", line, maxsplit=1)[0]) for line in file.read_text().splitlines()} - {""}


def unknown(packages: set[str], but: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
    """Those that are not in normal form, or that nobody downloads: a wrong name, or one that the policy would refuse."""
    return sorted(name for name in packages - but if names.rank(name) is None or name != names.normalize(name))


NEW_BENEATH = {"feedparser-sgmllib", "httpcore2", "httpx2", "lazy-importer"}
"""What packages of the base have come to depend on lately: nobody asks for these by name, and the list of the popular does not have them yet."""


def test_the_base_environment_and_all_it_brings_are_popular_packages() -> None:
    table = tomllib.loads((PREDICTOR / "closure.toml").read_text())
    asked = requirements(ROOT / "sandboxd/ephemeral_sandboxd/data/base.txt")
    assert asked <= set(table["base"])
    assert len(table["base"]) > 100
    assert not unknown(asked)
    assert not unknown(set(table["base"]), but=NEW_BENEATH - asked)


@pytest.mark.parametrize("file", ["fat.txt", "ahead.txt"])
def test_what_sandboxd_makes_ahead_is_popular(file: str) -> None:
    lines = (ROOT / "sandboxd/ephemeral_sandboxd/data" / file).read_text().splitlines()
    modules = {module for line in lines if not line.startswith("#") for module in line.split()}
    assert modules
    assert not unknown({names.package_for(module) or module for module in modules})


def test_every_package_that_the_concepts_speak_for_is_popular() -> None:
    rules = tomllib.loads((PREDICTOR / "concepts.toml").read_text())["rule"]
    packages = {package for rule in rules for package in rule["packages"]}
    assert len(packages) > 50
    assert not unknown(packages)


def test_every_package_that_the_model_can_name_is_popular_or_known_to_exist() -> None:
    with np.load(PREDICTOR / "model.npz") as model:
        packages = {str(name) for name in model["names"]}
    assert len(packages) > 50
    assert not unknown(packages, but=requirements(RARE))


@pytest.mark.parametrize("file", sorted((ROOT / "predictor/training").glob("*.tsv")), ids=lambda file: file.stem)
def test_every_package_in_the_training_lines_is_popular_or_known_to_exist(file: Path) -> None:
    packages = {name for line in file.read_text().splitlines() for name in line.partition("\t")[0].split(",")} - {"-"}
    wrong = unknown(packages, but=requirements(RARE))
    assert not wrong, f"{file.name} names {wrong}: a slip, or, if PyPI has it, one for {RARE.name}"


def test_packages_that_bring_the_same_modules_are_equivalent() -> None:
    assert names.equivalent("opencv_python") == "opencv-python-headless"
    assert names.equivalents("opencv-python") == {"opencv-python", "opencv-python-headless"}
    assert names.equivalent("Pandas") == "pandas"
    assert names.equivalents("pandas") == {"pandas"}


def test_the_tables_are_read_at_the_first_question_and_not_at_import() -> None:
    code = "from ephemeral import names; print(names._modules.cache_info().currsize, names._popular.cache_info().currsize)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "0 0\n"
