"""``python -m ephemeral_sandboxd.setup``: make the base environment and the first snapshots.

Prints one JSON object a line: ``{"what", "done", "total"}`` while it works, ``{"error", "hint"}`` when it cannot go on.
"""

from __future__ import annotations

import asyncio
import json
import sys

from ephemeral import settings
from ephemeral_sandboxd.errors import SandboxdError
from ephemeral_sandboxd.process import begin


def main() -> int:
    try:
        begin()
        from ephemeral_sandboxd.ahead import make  # only now: see __main__

        asyncio.run(make(settings.get("state"), settings.get("store")))
    except (SandboxdError, settings.SettingError) as problem:
        hint = problem.hint if isinstance(problem, SandboxdError) else ""
        sys.stdout.write(json.dumps({"error": str(problem), "hint": hint}) + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
