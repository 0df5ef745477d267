"""``python -m ephemeral_predictor.forget APP`` or ``--all``: forget what was learned from an app's sessions, whether the predictor runs or not.

Prints one JSON object: ``{"sessions": N}``, how many had been counted, or ``{"error", "hint"}``.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys

from ephemeral import logs, settings
from ephemeral_predictor.history import History

FILE = "history.db"
_NAMED = 10


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ephemeral_predictor.forget", description="Forget what was learned from an app's sessions.")
    parser.add_argument("app", nargs="?", default=None, metavar="APP")
    parser.add_argument("--all", action="store_true", help="forget every app")
    asked = parser.parse_args()
    if (asked.app is None) != asked.all:
        parser.error("name one app, or --all")
    try:
        logs.begin("warning")
        answer = forget(asked.app)
    except (OSError, sqlite3.Error, settings.SettingError) as problem:
        answer = {"error": f"the history cannot be changed: {problem}", "hint": "type it again; if that does not help: ephemeral doctor"}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 1 if "error" in answer else 0


def forget(app: str | None) -> dict[str, object]:
    """Forget ``app`` (None: all) in the state directory's history. Raises OSError, sqlite3.Error."""
    path = settings.get("state") / FILE
    if not path.exists():
        return {"error": f"nothing has been learned so far: there is no {path}", "hint": "set EPHEMERAL_STATE to the predictor's state directory"}
    history = History(path)
    try:
        if app is None:
            return {"sessions": history.forget_all()}
        known = history.apps()
        if app[:100] not in known:
            some = ", ".join(repr(name) for name in list(known)[:_NAMED])
            return {"error": f"nothing has been learned from an app called {app[:100]!r}", "hint": f"known are: {some}" if some else "no app is known"}
        return {"sessions": history.forget(app[:100])}
    finally:
        history.close()


if __name__ == "__main__":
    sys.exit(main())
