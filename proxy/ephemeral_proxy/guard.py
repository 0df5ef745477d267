"""Who may talk to the proxy: programs on this machine. Not a web page, and not a name that only resolves to us."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from mitmproxy import http

from ephemeral_proxy.answers import problem


def refusal(target: str, hosts: Sequence[str], origins: Sequence[str]) -> http.Response | None:
    """The answer to a request that must not pass, or None. ``hosts`` and ``origins``: the values of these headers."""
    try:
        return _refusal(target, hosts, origins)
    except ValueError:  # enforcement fails closed: what cannot be judged is not let through
        return problem(400, "Bad Request", "The proxy cannot read this request's Host or Origin.")


def _refusal(target: str, hosts: Sequence[str], origins: Sequence[str]) -> http.Response | None:
    if not target.startswith("/") or len(hosts) != 1:
        return problem(
            400,
            "Bad Request",
            "This is no forward proxy: give its address as your client's base URL, for example http://127.0.0.1:8787/v1.",
        )
    if not _is_loopback(urlsplit(f"//{hosts[0]}").hostname):
        return problem(
            421,
            "Misdirected Request",
            "The proxy answers to 127.0.0.1, localhost and [::1] only: use one of them as the host.",
        )
    for origin in origins:
        if not _is_loopback(urlsplit(origin).hostname):
            return problem(
                403,
                "Forbidden",
                "The proxy does not serve web pages of other origins: call it from a program on this machine.",
            )
    return None


def _is_loopback(host: str | None) -> bool:
    if not host:
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
