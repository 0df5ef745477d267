"""``python -m ephemeral_proxy.bench``: measure the proxy on this machine. `ephemeral bench proxy` starts it and shows what it says.

Prints one JSON object a line: ``{"what", "done", "total"}`` while it works, at last ``{"result": {…}}``, or ``{"error", "hint"}`` when
nothing can be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import uvloop

from ephemeral import settings
from ephemeral.bench import interruptible, say
from ephemeral_proxy.bench.processes import NotMeasured
from ephemeral_proxy.bench.run import MEASURES, UnknownName, measure


def main() -> int:
    options = _parser().parse_args()
    try:
        run = interruptible(lambda progress: measure(quick=options.quick, only=options.only, with_peers=not options.no_peers, progress=progress))
        say({"result": uvloop.run(run)})
    except UnknownName as problem:
        say({"error": str(problem), "hint": f"one of {' '.join(MEASURES)}, or a measure of one: {' '.join(MEASURES['ephemeral'])}"})
        return 1
    except NotMeasured as problem:
        say({"error": str(problem), "hint": "ephemeral doctor"})
        return 1
    except (settings.SettingError, OSError) as problem:
        say({"error": str(problem), "hint": ""})
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ephemeral_proxy.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few samples of everything")
    parser.add_argument("--no-peers", action="store_true", help="only our own figures")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="a target, or a measure of one (ephemeral.rps32); may be repeated")
    return parser


if __name__ == "__main__":
    sys.exit(main())
