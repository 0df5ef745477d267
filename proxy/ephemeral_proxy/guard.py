"""Who may talk to the proxy: programs on this machine. Not a web page, and not a name that only resolves to us."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from mitmproxy import http

from ephemeral_proxy.answers import problem


def refusal(target: str, header: Callable[[str], Sequence[str]]) -> http.Response | None:
    """The answer to a request that must not pass, or None. ``header`` gives the values of a header by its lower-case name."""
    try:
        return _refusal(target, header)
    except ValueError:  # enforcement fails closed: what cannot be judged is not let through
        return problem(400, "Bad Request", "The proxy cannot read this request's Host or Origin.")


def _refusal(target: str, header: Callable[[str], Sequence[str]]) -> http.Response | None:
    hosts = header("host")
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
    foreign = any(not _is_loopback(urlsplit(origin).hostname) for origin in header("origin"))
    # A picture or a form of a page sends no Origin with a GET; browsers say so by this one.
    if foreign or "cross-site" in header("sec-fetch-site"):
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
