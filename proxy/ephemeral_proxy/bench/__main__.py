"""``python -m ephemeral_proxy.bench``: measure the proxy on this machine. `ephemeral bench proxy` starts it and shows what it says.

Prints one JSON object a line: ``{"what", "done", "total"}`` while it works, at last ``{"result": {…}}``, or ``{"error", "hint"}`` when
nothing can be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from typing import Any

import uvloop

from ephemeral import settings
from ephemeral_proxy.bench.processes import NotMeasured
from ephemeral_proxy.bench.run import MEASURES, UnknownName, measure


def main() -> int:
    options = _parser().parse_args()
    try:
        _say({"result": uvloop.run(_run(options))})
    except UnknownName as problem:
        _say({"error": str(problem), "hint": f"one of {' '.join(MEASURES)}, or a measure of one: {' '.join(MEASURES['ephemeral'])}"})
        return 1
    except NotMeasured as problem:
        _say({"error": str(problem), "hint": "ephemeral doctor"})
        return 1
    except (settings.SettingError, OSError) as problem:
        _say({"error": str(problem), "hint": ""})
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    return 0


async def _run(options: argparse.Namespace) -> dict[str, Any]:
    task = asyncio.current_task()
    assert task
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)

    def progress(what: str, done: int, total: int) -> None:
        try:
            _say({"what": what, "done": done, "total": total})
        except BrokenPipeError:  # who listened is gone
            task.cancel()

    return await measure(quick=options.quick, only=options.only, with_peers=not options.no_peers, progress=progress)


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ephemeral_proxy.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few samples of everything")
    parser.add_argument("--no-peers", action="store_true", help="only our own figures")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="a target, or a measure of one (ephemeral.rps32); may be repeated")
    return parser


if __name__ == "__main__":
    sys.exit(main())
