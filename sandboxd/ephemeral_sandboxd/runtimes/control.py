"""runsc's control socket: restoring a snapshot into a sandbox that was created beforehand, and signals to it from then on.

The command line does the same by starting two more processes of runsc, which is most of what a restore costs (measured: bare 54 ms
instead of 220, pandas 125 instead of 305). The protocol is gVisor's urpc: one JSON object each way on a stream socket, files beside
it as SCM_RIGHTS. It is not a public interface: whoever calls this has the command line to fall back on.
"""

from __future__ import annotations

import array
import base64
import contextlib
import json
import os
import socket
from pathlib import Path

IMAGE_FILES = ("checkpoint.img", "pages_meta.img", "pages.img")
"""In the order in which the sentry expects them. A compressed checkpoint has the first alone."""
LARGEST_REPLY_BYTES = 1 << 20
LOOPBACK = {
    "Name": "lo",
    "Addresses": [{"Address": "127.0.0.1", "PrefixLen": 8}, {"Address": "::1", "PrefixLen": 128}],
    "Routes": [{"Destination": {"IP": "127.0.0.0", "Mask": base64.b64encode(b"\xff\0\0\0").decode()}},
               {"Destination": {"IP": "::1", "Mask": base64.b64encode(b"\xff" * 16).decode()}}],
}
"""What the command line gives every sandbox that it starts or restores without a network."""


class ControlError(Exception):
    """The sentry refused, or does not speak this dialect. The message is its own."""


def restore(control: Path, image: Path, timeout_seconds: float) -> None:
    """Restore the checkpoint in the directory ``image`` into the created sandbox whose socket is ``control``, with a loopback interface.
    Blocking.

    Raises ControlError, or OSError when the socket or a file of the image cannot be opened, or nothing answers in time.
    """
    _call(control, "Network.CreateLinksAndRoutes", {"LoopbackLinks": [LOOPBACK]}, [], timeout_seconds)
    with contextlib.ExitStack() as stack:
        files = []
        for file in (image / name for name in IMAGE_FILES):
            if file.exists():
                files.append(os.open(file, os.O_RDONLY | os.O_CLOEXEC))
                stack.callback(os.close, files[-1])
        _call(control, "containerManager.Restore", {"HavePagesFile": len(files) > 1, "HaveDeviceFile": False}, files, timeout_seconds)


def signal(control: Path, container: str, number: int, timeout_seconds: float) -> None:
    """Send a signal to the first process of ``container``. The command line refuses to where this restored it: it was not told, and believes
    that the container was never started. Blocking. Raises as restore() does."""
    _call(control, "containerManager.Signal", {"CID": container, "Signo": number, "PID": 0, "Mode": 0}, [], timeout_seconds)


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
