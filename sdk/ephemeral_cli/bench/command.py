"""``ephemeral bench sandbox|proxy|predictor``: a room measures itself, in a process of its own; here are its progress and its figures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from ephemeral_cli import messages
from ephemeral_cli.bench import predictor_table, proxy_table, table
from ephemeral_cli.errors import CommandError
from ephemeral_cli.progress import Reporter, Step

PLAIN_WIDTH = 120
INTERRUPTED = 130


@dataclass(frozen=True)
class Bench:
    """``module`` is what measures, ``what`` it says while it does, ``show`` prints the result for a person."""

    module: str
    what: str
    show: Callable[[Console, Mapping[str, Any]], None]


SANDBOX = Bench("ephemeral_sandboxd.bench", "measuring sandboxes", table.show_all)
PROXY = Bench("ephemeral_proxy.bench", "measuring the proxy", proxy_table.show_all)
PREDICTOR = Bench("ephemeral_predictor.bench", "measuring the predictor", predictor_table.show_all)


@dataclass(frozen=True)
class Choices:
    """The command's options, as typed. ``arguments`` go to the bench as they are."""

    as_json: bool
    output: Path
    quick: bool = False
    only: list[str] = field(default_factory=list)
    no_peers: bool = False
    arguments: list[str] = field(default_factory=list)


def run(bench: Bench, choices: Choices) -> None:
    """Measure, write ``output``, print. Raises CommandError for what cannot be measured or written, and when it was interrupted."""
    reporter = Reporter()
    result = _measure(bench, choices, reporter)
    _write(choices.output, result)
    if choices.as_json:
        sys.stdout.write(json.dumps(result, indent=1) + "\n")
        return
    console = Console()
    console.width = console.width if console.is_terminal else PLAIN_WIDTH  # a file or a log has no width of its own
    bench.show(console, result)
    console.print(str(choices.output), highlight=False, markup=False, soft_wrap=True)


def _measure(bench: Bench, choices: Choices, reporter: Reporter) -> dict[str, Any]:
    command = [sys.executable, "-m", bench.module, *(["--quick"] if choices.quick else []), *(["--no-peers"] if choices.no_peers else []),
               *(f"--only={name}" for name in choices.only), *choices.arguments]
    # A session of its own: Ctrl-C reaches us alone, and we ask it to stop and wait until it has cleared up.
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                          start_new_session=True) as child:
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            with reporter.step(bench.what) as step:
                return _listen(child, step)
        except KeyboardInterrupt:
            reporter.say("stopping what runs …")
            child.terminate()
            for _ in child.stdout or ():
                pass  # it must not wait for a reader
            raise CommandError("interrupted", exit_code=INTERRUPTED) from None
        finally:
            signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _listen(child: subprocess.Popen[str], step: Step) -> dict[str, Any]:
    """The result. Raises CommandError with its last words when there is none."""
    status, last, words = messages.listen(child, step)
    if "result" not in last:
        raise CommandError(f"nothing was measured ({status}): {words}", "ephemeral doctor")
    result: dict[str, Any] = last["result"]
    return result


def _write(output: Path, result: dict[str, Any]) -> None:
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        fresh = output.with_name(f".{output.name}.{os.getpid()}")
        fresh.write_text(json.dumps(result, indent=1) + "\n")
        os.replace(fresh, output)
    except OSError as problem:
        raise CommandError(f"the figures cannot be written to {output}: {problem.strerror}", "--output names another file") from None
