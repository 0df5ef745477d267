"""The files that make a server of a machine, from the templates in ``data/``; and the cloud-init file that does it at first boot."""

from __future__ import annotations

import ipaddress
import json
import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from ephemeral_cli.errors import CommandError

PYTHON = "/opt/ephemeral/venv/bin/python"
EPHEMERAL = "/opt/ephemeral/venv/bin/ephemeral"
BOOTSTRAP = Path("/opt/ephemeral/bootstrap.sh")
STATE = Path("/var/lib/ephemeral")
UNITS = Path("/etc/systemd/system")
FIREWALL = Path("/etc/ephemeral/firewall.nft")

CAPABILITIES = (
    "CAP_SYS_ADMIN",  # mounts, namespaces
    "CAP_SYS_CHROOT", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETFCAP",  # runsc shuts its own processes in
    "CAP_SYS_PTRACE",  # gVisor's systrap platform; and reading what sandboxes use
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL",  # files and processes that it handed to its sandboxes
)  # fmt: skip
"""What sandboxd needs of root: it was seen to prepare and run code with these alone, and not without the first two lines."""


@dataclass(frozen=True)
class Wanted:
    """What a server is to be."""

    port: int
    allow_from: tuple[str, ...]
    """Networks that may reach the port; empty: any."""
    ssh_ports: tuple[int, ...] = (22,)
    ipv6: bool = True


@dataclass(frozen=True)
class Text:
    """A file to write. ``keep``: not where there is one already, it is the operator's then."""

    path: Path
    content: str
    mode: int = 0o644
    keep: bool = False


def units() -> list[str]:
    """What systemd is to start, in order."""
    return ["ephemeral-sandboxd.service", "ephemeral-certificates.timer"]


def system_files(wanted: Wanted) -> list[Text]:
    """Units, settings and sysctls."""
    values = {
        "python": PYTHON, "ephemeral": EPHEMERAL, "state": str(STATE), "capabilities": " ".join(CAPABILITIES),
        "listen": f"{'[::]' if wanted.ipv6 else '0.0.0.0'}:{wanted.port}",
    }  # fmt: skip
    return [
        Text(Path("/etc/ephemeral/sandboxd.env"), _fill("sandboxd.env", {}), keep=True),
        Text(Path("/etc/sysctl.d/60-ephemeral.conf"), _fill("sysctl.conf", {})),
        Text(UNITS / "ephemeral-sandboxd.service", _fill("sandboxd.service", values)),
        Text(UNITS / "ephemeral-certificates.service", _fill("certificates.service", values)),
        Text(UNITS / "ephemeral-certificates.timer", _fill("certificates.timer", {})),
    ]


def firewall_files(wanted: Wanted) -> list[Text]:
    """nftables: a table of our own, and the unit that loads it."""
    accept = [f"\t\ttcp dport {wanted.port} {match}accept" for match in _sources(wanted.allow_from)]
    ports = ", ".join(str(port) for port in wanted.ssh_ports)
    content = _fill("firewall.nft", {"ssh": ports, "port": str(wanted.port), "accept": "\n".join(accept)})
    return [Text(FIREWALL, content), Text(UNITS / "ephemeral-firewall.service", _fill("firewall.service", {}))]


def bootstrap(package: str) -> str:
    """The script that installs ``package`` (a requirement, a wheel, a URL) and goes on with `ephemeral` and its arguments."""
    return _fill("bootstrap.sh", {"package": shlex.quote(package)})


def cloud_init(package: str, arguments: Sequence[str]) -> str:
    """User data that runs ``ephemeral host init`` with these arguments at first boot."""
    command = ["sh", str(BOOTSTRAP), "host", "init", "--yes", *arguments]
    return _fill("cloud-init.yaml", {"bootstrap": textwrap.indent(bootstrap(package), " " * 6).rstrip("\n"), "command": json.dumps(command)})


def shell(package: str, arguments: Sequence[str]) -> str:
    """The same as one script, for a server that runs already: ``… | ssh root@server sh``."""
    script = bootstrap(package).removesuffix("\n")
    body, _, last = script.rpartition("\n")
    assert last.startswith("[ $# -eq 0 ]")
    command = shlex.join(["host", "init", "--yes", *arguments])
    return f'{body}\nexec "$home/venv/bin/ephemeral" {command} < /dev/null\n'


def networks(texts: Sequence[str]) -> tuple[str, ...]:
    """Addresses and networks, in one spelling. Raises CommandError."""
    found = []
    for text in texts:
        try:
            found.append(str(ipaddress.ip_network(text, strict=False)))
        except ValueError:
            raise CommandError(f"--allow-from {text!r} is neither an address nor a network", "--allow-from 203.0.113.7 (or 2001:db8::/32)", 2) from None
    return tuple(found)


def _sources(allow_from: Sequence[str]) -> list[str]:
    if not allow_from:
        return [""]
    by_version: dict[int, list[str]] = {}
    for network in allow_from:
        by_version.setdefault(ipaddress.ip_network(network).version, []).append(network)
    return [f"{'ip' if version == 4 else 'ip6'} saddr {{ {', '.join(members)} }} " for version, members in sorted(by_version.items())]


def _fill(name: str, values: dict[str, str]) -> str:
    text = resources.files("ephemeral_cli.host").joinpath("data", name).read_text()
    return Template(text).substitute(values)
