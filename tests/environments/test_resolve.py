from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ephemeral_sandboxd.environments.errors import IndexUnreachable, Unresolvable
from ephemeral_sandboxd.environments.index import Index
from ephemeral_sandboxd.environments.resolve import Lock, Resolution, Resolver, Wheel
from ephemeral_sandboxd.environments.target import Target


def cut_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


async def test_a_lock_names_one_wheel_per_package_by_its_hash(tmp_path: Path, real_index: Index) -> None:
    lock = (await Resolver(tmp_path, real_index).resolve(["python-slugify"])).lock
    assert {"python-slugify", "text-unidecode"} <= set(lock.packages)
    assert all(len(wheel.sha256) == 64 and wheel.size > 0 and wheel.filename.endswith(".whl") for wheel in lock.wheels)


async def test_what_was_resolved_once_needs_no_index_even_after_a_restart(tmp_path: Path, real_index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await Resolver(tmp_path, real_index).resolve(["six"])
    cut_the_network(monkeypatch)
    second = await Resolver(tmp_path, real_index).resolve(["six"])
    assert not first.cached
    assert second.cached
    assert second.lock == first.lock


async def test_an_old_resolution_is_made_anew_but_serves_while_the_index_is_away(
    tmp_path: Path, fake_index, wheel: Callable[..., Path], target: Target
) -> None:
    wheel(fake_index.folder, "low", "1.0", {"low.py": b""})
    resolver = Resolver(tmp_path / "store", Index(target, url=f"{fake_index.url}/simple"))
    first = await resolver.resolve(["low"])
    [file] = (tmp_path / "store/resolutions").iterdir()

    def let_it_age() -> None:
        os.utime(file, (time.time() - 30 * 86400,) * 2)
        shutil.rmtree(tmp_path / "store/uv")

    let_it_age()
    assert not (await resolver.resolve(["low"])).cached
    let_it_age()
    fake_index.down = True
    assert await resolver.resolve(["low"]) == Resolution(first.lock, cached=True)


async def test_equal_requests_at_the_same_time_share_one_run(tmp_path: Path, real_index: Index) -> None:
    resolver = Resolver(tmp_path, real_index)
    first, second = await asyncio.gather(resolver.resolve(["six", "idna"]), resolver.resolve(["idna", "six"]))
    assert first is second


@pytest.mark.parametrize(("requirements", "words"), [
    (["boto3==1.28.0", "botocore==1.20.0"], "depends on botocore"),
    (["no-such-package-zzqx-1"], "not found in the package registry"),
    (["six==99.9"], "no version of six==99.9"),
    (["docopt"], "no usable wheels"),
])
async def test_what_cannot_be_had_says_why_in_a_line(tmp_path: Path, real_index: Index, requirements: list[str], words: str) -> None:
    with pytest.raises(Unresolvable) as caught:
        await Resolver(tmp_path, real_index).resolve(requirements)
    assert words in caught.value.detail
    assert "\n" not in caught.value.detail


async def test_a_dead_index_is_told_from_a_package_that_does_not_exist(tmp_path: Path, target: Target) -> None:
    with pytest.raises(IndexUnreachable, match="package index unreachable"):
        await Resolver(tmp_path, Index(target, url="http://127.0.0.1:9/simple")).resolve(["six"])


async def test_on_a_base_only_what_the_base_lacks_is_locked(
    tmp_path: Path, fake_index, wheel: Callable[..., Path], target: Target
) -> None:
    for version in ("1.0", "2.0"):
        wheel(fake_index.folder, "low", version, {"low.py": b""})
    wheel(fake_index.folder, "high", "1.0", {"high.py": b""}, requires=("low",))
    wheel(fake_index.folder, "newer", "1.0", {"newer.py": b""}, requires=("low>=2",))
    resolver = Resolver(tmp_path / "store", Index(target, url=f"{fake_index.url}/simple"))
    base = (await resolver.resolve(["low==1.0"])).lock

    on_base = (await resolver.resolve(["high"], base)).lock
    assert on_base.on_base == base.id
    assert on_base.packages == {"high": "1.0"}

    alone = (await resolver.resolve(["newer"], base)).lock
    assert alone.on_base is None
    assert alone.packages == {"low": "2.0", "newer": "1.0"}


async def test_a_twin_of_a_base_package_is_not_brought_in_by_a_dependency(
    tmp_path: Path, fake_index, wheel: Callable[..., Path], target: Target
) -> None:
    for name in ("opencv_python", "opencv_python_headless"):
        wheel(fake_index.folder, name, "5.0", {"cv2/__init__.py": b""})
    wheel(fake_index.folder, "viewer", "1.0", {"viewer.py": b""}, requires=("opencv-python",))
    resolver = Resolver(tmp_path / "store", Index(target, url=f"{fake_index.url}/simple"))
    base = (await resolver.resolve(["opencv-python-headless"])).lock
    assert (await resolver.resolve(["viewer"], base)).lock.packages == {"viewer": "1.0"}


async def test_a_dependency_by_address_is_refused(tmp_path: Path, fake_index, wheel: Callable[..., Path], target: Target) -> None:
    wheel(fake_index.folder, "sly", "1.0", {"sly.py": b""}, requires=("other @ git+https://evil.example/other.git",))
    with pytest.raises(Unresolvable):
        await Resolver(tmp_path / "store", Index(target, url=f"{fake_index.url}/simple")).resolve(["sly"])


def test_a_locks_id_depends_on_its_content_only() -> None:
    one, two = (Wheel(name, "1", f"{name}-1-py3-none-any.whl", f"https://index.example/{name}", name * 64, 1) for name in "ab")
    lock = Lock.of("3.11", ["a"], [one, two])
    assert lock.id == Lock.of("3.11", ["b", "a"], [two, one]).id
    assert lock.id != Lock.of("3.11", ["a"], [one]).id
    assert lock.id != Lock.of("3.11", ["a"], [one, two], on_base="x").id
    assert Lock.from_json(lock.to_json()) == lock


@pytest.mark.parametrize(("glibc", "platform"), [((2, 36), "2_36"), ((2, 30), "2_28"), ((2, 41), "2_40"), ((2, 99), "2_40"), ((2, 5), "2_17")])
async def test_uv_takes_the_platform_of_every_root_filesystem(tmp_path: Path, fake_index, wheel: Callable[..., Path], glibc: tuple[int, int], platform: str) -> None:
    target = Target("3.13", machine="x86_64", glibc=glibc)
    assert target.uv_platform == f"x86_64-manylinux_{platform}"
    wheel(fake_index.folder, "low", "1.0", {"low.py": b""})
    assert (await Resolver(tmp_path / "store", Index(target, url=f"{fake_index.url}/simple")).resolve(["low"])).lock.packages == {"low": "1.0"}
