"""What a root filesystem holds, asked of the root filesystem itself: its Python runs once, inside gVisor, as the guest will.

Nothing of it ever runs outside. What it says is still a stranger's word: it is read as such.
"""

from __future__ import annotations

import json
import os
import platform
import re
import stat
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ephemeral_cli.errors import CommandError

LEAST_PYTHON = (3, 9)
USUAL = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
"""Where programs are looked for, unless an image says otherwise."""
ALSO = ("/opt/conda/bin", "/opt/venv/bin", "/opt/python/bin", "/opt/bitnami/python/bin")
"""Where images are known to keep a Python, without naming it in their PATH."""
TOOLS = (
    "7z", "R", "Rscript", "aria2c", "bun", "cargo", "cc", "clang", "cmake", "convert", "curl", "deno", "dot", "ffmpeg", "ffprobe", "g++", "gcc",
    "gfortran", "gdalinfo", "gh", "git", "gnuplot", "go", "gs", "inkscape", "java", "javac", "jq", "julia", "latexmk", "libreoffice", "lua", "magick", "make",
    "mysql", "ninja", "node", "npm", "pandoc", "pdflatex", "pdftotext", "php", "pip", "pkg-config", "psql", "qpdf", "rg", "rsync", "ruby", "rustc",
    "sox", "sqlite3", "ssh", "tesseract", "tsc", "unzip", "uv", "wget", "wkhtmltopdf", "xelatex", "xz", "yarn", "zip", "zstd",
)
"""Command-line programs that are worth knowing of. A shell and the coreutils go without saying."""
PLAIN = re.compile(r"(/[A-Za-z0-9_@+-][A-Za-z0-9._@+-]*|/\.[A-Za-z0-9_][A-Za-z0-9._@+-]*)+")
"""A path without `..`."""
START_SECONDS = 120
MOST_BYTES = 4 << 20
MEMORY_BYTES = 1 << 30
MARK = "ephemeral-probe:"
NOBODY = 65534

PROGRAM = """
import json, os, shutil, subprocess, sys, sysconfig
missing = []
for name in %(modules)r:
    try:
        __import__(name)
    except Exception:
        missing.append(name)
try:
    libc = os.confstr('CS_GNU_LIBC_VERSION') or ''
except (ValueError, OSError):
    libc = ''
try:
    stanzas = open('/var/lib/dpkg/status', encoding='utf-8', errors='replace').read().split('\\n\\n')
except OSError:
    stanzas = []
packages = []
for stanza in stanzas:
    fields = dict(line.split(': ', 1) for line in stanza.splitlines() if ': ' in line and not line.startswith(' '))
    if fields.get('Status') == 'install ok installed':
        packages.append(' '.join(fields.get(key, '') for key in ('Package', 'Version', 'Architecture')))
def said(*command):
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60).stdout.decode('ascii', 'replace').strip()
    except Exception:
        return ''
node = said('node', '--version') if shutil.which('node') else ''
environment = below = ''
if sys.prefix != sys.base_prefix:
    environment = sysconfig.get_path('purelib')
    below = said(os.path.realpath(sys.executable), '-I', '-c', 'import site; print(site.getsitepackages()[0])')
print('\\n' + %(mark)r + json.dumps({
    'python': list(sys.version_info[:3]), 'libc': libc, 'missing': missing, 'node': node, 'packages': sorted(packages),
    'tools': [name for name in %(tools)r if shutil.which(name)], 'implementation': sys.implementation.name,
    'environment': environment, 'site': below,
}))
"""
MODULES = ("ast", "asyncio", "ctypes", "fcntl", "importlib.metadata", "json", "queue", "select", "shutil", "socket", "ssl", "struct", "subprocess", "tempfile",
           "termios", "threading", "tokenize", "typing", "zlib")
"""Of the standard library: what the guest and most wheels import. Pythons that were cut down or built in haste lack some."""


@dataclass(frozen=True)
class Facts:
    """``interpreter`` is a path inside. ``node`` is None where there is none. ``packages`` are Debian's: name, version, architecture.

    ``environment``: where the packages of the virtual environment lie that the interpreter belongs to, and where the Python below
    it keeps its own; None when it belongs to none.
    """

    interpreter: str
    python: str
    glibc: str
    node: str | None
    tools: tuple[str, ...]
    packages: tuple[str, ...]
    environment: tuple[str, str] | None


def examine(runsc: Path, root: Path, search: tuple[str, ...] = USUAL) -> Facts:
    """Find the Python that a shell inside would start (``search`` is the PATH there) and ask it for the facts.

    Raises CommandError when there is none that can serve as guest, and says what would be.
    """
    refusals: list[str] = []
    for folder in dict.fromkeys((*search, *USUAL, *ALSO)):
        interpreter = f"{folder.rstrip('/')}/python3"
        if not _may_exist(root, interpreter):
            continue
        said, failed = _start(runsc, root, interpreter, search)
        if said is None:
            if failed:
                refusals.append(f"{interpreter}: {failed}")
            continue
        return _understood(interpreter, said)
    if any((root / folder).is_dir() and any((root / folder).glob("ld-musl-*")) for folder in ("lib", "usr/lib")):
        raise _musl()
    if refusals:
        raise CommandError(f"its Python does not start: {refusals[0]}", f"it must be a Linux for {platform.machine()} with a working Python 3.9 or later")
    raise CommandError("there is no Python 3 in it", "sandboxes are Python first: install python3 (3.9 or later) in the image, or build on python:3.12-slim")


def _may_exist(root: Path, path: str) -> bool:
    """False when there is no such file. Links are not followed, as they may lead out: beyond one everything may exist."""
    place = root
    for part in path.strip("/").split("/"):
        place /= part
        try:
            if stat.S_ISLNK(os.lstat(place).st_mode):
                return True
        except OSError:
            return False
    return True


def _musl() -> CommandError:
    return CommandError("it is built on musl (Alpine), and packages come as wheels for glibc, which do not run there", "build the image on Debian or Ubuntu, for example on python:3.12-slim")


def _understood(interpreter: str, said: dict[str, Any]) -> Facts:
    """What was said, read with suspicion."""
    try:
        version = tuple(int(part) for part in said["python"])[:3]
        libc, node = str(said["libc"]), str(said["node"])
        packages = tuple(str(package)[:300] for package in said["packages"])
        tools = tuple(name for name in TOOLS if name in said["tools"])
        missing = [name for name in MODULES if name in said["missing"]]
        implementation = str(said["implementation"])[:40]
        environment = (str(said["environment"]), str(said["site"])) if said["environment"] else None
    except (KeyError, TypeError, ValueError):
        raise CommandError(f"its Python ({interpreter}) does not say what it is", "it must be an ordinary Python 3.9 or later") from None
    shown = ".".join(map(str, version))
    if len(version) != 3 or version < LEAST_PYTHON:
        raise CommandError(f"its Python ({interpreter}) is {shown}, and the oldest that can serve is 3.9", "build on a newer image, for example on python:3.12-slim")
    if implementation != "cpython":
        raise CommandError(f"its Python ({interpreter}) is {implementation}, and packages come as wheels for CPython", "build on an image with CPython, for example on python:3.12-slim")
    glibc = re.fullmatch(r"glibc (\d{1,3}\.\d{1,3})[\d.]*", libc)
    if glibc is None:
        raise _musl()
    if missing:
        raise CommandError(f"its Python ({interpreter}, {shown}) lacks {', '.join(missing)} of the standard library",
                           "install the whole of Python in the image (Debian: python3, not python3-minimal)")
    for path in environment or ():
        if not PLAIN.fullmatch(path):
            raise CommandError(f"its Python ({interpreter}) keeps packages where they cannot be found: {path[:100]!r}", "install Python, and packages, at an ordinary path")
    return Facts(interpreter, shown, glibc[1], node[1:] if re.fullmatch(r"v\d+\.\d+\.\d+", node) else None, tools, packages, environment)


def _start(runsc: Path, root: Path, interpreter: str, search: tuple[str, ...]) -> tuple[dict[str, Any] | None, str]:
    """What ``interpreter`` said; else None and why it did not start (empty when there is no such file)."""
    with tempfile.TemporaryDirectory(prefix="ephemeral-probe-") as work:
        bundle = Path(work)
        name = f"probe-{os.getpid()}-{bundle.name[-8:]}"
        (bundle / "config.json").write_text(json.dumps(_spec(root, interpreter, search, name)))
        flags = [str(runsc), f"--root={bundle / 'state'}", "--network=none", "--platform=systrap", "--overlay2=none", "--host-uds=none", "--host-fifo=none"]
        delete = [*flags, "delete", "--force", name]

        def give_up() -> None:
            subprocess.run(delete, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)

        timer = threading.Timer(START_SECONDS, give_up)
        with subprocess.Popen([*flags, "run", f"--bundle={bundle}", name], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            assert process.stdout is not None
            timer.start()
            try:
                said = process.stdout.read(MOST_BYTES)  # a flood is cut off here, and its source below
            finally:
                timer.cancel()
                timer.join()
                give_up()
        lines = said.decode(errors="replace").splitlines()
    for line in reversed(lines):
        if line.startswith(MARK):
            try:
                answer = json.loads(line.removeprefix(MARK))
            except ValueError:
                break
            return (answer, "") if isinstance(answer, dict) else (None, "it answers nonsense")
    words = " / ".join(line.strip() for line in lines[-3:] if line.strip())[-400:]
    absent = "no such file" in words or "not found" in words or "error finding executable" in words
    return None, "" if absent else words or "it ended without a word"


def _spec(root: Path, interpreter: str, search: tuple[str, ...], name: str) -> dict[str, Any]:
    """config.json: nobody, no capabilities, nothing to write to but a little memory, no network."""
    program = PROGRAM % {"modules": MODULES, "mark": MARK, "tools": TOOLS}
    small = ["nosuid", "nodev", "size=16m", "mode=1777"]
    return {
        "ociVersion": "1.0.2",
        "hostname": "sandbox",
        "process": {
            "user": {"uid": NOBODY, "gid": NOBODY},
            "args": [interpreter, "-I", "-c", program],
            "env": [f"PATH={':'.join(search)}", "HOME=/tmp", "LANG=C.UTF-8"],
            "cwd": "/",
            "capabilities": {},
            "noNewPrivileges": True,
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}, {"type": "RLIMIT_CORE", "hard": 0, "soft": 0}],
        },
        "root": {"path": str(root), "readonly": True},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=64k"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": small},
        ],
        "linux": {
            "cgroupsPath": f"/ephemeral-{name}",
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
            "resources": {"memory": {"limit": MEMORY_BYTES, "swap": MEMORY_BYTES}, "pids": {"limit": 512}},
        },
    }
