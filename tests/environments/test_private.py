"""Two real indexes that write down what they were asked: private names are never asked for in public, nor public ones in private."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from aiohttp import BasicAuth, web

from ephemeral_sandboxd.environments import Environments
from ephemeral_sandboxd.environments.errors import IndexUnreachable, PackageRefused, Unresolvable
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


@pytest.fixture
async def open_again(tmp_path: Path, environments: Environments) -> AsyncIterator[Callable[[], Environments]]:
    """Opens the same store, with the settings as they are now."""
    opened: list[Environments] = []

    def open_() -> Environments:
        opened.append(Environments(tmp_path / "store", tmp_path / f"mounts-{len(opened)}"))
        return opened[-1]

    yield open_
    for again in opened:
        await again.close()


async def test_a_private_index_that_sends_away_what_it_lacks_is_not_followed(environments, fake_index, private_index, wheel, caplog):
    wheel(fake_index.folder, "acme_gone", "1.0", {"acme_gone.py": b"evil = True\n"})
    private_index.moved["acme-gone"] = f"{fake_index.url}/simple/acme-gone/"
    with pytest.raises(Unresolvable):
        await environments.prepare(["acme-gone"])
    assert not asked(fake_index, "acme")
    assert "not followed" in caplog.text


async def test_a_private_index_that_does_not_answer_is_not_replaced_by_another(environments, fake_index, private_index, wheel):
    wheel(fake_index.folder, "acme_tool", "1.0", {"acme_tool.py": b"evil = True\n"})
    private_index.down = True
    with pytest.raises(IndexUnreachable) as caught:
        await environments.prepare(["acme-tool"])
    assert not asked(fake_index, "acme")
    assert PASSWORD not in caught.value.detail
    assert "/simple/" not in caught.value.detail  # the relay's address is a secret


async def test_a_wheel_with_a_private_name_in_a_find_links_directory_is_refused(environments, open_again, private_index, wheel, monkeypatch, tmp_path):
    wheel(private_index.folder, "acme_tool", "1.0", {"acme_tool.py": b""})
    wheel(tmp_path / "links", "acme_tool", "9.0", {"acme_tool.py": b"evil = True\n"})
    monkeypatch.setenv("EPHEMERAL_FIND_LINKS", str(tmp_path / "links"))
    with pytest.raises(PackageRefused, match="not in the private index") as caught:
        await open_again().prepare(["acme-tool"])
    assert caught.value.rule == "private"


async def test_a_denied_dependency_is_refused_by_the_rules_name(open_again, fake_index, wheel, monkeypatch):
    wheel(fake_index.folder, "open_thing", "1.0", {"open_thing.py": b""}, requires=("left-pad",))
    wheel(fake_index.folder, "left_pad", "1.0", {"left_pad.py": b""})
    monkeypatch.setenv("EPHEMERAL_DENY", "left-pad")
    with pytest.raises(PackageRefused, match="left-pad, which open-thing needs") as caught:
        await open_again().prepare(["open-thing"])
    assert caught.value.rule == "deny"
    assert not asked(fake_index, "left")


async def test_pages_are_revalidated_and_metadata_is_read_beside_the_wheels(environments, fake_index, wheel, tmp_path):
    fake_index.uploaded["none"] = ""
    wheel(fake_index.folder, "open_thing", "1.0", {"open_thing.py": b""}, requires=("other-thing",))
    wheel(fake_index.folder, "other_thing", "1.0", {"other_thing.py": b""})
    await environments._resolver.resolve(["open-thing"])
    assert {path for path in fake_index.requests if path.startswith("/files/")} == {
        "/files/open_thing-1.0-py3-none-any.whl.metadata", "/files/other_thing-1.0-py3-none-any.whl.metadata"}
    await environments._resolver.resolve(["open-thing==1.0"])
    assert fake_index.revalidated >= 1


async def test_an_index_of_others_with_a_password_works_too(environments, private_index, open_again, wheel, monkeypatch, tmp_path):
    """Both indexes are the one with the password: what matters is that uv never gets to know it."""
    monkeypatch.setenv("EPHEMERAL_INDEX_URL", f"{private_index.url}/simple")
    wheel(private_index.folder, "open_thing", "1.0", {"open_thing.py": b""})
    made = await open_again().prepare(["open-thing"])
    assert made.environment.packages == {"open-thing": "1.0"}
    texts = [file.read_bytes() for file in (tmp_path / "store").rglob("*") if file.is_file()]
    assert not [text for text in texts if PASSWORD.encode() in text]


async def test_only_who_was_given_its_address_gets_anything_from_the_relay(environments, private_index, wheel):
    wheel(private_index.folder, "acme_tool", "1.0", {"acme_tool.py": b""})
    _, variables = await environments.uv(environments._root / "uv")
    address = variables["UV_DEFAULT_INDEX"]
    async with aiohttp.ClientSession() as client:
        async with client.get(f"{address}/acme-tool/") as answer:
            assert answer.status == 200
            file = (await answer.json(content_type=None))["files"][0]["url"]
        async with client.get(file, headers={"Range": "bytes=0-3"}) as answer:
            assert (answer.status, await answer.read()) == (206, b"PK\x03\x04")
        origin = address.rsplit("/", 2)[0]
        elsewhere = file.replace(file.split("/")[-2], "aHR0cDovLzEyNy4wLjAuMTo5L3g")  # http://127.0.0.1:9/x
        for path in (f"{origin}/simple/acme-tool/", f"{origin}/guess/simple/acme-tool/", elsewhere, file.replace(file.split("/")[-2], "!")):
            async with client.get(path) as answer:
                assert answer.status == 404


async def test_nothing_younger_than_the_minimum_age_is_taken_and_the_rule_is_named(open_again, fake_index, wheel, monkeypatch):
    for version in ("1.0", "2.0"):
        wheel(fake_index.folder, "open_thing", version, {"open_thing.py": b""})
    fake_index.uploaded["open_thing-2.0-py3-none-any.whl"] = (datetime.now(UTC) - timedelta(days=3)).isoformat()
    monkeypatch.setenv("EPHEMERAL_MINIMUM_AGE_DAYS", "7")
    for names, index in (("", ""), ("acme-*", "http://127.0.0.1:9/simple")):  # with a relay and without
        monkeypatch.setenv("EPHEMERAL_PRIVATE_NAMES", names)
        monkeypatch.setenv("EPHEMERAL_PRIVATE_INDEX", index)
        environments = open_again()
        assert (await environments.prepare(["open-thing"])).environment.packages == {"open-thing": "1.0"}
        with pytest.raises(PackageRefused, match=r"open-thing.*is younger than 7 days") as caught:
            await environments.prepare(["open-thing==2.0"])
        assert caught.value.rule == "age"
        with pytest.raises(Unresolvable):
            await environments.prepare(["open-thing==3.0"])
    monkeypatch.setenv("EPHEMERAL_MINIMUM_AGE_DAYS", "0")
    assert (await open_again().prepare(["open-thing"])).environment.packages == {"open-thing": "2.0"}


async def test_the_operators_own_packages_may_be_as_young_as_they_like(open_again, fake_index, private_index, wheel, monkeypatch):
    wheel(private_index.folder, "acme_tool", "1.0", {"acme_tool.py": b""})
    monkeypatch.setenv("EPHEMERAL_MINIMUM_AGE_DAYS", "7")
    assert (await open_again().prepare(["acme-tool"])).environment.packages == {"acme-tool": "1.0"}


@pytest.mark.parametrize("pattern", ["acme[abc]", "https://acme", "-acme", "acme/*"])
def test_a_private_name_that_can_be_none_is_said(monkeypatch: pytest.MonkeyPatch, pattern: str):
    monkeypatch.setenv("EPHEMERAL_PRIVATE_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("EPHEMERAL_PRIVATE_NAMES", pattern)
    with pytest.raises(BadRequest, match="bad private name"):
        Policy.configured()


def test_every_refusal_has_the_name_of_its_rule():
    policy = Policy(deny=frozenset({"requests"}))
    for text, rule in (("no-such-package-zzqx", "known packages"), ("requests", "deny"), ("a b", "syntax")):
        with pytest.raises(PackageRefused) as caught:
            policy.admit(text)
        assert caught.value.rule == rule
