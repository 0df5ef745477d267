from __future__ import annotations

import subprocess
import sys

import pytest

from ephemeral import names


@pytest.mark.parametrize(("module", "package"), [
    ("cv2", "opencv-python-headless"), ("sklearn", "scikit-learn"), ("PIL", "pillow"), ("yaml", "pyyaml"), ("bs4", "beautifulsoup4"),
    ("docx", "python-docx"), ("fitz", "pymupdf"), ("Crypto", "pycryptodome"), ("dateutil", "python-dateutil"), ("dotenv", "python-dotenv"),
    ("skimage", "scikit-image"), ("mpl_toolkits.mplot3d", "matplotlib"), ("google.protobuf", "protobuf"), ("google.genai.types", "google-genai"),
    ("google.cloud.storage", "google-cloud-storage"), ("pandas", "pandas"), ("numpy.linalg", "numpy"), ("humanize", "humanize"), ("jwt", "pyjwt"),
    ("speech_recognition", "speechrecognition"), ("pkg_resources", "setuptools"), ("psycopg2", "psycopg2-binary"),
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
    ("torch", ["torch"]), ("PyYAML", ["yaml"]), ("no-such-package-zzqx", []),
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


def test_packages_that_bring_the_same_modules_are_equivalent() -> None:
    assert names.equivalent("opencv_python") == "opencv-python-headless"
    assert names.equivalents("opencv-python") == {"opencv-python", "opencv-python-headless"}
    assert names.equivalent("Pandas") == "pandas"
    assert names.equivalents("pandas") == {"pandas"}


def test_the_tables_are_read_at_the_first_question_and_not_at_import() -> None:
    code = "from ephemeral import names; print(names._modules.cache_info().currsize, names._popular.cache_info().currsize)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "0 0\n"
