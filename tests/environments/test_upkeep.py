"""A store that is used for months: its budget, what it never gives up, and damage that somebody did on purpose."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from ephemeral_sandboxd import mounts
from ephemeral_sandboxd.environments import Environments
from ephemeral_sandboxd.environments.errors import NoSuchEnvironment
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

    def open_(**options: object) -> Environments:
        opened.append(Environments(tmp_path / "store", tmp_path / f"mounts{len(opened)}", **options))
        return opened[-1]

    yield open_
    for environments in opened:
        await environments.close()


def age(tmp_path: Path) -> None:
    """Make everything in the store a day old."""
    for folder in ("environments", "wheels"):
        for entry in (tmp_path / "store" / folder).iterdir():
            os.utime(entry, (OLD, OLD))


def aged(environments: Environments) -> None:
    for record in environments._records.values():
        record.last_used_at = OLD


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
