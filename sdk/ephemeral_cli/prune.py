"""``ephemeral prune``: forget old sessions, through the sandboxd that runs, or on its database where none does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ephemeral import Client, settings
from ephemeral.errors import NotRunning
from ephemeral_cli.errors import CommandError

UNITS_IN_DAYS = {"h": 1 / 24, "d": 1.0, "w": 7.0}


@dataclass(frozen=True)
class Choices:
    """``older_than_days`` None: what EPHEMERAL_RETENTION_DAYS says."""

    older_than_days: float | None
    dry_run: bool
    vacuum: bool


def days(text: str) -> float:
    """``7d``, ``12h``, ``2w``, or a number of days. Raises CommandError."""
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)([hdw]?)", text.strip())
    value = float(found[1]) * UNITS_IN_DAYS[found[2] or "d"] if found else -1.0
    if not 0 <= value <= 36_500:
        raise CommandError(f"--older-than {text!r} is no age", "ephemeral prune --older-than 7d (or 12h, 2w)", exit_code=2)
    return value


def run(choices: Choices, say: Callable[[str], None]) -> None:
    """Prune, and say what was forgotten. Raises CommandError, or one of ephemeral.errors."""
    try:
        pruned = _by_api(choices)
    except NotRunning:
        if settings.get("host"):
            raise  # the database is another machine's
        pruned = _by_file(choices)
    say(report(pruned))


def report(pruned: dict[str, Any]) -> str:
    """One or two sentences from a Pruned of sandboxd's."""
    rows: dict[str, int] = pruned["rows"]
    below = ", ".join(f"{count:,} {table.replace('_', ' ')}" for table, count in rows.items() if count and table != "sessions")
    sessions = f"{rows.get('sessions', 0):,} sessions" + (f" with {below}" if below else "")
    if pruned["dry_run"]:
        return f"Would forget {sessions}: about {_size(pruned['freed_bytes'])} of {_size(pruned['size_bytes'])}."
    return f"Forgot {sessions}. The database has {_size(pruned['size_bytes'])}, {_size(pruned['freed_bytes'])} less than before."


def _by_api(choices: Choices) -> dict[str, Any]:
    with Client() as client:
        return client.prune(choices.older_than_days, dry_run=choices.dry_run, vacuum=choices.vacuum).model_dump()


def _by_file(choices: Choices) -> dict[str, Any]:
    """In a process of sandboxd's own: the command line knows no room's insides. It takes the lock that a daemon would take."""
    command = [sys.executable, "-m", "ephemeral_sandboxd.prune"]
    if choices.older_than_days is not None:
        command += ["--older-than-days", str(choices.older_than_days)]
    command += ["--dry-run"] * choices.dry_run + ["--vacuum"] * choices.vacuum
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace", check=False)
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise CommandError(f"pruning ended with status {done.returncode} and said nothing that can be read", "ephemeral doctor") from None
    if "error" in answer:
        raise CommandError(str(answer["error"]), str(answer.get("hint", "")))
    return answer


def _size(bytes_: int) -> str:
    return f"{bytes_ / (1 << 20):,.1f} MiB"
