"""``ephemeral doctor``: what is there, what is missing, what to type."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import httpx
from rich.console import Console
from rich.table import Table

from ephemeral import names, remote, settings
from ephemeral.errors import EphemeralError
from ephemeral_certs.authority import RENEW_BEFORE_DAYS
from ephemeral_cli.errors import CommandError
from ephemeral_cli.host import certifying, joining, status
from ephemeral_cli.rootfs import records
from ephemeral_cli.setup import runsc
from ephemeral_cli.setup.processes import run

K2_TIMEOUT_SECONDS = 10
LEAST_FREE_BYTES = 5 << 30
NAMES_DAYS = 366


@dataclass(frozen=True)
class Finding:
    """``missing`` makes the machine unusable; ``note`` does not. ``fix`` is what to type, empty when nothing is."""

    what: str
    state: Literal["ok", "note", "missing"]
    detail: str
    fix: str = ""


def examine() -> list[Finding]:
    """Look at everything; a look that fails is a finding, never an exception."""
    findings: list[Finding] = []
    for look in (_python, _kernel, _cgroups, _runsc, _rootfs, _base, _engine, _uv, _names, _dashboard, _ports, _certificates, _remote, _disk, _provider, _k2):
        try:
            findings.extend(look())
        except (OSError, CommandError, settings.SettingError) as problem:
            findings.append(Finding(look.__name__.strip("_"), "missing", str(problem)))
    return findings


def show(findings: list[Finding], console: Console) -> None:
    """The findings as a table, and what to type below it."""
    table = Table(box=None, show_header=False, pad_edge=False)
    marks = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "missing": "[red]missing[/]"}
    for finding in findings:
        table.add_row(marks[finding.state], finding.what, finding.detail)
    console.print(table)
    todo = [finding for finding in findings if finding.fix]
    if todo:
        console.print("\nTo type or set:")
    for finding in todo:
        console.print(f"  {finding.what}: {finding.fix}", markup=False, highlight=False, soft_wrap=True)


def as_json(findings: list[Finding]) -> dict[str, object]:
    """``{"usable": bool, "findings": [{"what", "state", "detail", "fix"}]}``"""
    return {"usable": usable(findings), "findings": [asdict(finding) for finding in findings]}


def usable(findings: list[Finding]) -> bool:
    return all(finding.state != "missing" for finding in findings)


def _python() -> Iterator[Finding]:
    rooms = [name for name in ("proxy", "predictor", "sandboxd", "mcp") if importlib.util.find_spec(f"ephemeral_{name}") is None]
    if rooms:
        yield Finding("services", "missing", f"not installed: {', '.join(rooms)}", "pip install 'ephemeral-sidecar[services]'")
    if os.geteuid() != 0:
        yield Finding("root", "note", "sandboxd drives gVisor as root, and this is not root", "sudo -E .venv/bin/ephemeral up")
    yield Finding("python", "ok", f"{platform.python_version()} ({platform.machine()})")


def _kernel() -> Iterator[Finding]:
    release = platform.release()
    yield Finding("kernel", "ok" if platform.system() == "Linux" else "missing", f"{platform.system()} {release}")
    if "gVisor" in platform.version() or Path("/proc/sentry-meminfo").exists():
        yield Finding("nesting", "missing", "this machine is itself a gVisor sandbox, and gVisor does not run inside gVisor", "use a machine with a kernel of its own")


def _cgroups() -> Iterator[Finding]:
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        yield Finding("cgroups", "ok", "version 2")
        return
    needed = [name for name in ("memory", "cpu", "pids", "freezer") if not Path("/sys/fs/cgroup", name).is_dir()]
    if needed:
        yield Finding("cgroups", "note", f"no controller for {', '.join(needed)}: those limits cannot hold")
    else:
        yield Finding("cgroups", "ok", "version 1")


def _runsc() -> Iterator[Finding]:
    found = runsc.recorded(settings.get("store"))
    if found is None:
        yield Finding("runsc", "missing", "gVisor's runsc is not set up", "ephemeral setup")
        return
    why = runsc.unusable(Path(found.path), starts=1)
    if why:
        yield Finding("runsc", "missing", f"{found.path}: {why}", f"rm {settings.get('store') / 'runsc.json'} && ephemeral setup")
    else:
        yield Finding("runsc", "ok", f"{found.version} ({found.origin}), platform systrap starts")


def _rootfs() -> Iterator[Finding]:
    store = settings.get("store")
    found = records.recorded(store)
    if found is None:
        yield Finding("root filesystem", "missing", "not made", "ephemeral setup")
    else:
        yield Finding("root filesystem", "ok", f"{found.id}, Python {found.python}, glibc {found.glibc} ({found.origin})")
    for name in records.names(store):
        other = records.read(store, name)
        if other is None:
            yield Finding("root filesystem", "note", f"{name} cannot be used: its record or its files cannot be read", f"ephemeral rootfs remove {name}")
        elif name != records.DEFAULT:
            yield Finding("root filesystem", "ok", f"{name}: Python {other.python}, glibc {other.glibc} ({other.origin})")


def _base() -> Iterator[Finding]:
    record = settings.get("store") / "base.json"
    try:
        packages = json.loads(record.read_text())["lock"]["wheels"]
    except (OSError, ValueError, KeyError, TypeError):
        yield Finding("base environment", "missing", "not made", "ephemeral setup")
    else:
        yield Finding("base environment", "ok", f"{len(packages)} packages")


def _engine() -> Iterator[Finding]:
    if shutil.which("docker") is None:
        yield Finding("docker", "note", "no engine here (only the docker runtime needs one)")
        return
    try:
        server = run(["timeout", "5", "docker", "version", "--format", "{{.Server.Version}}"]).strip()
    except CommandError:
        yield Finding("docker", "note", "the engine does not answer (only the docker runtime needs it)")
        return
    runtimes = run(["timeout", "5", "docker", "info", "--format", "{{json .Runtimes}}"])
    yield Finding("docker", "ok", f"engine {server}, {'with' if 'runsc' in runtimes else 'without'} the runsc runtime")


def _uv() -> Iterator[Finding]:
    beside = Path(sys.executable).with_name("uv")
    path = str(beside) if beside.exists() else shutil.which("uv")
    if path is None:
        yield Finding("uv", "missing", "not found", "pip install uv")
    else:
        yield Finding("uv", "ok", run([path, "--version"]).strip())


def _names() -> Iterator[Finding]:
    yield popular_names(datetime.now(UTC).date())


def popular_names(today: date) -> Finding:
    """Of the list that decides what may be fetched: one that has grown old refuses what has become popular since."""
    count, day = names.popular()
    detail = f"{count:,} packages, {day:%B %Y}"
    if (today - day).days > NAMES_DAYS:
        return Finding("names", "note", f"{detail}: older than a year, what has become popular since is refused", "pip install --upgrade ephemeral-sidecar")
    return Finding("names", "ok", detail)


def _dashboard() -> Iterator[Finding]:
    spec = importlib.util.find_spec("ephemeral_sandboxd")
    folder = Path(next(iter(spec.submodule_search_locations or []), "")) / "dashboard" if spec else None
    if folder is None or not (folder / "index.html").exists():
        node = shutil.which("node")
        yield Finding("dashboard", "note", f"not built (Node {'is there' if node else '20 or later is missing'})", "make dashboard")
    else:
        yield Finding("dashboard", "ok", "built")


def _ports() -> Iterator[Finding]:
    for name in ("proxy_port", "mcp_port", "sandboxd_port"):
        port = settings.get(name)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except (OSError, OverflowError):
                yield Finding(f"port {port}", "note", "in use, by `ephemeral up` or by something else", f"EPHEMERAL_{name.upper()}=… if it is something else")
            else:
                yield Finding(f"port {port}", "ok", "free")


def _certificates() -> Iterator[Finding]:
    """Of this machine as a host for others; nothing where it is none."""
    state = settings.get("state")
    if not settings.get("listen") and not (state / "tls" / "server.pem").exists():
        return
    try:
        known = certifying.identity(state)
    except EphemeralError as problem:
        yield Finding("certificates", "missing", str(problem), problem.hint)
        return
    detail = f"{known.address}, {known.days_left:.0f} days left"
    due = known.days_left < RENEW_BEFORE_DAYS - 1
    yield Finding("certificates", "note" if due else "ok", detail, "ephemeral host certify" if due else "")


def _remote() -> Iterator[Finding]:
    """The other machine, where EPHEMERAL_HOST names one."""
    address = settings.get("host")
    if not remote.is_remote(address):
        return
    found = joining.ask(address)
    if isinstance(found, EphemeralError):
        yield Finding("host", "missing", str(found), found.hint)
        return
    left = (float(remote.joined(address).get("expires_at", 0)) - time.time()) / 86_400
    detail = f"{address} answers (sandboxd {found.version}); this machine's certificate has {left:.0f} days left"
    soon = left < status.SOON_DAYS
    yield Finding("host", "note" if soon else "ok", detail, "on the host: ephemeral host invite NAME; here: ephemeral host join NAME.invite" if soon else "")


def _disk() -> Iterator[Finding]:
    place = settings.get("store")
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    detail = f"{free / (1 << 30):.0f} GiB free at {place}"
    if free < LEAST_FREE_BYTES:
        yield Finding("disk", "note", f"{detail}; the base environment takes about 5", "free some, or EPHEMERAL_STORE=/elsewhere")
    else:
        yield Finding("disk", "ok", detail)


def _provider() -> Iterator[Finding]:
    upstream = settings.get("upstream")
    if os.environ.get("OPENAI_API_KEY"):
        yield Finding("provider", "ok", f"OPENAI_API_KEY is set; the proxy forwards to {upstream}")
    else:
        yield Finding("provider", "note", f"OPENAI_API_KEY is not set: the demo uses recorded answers; the proxy forwards to {upstream}")


def _k2() -> Iterator[Finding]:
    key = settings.get("k2_api_key")
    if not key:
        yield Finding("K2", "note", "EPHEMERAL_K2_API_KEY is not set: no conversation leaves this machine but to your provider")
        return
    base, model = settings.get("k2_base_url").rstrip("/"), settings.get("k2_model")
    address = urlsplit(base)
    if address.scheme == "http" and address.hostname not in ("127.0.0.1", "::1", "localhost"):
        yield Finding("K2", "note", f"{base} is not encrypted: the key and the conversations can be read on the way", "set EPHEMERAL_K2_BASE_URL=https://…")
    try:
        answer = httpx.get(f"{base}/models", headers={"Authorization": f"Bearer {key}"}, timeout=K2_TIMEOUT_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as problem:
        yield Finding("K2", "note", f"{base} does not answer ({type(problem).__name__})", "check EPHEMERAL_K2_BASE_URL and the network")
        return
    says = f"{base}/models answers {answer.status_code}"
    match answer.status_code:
        case 200:
            yield _k2_serves(base, model, answer)
        case 401 | 403:
            yield Finding("K2", "note", f"{says}: it does not take the key", "set EPHEMERAL_K2_API_KEY to one of this service's keys")
        case 404:
            yield Finding("K2", "note", f"{says}: no such interface there", "set EPHEMERAL_K2_BASE_URL; most end in /v1")
        case 410:
            yield Finding("K2", "note", f"{says}: this service is no more", f"K2's successor: {settings.K2_SUCCESSOR}")
        case _:
            yield Finding("K2", "note", says, "type `ephemeral doctor` again later; if it stays, check EPHEMERAL_K2_BASE_URL")


def _k2_serves(base: str, model: str, answer: httpx.Response) -> Finding:
    """Whether the configured model is in the list of models."""
    try:
        served = [str(entry["id"]) for entry in answer.json()["data"]]
    except (ValueError, LookupError, TypeError):
        return Finding("K2", "note", f"{base}/models answers something else than a list of models", "set EPHEMERAL_K2_BASE_URL; most end in /v1")
    if model in served:
        return Finding("K2", "ok", f"{model} at {base}")
    listed = f"{base} does not list {model} (it lists {', '.join(served[:5]) or 'nothing'})"
    if any(model.rpartition("/")[2].lower() == other.rpartition("/")[2].lower() for other in served):
        return Finding("K2", "note", listed, "set EPHEMERAL_K2_MODEL to the name as it is listed")
    return Finding("K2", "note", listed, f"set EPHEMERAL_K2_MODEL to one that it lists, or go to K2's successor: {settings.K2_SUCCESSOR}")

