"""The sockets that the proxy listens on: opened here, or handed down by whoever started us (systemd's protocol).

Who holds them open while the proxy is started anew lets nobody be refused meanwhile: connections wait in the backlog.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping

from ephemeral import settings
from ephemeral.providers import ports as ports_of_providers

BACKLOG = 1024
_FIRST_DESCRIPTOR = 3  # sd_listen_fds(3)


class PortError(OSError):
    """A port cannot be listened on. The message says which, and what to write instead."""


def open_all(with_interception: bool) -> dict[str, socket.socket]:
    """Listening sockets by name: ``proxy``, ``intercept``, and the providers that have a port of their own. Raises PortError,
    ProviderError, SettingError."""
    wanted = {"proxy": (settings.get("proxy_port"), "EPHEMERAL_PROXY_PORT")}
    wanted |= {name: (port, "EPHEMERAL_PROXY_PORTS") for name, port in ports_of_providers().items()}
    if with_interception:
        wanted["intercept"] = (settings.get("intercept_port"), "EPHEMERAL_INTERCEPT_PORT")
    inherited = _inherited(os.environ)
    sockets = {name: inherited.pop(name) if name in inherited else _listen(*place) for name, place in wanted.items()}
    if inherited:
        raise PortError(f"LISTEN_FDNAMES names {', '.join(inherited)}, which is no port of the proxy: these are {', '.join(wanted)}")
    return sockets


def _inherited(environment: Mapping[str, str]) -> dict[str, socket.socket]:
    """What we were handed: descriptors from 3 on, LISTEN_FDS of them, called as LISTEN_FDNAMES says."""
    if environment.get("LISTEN_PID", str(os.getpid())) != str(os.getpid()):
        return {}
    try:
        count = int(environment.get("LISTEN_FDS", "0"))
    except ValueError:
        return {}
    names = environment.get("LISTEN_FDNAMES", "proxy").split(":")
    found = {}
    for name, descriptor in zip(names, range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + count), strict=False):
        try:
            os.set_inheritable(descriptor, False)
            found[name] = one = socket.socket(fileno=descriptor)
            listens = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError:
            listens = 0
        if not listens:
            raise PortError(f"LISTEN_FDS promises {count} listening sockets, and descriptor {descriptor} is none: unset LISTEN_FDS, or hand them over")
    return found


def _listen(port: int, variable: str) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        if isinstance(error, OverflowError):
            raise PortError(f"{port} is no port: write one below 65536 into {variable}") from None
        if error.errno == errno.EADDRINUSE:
            raise PortError(f"port {port} of 127.0.0.1 is taken: stop what listens there, or set {variable} to another") from None
        raise PortError(f"cannot listen on 127.0.0.1:{port} ({error.strerror}): set {variable} to another port") from None
    return listener
