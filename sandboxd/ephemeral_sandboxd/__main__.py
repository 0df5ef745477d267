"""``python -m ephemeral_sandboxd``: the daemon."""

from __future__ import annotations

import sys

from ephemeral import settings
from ephemeral_sandboxd.errors import SandboxdError
from ephemeral_sandboxd.process import begin


def main() -> int:
    if len(sys.argv) > 1:
        sys.stderr.write("sandboxd takes no arguments: its settings are variables, EPHEMERAL_… (`ephemeral settings` lists them)\n")
        return 2
    try:
        kind = begin()
        # Only now: some of what the service imports starts threads, and those would stay in the host's mount namespace.
        import uvloop

        from ephemeral_sandboxd.service import run

        uvloop.run(run(kind))
    except (SandboxdError, settings.SettingError) as problem:
        hint = f"\n  {problem.hint}" if isinstance(problem, SandboxdError) and problem.hint else ""
        sys.stderr.write(f"sandboxd: {problem}{hint}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
