"""``python -m ephemeral_predictor.bench``: measure the predictor on tasks of known solution. `ephemeral bench predictor` starts it and shows what it says.

Prints one JSON object a line: ``{"what", "done", "total"}`` while it works, at last ``{"result": {…}}``, or ``{"error", "hint"}`` when
nothing can be measured.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import NoReturn

from ephemeral import settings
from ephemeral.bench import say
from ephemeral.errors import EphemeralError
from ephemeral_predictor.bench.records import Unreadable
from ephemeral_predictor.bench.run import Choices, measure
from ephemeral_predictor.reasoned.service import K2

_EXAMPLE = 'one JSON object a line: {"id": …, "messages": [{"role": "user", "content": …}], "packages": ["numpy"]}, and `code` where it is known'


def main() -> int:
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        k2 = None if options.no_k2 else K2.from_settings()
        say({"result": measure(Choices(list(dict.fromkeys(options.files)), options.limit, options.seed, k2), _progress)})
    except Unreadable as problem:
        say({"error": str(problem), "hint": _EXAMPLE})
        return 1
    except (settings.SettingError, EphemeralError, OSError) as problem:
        say({"error": str(problem), "hint": ""})
        return 1
    except (KeyboardInterrupt, BrokenPipeError):  # who listened is gone
        return 130
    return 0


def _interrupted(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _progress(what: str, done: int, total: int) -> None:
    say({"what": what, "done": done, "total": total})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ephemeral_predictor.bench", description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help=_EXAMPLE)
    parser.add_argument("--limit", type=int, default=0, help="at most so many records of each file, drawn with --seed; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-k2", action="store_true", help="leave K2 alone even where a key is set")
    return parser


if __name__ == "__main__":
    sys.exit(main())
