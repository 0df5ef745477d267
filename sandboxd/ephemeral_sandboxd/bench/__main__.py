"""``python -m ephemeral_sandboxd.bench``: measure this machine. `ephemeral bench sandbox` starts it and shows what it says.

Prints one JSON object a line: ``{"what", "done", "total"}`` while it works, at last ``{"result": {…}}``, or ``{"error", "hint"}`` when
nothing can be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from typing import Any

from ephemeral import settings
from ephemeral.bench import interruptible, say
from ephemeral_sandboxd.errors import SandboxdError
from ephemeral_sandboxd.process import begin

# The store belongs to a daemon: a bench gives nothing of it back.
KEEP = {"EPHEMERAL_DISK_BUDGET_BYTES": "0", "EPHEMERAL_SNAPSHOT_BUDGET_BYTES": "0"}


def main() -> int:
    options = _parser().parse_args()
    os.environ.update(KEEP)
    try:
        if os.geteuid() == 0:
            begin()  # else open_place() says what to type
        import uvloop  # only now: see ephemeral_sandboxd.__main__

        say({"result": uvloop.run(_run(options))})
    except (SandboxdError, settings.SettingError) as problem:
        say({"error": str(problem), "hint": problem.hint if isinstance(problem, SandboxdError) else ""})
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    return 0


async def _run(options: argparse.Namespace) -> dict[str, Any]:
    from ephemeral_sandboxd.bench.run import measure

    return await interruptible(lambda progress: measure(
        settings.get("store"), quick=options.quick, only=options.only, with_peers=not options.no_peers, progress=progress,
    ))  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ephemeral_sandboxd.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few samples of everything: under 90 s")
    parser.add_argument("--no-peers", action="store_true", help="only our own figures")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="a figure's name, or what it begins with; may be repeated")
    return parser


if __name__ == "__main__":
    sys.exit(main())
