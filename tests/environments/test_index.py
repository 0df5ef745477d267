from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ephemeral_sandboxd.environments.index import Index
from ephemeral_sandboxd.environments.resolve import Resolver
from ephemeral_sandboxd.environments.target import Target


@pytest.fixture
def pip_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CERT"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "pip.conf"
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    return file


def test_pips_configuration_is_taken_over(pip_conf: Path, target: Target) -> None:
    pip_conf.write_text("[global]\nindex-url = https://user:secret@index.example/simple\nextra-index-url =\n  file:///here\n  https://more.example/simple\n"
                        "find-links = /one /two\ncert = /ca.pem\n")
    index = Index.configured(target)
    assert index.url == "https://user:secret@index.example/simple"
    assert index.extra_urls == ("https://more.example/simple",)
    assert index.find_links == ("/one", "/two")
    assert index.certificate == "/ca.pem"


def test_pips_variables_win_over_its_files_and_our_settings_over_both(pip_conf: Path, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    pip_conf.write_text("[global]\nindex-url = https://file.example/\n")
    monkeypatch.setenv("PIP_INDEX_URL", "https://variable.example/")
    assert Index.configured(target).url == "https://variable.example/"
    monkeypatch.setenv("EPHEMERAL_INDEX_URL", "https://setting.example/")
    assert Index.configured(target).url == "https://setting.example/"


def test_an_unreadable_pip_configuration_says_nothing(pip_conf: Path, target: Target) -> None:
    pip_conf.write_bytes(b"\xff\xfe no section")
    Index.configured(target)


def test_a_password_travels_in_uvs_environment_only(tmp_path: Path, target: Target) -> None:
    index = Index(target, url="https://user:s%40cret@index.example/simple")
    assert not any("cret" in argument for argument in index.arguments)
    assert index.environment(tmp_path / "uv")["UV_DEFAULT_INDEX"] == index.url
    login = index.login("https://index.example/files/x.whl")
    assert login is not None
    assert login.password == "s@cret"
    assert index.login("https://elsewhere.example/files/x.whl") is None


def test_uv_inherits_nothing_that_could_change_python(tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/evil")
    monkeypatch.setenv("UV_INDEX_URL", "https://evil.example")
    assert not {"PYTHONPATH", "UV_INDEX_URL"} & set(Index(target).environment(tmp_path / "uv"))


def test_a_cpu_build_of_torch_in_a_find_links_directory_is_the_one_to_take(
    tmp_path: Path, target: Target, pip_conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("torch-2.9.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl", "torch-2.10.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl",
                 "torch-3.0.0+cpu-cp312-cp312-manylinux_2_28_x86_64.whl", "torch-3.0.0+cu130-cp311-cp311-manylinux_2_28_x86_64.whl", "torch-what.whl"):
        (tmp_path / name).touch()
    monkeypatch.setenv("EPHEMERAL_FIND_LINKS", str(tmp_path))
    index = Index.configured(Target("3.11", machine="x86_64"))
    assert index.constraints == ("torch==2.10.0+cpu",)
    assert not index.cpu_torch
    monkeypatch.setenv("EPHEMERAL_CONSTRAINTS", "torch==2.9.0")
    assert Index.configured(Target("3.11", machine="x86_64")).constraints == ("torch==2.9.0",)


async def test_without_a_gpu_nothing_of_cuda_gets_into_a_lock(tmp_path: Path, real_index: Index) -> None:
    resolver = Resolver(tmp_path, real_index)
    lock = (await resolver.resolve(["xgboost"])).lock
    assert "xgboost" in lock.packages
    assert not [name for name in lock.packages if name.startswith("nvidia")]


async def test_the_local_cpu_torch_wins_over_a_newer_one_of_the_index(
    tmp_path: Path, fake_index, wheel: Callable[..., Path], target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(fake_index.folder, "torch", "9.0", {"torch/__init__.py": b""}, requires=("nvidia-nccl-cu12",))
    wheel(tmp_path / "links", "torch", "8.0+cpu", {"torch/__init__.py": b""})
    monkeypatch.setenv("EPHEMERAL_INDEX_URL", f"{fake_index.url}/simple")
    monkeypatch.setenv("EPHEMERAL_FIND_LINKS", str(tmp_path / "links"))
    lock = (await Resolver(tmp_path / "store", Index.configured(target)).resolve(["torch"])).lock
    assert lock.packages == {"torch": "8.0+cpu"}
