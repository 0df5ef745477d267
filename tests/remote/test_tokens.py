"""Tokens: what is kept of them, and for how long they are good."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ephemeral_certs import tokens
from ephemeral_certs.errors import CertsError
from ephemeral_certs.tokens import TokenBook, TokenCheck


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


def valid(check: TokenCheck, given: str) -> bool:
    found = check.find(given)
    return found is not None and check.trouble(found.id) is None


def test_only_a_hash_is_kept(path: Path):
    given = TokenBook(path).create("laptop")
    assert len(given) > 40
    for file in path.parent.iterdir():
        assert given.encode() not in file.read_bytes()
        assert given.removeprefix("eph_").encode() not in file.read_bytes()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    check = TokenCheck(path)
    assert valid(check, given)
    for wrong in ("", "x", given[:-1], given + "x", tokens.read(path)[0].sha256, "ümlaut", "\udcff"):
        assert not valid(check, wrong)


def test_what_changes_in_the_file_holds_at_once(path: Path):
    check, book = TokenCheck(path), TokenBook(path)
    first = book.create("laptop", days=10)
    assert valid(check, first)
    second = book.rotate("laptop", grace_seconds=3600)
    assert valid(check, first)
    assert valid(check, second)
    assert 9.9 < (book.records()[-1].expires_at - book.records()[-1].created_at) / 86_400 < 10.1, "a rotation keeps the length of life"
    assert book.revoke("laptop") == 2
    assert not valid(check, first)
    assert not valid(check, second)
    assert book.revoke("laptop") == 0


def test_expiry_and_the_time_to_be_first_used_in(path: Path):
    now = 0.0
    given = TokenBook(path).create("laptop", days=1, use_within_seconds=3600)
    made = tokens.read(path)[0].created_at

    check = TokenCheck(path, clock=lambda: made + now)
    assert valid(check, given)
    now = 3601
    assert check.trouble(tokens.read(path)[0].id) == "was not used in time"
    now = 3000
    check.used(check.find(given))
    now = 3601
    assert valid(check, given)
    assert valid(TokenCheck(path, clock=lambda: made + now), given), "that it was used survives a restart"
    now = 86_401
    assert check.trouble(tokens.read(path)[0].id) == "has expired"


def test_last_use_is_known_to_the_hour_and_written_no_more_often(path: Path):
    now = 1e9
    given = TokenBook(path).create("laptop")
    check = TokenCheck(path, clock=lambda: now)
    token = check.find(given)
    check.used(token)
    before = path.with_suffix(".used.json").stat().st_ino
    now += 3599
    check.used(token)
    assert path.with_suffix(".used.json").stat().st_ino == before
    now += 1
    check.used(token)
    assert tokens.used_at(path) == {token.id: 1e9 + 3600}


def test_a_name_has_one_token_unless_another_is_asked_for(path: Path):
    book = TokenBook(path)
    book.create("laptop")
    with pytest.raises(CertsError, match="ephemeral token rotate laptop"):
        book.create("laptop")
    with pytest.raises(CertsError, match="ephemeral token create desk"):
        book.rotate("desk")
    book.create("laptop", beside=True)
    assert book.revoke("laptop") == 2


def test_a_damaged_file_lets_nobody_in_and_loses_nothing(path: Path):
    given = TokenBook(path).create("laptop")
    path.write_text("[{")
    with pytest.raises(CertsError):
        TokenCheck(path).find(given)
    with pytest.raises(CertsError):
        TokenBook(path).create("desk")
    assert path.read_text() == "[{"


def test_commands_at_the_same_time_lose_no_token(path: Path):
    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(lambda number: TokenBook(path).create(f"client-{number}"), range(24)))
    check = TokenCheck(path)
    assert all(valid(check, token) for token in given)
