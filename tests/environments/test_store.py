from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ephemeral_sandboxd import mounts
from ephemeral_sandboxd.environments.errors import BadWheel, IndexUnreachable, StoreFull
from ephemeral_sandboxd.environments.index import Index
from ephemeral_sandboxd.environments.resolve import Wheel
from ephemeral_sandboxd.environments.store import Store
from ephemeral_sandboxd.environments.target import Target


def locked(file: Path, url: str = "") -> Wheel:
    """The lock's entry for a wheel file, as the index at ``url`` serves it, or as a local file."""
    name, version = file.name.split("-")[:2]
    address = f"{url}/files/{file.name}" if url else file.as_uri()
    return Wheel(name, version, file.name, address, hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_size)


@pytest.fixture
async def store(tmp_path: Path, target: Target) -> AsyncIterator[Store]:
    store = Store(tmp_path / "store", Index(target))
    yield store
    await store.close()


def leftovers(root: Path) -> list[str]:
    """What is on its way in a store; nothing, once all has ended well or badly."""
    return [path.name for folder in ("building", "downloads") for path in (root / folder).iterdir()]


async def test_a_wheel_is_downloaded_checked_and_unpacked_once(tmp_path: Path, store: Store, fake_index, wheel: Callable[..., Path]) -> None:
    one = locked(wheel(fake_index.folder, "one", "1.0", {"one/__init__.py": b"x = 1\n", "one-1.0.data/scripts/run": b"#!/bin/sh\n"}), fake_index.url)
    said: list[tuple[str, int, int]] = []
    assert await store.ensure([one], lambda *what: said.append(what)) == 1
    assert (store.layer(one.sha256) / "one/__init__.py").read_bytes() == b"x = 1\n"
    assert not list(store.layer(one.sha256).rglob("run"))
    assert said[-1] == ("download", one.size, one.size)
    assert await store.ensure([one]) == 0
    assert len(fake_index.requests) == 1
    assert leftovers(tmp_path / "store") == []


async def test_requests_at_the_same_time_share_one_download(store: Store, fake_index, wheel: Callable[..., Path]) -> None:
    one = locked(wheel(fake_index.folder, "one", "1.0", {"one.py": b""}), fake_index.url)
    await asyncio.gather(*(store.ensure([one]) for _ in range(5)))
    assert len(fake_index.requests) == 1


async def test_a_wheel_of_the_wrong_hash_is_not_used(tmp_path: Path, store: Store, fake_index, wheel: Callable[..., Path]) -> None:
    one = locked(wheel(fake_index.folder, "one", "1.0", {"one.py": b"good"}), fake_index.url)
    wheel(fake_index.folder, "one", "1.0", {"one.py": b"evil"})
    with pytest.raises(BadWheel, match="the lock says"):
        await store.ensure([one])
    assert not (tmp_path / "store/wheels" / one.sha256).exists()
    assert leftovers(tmp_path / "store") == []


async def test_a_download_that_breaks_off_goes_on_where_it_stopped(store: Store, fake_index, wheel: Callable[..., Path]) -> None:
    file = wheel(fake_index.folder, "one", "1.0", {"one.py": os.urandom(300_000)})
    fake_index.cut[file.name] = 1
    assert await store.ensure([locked(file, fake_index.url)]) == 1
    assert len(fake_index.requests) == 2


async def test_a_dead_index_is_named_and_the_download_is_kept_for_later(tmp_path: Path, store: Store, fake_index, wheel: Callable[..., Path]) -> None:
    file = wheel(fake_index.folder, "one", "1.0", {"one.py": os.urandom(300_000)})
    one = locked(file, fake_index.url)
    fake_index.cut[file.name] = 3
    with pytest.raises(IndexUnreachable, match=r"one-1\.0"):
        await store.ensure([one])
    assert (tmp_path / "store/downloads" / one.sha256 / file.name).stat().st_size > 0
    assert await store.ensure([one]) == 1
    assert leftovers(tmp_path / "store") == []


async def test_a_missing_file_is_not_waited_for(store: Store, fake_index, wheel: Callable[..., Path]) -> None:
    file = wheel(fake_index.folder, "one", "1.0", {"one.py": b""})
    one = locked(file, fake_index.url)
    file.unlink()
    with pytest.raises(IndexUnreachable, match="404"):
        await store.ensure([one])


async def test_a_damaged_entry_is_found_at_the_next_start_and_made_anew(tmp_path: Path, store: Store, target: Target, wheel: Callable[..., Path]) -> None:
    one = locked(wheel(tmp_path, "one", "1.0", {"one.py": b"x = 1\n", "two.py": b""}))
    await store.ensure([one])
    (store.layer(one.sha256) / "one.py").write_bytes(b"")
    again = Store(tmp_path / "store", Index(target))
    assert await again.ensure([one]) == 1
    assert (again.layer(one.sha256) / "one.py").read_bytes() == b"x = 1\n"
    assert await Store(tmp_path / "store", Index(target)).ensure([one]) == 0


async def test_a_host_that_appends_its_authority_to_a_bundle_does_no_damage(tmp_path: Path, store: Store, target: Target, wheel: Callable[..., Path]) -> None:
    one = locked(wheel(tmp_path, "one", "1.0", {"one/cacert.pem": b"theirs\n"}))
    await store.ensure([one])
    with (store.layer(one.sha256) / "one/cacert.pem").open("ab") as bundle:
        bundle.write(b"ours\n")
    assert await Store(tmp_path / "store", Index(target)).ensure([one]) == 0


async def test_a_large_wheel_is_unpacked_too(tmp_path: Path, store: Store, wheel: Callable[..., Path]) -> None:
    one = locked(wheel(tmp_path, "big", "1.0", {"big/data.bin": os.urandom(3 << 20), "big/__init__.py": b""}))
    await store.ensure([one])
    assert (store.layer(one.sha256) / "big/data.bin").stat().st_size == 3 << 20
    assert store.size(one.sha256) > 3 << 20


def link_entry(archive: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo("link.py")
    info.external_attr = 0o120777 << 16
    archive.writestr(info, "/etc/passwd")


@pytest.mark.parametrize(("entry", "words"), [
    ("../outside.py", "holds a file called"), ("/absolute.py", "absolute"), ("a/../../outside.py", "holds a file called"),
    ("back\\slash.py", "holds a file called"), ("new\nline.py", "holds a file called"), ("one.py", "twice"), ("one.py/under.py", "twice"),
])
@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("size", [0, 2 << 20])
async def test_a_wheel_with_files_outside_itself_is_refused(
    tmp_path: Path, store: Store, wheel: Callable[..., Path], entry: str, words: str, size: int
) -> None:
    one = locked(wheel(tmp_path, "one", "1.0", {"one.py": b"", "fill.bin": os.urandom(size)}, raw=lambda archive: archive.writestr(entry, b"x")))
    with pytest.raises(BadWheel, match=words):
        await store.ensure([one])
    assert not (tmp_path / "store/wheels" / one.sha256).exists()
    assert leftovers(tmp_path / "store") == []
    assert not list(tmp_path.rglob("outside.py"))


async def test_a_link_in_a_wheel_becomes_a_plain_file(tmp_path: Path, store: Store, wheel: Callable[..., Path]) -> None:
    one = locked(wheel(tmp_path, "one", "1.0", {"one.py": b""}, raw=link_entry))
    await store.ensure([one])
    link = store.layer(one.sha256) / "link.py"
    assert not link.is_symlink()
    assert link.read_text() == "/etc/passwd"


async def test_what_is_no_wheel_at_all_is_refused(tmp_path: Path, store: Store) -> None:
    file = tmp_path / "one-1.0-py3-none-any.whl"
    file.write_bytes(b"not a zip")
    with pytest.raises(BadWheel, match="damaged"):
        await store.ensure([locked(file)])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, text=True)
    assert made.returncode == 0, f"this test mounts a small file system and needs root: {made.stderr}"
    yield disk
    mounts.unmount(disk)


@pytest.mark.parametrize("kind", [bytes, os.urandom])
async def test_a_full_disk_is_said_and_leaves_nothing_half_made(
    small_disk: Path, target: Target, fake_index, wheel: Callable[..., Path], kind: Callable[[int], bytes]
) -> None:
    one = locked(wheel(fake_index.folder, "one", "1.0", {"one.bin": kind(8 << 20)}), fake_index.url)
    small = locked(wheel(fake_index.folder, "small", "1.0", {"small.py": b""}), fake_index.url)
    store = Store(small_disk, Index(target))
    with pytest.raises(StoreFull) as caught:
        await store.ensure([one])
    assert "EPHEMERAL_STORE" in caught.value.hint
    assert leftovers(small_disk) == []
    assert await store.ensure([small]) == 1
    await store.close()


async def real_compiler(pairs: Sequence[tuple[Path, Path]]) -> None:
    """As the one in production, with this Python and without gVisor."""
    program = ("import os,sys,py_compile,importlib.util as u\n"
               "source,target=sys.argv[1:]\n"
               "for d,_,files in os.walk(source):\n"
               "  for f in files:\n"
               "    if f.endswith('.py'):\n"
               "      c=os.path.join(target,os.path.relpath(d,source),'__pycache__',os.path.basename(u.cache_from_source(f)))\n"
               "      os.makedirs(os.path.dirname(c),exist_ok=True)\n"
               "      py_compile.compile(os.path.join(d,f),c,invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)\n")
    for source, target in pairs:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, source, target)
        assert await process.wait() == 0


async def test_compiled_files_appear_beside_the_sources_and_are_used_from_then_on(tmp_path: Path, store: Store, wheel: Callable[..., Path]) -> None:
    one = locked(wheel(tmp_path, "one", "1.0", {"one/__init__.py": b"x = 1\n", "one/data.txt": b"d"}))
    await store.ensure([one])
    before = store.layer(one.sha256)
    assert await store.compile([one.sha256], real_compiler) == 1
    after = store.layer(one.sha256)
    assert after != before
    assert not list(before.rglob("*.pyc"))
    assert (after / "one/data.txt").samefile(before / "one/data.txt")
    found = subprocess.run([sys.executable, "-c", "import one; print(one.__cached__, one.x)"], env={"PYTHONPATH": str(after)}, capture_output=True, text=True)
    assert found.stdout.strip().endswith(".pyc 1"), found.stderr
    assert len(list(after.rglob("*.pyc"))) == 1
    assert await store.compile([one.sha256], real_compiler) == 0


async def test_nothing_but_compiled_files_is_taken_from_a_compiler(tmp_path: Path, store: Store, wheel: Callable[..., Path]) -> None:
    one = locked(wheel(tmp_path, "one", "1.0", {"one.py": b"x = 1\n"}))
    await store.ensure([one])

    async def hostile(pairs: Sequence[tuple[Path, Path]]) -> None:
        for _, output in pairs:
            (output / "__pycache__").mkdir()
            (output / "__pycache__/one.cpython-311.pyc").symlink_to("/etc/passwd")
            (output / "__pycache__/other.cpython-311.pyc").write_bytes(b"no such source")
            (output / "one.py").write_bytes(b"x = 666\n")
            (output / "evil").symlink_to("/etc")

    await store.compile([one.sha256], hostile)
    layer = store.layer(one.sha256)
    assert (layer / "one.py").read_bytes() == b"x = 1\n"
    assert not [path for path in layer.rglob("*") if path.is_symlink() or path.suffix == ".pyc"]


async def test_a_compiler_that_fails_costs_nothing_but_the_compiled_files(tmp_path: Path, store: Store, wheel: Callable[..., Path]) -> None:
    one = locked(wheel(tmp_path, "one", "1.0", {"one.py": b"x = 1\n"}))
    await store.ensure([one])

    async def broken(pairs: Sequence[tuple[Path, Path]]) -> None:
        raise RuntimeError("no sandbox")

    assert await store.compile([one.sha256], broken) == 0
    assert (store.layer(one.sha256) / "one.py").exists()
    assert leftovers(tmp_path / "store") == []


async def test_damaged_compiled_files_fall_back_to_the_sources(tmp_path: Path, store: Store, target: Target, wheel: Callable[..., Path]) -> None:
    one = locked(wheel(tmp_path, "one", "1.0", {"one.py": b"x = 1\n"}))
    await store.ensure([one])
    await store.compile([one.sha256], real_compiler)
    [cached] = store.layer(one.sha256).rglob("*.pyc")
    cached.write_bytes(b"")
    again = Store(tmp_path / "store", Index(target))
    assert await again.ensure([one]) == 0
    assert not again.compiled(one.sha256)
    assert await again.compile([one.sha256], real_compiler) == 1
