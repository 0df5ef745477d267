"""Two real indexes that write down what they were asked: private names are never asked for in public, nor public ones in private."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import BasicAuth, web

from ephemeral_sandboxd.environments import Environments
from ephemeral_sandboxd.environments.errors import PackageRefused, Unresolvable
from ephemeral_sandboxd.environments.policy import Policy
from ephemeral_sandboxd.errors import BadRequest

PASSWORD = "private-password"


@pytest.fixture
async def private_index(fake_index, tmp_path: Path) -> AsyncIterator:
    """A second index, with a password. ``requests`` are the paths that came with it; without it nothing is told."""
    index = type(fake_index)(tmp_path / "private-index")
    index.folder.mkdir()

    @web.middleware
    async def locked(request: web.Request, handler):
        given = request.headers.get("Authorization")
        if not given or BasicAuth.decode(given).password != PASSWORD:
            raise web.HTTPUnauthorized
        return await handler(request)

    app = web.Application(middlewares=[locked])
    app.router.add_get("/simple/{name}/", index._page)
    app.router.add_get("/files/{file}", index._file)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    index.url = f"http://robot:{PASSWORD}@127.0.0.1:{runner.addresses[0][1]}"
    yield index
    await runner.cleanup()


@pytest.fixture
async def environments(fake_index, private_index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Environments]:
    monkeypatch.setenv("EPHEMERAL_INDEX_URL", f"{fake_index.url}/simple")
    monkeypatch.setenv("EPHEMERAL_PRIVATE_INDEX", f"{private_index.url}/simple")
    monkeypatch.setenv("EPHEMERAL_PRIVATE_NAMES", "acme-* Secret.Sauce")
    monkeypatch.setenv("EPHEMERAL_ALLOW", "open-thing other-thing")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    opened = Environments(tmp_path / "store", tmp_path / "mounts")
    yield opened
    await opened.close()


def asked(index, name: str) -> bool:
    return any(name in path for path in index.requests)


async def test_private_names_come_from_the_private_index_and_their_public_needs_from_the_public_one(environments, fake_index, private_index, wheel):
    wheel(private_index.folder, "acme_tool", "1.0", {"acme_tool.py": b"x = 1\n"}, requires=("open-thing", "secret-sauce"))
    wheel(private_index.folder, "secret_sauce", "2.0", {"secret_sauce.py": b""})
    wheel(private_index.folder, "open_thing", "9.0", {"open_thing.py": b"stolen = True\n"})
    wheel(fake_index.folder, "open_thing", "1.0", {"open_thing.py": b""})
    wheel(fake_index.folder, "acme_tool", "99.0", {"acme_tool.py": b"evil = True\n"})
    wheel(fake_index.folder, "secret_sauce", "99.0", {"secret_sauce.py": b"evil = True\n"})
    made = await environments.prepare(["acme-tool"])
    assert made.environment.packages == {"acme-tool": "1.0", "open-thing": "1.0", "secret-sauce": "2.0"}
    assert not asked(fake_index, "acme")
    assert not asked(fake_index, "secret")
    assert not asked(private_index, "open")
    lock = next((environments._root / "environments").glob("*.json")).read_text()
    assert PASSWORD not in lock
    assert "127.0.0.1" in lock


async def test_a_private_name_that_the_private_index_lacks_is_not_found_and_not_asked_for_in_public(environments, fake_index, wheel):
    wheel(fake_index.folder, "acme_gone", "1.0", {"acme_gone.py": b"evil = True\n"})
    with pytest.raises(Unresolvable):
        await environments.prepare(["acme-gone"])
    assert not asked(fake_index, "acme")


async def test_a_public_package_that_depends_on_a_private_name_gets_the_private_one(environments, fake_index, private_index, wheel):
    wheel(fake_index.folder, "other_thing", "1.0", {"other_thing.py": b""}, requires=("acme-base",))
    wheel(fake_index.folder, "acme_base", "5.0", {"acme_base.py": b"evil = True\n"})
    wheel(private_index.folder, "acme_base", "1.0", {"acme_base.py": b""})
    made = await environments.prepare(["other-thing"])
    assert made.environment.packages["acme-base"] == "1.0"
    assert not asked(fake_index, "acme")


async def test_a_denied_name_is_not_even_looked_up_as_a_dependency(fake_index, private_index, tmp_path, monkeypatch, wheel, environments):
    monkeypatch.setenv("EPHEMERAL_DENY", "left-pad")
    wheel(fake_index.folder, "open_thing", "1.0", {"open_thing.py": b""}, requires=("left-pad",))
    wheel(fake_index.folder, "left_pad", "1.0", {"left_pad.py": b""})
    opened = Environments(tmp_path / "store2", tmp_path / "mounts2")
    try:
        with pytest.raises((PackageRefused, Unresolvable), match="left-pad"):
            await opened.prepare(["open-thing"])
    finally:
        await opened.close()
    assert not asked(fake_index, "left")


def test_half_a_configuration_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EPHEMERAL_PRIVATE_NAMES", "acme-*")
    with pytest.raises(BadRequest, match="half a private index"):
        Policy.configured()


def test_a_private_name_needs_no_popularity_and_a_denied_one_is_denied():
    policy = Policy(deny=frozenset({"acme-bad"}), private=("acme-*",))
    assert policy.check("ACME_thing") is None
    assert "denied" in policy.check("acme-bad")
    assert "not among the known" in policy.check("acne-thing-xyz")


async def test_nothing_younger_than_the_minimum_age_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EPHEMERAL_MINIMUM_AGE_DAYS", "36500")
    opened = Environments(tmp_path / "store", tmp_path / "mounts")
    try:
        with pytest.raises(Unresolvable):
            await opened.prepare(["six"])
    finally:
        await opened.close()
    monkeypatch.setenv("EPHEMERAL_MINIMUM_AGE_DAYS", "3650")
    opened = Environments(tmp_path / "store", tmp_path / "mounts-2")
    try:
        assert (await opened.prepare(["six"])).environment.packages["six"] < "1.11"
    finally:
        await opened.close()
