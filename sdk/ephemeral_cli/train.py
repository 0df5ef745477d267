"""``ephemeral train``: make the predictor's model from files of tasks, in a process of its own that may be long."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ephemeral_cli import messages
from ephemeral_cli.errors import CommandError
from ephemeral_cli.progress import Reporter


def run(files: Sequence[Path], output: Path | None) -> str:
    """Train, and say in a sentence what was made. Raises CommandError for files that cannot be read, or when scikit-learn is missing."""
    command = [sys.executable, "-m", "ephemeral_predictor.model.train", *map(str, files), *(["--output", str(output)] if output else [])]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as child:
        with Reporter().step("training") as step:
            status, last, words = messages.listen(child, step)
    if "result" not in last:
        raise CommandError(f"nothing was trained ({status}): {words}", "ephemeral train predictor/training/*.tsv")
    made = last["result"]
    return (f"{made['examples']:,} tasks, {made['with_packages']:,} of them with packages; {made['packages']} packages, {made['weights']:,} weights, "
            f"{made['bytes'] / (1 << 20):.1f} MB in {made['output']}")
