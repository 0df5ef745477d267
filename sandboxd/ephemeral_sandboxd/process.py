"""What a process of sandboxd does before it imports anything that may start a thread."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
from typing import Literal

from ephemeral import logs, settings
from ephemeral_sandboxd import mounts
from ephemeral_sandboxd.errors import Unavailable
from ephemeral_sandboxd.runtimes import cgroups

_PR_SET_CHILD_SUBREAPER = 36


def begin() -> Literal["gvisor", "docker"]:
    """Log plainly, adopt orphans, allow as many descriptors as may be, and, for the gvisor runtime, move into a mount namespace of our own: its mounts are gone with us,
    even after SIGKILL. (The engine of the docker runtime has to see our mounts.) Returns the runtime to use.

    Raises errors.Unavailable for a runtime that is none, settings.SettingError.
    """
    quiet()
    # A sandbox takes seven descriptors: the customary 1024 would be the end of 140 of them.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    kind = runtime_kind()
    if os.geteuid():
        _without_root(kind)
    elif kind == "gvisor":
        mounts.private_namespace()
    return kind


def _without_root(kind: str) -> None:
    """Go on in a user namespace in which this user is root: enough for mounts and for runsc. What it is not enough for are control groups,
    and no sandbox runs without its limits: root has to have handed those over (`ephemeral delegate`)."""
    if kind != "gvisor":
        raise Unavailable("no root", "the docker runtime mounts into containers that the engine's root made", "run sandboxd as root, or set EPHEMERAL_RUNTIME=gvisor")
    # Settings whose default depends on who asks: afterwards this user looks like root.
    os.environ["EPHEMERAL_STATE"], os.environ["EPHEMERAL_STORE"] = str(settings.get("state")), str(settings.get("store"))
    group = cgroups.group_of(settings.get("state"))
    if not cgroups.Cgroup(group).delegated():
        raise Unavailable("no control groups", f"without root sandboxd needs a control group of its own, {group}",
                          f"sudo env EPHEMERAL_STATE={settings.get('state')} ephemeral delegate {os.getuid()}")
    try:
        mounts.user_namespace()
    except OSError as problem:
        raise Unavailable("no user namespaces", f"this kernel does not let user {os.getuid()} make one: {problem.strerror}",
                          "run sandboxd as root, or see sysctl user.max_user_namespaces and kernel.apparmor_restrict_unprivileged_userns") from problem


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
