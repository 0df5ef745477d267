"""A store that is used for months: its budget, what it never gives up, and damage that somebody did on purpose."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from ephemeral_sandboxd import mounts
from ephemeral_sandboxd.environments import Environments
from ephemeral_sandboxd.environments.errors import NoSuchEnvironment, StoreFull
from ephemeral_sandboxd.environments.index import Index
from ephemeral_sandboxd.environments.store import Store
from ephemeral_sandboxd.environments.target import Target
from ephemeral_sandboxd.errors import Refused

OLD = time.time() - 86400


@pytest.fixture
async def open_environments(fake_index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheel) -> AsyncIterator[Callable[..., Environments]]:
    """Opens one store again and again; its index has thing-a, thing-b and thing-c, each 300 KB, and thing-a needs thing-b."""
    monkeypatch.setenv("EPHEMERAL_INDEX_URL", f"{fake_index.url}/simple")
    monkeypatch.setenv("EPHEMERAL_ALLOW", "thing-a thing-b thing-c")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name, requires in (("thing_a", ("thing-b",)), ("thing_b", ()), ("thing_c", ())):
        wheel(fake_index.folder, name, "1.0", {f"{name}.py": b"x = 1\n", f"{name}.bin": os.urandom(300_000)}, requires=requires)
    opened: list[Environments] = []

    def open_(store: Path | Store = tmp_path / "store", **options: object) -> Environments:
        opened.append(Environments(store, tmp_path / f"mounts{len(opened)}", **options))
        return opened[-1]

    yield open_
    for environments in opened:
        await environments.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path / "store", Index(Target("3.11")))
    yield store
    await store.close()


def age(tmp_path: Path) -> None:
    """Make everything in the store a day old."""
    for folder in ("environments", "wheels", "resolutions"):
        for entry in (tmp_path / "store" / folder).iterdir():
            os.utime(entry, (OLD, OLD))


def aged(environments: Environments) -> None:
    for record in environments._records.values():
        record.used_at = OLD


def wheels(tmp_path: Path) -> set[str]:
    return {json.loads((entry / "manifest.json").read_text())["name"] for entry in (tmp_path / "store" / "wheels").iterdir()}


async def test_what_was_used_longest_ago_goes_first_and_shared_wheels_stay(open_environments, tmp_path, monkeypatch):
    monkeypatch.setenv("EPHEMERAL_DISK_BUDGET_BYTES", str(800_000))
    environments = open_environments()
    first = (await environments.prepare(["thing-a"])).environment.id
    second = (await environments.prepare(["thing-b"])).environment.id
    third = (await environments.prepare(["thing-c"])).environment.id
    aged(environments)
    age(tmp_path)
    for number, env_id in enumerate((second, third)):
        os.utime(tmp_path / "store" / "environments" / f"{env_id}.json", (OLD + 60 + number, OLD + 60 + number))
    assert (await environments.usage()).wheels == 3
    done = await environments.evict()
    assert done.environments == [first]
    assert done.freed_bytes > 300_000
    assert wheels(tmp_path) == {"thing-b", "thing-c"}
    assert (await environments.usage()).total_bytes <= 800_000
    again = await environments.prepare(["thing-a"])
    assert again.readiness == "cold"


async def test_what_is_mounted_pinned_or_the_base_is_never_taken(open_environments, tmp_path, monkeypatch):
    monkeypatch.setenv("EPHEMERAL_DISK_BUDGET_BYTES", "1")
    (tmp_path / "base.txt").write_text("thing-b\n")
    monkeypatch.setenv("EPHEMERAL_BASE", str(tmp_path / "base.txt"))
    environments = open_environments()
    await environments.make_base()
    mounted = await environments.prepare(["thing-a"])
    pinned = await environments.prepare(["thing-c"])
    await environments.pin(pinned.environment.id, True)
    aged(environments)
    age(tmp_path)
    target = tmp_path / "under-a-sandbox"
    target.mkdir()
    mounts.bind(environments.mount(mounted.environment.id), target)
    try:
        aged(environments)
        age(tmp_path)
        done = await environments.evict([mounted.environment.id])
        assert done.environments == done.wheels == []
        assert (target / "thing_a.py").read_text() == "x = 1\n"
    finally:
        mounts.unmount(target)


async def test_another_process_that_has_it_mounted_keeps_it_until_it_dies(open_environments, tmp_path, monkeypatch):
    monkeypatch.setenv("EPHEMERAL_DISK_BUDGET_BYTES", "1")
    environments = open_environments()
    made = await environments.prepare(["thing-c"])
    await environments.close()
    code = (f"import sys\nfrom pathlib import Path\nfrom ephemeral_sandboxd.environments import Environments\n"
            f"Environments(Path({str(tmp_path / 'store')!r}), Path({str(tmp_path / 'elsewhere')!r})).mount({made.environment.id!r})\nprint('mounted', flush=True)\nsys.stdin.read()")
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout
        assert other.stdout.readline() == "mounted\n"
        age(tmp_path)
        fresh = open_environments()
        aged(fresh)
        assert (await fresh.evict()).environments == []
        with pytest.raises(Refused):
            await fresh.drop(made.environment.id)
    finally:
        other.kill()
        other.wait()
        mounts.unmount(tmp_path / "elsewhere" / made.environment.id)
    age(tmp_path)
    assert (await fresh.evict()).environments == [made.environment.id]
    with pytest.raises(NoSuchEnvironment):
        await fresh.drop(made.environment.id)


async def test_a_daemon_whose_wheels_were_evicted_by_another_fetches_them_again(open_environments, tmp_path, monkeypatch):
    first = open_environments()
    await first.prepare(["thing-c"])
    monkeypatch.setenv("EPHEMERAL_DISK_BUDGET_BYTES", "1")
    aged(first)
    age(tmp_path)
    first._let_go(next(iter(first._held)))
    second = open_environments()
    aged(second)
    age(tmp_path)
    assert (await second.evict()).wheels
    assert (await first.prepare(["thing-c"])).readiness == "cold"


@pytest.mark.parametrize("damage", ["flipped", "missing", "short"])
async def test_a_damaged_file_is_found_and_its_wheel_fetched_again(open_environments, tmp_path, damage):
    environments = open_environments()
    await environments.prepare(["thing-c"])
    site = next((tmp_path / "store" / "wheels").iterdir()) / "site"
    file = site / "thing_c.bin"
    content = file.read_bytes()
    if damage == "flipped":
        file.write_bytes(content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])
    elif damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content[:-1])
    report = await environments.scrub()
    assert len(report.damaged) == 1
    assert "thing_c.bin" in next(iter(report.damaged.values()))
    assert report.healed == list(report.damaged)
    assert (site / "thing_c.bin").read_bytes() == content
    assert (await environments.scrub()).damaged == {}


async def test_damage_that_cannot_be_healed_is_said_and_what_nobody_needs_is_discarded(open_environments, tmp_path, fake_index, caplog):
    environments = open_environments()
    await environments.prepare(["thing-c"])
    folder = next((tmp_path / "store" / "wheels").iterdir())
    (folder / "site" / "thing_c.py").write_bytes(b"x = 2\n")
    fake_index.down = True
    report = await environments.scrub()
    assert report.damaged
    assert report.healed == []
    assert "cannot be fetched again" in caplog.text
    for record in (tmp_path / "store" / "environments").glob("*.json"):
        record.unlink()
    await environments.scrub()
    assert not folder.exists()


async def test_a_wheel_that_was_stored_without_a_list_is_held_to_what_it_holds_today(open_environments, tmp_path):
    environments = open_environments()
    await environments.prepare(["thing-c"])
    folder = next((tmp_path / "store" / "wheels").iterdir())
    (folder / "record.csv").unlink()
    assert (await environments.scrub()).damaged == {}
    (folder / "site" / "thing_c.py").write_bytes(b"x = 3\n")
    assert (await environments.scrub()).healed


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"lock": 3}', b"\xff\xfe"])
async def test_garbage_where_records_should_be_is_made_again(open_environments, tmp_path, content):
    environments = open_environments()
    await environments.prepare(["thing-c"])
    await environments.close()
    for folder in ("environments", "resolutions"):
        for file in (tmp_path / "store" / folder).glob("*.json"):
            file.write_bytes(content)
    (tmp_path / "store" / "base.json").write_bytes(content)
    again = open_environments()
    assert again.list() == []
    assert (await again.prepare(["thing-c"])).readiness == "wheels"
    assert (await again.evict()).wheels == []


async def test_two_pythons_share_the_wheels_of_one_store_and_compile_each_its_own(open_environments, tmp_path, fake_index):
    compiled: list[str] = []

    def compiler_of(tag: str):
        async def compile_(pairs):
            for _source, target in pairs:
                compiled.append(tag)
                (target / "__pycache__").mkdir()
                (target / "__pycache__" / f"thing_c.cpython-{tag}.pyc").write_bytes(b"code")
        return compile_

    old, new = open_environments(compiler=compiler_of("311")), open_environments(python="3.13", compiler=compiler_of("313"))
    one, two = await old.prepare(["thing-c"]), await new.prepare(["thing-c"])
    assert one.environment.id != two.environment.id
    assert two.readiness == "wheels"
    assert await old.compile_pending() == await new.compile_pending() == 1
    assert compiled == ["311", "313"]
    assert [path.name for path in (old.mount(one.environment.id) / "__pycache__").iterdir()] == ["thing_c.cpython-311.pyc"]
    assert [path.name for path in (new.mount(two.environment.id) / "__pycache__").iterdir()] == ["thing_c.cpython-313.pyc"]
    assert sum("/files/thing_c-1.0-py3-none-any.whl" in path and not path.endswith(".metadata") for path in fake_index.requests) == 1


# ------------------------------------------------------------------------------------------------- several Pythons, one store


async def test_one_store_object_serves_several_pythons_and_what_they_want_at_once_comes_once(open_environments, store, tmp_path, fake_index):
    old, new = open_environments(store, python="3.11"), open_environments(store, python="3.13", glibc=(2, 41))
    one, two = await asyncio.gather(old.prepare(["thing-c"]), new.prepare(["thing-c"]))
    assert one.environment.id != two.environment.id
    assert fake_index.requests.count("/files/thing_c-1.0-py3-none-any.whl") == 1
    await old.close()
    assert (await new.prepare(["thing-a"])).readiness == "cold"  # the store is still open


async def test_every_python_and_glibc_has_a_base_of_its_own_and_none_is_evicted(open_environments, tmp_path, monkeypatch):
    monkeypatch.setenv("EPHEMERAL_DISK_BUDGET_BYTES", "1")
    for python, glibc, package in (("3.11", (2, 36), "thing-a"), ("3.13", (2, 41), "thing-c"), ("3.13", (2, 36), "thing-b")):
        (tmp_path / "base.txt").write_text(f"{package}\n")
        monkeypatch.setenv("EPHEMERAL_BASE", str(tmp_path / "base.txt"))
        environments = open_environments(python=python, glibc=glibc)
        assert environments.base is None
        await environments.make_base()
        await environments.close()
    age(tmp_path)
    assert {file.name for file in (tmp_path / "store").glob("base*.json")} == {"base.json", "base-3.13-glibc2.41.json", "base-3.13-glibc2.36.json"}
    for python, glibc, package in (("3.11", (2, 36), "thing-a"), ("3.13", (2, 41), "thing-c"), ("3.13", (2, 36), "thing-b")):
        environments = open_environments(python=python, glibc=glibc)
        assert (await environments.evict()).wheels == []
        assert package in environments.base.packages
        assert (environments.mount(environments.base.id) / f"{package.replace('-', '_')}.py").exists()
        assert [environment.id for environment in environments.list()] == [environments.base.id]


# ------------------------------------------------------------------------------------------------- the disk budget


async def test_without_a_budget_nothing_is_evicted(open_environments, tmp_path, monkeypatch):
    monkeypatch.setenv("EPHEMERAL_DISK_BUDGET_BYTES", "0")
    await open_environments().prepare(["thing-a"])
    age(tmp_path)
    done = await open_environments().evict()
    assert (done.freed_bytes, done.environments, done.wheels) == (0, [], [])


async def test_uvs_cache_is_the_first_to_go(open_environments, tmp_path, monkeypatch):
    first = open_environments()
    made = await first.prepare(["thing-c"])
    await first.close()
    usage = await first.usage()
    assert usage.uv_cache_bytes > 0
    assert usage.total_bytes == usage.wheels_bytes + usage.uv_cache_bytes + usage.resolutions_bytes
    age(tmp_path)
    monkeypatch.setenv("EPHEMERAL_DISK_BUDGET_BYTES", str(usage.total_bytes - 1))
    again = open_environments()
    done = await again.evict()
    assert done.freed_bytes > 0
    assert (done.environments, done.wheels) == ([], [])
    assert (await again.prepare(["thing-c"])).environment.id == made.environment.id


async def test_last_uses_and_pins_survive_restarts(open_environments, tmp_path, monkeypatch):
    first = open_environments()
    ids = [(await first.prepare([name])).environment.id for name in ("thing-b", "thing-c")]
    await first.pin(ids[0], True)
    await first.close()
    age(tmp_path)
    monkeypatch.setenv("EPHEMERAL_DISK_BUDGET_BYTES", "1")
    again = open_environments()
    assert [environment.pinned for environment in sorted(again.list(), key=lambda listed: ids.index(listed.id))] == [True, False]
    assert (await again.evict()).environments == [ids[1]]
    await again.pin(ids[0], False)
    assert (await again.evict()).environments == [ids[0]]
    assert wheels(tmp_path) == set()
    assert not list((tmp_path / "store" / "environments").iterdir())


async def test_a_wheel_that_is_being_compiled_is_not_taken(open_environments, tmp_path, monkeypatch):
    monkeypatch.setenv("EPHEMERAL_DISK_BUDGET_BYTES", "1")
    other = open_environments()
    evicted = []

    async def compiler(pairs):
        age(tmp_path)
        evicted.append(await other.evict())
        for source, target in pairs:
            (target / "__pycache__").mkdir()
            (target / "__pycache__" / f"{next(source.glob('*.py')).stem}.cpython-311.pyc").write_bytes(b"code")

    environments = open_environments(compiler=compiler)
    made = await environments.prepare(["thing-c"])
    environments._let_go(made.environment.id)
    assert await environments.compile_pending() == 1
    assert evicted[0].environments == [made.environment.id]
    assert evicted[0].wheels == []
    assert wheels(tmp_path) == {"thing-c"}


async def test_what_is_mounted_stays_even_when_its_record_is_gone_or_garbage(open_environments, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("EPHEMERAL_DISK_BUDGET_BYTES", "1")
    mounted, other = open_environments(), open_environments()
    made = await mounted.prepare(["thing-c"])
    path = mounted.mount(made.environment.id)
    record = tmp_path / "store" / "environments" / f"{made.environment.id}.json"
    for damage in (record.unlink, lambda: record.write_bytes(b"garbage")):
        damage()
        age(tmp_path)
        assert (await other.evict()).wheels == []
        assert "no wheel is evicted" in caplog.text
        assert (path / "thing_c.py").read_text() == "x = 1\n"
    await mounted.scrub()
    assert made.environment.id in record.read_text() or "thing-c" in record.read_text()


async def test_an_environment_is_dropped_when_no_sandbox_has_it(open_environments, tmp_path):
    environments = open_environments()
    env_id = (await environments.prepare(["thing-c"])).environment.id
    with pytest.raises(Refused, match="mounted"):
        await environments.drop(env_id, mounted=[env_id])
    with pytest.raises(Refused, match="a moment ago"):
        await environments.drop(env_id, mounted=[])
    aged(environments)
    await environments.drop(env_id, mounted=[])
    assert environments.list() == []
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "store"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=7m", "tmpfs", str(disk)], capture_output=True, text=True)
    assert made.returncode == 0, f"this test mounts a small file system and needs root: {made.stderr}"
    yield disk
    mounts.unmount(disk)


async def test_a_full_disk_is_made_room_on_once(small_disk, open_environments, fake_index, tmp_path, wheel):
    for name in ("thing_b", "thing_c"):
        wheel(fake_index.folder, name, "2.0", {f"{name}.py": b"", f"{name}.bin": os.urandom(3 << 20)})
    environments = open_environments()
    first = await environments.prepare(["thing-b"])
    environments._let_go(first.environment.id)
    aged(environments)
    age(tmp_path)
    second = await environments.prepare(["thing-c"])
    assert second.readiness == "cold"
    assert [environment.id for environment in environments.list()] == [second.environment.id]
    with pytest.raises(StoreFull):  # what is mounted stays
        await environments.prepare(["thing-b"])


# ------------------------------------------------------------------------------------------------- damage


async def test_after_healing_what_is_mounted_anew_is_whole_and_a_sandbox_keeps_what_it_has(open_environments, tmp_path):
    environments = open_environments()
    made = await environments.prepare(["thing-a"])
    path = environments.mount(made.environment.id)
    target = tmp_path / "under-a-sandbox"
    target.mkdir()
    mounts.bind(path, target)
    try:
        for folder in (tmp_path / "store" / "wheels").iterdir():
            for file in (folder / "site").glob("thing_a.py"):
                file.write_bytes(b"x = 2\n")
        assert len((await environments.scrub()).healed) == 1
        assert (environments.mount(made.environment.id) / "thing_a.py").read_text() == "x = 1\n"
        assert (target / "thing_b.py").read_text() == "x = 1\n"
    finally:
        mounts.unmount(target)


async def test_damaged_byte_code_is_made_again(open_environments, tmp_path):
    async def compiler(pairs):
        for source, target in pairs:
            (target / "__pycache__").mkdir()
            (target / "__pycache__" / f"{next(source.glob('*.py')).stem}.cpython-313.pyc").write_bytes(b"code")

    environments = open_environments(python="3.13", compiler=compiler)
    made = await environments.prepare(["thing-c"])
    await environments.compile_pending()
    [cached] = environments.mount(made.environment.id).rglob("*.pyc")
    stored = next((tmp_path / "store" / "wheels").iterdir()) / "compiled-3.13"
    next(stored.rglob("*.pyc")).write_bytes(b"cope")
    report = await environments.scrub()
    assert (report.damaged, len(report.recompile)) == ({}, 1)
    assert next(stored.rglob("*.pyc")).read_bytes() == b"code"
    [cached] = environments.mount(made.environment.id).rglob("*.pyc")
    assert cached.read_bytes() == b"code"
    assert (await environments.scrub()).recompile == []


async def test_records_that_were_damaged_while_in_use_are_written_again(open_environments, tmp_path, monkeypatch):
    (tmp_path / "base.txt").write_text("thing-b\n")
    monkeypatch.setenv("EPHEMERAL_BASE", str(tmp_path / "base.txt"))
    environments = open_environments()
    await environments.make_base()
    await environments.prepare(["thing-c"])
    store = tmp_path / "store"
    flipped = []
    for file in [store / "base.json", *(store / "environments").glob("*.json"), *(store / "resolutions").glob("*.json")]:
        text = file.read_text()
        file.write_text(text.replace("thing_c-1.0-py3", "thing_d-1.0-py3").replace("thing_b-1.0-py3", "thing_d-1.0-py3"))
        flipped.append(f"{file.relative_to(store)}")
    report = await environments.scrub()
    assert set(report.records) == set(flipped)
    assert set(report.records.values()) == {"its content has changed"}
    again = open_environments()
    assert {environment.id for environment in again.list()} == {environment.id for environment in environments.list()}
    assert (await environments.scrub()).records == {}


async def test_a_damaged_base_record_is_made_again_from_what_its_list_resolved_to(open_environments, tmp_path, monkeypatch, fake_index, caplog):
    (tmp_path / "base.txt").write_text("thing-b\n")
    monkeypatch.setenv("EPHEMERAL_BASE", str(tmp_path / "base.txt"))
    made = await open_environments().make_base()
    fake_index.down = True
    (tmp_path / "store" / "base.json").write_bytes(b"garbage")
    again = open_environments()
    assert again.base is not None
    assert again.base.id == made.id
    assert again.base_is_current()
    assert "was made again" in caplog.text
    (tmp_path / "store" / "base.json").write_bytes(b"garbage")
    for file in (tmp_path / "store" / "resolutions").iterdir():
        file.unlink()
    assert open_environments().base is None
    assert "`ephemeral setup` makes it again" in caplog.text


async def test_a_wheel_at_odds_with_its_own_list_is_not_fetched_for_ever(open_environments, tmp_path, wheel, fake_index):
    def lie(archive: zipfile.ZipFile) -> None:
        archive.writestr("thing_c-3.0.dist-info/RECORD.jws", "")

    file = wheel(fake_index.folder, "thing_c", "3.0", {"thing_c.py": b"x = 1\n"}, raw=lie)
    content = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    record = "thing_c-3.0.dist-info/RECORD"
    entries[record] = entries[record].replace(b"thing_c.py,sha256=", b"thing_c.py,sha256=AAAA")
    file.unlink()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    assert file.read_bytes() != content
    environments = open_environments()
    await environments.prepare(["thing-c"])
    assert len((await environments.scrub()).damaged) == 1
    assert (await environments.scrub()).damaged == {}


# ------------------------------------------------------------------------------------------------- killed in the middle


async def test_a_download_that_was_killed_goes_on_in_the_next_process(open_environments, tmp_path, fake_index):
    file = "thing_c-1.0-py3-none-any.whl"
    fake_index.stall.add(file)
    code = ("import asyncio, sys\nfrom pathlib import Path\nfrom ephemeral_sandboxd.environments import Environments\n"
            f"asyncio.run(Environments(Path({str(tmp_path / 'store')!r}), Path({str(tmp_path / 'elsewhere')!r})).prepare(['thing-c']))\n")
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    half = (fake_index.folder / file).stat().st_size // 2
    try:
        async with asyncio.timeout(60):
            while sum(part.stat().st_size for part in (tmp_path / "store" / "downloads").rglob("*.whl")) < half:
                assert process.returncode is None
                await asyncio.sleep(0.02)
    finally:
        process.kill()
        await process.wait()
    fake_index.stall.clear()
    assert (await open_environments().prepare(["thing-c"])).readiness == "cold"
    assert fake_index.ranges == [f"bytes={half}-"]
    assert not list((tmp_path / "store" / "downloads").iterdir())


async def test_byte_code_that_another_process_took_away_is_not_missed(open_environments, tmp_path):
    async def compiler(pairs):
        for source, target in pairs:
            (target / "__pycache__").mkdir()
            (target / "__pycache__" / f"{next(source.glob('*.py')).stem}.cpython-311.pyc").write_bytes(b"code")

    environments = open_environments(compiler=compiler)
    made = await environments.prepare(["thing-c"])
    await environments.compile_pending()
    environments.mount(made.environment.id)
    next((tmp_path / "store" / "wheels").rglob("*.pyc")).write_bytes(b"cope")
    assert (await open_environments().scrub()).recompile
    environments._let_go(made.environment.id)
    path = environments.mount(made.environment.id)
    assert (path / "thing_c.py").exists()
    assert not list(path.rglob("*.pyc"))
    assert await environments.compile_pending() == 1
