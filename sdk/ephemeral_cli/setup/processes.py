"""Running a program of the machine and reading what it says."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable

from ephemeral_cli.errors import CommandError


def as_root(command: list[str]) -> list[str]:
    """``command`` as root may type it: with sudo in front when we are not root."""
    if os.geteuid() == 0:
        return command
    if shutil.which("sudo") is None:
        raise CommandError(f"{command[0]} needs root, and there is no sudo here", "run it again as root")
    return ["sudo", "-n", *command]


def run(command: list[str], each_line: Callable[[str], None] | None = None, **environment: str) -> str:
    """Run ``command`` to its end and return all it said; ``each_line`` sees every line as it comes.

    Raises CommandError with the program's last words when it fails or is not there.
    """
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            env={**os.environ, "LC_ALL": "C.UTF-8", **environment},
        )
    except OSError as problem:
        raise CommandError(f"{command[0]} cannot be started: {problem.strerror}") from None
    lines: list[str] = []
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if each_line:
                each_line(line.rstrip())
    if process.returncode:
        last = " / ".join(line.strip() for line in lines[-3:] if line.strip())
        raise CommandError(f"`{' '.join(command[:6])}{' …' if len(command) > 6 else ''}` failed ({process.returncode}): {last[-400:]}")
    return "".join(lines)
