"""runsc's control socket: one call, restoring a snapshot into a sandbox that was created beforehand.

The command line does the same by starting two more processes of runsc, which is most of what a restore costs (measured: bare 54 ms
instead of 220, pandas 125 instead of 305). The protocol is gVisor's urpc: one JSON object each way on a stream socket, files beside
it as SCM_RIGHTS. It is not a public interface: whoever calls this has the command line to fall back on.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
from pathlib import Path

IMAGE_FILES = ("checkpoint.img", "pages_meta.img", "pages.img")
"""In the order in which the sentry expects them. A compressed checkpoint has the first alone."""
LARGEST_REPLY_BYTES = 1 << 20


class ControlError(Exception):
    """The sentry refused, or does not speak this dialect. The message is its own."""


def restore(control: Path, image: Path, timeout_seconds: float) -> None:
    """Restore the checkpoint in the directory ``image`` into the created sandbox whose socket is ``control``. Blocking.

    Raises ControlError, or OSError when the socket or a file of the image cannot be opened, or nothing answers in time.
    """
    with contextlib.ExitStack() as stack:
        files = []
        for file in (image / name for name in IMAGE_FILES):
            if file.exists():
                files.append(os.open(file, os.O_RDONLY | os.O_CLOEXEC))
                stack.callback(os.close, files[-1])
        _call(control, "containerManager.Restore", {"HavePagesFile": len(files) > 1, "HaveDeviceFile": False}, files, timeout_seconds)


def _call(control: Path, method: str, argument: dict[str, object], files: list[int], timeout_seconds: float) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_seconds)
        connection.connect(os.fspath(control))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))]
        connection.sendmsg([json.dumps({"method": method, "arg": argument}).encode()], rights if files else [])
        reply = _reply(connection)
    if not reply.get("success"):
        raise ControlError(str(reply.get("err") or "no reason given"))


def _reply(connection: socket.socket) -> dict[str, object]:
    """The one JSON object that comes back; the sentry keeps the connection open after it."""
    text = b""
    while len(text) < LARGEST_REPLY_BYTES:
        piece = connection.recv(65536)
        text += piece
        try:
            reply = json.loads(text)
        except ValueError:
            if piece:
                continue
            break
        if isinstance(reply, dict):
            return reply
        break
    raise ControlError(f"an answer that is none: {text[:100]!r}")
