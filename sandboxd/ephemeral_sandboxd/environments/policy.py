"""Which names may be fetched at all.

Names come from conversations, and models invent some: 5-22 % of what they name does not exist, and squatters register what models
invent. So a name is fetched only if it was known before the conversation: among PyPI's most downloaded, allowed by the operator, or the
operator's own. Which names are private is said here; relay.py sees to it that they are never looked up in public.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from packaging.version import InvalidVersion, Version

from ephemeral import names, settings
from ephemeral_sandboxd.environments.errors import PackageRefused
from ephemeral_sandboxd.errors import BadRequest

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?)(?:\s*==\s*(?P<version>[0-9][A-Za-z0-9.+!]{0,39}))?")
_PATTERN = re.compile(r"[A-Za-z0-9*?](?:[A-Za-z0-9._*?-]{0,98}[A-Za-z0-9*?])?")


@dataclass(frozen=True, order=True)
class Requirement:
    """A package by its normal name, and the version if one was asked for. ``str()`` is what uv is given: nothing else ever reaches it."""

    name: str
    version: str = ""

    def __str__(self) -> str:
        return f"{self.name}=={self.version}" if self.version else self.name

    def met_by(self, version: str) -> bool:
        """Whether the installed ``version`` will do. ``2.13.0`` is met by ``2.13.0+cpu``."""
        if not self.version:
            return True
        wanted, installed = Version(self.version), Version(version)
        return installed == wanted or (wanted.local is None and Version(installed.public) == wanted)


def parse(text: str) -> Requirement:
    """Reads ``name`` or ``name==version``. Everything else is PackageRefused: URLs, paths, options, markers, extras, ranges, several lines."""
    match = _REQUIREMENT.fullmatch(text)
    version = (match["version"] or "") if match else ""
    if match and version:
        try:
            Version(version)
        except InvalidVersion:
            match = None
    if not match:
        raise PackageRefused("syntax", f"{text[:60]!r} is not a package name", "write a plain name, or name==version; no URLs, options, extras or ranges")
    return Requirement(names.normalize(match["name"]), version)


@dataclass(frozen=True)
class Policy:
    """``allow`` and ``deny`` hold normal names; ``deny`` wins. ``private`` are names and patterns (``acme-*``) that belong to the private index."""

    allow: frozenset[str] = frozenset()
    deny: frozenset[str] = frozenset()
    private: tuple[str, ...] = ()

    @classmethod
    def configured(cls) -> Policy:
        """By EPHEMERAL_ALLOW, EPHEMERAL_DENY and EPHEMERAL_PRIVATE_NAMES. Raises BadRequest when private names have no index, the other
        way round, or can be no names."""
        private = settings.get("private_names").split()
        if bool(private) != bool(settings.get("private_index")):
            raise BadRequest("half a private index", "private names need an index of their own, and the other way round",
                             "set both EPHEMERAL_PRIVATE_INDEX and EPHEMERAL_PRIVATE_NAMES, or neither")
        allow, deny = (frozenset(names.normalize(name) for name in settings.get(key).split()) for key in ("allow", "deny"))
        for pattern in private:
            if not _PATTERN.fullmatch(pattern):
                raise BadRequest("bad private name", f"EPHEMERAL_PRIVATE_NAMES has {pattern[:60]!r}", "write names, with * and ? where they vary: acme-* tool")
        return cls(allow, deny, tuple(sorted({names.normalize(pattern) for pattern in private})))

    def is_private(self, name: str) -> bool:
        """Whether ``name`` (normal form) is one of the operator's own: then only the private index is ever asked for it."""
        return any(fnmatchcase(name, pattern) for pattern in self.private)

    def admit(self, text: str) -> Requirement:
        """The requirement that ``text`` stands for, in its representative spelling (``opencv-python`` becomes
        ``opencv-python-headless``); PackageRefused when a rule forbids it."""
        asked = parse(text)
        if self.is_private(asked.name):
            self.forbid(asked.name)
            return asked
        standing = Requirement(names.equivalent(asked.name), asked.version)
        for name in (asked.name, standing.name):
            self.forbid(name)
        if asked.name in self.allow:
            return asked
        if names.rank(standing.name) is None and standing.name not in self.allow:
            package = names.package_for(text)
            meant = f"; the package that brings {text} is {package}" if package else ""
            raise PackageRefused("known packages", f"{asked.name} is not among the known packages{meant}", f"to allow it: EPHEMERAL_ALLOW={asked.name}")
        return standing

    def forbid(self, name: str) -> None:
        """PackageRefused when ``name`` (normal form) is denied by the operator."""
        if name in self.deny:
            raise PackageRefused("deny", f"{name} is denied by the operator", f"to lift that, take {name} out of EPHEMERAL_DENY")

    def check(self, text: str) -> str | None:
        """The refusal of ``text`` as one sentence, or None when it may be fetched."""
        try:
            self.admit(text)
        except PackageRefused as refusal:
            return f"{refusal.detail} ({refusal.hint})"
        return None
