"""What a process of sandboxd does before it imports anything that may start a thread."""

from __future__ import annotations

import ctypes
import shutil
from typing import Literal

from ephemeral import logs, settings
from ephemeral_sandboxd import mounts
from ephemeral_sandboxd.errors import Unavailable

_PR_SET_CHILD_SUBREAPER = 36


def begin() -> Literal["gvisor", "docker"]:
    """Log plainly, adopt orphans, and, for the gvisor runtime, move into a mount namespace of our own: its mounts are gone with us,
    even after SIGKILL. (The engine of the docker runtime has to see our mounts.) Returns the runtime to use.

    Raises errors.Unavailable for a runtime that is none, settings.SettingError.
    """
    quiet()
    kind = runtime_kind()
    if kind == "gvisor":
        mounts.private_namespace()
    return kind


def quiet() -> None:
    """Logging to stderr, nobody's text in it; detached sentries are re-parented to this process, because not every init reaps them."""
    logs.begin(quiet=("aiohttp.access", "asyncio"))
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def runtime_kind() -> Literal["gvisor", "docker"]:
    """Which runtime the settings and this host come to: ``auto`` takes gvisor where there is a runsc to drive."""
    wanted = settings.get("runtime")
    if wanted == "auto":
        ours = settings.get("runsc") or settings.get("store") / "bin" / "runsc"
        return "gvisor" if ours.exists() or shutil.which("runsc") or not shutil.which("dockerd") else "docker"
    if wanted not in ("gvisor", "docker"):
        raise Unavailable("no such runtime", f"EPHEMERAL_RUNTIME is {wanted!r}", "write auto, gvisor or docker")
    return wanted
