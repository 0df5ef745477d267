"""Bearer tokens for doors that other machines come in by. Only their hashes are kept.

A token is 256 random bits, so its SHA-256 says nothing about it: a slow hash (scrypt, Argon2) makes guessing dear where there is
something to guess, a password, and would here only make every request slow.

``tokens.json`` is written by the command line alone, ``tokens.used.json`` by the server alone: one writer a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ephemeral_certs import files
from ephemeral_certs.errors import CertsError

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,58}[A-Za-z0-9])?")
PREFIX = "eph_"
FORGET_DAYS = 90
"""A token that has been dead for so long is dropped from the file."""
COARSE_SECONDS = 3600.0
"""When a token was last used is written down at its first use, then at most this often."""


@dataclass(frozen=True)
class Token:
    """What is kept of a token. ``use_by``: dead unless it was first used before. Times are Unix seconds."""

    id: str
    name: str
    sha256: str
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    use_by: float | None = None

    def trouble(self, at: float, used: bool) -> str | None:
        """Why it is not valid, in words; None when it is."""
        if self.revoked_at is not None and at >= self.revoked_at:
            return "was revoked"
        if self.expires_at is not None and at >= self.expires_at:
            return "has expired"
        if self.use_by is not None and at >= self.use_by and not used:
            return "was not used in time"
        return None


class TokenBook:
    """The tokens in the file ``path``, for those who hand them out. Errors are CertsError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def records(self) -> list[Token]:
        """Oldest first; a name has several after a rotation."""
        return read(self.path)

    def create(self, name: str, *, days: float | None = None, use_within_seconds: float | None = None, beside: bool = False) -> str:
        """The new token: shown now, kept nowhere. An error where ``name`` has a valid one, unless this is to live ``beside`` it."""
        if not NAME.fullmatch(name):
            raise CertsError(f"{name!r} is no token name.", hint="Use letters, digits, dots, dashes and underscores, at most 60 (for example laptop).")
        with self._changing() as tokens:
            if not beside and _valid(tokens, name):
                raise CertsError(f"There is a valid token called {name}.", hint=f"Type: ephemeral token rotate {name} (or revoke it first).")
            return _add(tokens, name, days, use_within_seconds)

    def rotate(self, name: str, *, grace_seconds: float = 0.0, days: float | None = None) -> str:
        """A new token for ``name``; the one before stays valid for ``grace_seconds``. Without ``days`` it lives as long as that one was to."""
        with self._changing() as tokens:
            before = _valid(tokens, name)
            if not before:
                raise CertsError(f"There is no valid token called {name}.", hint=f"Type: ephemeral token create {name}")
            now = time.time()
            for token in before:
                ends = min(now + grace_seconds, token.expires_at or float("inf"))
                tokens[tokens.index(token)] = replace(token, expires_at=ends)
            newest = before[-1]
            if days is None and newest.expires_at is not None:
                days = (newest.expires_at - newest.created_at) / 86_400
            return _add(tokens, name, days, None)

    def revoke(self, name: str) -> int:
        """Revoke every valid token of ``name``, at once; how many that were."""
        with self._changing() as tokens:
            chosen = _valid(tokens, name)
            for token in chosen:
                tokens[tokens.index(token)] = replace(token, revoked_at=time.time())
        return len(chosen)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[Token]]:
        """The tokens as a list; what it holds at the end is what is written."""
        files.private_directory(self.path.parent)
        with files.locked(self.path.with_suffix(".lock")):
            tokens = read(self.path)
            yield tokens
            oldest = time.time() - FORGET_DAYS * 86_400
            kept = [token for token in tokens if min(token.revoked_at or float("inf"), token.expires_at or float("inf")) > oldest]
            files.write(self.path, json.dumps([asdict(token) for token in kept], indent=1) + "\n")


class TokenCheck:
    """The check that a server makes. It reads the file again when that has changed, so that nothing has to be restarted."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._stamp: files.Stamp | None = None
        self._tokens: list[Token] = []
        self._used = used_at(path)

    def find(self, given: str) -> Token | None:
        """The token that ``given`` is, valid or not; None when it is none of ours. Raises CertsError when the file is damaged."""
        self._refresh()
        digest = _digest(given)
        found = None
        for token in self._tokens:  # all of them, in constant time: how long it took tells nothing
            if hmac.compare_digest(token.sha256, digest):
                found = token
        return found

    def trouble(self, token_id: str) -> str | None:
        """Why the token of that id is not valid now; None when it is."""
        self._refresh()
        for token in self._tokens:
            if token.id == token_id:
                return token.trouble(self._clock(), token.id in self._used)
        return "is unknown"

    def used(self, token: Token) -> None:
        """Remember that it was used just now, coarsely."""
        now = self._clock()
        if now - self._used.get(token.id, 0.0) >= COARSE_SECONDS:
            known = {one.id for one in self._tokens}
            self._used = {one: at for one, at in self._used.items() if one in known} | {token.id: now}
            files.write(_used_path(self._path), json.dumps(self._used) + "\n")

    def _refresh(self) -> None:
        stamp = files.stamp(self._path)
        if stamp != self._stamp:
            self._tokens = read(self._path)
            self._stamp = stamp


def read(path: Path) -> list[Token]:
    """The tokens in ``path``; none where there is no file. Raises CertsError when it is damaged."""
    try:
        return [Token(**entry) for entry in json.loads(path.read_text())]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as problem:
        raise CertsError(f"{path} cannot be read: {problem}.", hint="Restore it from a backup, or remove it and hand out new tokens.") from None


def used_at(path: Path) -> dict[str, float]:
    """Token id -> Unix time of its last use, to the hour. Where that is lost, nothing is known to have been used."""
    try:
        found = json.loads(_used_path(path).read_text())
        return {str(one): float(at) for one, at in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _used_path(path: Path) -> Path:
    return path.with_suffix(".used.json")


def _valid(tokens: list[Token], name: str) -> list[Token]:
    now = time.time()
    return [token for token in tokens if token.name == name and token.trouble(now, used=True) is None]


def _add(tokens: list[Token], name: str, days: float | None, use_within_seconds: float | None) -> str:
    now = time.time()
    given = PREFIX + secrets.token_urlsafe(32)
    tokens.append(Token(
        secrets.token_hex(6), name, _digest(given), now, expires_at=now + days * 86_400 if days is not None else None,
        use_by=now + use_within_seconds if use_within_seconds is not None else None,
    ))  # fmt: skip
    return given


def _digest(given: str) -> str:
    return hashlib.sha256(given.encode(errors="replace")).hexdigest()
