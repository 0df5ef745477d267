"""The `ephemeral` command: errors become one or two lines and an exit code, never a traceback."""

from __future__ import annotations

import sys

from ephemeral.errors import EphemeralError
from ephemeral.settings import SettingError
from ephemeral_cli.app import app
from ephemeral_cli.errors import CommandError


def main() -> None:
    try:
        app(standalone_mode=True)
    except CommandError as problem:
        sys.stderr.write(f"ephemeral: {problem.message}\n")
        if problem.hint:
            sys.stderr.write(f"  next: {problem.hint}\n")
        sys.exit(problem.exit_code)
    except SettingError as problem:
        sys.stderr.write(f"ephemeral: {problem}\n")
        sys.exit(2)
    except EphemeralError as problem:
        sys.stderr.write(f"ephemeral: {problem}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
