"""The room through its door, with the real index."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from ephemeral_sandboxd import mounts
from ephemeral_sandboxd.environments import Environments
from ephemeral_sandboxd.environments.base import SHIPPED, parse_requirements, read_requirements
from ephemeral_sandboxd.environments.errors import IndexUnreachable, NoSuchEnvironment, PackageRefused, Unresolvable
from ephemeral_sandboxd.errors import BadRequest


async def compiler(pairs: Sequence[tuple[Path, Path]]) -> None:
    for source, target in pairs:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c",
            "import os, sys, shutil, compileall; shutil.copytree(sys.argv[1], sys.argv[2], dirs_exist_ok=True); compileall.compile_dir(sys.argv[2], quiet=2)",
            source, target)
        await process.wait()


@pytest.fixture
async def open_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[[], Environments]]:
    """Opens the same store again and again, as restarts do. Its base is six and idna."""
    assert os.geteuid() == 0, "environments are mounted: run the tests as root"
    (tmp_path / "base.txt").write_text("# two small ones\nsix\nidna\n")
    monkeypatch.setenv("EPHEMERAL_BASE", str(tmp_path / "base.txt"))
    opened: list[Environments] = []

    def open_() -> Environments:
        opened.append(Environments(tmp_path / "store", tmp_path / f"mounts{len(opened)}", compiler=compiler))
        return opened[-1]

    yield open_
    for environments in opened:
        await environments.close()
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def run(code: str, *paths: Path) -> str:
    ran = subprocess.run([sys.executable, "-S", "-c", code], env={"PYTHONPATH": ":".join(map(str, paths))}, capture_output=True, text=True)
    return ran.stdout + ran.stderr


async def test_from_an_empty_store_to_an_import(open_environments: Callable[[], Environments], tmp_path: Path) -> None:
    environments = open_environments()
    assert environments.base is None
    said: list[tuple[str, int, int]] = []
    made = await environments.make_base(lambda *what: said.append(what))
    assert made.base
    assert made.compiled
    assert set(made.packages) == {"six", "idna"}
    assert made.size_bytes > 10_000
    assert {what for what, _, _ in said} == {"resolve", "download", "compile"}
    assert environments.base is not None
    base_path = environments.mount(environments.base.id)
    assert environments.base.path == base_path
    assert environments.provided_by([made.id]) == {"six", "idna"}

    cold = await environments.prepare(["humanize"])
    assert (cold.readiness, cold.replaces_base) == ("cold", False)
    assert set(cold.environment.packages) == {"humanize"}
    assert set(cold.stages) == {"resolve_ms", "download_ms", "compose_ms"}
    path = environments.mount(cold.environment.id)
    assert "3 minutes" in run("import six, humanize; print(humanize.naturaldelta(180))", path, base_path)
    assert environments.provided_by([made.id, cold.environment.id, "nothing"]) == {"six", "idna", "humanize"}

    again = await environments.prepare(["humanize"])
    assert again.readiness == "environment"
    await environments.prepare(["emoji"])
    assert (await environments.prepare(["humanize", "emoji"])).readiness == "wheels"
    assert [environment.base for environment in environments.list()] == [True, False, False, False]

    restarted = open_environments()
    assert restarted.base is not None
    assert restarted.base.id == made.id
    assert (await restarted.prepare(["humanize"])).readiness == "environment"
    assert {environment.id for environment in restarted.list()} == {environment.id for environment in environments.list()}


async def test_what_the_base_holds_is_answered_by_the_base(open_environments: Callable[[], Environments]) -> None:
    environments = open_environments()
    made = await environments.make_base()
    prepared = await environments.prepare(["six", "Idna"])
    assert prepared.environment.id == made.id
    assert prepared.readiness == "environment"
    assert set((await environments.prepare(["six", "humanize"])).environment.packages) == {"humanize"}


async def test_another_version_than_the_bases_replaces_the_base(open_environments: Callable[[], Environments]) -> None:
    environments = open_environments()
    await environments.make_base()
    prepared = await environments.prepare(["six==1.15.0"])
    assert prepared.replaces_base
    assert prepared.environment.packages == {"six": "1.15.0"}
    path = environments.mount(prepared.environment.id)
    assert environments.base is not None
    assert run("import six; print(six.__version__)", path, environments.mount(environments.base.id)) == "1.15.0\n"


async def test_wheels_are_compiled_behind_a_first_use_and_later_mounts_have_it(open_environments: Callable[[], Environments]) -> None:
    environments = open_environments()
    environment = (await environments.prepare(["humanize"])).environment
    assert not environment.compiled
    first = environments.mount(environment.id)
    assert not list(first.rglob("*.pyc"))
    assert await environments.compile_pending() == len(environment.packages)
    second = environments.mount(environment.id)
    assert list(second.rglob("*.pyc"))
    assert (first / "humanize/__init__.py").exists()
    assert environments.mount(environment.id) == second
    assert [listed.compiled for listed in environments.list()] == [True]
    assert await environments.compile_pending() == 0


async def test_the_base_outlives_the_index(open_environments: Callable[[], Environments], monkeypatch: pytest.MonkeyPatch) -> None:
    made = await open_environments().make_base()
    monkeypatch.setenv("EPHEMERAL_INDEX_URL", "http://127.0.0.1:9/simple")
    environments = open_environments()
    assert (await environments.make_base()).id == made.id
    with pytest.raises(IndexUnreachable):
        await environments.prepare(["humanize"])


async def test_a_changed_list_makes_a_new_base_and_a_bad_list_leaves_the_old_one(open_environments: Callable[[], Environments], tmp_path: Path) -> None:
    environments = open_environments()
    made = await environments.make_base()
    for text, problem in (("six\n--index-url=http://evil/\n", PackageRefused), ("", BadRequest), ("six\nno-such-package-zzqx-1\n", Unresolvable)):
        (tmp_path / "base.txt").write_text(text)
        with pytest.raises(problem):
            await environments.make_base()
    (tmp_path / "base.txt").unlink()
    with pytest.raises(BadRequest, match="no base list"):
        await environments.make_base()
    assert environments.base is not None
    assert environments.base.id == made.id
    on_the_old = (await environments.prepare(["humanize"])).environment
    (tmp_path / "base.txt").write_text("idna\n")
    assert set((await environments.make_base()).packages) == {"idna"}
    assert environments.provided_by([made.id, on_the_old.id]) == {"six", "idna", "humanize"}
    assert on_the_old.id not in {environment.id for environment in open_environments().list()}


async def test_refused_names_fetch_nothing(open_environments: Callable[[], Environments], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EPHEMERAL_DENY", "text-unidecode")
    monkeypatch.setenv("EPHEMERAL_ALLOW", "no-such-package-zzqx-1")
    environments = open_environments()
    for name in ("no-such-package-zzqx-2", "--index-url=http://evil/", "six\nidna"):
        assert environments.check(name)
        with pytest.raises(PackageRefused):
            await environments.prepare([name])
    assert not (tmp_path / "store/uv").exists()
    with pytest.raises(PackageRefused, match="text-unidecode is denied"):
        await environments.prepare(["python-slugify"])
    assert not list((tmp_path / "store/wheels").iterdir())
    assert environments.check("no-such-package-zzqx-1") is None
    with pytest.raises(Unresolvable, match="not found"):
        await environments.prepare(["no-such-package-zzqx-1"])


def test_an_unknown_environment_cannot_be_mounted(open_environments: Callable[[], Environments]) -> None:
    with pytest.raises(NoSuchEnvironment, match="0123456789abcdef"):
        open_environments().mount("0123456789abcdef")


async def test_a_request_that_is_cancelled_leaves_its_work_for_the_next(open_environments: Callable[[], Environments]) -> None:
    environments = open_environments()
    first = asyncio.create_task(environments.prepare(["humanize"]))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert set((await environments.prepare(["humanize"])).environment.packages) == {"humanize"}


async def test_closing_takes_the_mounts_away_but_not_from_who_uses_them(open_environments: Callable[[], Environments]) -> None:
    environments = open_environments()
    environment = (await environments.prepare(["humanize"])).environment
    path = environments.mount(environment.id)
    with (path / "humanize/__init__.py").open() as held:
        await environments.close()
        assert held.read()
    assert not path.exists()
    assert not mounts.is_mount(path)


def test_the_shipped_base_is_a_list_of_plain_names_without_the_long_tail_of_the_demo() -> None:
    requirements = parse_requirements(SHIPPED)
    assert requirements == read_requirements(SHIPPED)
    assert len(requirements) == len(set(requirements))
    assert {"numpy", "pandas", "torch", "opencv-python-headless"} <= set(requirements)
    assert not {"humanize", "inflect", "pyfiglet"} & set(requirements)
