"""The policies that are set side by side, and what each of them asks of its house."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from ephemeral import names, settings, wire
from ephemeral_cli.errors import CommandError

K2 = "ours+k2"
POLICIES = ("none", "base", "fat-snapshot", "ours", K2)
"""From the cheapest to the dearest, which is also the order of the table's columns. ``ours`` never asks K2."""
RUNNING_ORDER = ("ours", K2, "fat-snapshot", "base", "none")
"""Ours first, so that files which nobody has read yet count against us; last what leaves the most files to delete, which slows down what follows."""
ALL = "all"
WITHOUT_K2 = "no K2 is named: set EPHEMERAL_K2_API_KEY (and EPHEMERAL_K2_BASE_URL, EPHEMERAL_K2_MODEL where they are not the default), or give --k2-url URL"
NO_KEY = "none"
"""What a server that wants no key is sent in its place: the predictor asks nobody without one."""


def k2_variables(url: str) -> dict[str, str]:
    """The settings of the K2 that is meant: the one at ``url``, else the machine's own; empty where there is neither.

    Raises CommandError for an address that is none.
    """
    key = settings.get("k2_api_key").strip()
    if not url:
        return {"EPHEMERAL_K2_API_KEY": key} if key else {}
    address = urlsplit(url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise CommandError(f"--k2-url {url} is no address", "write one like http://127.0.0.1:8000/v1", 2)
    return {"EPHEMERAL_K2_BASE_URL": url, "EPHEMERAL_K2_API_KEY": key or NO_KEY}


def choose(asked: Sequence[str], has_k2: bool) -> tuple[list[str], dict[str, str]]:
    """The policies that ``asked`` names, each once, in the order in which they run; and what ``all`` has to leave out, with the reason.

    Raises CommandError when K2 is asked for by name and there is none.
    """
    everything = ALL in asked
    wanted = set(POLICIES if everything else asked or ("ours",))
    left_out: dict[str, str] = {}
    if K2 in wanted and not has_k2:
        if K2 in asked:
            raise CommandError(f"--policy {K2}: {WITHOUT_K2.partition(':')[0]}", WITHOUT_K2.partition(": ")[2], 2)
        wanted.discard(K2)
        left_out[K2] = WITHOUT_K2
    return [policy for policy in RUNNING_ORDER if policy in wanted], left_out


def variables(policy: str, k2: dict[str, str]) -> dict[str, str]:
    """The settings of the house that serves ``policy``. Only ours predicts, and only with K2 in its name does it ask K2."""
    return {
        "EPHEMERAL_PREDICTOR": "ours" if policy in ("ours", K2) else "none",
        **(k2 if policy == K2 else {"EPHEMERAL_K2_API_KEY": ""}),
    }


def of_sessions(policy: str) -> wire.Policy:
    """What sandboxd calls it: K2 is the predictor's affair."""
    return cast(wire.Policy, "ours" if policy == K2 else policy)


def twenty() -> frozenset[str]:
    """The packages of the fat snapshot, from sandboxd's own list: read where it lies, for no room's code is imported here."""
    spec = importlib.util.find_spec("ephemeral_sandboxd")
    folder = next(iter(spec.submodule_search_locations or []), None) if spec else None
    if folder is None:
        raise CommandError("sandboxd is not installed", "pip install 'ephemeral-sidecar[services]'")
    modules = (line.partition("#")[0].strip() for line in (Path(folder) / "data" / "fat.txt").read_text().splitlines())
    return frozenset(names.equivalent(names.package_for(module) or module) for module in modules if module)
