"""What can go wrong with an environment: sandboxd's errors, made finer.

    SandboxdError
    ├── Refused
    │   └── PackageRefused     the policy or the syntax of names says no: nothing was fetched
    ├── NotFound
    │   └── NoSuchEnvironment  the id names nothing
    ├── Unresolvable      422  no such package or version, no wheel for this Python, or a conflict
    ├── BadWheel          502  what came is not what the lock names, or is not a wheel
    └── Unavailable
        ├── IndexUnreachable   the index did not answer, or answered with an error: the same may work later
        └── StoreFull     507  the disk is full
"""

from __future__ import annotations

from typing import Literal

from ephemeral_sandboxd.errors import NotFound, Refused, SandboxdError, Unavailable

Rule = Literal["syntax", "known packages", "deny", "private", "age"]
"""Which part of the policy refused a package. What EPHEMERAL_ALLOW lacks is refused as not among the known packages."""


class PackageRefused(Refused):
    """``detail`` names the package and the rule, which ``rule`` has as one word or two."""

    def __init__(self, rule: Rule, detail: str, hint: str) -> None:
        super().__init__("package refused", detail, hint)
        self.rule = rule


class NoSuchEnvironment(NotFound):
    def __init__(self, environment: str, hint: str = "GET /v1/environments lists them") -> None:
        super().__init__("no such environment", environment, hint)


class Unresolvable(SandboxdError):
    """``detail`` is uv's reason, in a sentence or two."""

    def __init__(self, detail: str, hint: str = "") -> None:
        super().__init__("packages cannot be resolved", detail, hint, 422)


class BadWheel(SandboxdError):
    def __init__(self, detail: str, hint: str = "") -> None:
        super().__init__("unusable wheel", detail, hint, 502)


class IndexUnreachable(Unavailable):
    def __init__(self, detail: str, hint: str = "check the network, or point EPHEMERAL_INDEX_URL at an index that answers") -> None:
        super().__init__("package index unreachable", detail, hint)


class StoreFull(Unavailable):
    def __init__(self, detail: str, hint: str = "free some space, or move the store with EPHEMERAL_STORE") -> None:
        super().__init__("disk full", detail, hint, 507)
