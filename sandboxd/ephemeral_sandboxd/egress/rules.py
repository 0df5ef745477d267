"""Which hosts a session's code may reach: names against the allow list, addresses against everything that is not public."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import idna

from ephemeral_sandboxd.errors import BadRequest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

WEB_PORTS = (80, 443)
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that is public in IPv6 lies here. The rest is local, or an IPv4 address in disguise (mapped, compatible, translated)."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""The one disguise that a host may need to reach anything at all: judged by the address inside."""
_REFUSED: tuple[Network, ...] = tuple(ipaddress.ip_network(text) for text in (
    "100.64.0.0/10",  # carrier NAT; a cloud keeps its metadata there, at 100.100.100.200
    "168.63.129.16/32",  # a public address by its looks: Azure's metadata
    "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "3fff::/20",
    "2002::/16", "2001::/32",  # 6to4 and Teredo: IPv4 addresses in disguise
))
"""Not public for us, whatever this Python's tables say."""


class NoHost(ValueError):
    """``str()`` says why, and does not repeat the text: what stands in a host's place may hold a password."""


class Refusal(Exception):
    """``str()`` is one sentence that names the rule and says what to do; ``detail`` is for the operator's eyes only."""

    def __init__(self, sentence: str, detail: str = ""):
        super().__init__(sentence)
        self.detail = detail


@dataclass(frozen=True)
class Domain:
    """One entry of an allow list. ``wildcard``: the names below it, not itself. ``port``: that one alone, else those of the web."""

    name: str
    wildcard: bool = False
    port: int | None = None

    def covers(self, host: str, port: int) -> bool:
        return self.names(host) and (port == self.port if self.port else port in WEB_PORTS)

    def names(self, host: str) -> bool:
        return host.endswith(f".{self.name}") if self.wildcard else host == self.name

    def __str__(self) -> str:
        return f"{'*.' if self.wildcard else ''}{bracketed(self.name)}{f':{self.port}' if self.port else ''}"


def parse_domains(texts: Iterable[str]) -> list[str]:
    """The entries in normal form: ``api.example.com``, ``*.example.com``, each with ``:port`` where it is not one of the web's.

    Raises errors.BadRequest for what is no domain, and for addresses that are never reached.
    """
    domains = {parse(text) for text in texts}
    for domain in domains:
        if literal(domain.name):
            try:
                check_address(domain.name)
            except Refusal as refusal:
                raise BadRequest("not a domain", f"{domain.name} cannot be allowed: {refusal}", "write api.example.com, *.example.com or api.example.com:8443") from None
    return sorted(str(domain) for domain in domains)


def parse(text: str) -> Domain:
    """Raises errors.BadRequest."""
    try:
        name, port = split_port(text.strip())
        wildcard = name.startswith("*.")
        host = normal(name[2:] if wildcard else name)
        if wildcard and (literal(host) or "." not in host):
            raise ValueError
    except ValueError:
        raise BadRequest("not a domain", f"{text[:80]!r} is no domain that can be allowed",
                         "write api.example.com, *.example.com or api.example.com:8443") from None
    return Domain(host, wildcard, port)


def split_port(text: str) -> tuple[str, int | None]:
    """``host``, ``host:port``, ``[v6]``, ``[v6]:port`` or a bare IPv6 address, in two. Raises NoHost."""
    name, colon, port = text.rpartition(":")
    if not colon or text.endswith("]") or (":" in name and not name.endswith("]")):
        return text, None
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise NoHost("its port is none")
    return name, int(port)


def normal(host: str) -> str:
    """A host as it is compared: lower case, without a final dot, international names in their ASCII form, addresses in their usual one.

    Raises NoHost for what is none.
    """
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1] if ":" in host else ""
    host = host.lower().removesuffix(".")
    if address := literal(host):
        if "%" in host:
            raise NoHost("an address with a zone is none of the internet's")
        return str(address)
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode().lower().removesuffix(".")
        except idna.IDNAError:
            raise NoHost("it is no host name") from None
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise NoHost("it is no host name")
    if re.fullmatch(r"(0x[0-9a-f]*|[0-9]+)", labels[-1]):
        raise NoHost("it is an address in an unusual spelling")  # 2130706433, 0x7f.1, 0177.0.0.1: resolvers take them for 127.0.0.1
    return host


def check_name(allow: Collection[Domain], host: str, port: int) -> None:
    """Raises Refusal unless the list covers ``host`` (in normal form) at ``port``."""
    if any(domain.covers(host, port) for domain in allow):
        return
    shown = bracketed(host)
    if any(domain.names(host) for domain in allow):
        raise Refusal(f"port {port} of {host} is not among those that this session may reach: ask for it by network=[\"{shown}:{port}\"]")
    raise Refusal(f"{host} is not among the domains that this session may reach: ask for the domain by network=[\"{shown}\"]")


def check_address(text: str, permit: Collection[Network] = ()) -> None:
    """Raises Refusal for every address that is not a public one: private, loopback, link-local, metadata, multicast, reserved, and IPv6
    addresses that stand for an IPv4 one."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if any(address in network for network in permit):
        return
    if address in _NAT64:
        address = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    public = (address.is_global and not address.is_multicast and not address.is_reserved
              and not any(address in network for network in _REFUSED) and (address.version == 4 or address in _UNICAST))
    if not public:
        raise Refusal("it leads to an address that is not public, and private, local and metadata addresses are never reached", text)


def literal(host: str) -> Address | None:
    """The address that ``host`` is, None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def bracketed(host: str) -> str:
    """As it stands before a port."""
    return f"[{host}]" if ":" in host else host
