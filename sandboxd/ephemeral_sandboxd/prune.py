"""``python -m ephemeral_sandboxd.prune``: forget old sessions while no sandboxd runs; one that does is asked over its API.

Prints one JSON object: a wire.Pruned, or ``{"error", "hint"}``. It holds the state directory's lock for as long as it works.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from ephemeral import logs, settings, wire
from ephemeral_sandboxd import host
from ephemeral_sandboxd.errors import NotFound, SandboxdError
from ephemeral_sandboxd.ledger import Recorder

LEDGER = "ephemeral.db"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ephemeral_sandboxd.prune", description="Forget sessions that ended long ago.")
    parser.add_argument("--older-than-days", type=float, default=None, help="default: EPHEMERAL_RETENTION_DAYS")
    parser.add_argument("--dry-run", action="store_true", help="only count")
    parser.add_argument("--vacuum", action="store_true", help="rewrite the whole file")
    asked = parser.parse_args()
    try:
        logs.begin("warning")
        pruned = asyncio.run(prune(settings.get("state"), asked.older_than_days, dry_run=asked.dry_run, vacuum=asked.vacuum))
    except (SandboxdError, settings.SettingError) as problem:
        hint = problem.hint if isinstance(problem, SandboxdError) else ""
        sys.stdout.write(json.dumps({"error": str(problem), "hint": hint}) + "\n")
        return 1
    sys.stdout.write(pruned.model_dump_json() + "\n")
    return 0


async def prune(state: Path, older_than_days: float | None, *, dry_run: bool, vacuum: bool) -> wire.Pruned:
    """Recorder.prune on the ledger in `state`. Raises Unavailable when a sandboxd has it, NotFound where there is none."""
    path = state / LEDGER
    if not path.exists():
        raise NotFound("nothing to prune", f"there is no ledger at {path}", "set EPHEMERAL_STATE to sandboxd's state directory")
    lock = host.take(state)
    try:
        recorder = Recorder(path, capture=False)
        try:
            return await recorder.prune(older_than_days, dry_run=dry_run, vacuum=vacuum)
        finally:
            await recorder.close()
    finally:
        host.release(lock)


if __name__ == "__main__":
    sys.exit(main())
