"""The hardened container spec: the one place that knows it, one line a flag with its reason.

Measured (63 posture probes): the runtime alone is not the posture; a tenth of it is what stands here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ephemeral_sandboxd.runtimes.protocol import Size

SLOT_COUNT = 16
SLOTS = "/slots"
SCRATCH = "/scratch"
GUEST = "/ephemeral/guest.py"
NOBODY = 65534
ARGUMENTS = ["/usr/bin/python3", "-I", "-u", GUEST]  # -I: no PYTHON* variables, no user site, no script directory


def guest_files() -> dict[str, bytes]:
    """What the folder /ephemeral holds: path -> content. The guest itself, and what it loads when it is wanted."""
    folder = Path(__file__).parent.parent / "guest"
    files = {name: (folder / name).read_bytes() for name in ("guest.py", "cells.py", "commands.py", "duplex.py", "files.py", "packages.py", "showing.py", "tunnel.py", "warming.py")}
    shim = (folder / "bin/pip").read_bytes()
    return files | {"bin/pip": shim, "bin/pip3": shim, "bin/uv": shim, "lib/pip.py": shim}


def write_guest(folder: Path) -> None:
    """Make ``folder`` what sandboxes are shown as /ephemeral."""
    for name, content in guest_files().items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        file.chmod(0o755 if name.startswith("bin/") else 0o644)


def environment(cpus: float) -> dict[str, str]:
    """Variables of the guest and of what it starts. Nothing of the host's environment gets in but BLAS's own switches."""
    threads = str(max(1, int(cpus)))
    variables = {
        "PATH": "/ephemeral/bin:/usr/local/bin:/usr/bin:/bin",
        "HOME": SCRATCH,
        "TMPDIR": "/tmp",
        "LANG": "C.UTF-8",
        "MPLBACKEND": "agg",
        "MPLCONFIGDIR": "/tmp/.matplotlib",
        # Threads beyond the sandbox's CPUs spin against each other (gvisor#10205).
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "PYTHONDONTWRITEBYTECODE": "1",
        # For Pythons that the code starts (`python -m pip` is our own); .pth files do not run from here.
        "PYTHONPATH": ":".join(["/ephemeral/lib", *(f"{SLOTS}/{slot}" for slot in range(SLOT_COUNT))]),
    }
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        if os.environ.get(name):
            variables[name] = os.environ[name]
    return variables


MOUNT_POINTS = ("slots", "scratch", "ephemeral", "dev/shm")


def prepare_rootfs(rootfs: Path) -> None:
    """Make the mount points, which a runtime would make itself at the first boot, racing with the second; and take away the
    name servers that the builder's host left in it."""
    for name in MOUNT_POINTS:
        (rootfs / name).mkdir(parents=True, exist_ok=True)
    (rootfs / "etc/resolv.conf").unlink(missing_ok=True)


def oci(rootfs: Path, slots: Path, guest_directory: Path, cgroup: str, size: Size) -> dict[str, Any]:
    """config.json of one sandbox for runsc."""
    return {
        "ociVersion": "1.0.2",
        "hostname": "sandbox",
        "process": {
            "user": {"uid": NOBODY, "gid": NOBODY},  # not root even inside
            "args": ARGUMENTS,
            "env": [f"{name}={value}" for name, value in environment(size.cpus).items()],
            "cwd": SCRATCH,
            "capabilities": {},  # none of any kind
            "noNewPrivileges": True,  # setuid files give nothing
            "rlimits": [
                {"type": "RLIMIT_NOFILE", "hard": 4096, "soft": 4096},
                {"type": "RLIMIT_CORE", "hard": 0, "soft": 0},  # no core files into scratch
            ],
        },
        "root": {"path": str(rootfs), "readonly": True},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=64k"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", f"size={size.disk_bytes}"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", f"size={size.disk_bytes}", "mode=1777"]},
            {"destination": SCRATCH, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", f"size={size.disk_bytes}", "mode=1777"]},
            # rslave: what the host mounts onto a slot later appears inside, and nothing comes back.
            {"destination": SLOTS, "type": "bind", "source": str(slots), "options": ["rbind", "ro", "rslave", "nosuid", "nodev"]},
            {"destination": str(Path(GUEST).parent), "type": "bind", "source": str(guest_directory), "options": ["rbind", "ro", "nosuid", "nodev"]},
        ],
        "linux": {
            "cgroupsPath": cgroup,
            # Every namespace its own; the network one stays empty (--network=none).
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
            "resources": {
                "memory": {"limit": size.memory_bytes, "swap": size.memory_bytes},  # memory+swap = memory: no swap
                "cpu": {"quota": int(size.cpus * 100_000), "period": 100_000},
                "pids": {"limit": size.pids},
            },
        },
    }


def docker_options(slots: Path, guest_directory: Path, size: Size) -> dict[str, Any]:
    """The same posture in the words of the Docker SDK: keyword arguments of ``containers.create()``."""
    from docker.types import LogConfig, Mount, Ulimit  # the gvisor runtime does without the SDK

    tmpfs = f"rw,nosuid,nodev,exec,size={size.disk_bytes},mode=1777"
    return {
        "command": ARGUMENTS,
        "hostname": "sandbox",
        "user": f"{NOBODY}:{NOBODY}",  # not root even inside
        "environment": environment(size.cpus),
        "working_dir": SCRATCH,
        "stdin_open": True,  # and closed with our end of it: a sandbox whose daemon was killed ends by itself
        "tty": False,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],  # setuid files give nothing
        "ulimits": [Ulimit(name="nofile", soft=4096, hard=4096), Ulimit(name="core", soft=0, hard=0)],
        "read_only": True,
        "tmpfs": {"/tmp": tmpfs, SCRATCH: tmpfs},
        "shm_size": size.disk_bytes,
        "mounts": [
            # rslave: what the host mounts onto a slot later appears inside, and nothing comes back.
            Mount(SLOTS, str(slots), type="bind", read_only=True, propagation="rslave"),
            Mount(str(Path(GUEST).parent), str(guest_directory), type="bind", read_only=True),
        ],
        "network_mode": "none",
        "dns": ["127.0.0.1"],  # else the engine copies the host's resolv.conf in, with its name servers and domains
        "dns_search": ["."],
        "ipc_mode": "private",
        "mem_limit": size.memory_bytes,
        "memswap_limit": size.memory_bytes,  # memory+swap = memory: no swap
        "nano_cpus": int(size.cpus * 1_000_000_000),
        "pids_limit": size.pids,
        "log_config": LogConfig(type="none"),  # else every frame would be kept on the host's disk
        "init": False,  # the guest is PID 1
        "restart_policy": {"Name": "no"},
    }
