"""From a bare Debian or Ubuntu to a sandboxd that other machines use: a plan of steps, each of which may have been done before."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ephemeral_certs import files as private
from ephemeral_certs.authority import Authority
from ephemeral_cli.errors import CommandError
from ephemeral_cli.host import certifying, files, inviting
from ephemeral_cli.host.files import STATE, Text, Wanted
from ephemeral_cli.setup import debian
from ephemeral_cli.setup.processes import run

SUPPORTED = {"debian": ("12", "13"), "ubuntu": ("22.04", "24.04")}
PACKAGES = ("ca-certificates", "unattended-upgrades")
INVITED_DAYS = 90.0
INVITED_SECONDS = 86_400.0


@dataclass(frozen=True)
class Choices:
    """What `ephemeral host init` was told. ``client``: invite this machine when it was not yet."""

    names: tuple[str, ...] = ()
    port: int = certifying.PORT
    allow_from: tuple[str, ...] = ()
    package: str = ""
    client: str = ""
    firewall: bool = True


@dataclass(frozen=True)
class Step:
    """``what`` says it in words, ``shown`` is all that it would write or run, ``do`` does it and returns what to say."""

    what: str
    shown: str
    do: Callable[[], str]


def plan(choices: Choices) -> list[Step]:
    """What is left to do on this machine, in order. Steps look again when they are done: what is there already is passed over."""
    wanted = Wanted(choices.port, choices.allow_from, ssh_ports(), Path("/proc/net/if_inet6").exists())
    ufw = choices.firewall and _ufw_is_active()
    nft = choices.firewall and not ufw
    packages = [*PACKAGES, *(["nftables"] if nft else [])]
    texts = [*files.system_files(wanted), *(files.firewall_files(wanted) if nft else [])]
    enabled = [*(["ephemeral-firewall.service"] if nft else []), *files.units()]
    steps = [_install(packages)]
    if not sys.prefix.startswith("/opt/ephemeral/"):
        steps += [_write(Text(files.BOOTSTRAP, files.bootstrap(choices.package), 0o755)), _command(["sh", str(files.BOOTSTRAP)])]
    steps += [_write(text) for text in texts]
    steps.append(_command(["sysctl", "--quiet", "--load", "/etc/sysctl.d/60-ephemeral.conf"]))
    if ufw:
        steps += [_command(["ufw", "allow", *_ufw_rule(source, choices.port)]) for source in choices.allow_from or ("any",)]
    names = [word for name in choices.names for word in ("--name", name)]
    steps += [
        _command([files.EPHEMERAL, "setup"]),
        _command([files.EPHEMERAL, "host", "certify", *names, "--port", str(choices.port)]),
        _command(["systemctl", "daemon-reload"]),
        _command(["systemctl", "enable", *enabled]),
        _command(["systemctl", "restart", *enabled]),
    ]
    if choices.client:
        steps.append(_invite(choices.client))
    return steps


def check_machine() -> None:
    """Raise CommandError where this cannot work: another system, no systemd, not root."""
    about = dict(line.split("=", 1) for line in _read("/etc/os-release").splitlines() if "=" in line)
    system, version = about.get("ID", "").strip('"'), about.get("VERSION_ID", "").strip('"')
    if version not in SUPPORTED.get(system, ()):
        known = "; ".join(f"{name} {', '.join(versions)}" for name, versions in SUPPORTED.items())
        raise CommandError(f"this is {system or 'an unknown system'} {version}, and only these were thought of: {known}",
                           "ephemeral host init --dry-run shows what to do by hand", 2)
    if not Path("/run/systemd/system").is_dir():
        raise CommandError("systemd does not run this machine", "ephemeral host init --dry-run shows what to do by hand", 2)
    if os.geteuid() != 0:
        raise CommandError("preparing a server needs root", "sudo ephemeral host init", 2)


def ssh_ports() -> tuple[int, ...]:
    """Where SSH comes in, so that nobody is locked out: what sshd says, and the port that this very session came by."""
    found = {int(words[1]) for words in map(str.split, _sshd_settings()) if len(words) == 2 and words[0] == "port" and words[1].isdigit()}
    session = os.environ.get("SSH_CONNECTION", "").split()
    if len(session) == 4 and session[3].isdigit():
        found.add(int(session[3]))
    return tuple(sorted(found)) or (22,)


def _sshd_settings() -> list[str]:
    try:
        return run([shutil.which("sshd") or "/usr/sbin/sshd", "-T"]).splitlines()
    except CommandError:
        return []  # no sshd, or not root: port 22 is assumed


def _install(packages: Sequence[str]) -> Step:
    def do() -> str:
        absent = debian.missing(list(packages))
        if absent:
            debian.install(absent)
        return f"installed {' '.join(absent)}" if absent else "already there"

    return Step(f"install {' '.join(packages)}", f"apt-get install --yes --no-install-recommends {' '.join(packages)}", do)


def _write(text: Text) -> Step:
    def do() -> str:
        before = _read(str(text.path))
        if before and (text.keep or before == text.content):
            return "kept" if text.keep else "already so"
        try:
            text.path.parent.mkdir(parents=True, exist_ok=True)
            private.write(text.path, text.content)
            text.path.chmod(text.mode)
        except OSError as problem:
            raise CommandError(f"{text.path} cannot be written: {problem.strerror}", "run it as root") from None
        return "written"

    kept = ", unless it is there" if text.keep else ""
    return Step(f"write {text.path} ({text.mode:04o}{kept})", text.content, do)


def _command(command: list[str]) -> Step:
    def do() -> str:
        run(command, EPHEMERAL_STATE=str(STATE), HOME=os.environ.get("HOME", "/root"))
        return "done"

    return Step(f"run {' '.join(command)}", "", do)


def _invite(name: str) -> Step:
    path = Path("/root") / f"{name}.invite"

    def do() -> str:
        invited = any(record.kind == "client" and record.name == name for record in Authority.open(STATE / "tls").issued())
        if invited:
            return "was invited before"
        content, code = inviting.invite(STATE, name, days=INVITED_DAYS, within_seconds=INVITED_SECONDS)
        private.write(path, content)
        return f"{path}, opened by {code} for a day"

    return Step(f"invite {name}, where it was not yet: {path}", "", do)


def _ufw_is_active() -> bool:
    """Ubuntu's front end: where it rules, a second table that lets the port in would not, and two firewalls are one too many."""
    if shutil.which("ufw") is None:
        return False
    try:
        return "Status: active" in run(["ufw", "status"])
    except CommandError:
        return False


def _ufw_rule(source: str, port: int) -> list[str]:
    return ["proto", "tcp", "from", source, "to", "any", "port", str(port), "comment", "ephemeral"]


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
