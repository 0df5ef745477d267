"""What a room's program says while it works for the command line: one JSON object a line, progress, then a result or an error."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from ephemeral_cli.errors import CommandError
from ephemeral_cli.progress import Step

LAST_WORDS = 5


def listen(child: subprocess.Popen[str], step: Step) -> tuple[int, dict[str, Any], str]:
    """Follow ``child`` to its end, showing ``{"what", "done", "total"}`` as progress: its status, the last message that was neither progress nor
    an error, and its last words that were no message. Raises CommandError for an ``{"error", "hint"}``."""
    words: list[str] = []
    last: dict[str, Any] = {}
    failure: CommandError | None = None
    for line in child.stdout or ():
        message = _message(line)
        if "what" in message:
            step.update(message.get("done"), message.get("total"), str(message["what"]))
        elif "error" in message:
            failure = CommandError(str(message["error"]), str(message.get("hint", "")))
        elif message:
            last = message
        else:
            words = [*words, line.strip()][-LAST_WORDS:]
    status = child.wait()
    if failure:
        raise failure
    return status, last, " / ".join(word for word in words if word)[-500:]


def _message(line: str) -> dict[str, Any]:
    """Empty for what is no message, a log line for example."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}
