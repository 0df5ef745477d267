"""``ephemeral forget``: what was learned from an app's sessions is forgotten, whether the predictor runs or not."""

from __future__ import annotations

import json
import subprocess
import sys

from ephemeral_cli.errors import CommandError


def run(app: str | None) -> str:
    """Forget ``app`` (None: every app); what was done, in a sentence. Raises CommandError.

    In a process of the predictor's own: the command line knows no room's insides.
    """
    command = [sys.executable, "-m", "ephemeral_predictor.forget", *(["--all"] if app is None else ["--", app])]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace", check=False)
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise CommandError(f"forgetting ended with status {done.returncode} and said nothing that can be read", "ephemeral doctor") from None
    if "error" in answer:
        raise CommandError(str(answer["error"]), str(answer.get("hint", "")))
    whose = "every app" if app is None else repr(app)
    return f"Forgot what {answer['sessions']:,} sessions of {whose} had taught. The ledger still has them: `ephemeral prune` deletes them there."
