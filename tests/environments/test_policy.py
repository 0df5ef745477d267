from __future__ import annotations

import pytest

from ephemeral_sandboxd.environments.errors import PackageRefused
from ephemeral_sandboxd.environments.policy import Policy, Requirement, parse


@pytest.mark.parametrize("text", [
    "--index-url=http://evil/", "-r /etc/passwd", "-e .", "git+ssh://host/repo", "https://host/x.whl", "file:///etc/passwd", "./here", "/abs.whl",
    "pandas\n--index-url=http://evil/", "pandas\n", "pandas @ https://host/x.whl", "pandas[all]", "pandas; python_version<'3'", "pandas>=1",
    "pandas==1.*", "pandas==", "==1", "", " ", "pandas numpy", "pandas==1 --pre", "pandas==1.0\n-r x", "panda\u0455", "a" * 200, "..", "pandas==1+$(x)",
    "pandas\x00", "-", "pandas==1!!2",
])
def test_whatever_is_not_a_plain_name_with_a_version_is_refused(text: str) -> None:
    with pytest.raises(PackageRefused, match="is not a package name"):
        Policy(allow=frozenset({"pandas"})).admit(text)
    assert "write a plain name" in (Policy().check(text) or "")


def test_names_come_out_in_normal_form() -> None:
    assert str(parse("Flask_SQLAlchemy")) == "flask-sqlalchemy"
    assert str(parse("Pillow == 10.0.0")) == "pillow==10.0.0"


def test_popular_names_are_allowed_and_unknown_ones_are_refused_with_what_would_allow_them() -> None:
    policy = Policy()
    assert policy.check("pandas") is None
    assert policy.check("pandas==2.2.3") is None
    refusal = policy.check("no-such-package-zzqx")
    assert refusal is not None
    assert "not among the known packages" in refusal
    assert "EPHEMERAL_ALLOW=no-such-package-zzqx" in refusal


def test_an_import_name_is_refused_with_the_name_of_its_package() -> None:
    refusal = Policy().check("skimage")
    assert refusal is None or "scikit-image" in refusal


def test_the_operator_allows_and_denies_and_denial_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPHEMERAL_ALLOW", "Our_Private.Thing both")
    monkeypatch.setenv("EPHEMERAL_DENY", "requests both")
    policy = Policy.configured()
    assert policy.check("our-private-thing") is None
    assert "EPHEMERAL_DENY" in (policy.check("requests") or "")
    assert "EPHEMERAL_DENY" in (policy.check("both") or "")


def test_a_package_that_brings_the_same_modules_stands_for_the_one_that_was_asked_for() -> None:
    assert Policy().admit("opencv-python") == Requirement("opencv-python-headless")
    assert Policy(allow=frozenset({"opencv-python"})).admit("opencv-python") == Requirement("opencv-python")
    with pytest.raises(PackageRefused, match="denied"):
        Policy(deny=frozenset({"opencv-python"})).admit("opencv-python")


def test_a_version_is_met_by_a_local_build_of_it() -> None:
    assert Requirement("torch", "2.13.0").met_by("2.13.0+cpu")
    assert Requirement("torch", "2.13").met_by("2.13.0")
    assert not Requirement("torch", "2.13.0+cu130").met_by("2.13.0+cpu")
    assert Requirement("torch").met_by("1")
