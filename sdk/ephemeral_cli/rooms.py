"""Which services there are: one ordered list. Started from the first to the last, stopped the other way round."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ephemeral import providers, settings
from ephemeral_cli.errors import CommandError
from ephemeral_cli.supervise import Listener, Service, free_port


@dataclass(frozen=True)
class Ports:
    """``providers`` are the ports of those that have one of their own, by name; ``intercept`` is 0 where nobody is to use it."""

    proxy: int
    mcp: int
    sandboxd: int
    providers: tuple[tuple[str, int], ...] = ()
    intercept: int = 0

    @classmethod
    def configured(cls) -> Ports:
        """As the settings say. Raises CommandError where they name no provider, or no port for one."""
        try:
            own = tuple(providers.ports().items())
        except providers.ProviderError as problem:
            raise CommandError(str(problem), "", 2) from None
        return cls(settings.get("proxy_port"), settings.get("mcp_port"), settings.get("sandboxd_port"), own, settings.get("intercept_port"))

    @classmethod
    def free(cls) -> Ports:
        """Ports on which nothing listens now: none for single providers, none for interception."""
        return cls(free_port(), free_port(), free_port())


@dataclass(frozen=True)
class Addresses:
    """Where the rooms answer, once they run."""

    openai: str
    mcp: str
    sandboxd: str
    dashboard: str


def services(state: Path, ports: Ports, without: Sequence[str] = ()) -> list[Service]:
    """All rooms but those in ``without``. The proxy is last: the traffic's way opens when all behind it is ready."""

    def module(name: str) -> list[str]:
        return [sys.executable, "-m", f"ephemeral_{name}"]

    rooms = [
        Service("sandboxd", module("sandboxd"), f"unix:{state / 'sandboxd.sock'}", ports.sandboxd, "EPHEMERAL_SANDBOXD_PORT", 120),
        Service("predictor", module("predictor"), f"unix:{state / 'predictor.sock'}"),
        Service("mcp", module("mcp"), f"http://127.0.0.1:{ports.mcp}/healthz", ports.mcp, "EPHEMERAL_MCP_PORT"),
        Service("proxy", module("proxy"), f"http://127.0.0.1:{ports.proxy}/healthz", ports.proxy, "EPHEMERAL_PROXY_PORT",
                listen=_listeners(state, ports)),
    ]
    return [room for room in rooms if room.name not in without]


def _listeners(state: Path, ports: Ports) -> tuple[Listener, ...]:
    """The proxy's ports, kept open for it: an app that talks to its provider through us is not refused while the proxy restarts."""
    listeners = [Listener("proxy", ports.proxy, "EPHEMERAL_PROXY_PORT")]
    listeners += [Listener(name, port, "EPHEMERAL_PROXY_PORTS") for name, port in ports.providers]
    if ports.intercept and (state / "certs" / "authority.pem").exists():
        listeners.append(Listener("intercept", ports.intercept, "EPHEMERAL_INTERCEPT_PORT"))
    return tuple(listeners)


def environment(state: Path, ports: Ports) -> dict[str, str]:
    """The variables that give every room the same state directory and ports."""
    return {
        "EPHEMERAL_STATE": str(state),
        "EPHEMERAL_PROXY_PORT": str(ports.proxy),
        "EPHEMERAL_PROXY_PORTS": " ".join(f"{name}={port}" for name, port in ports.providers),
        "EPHEMERAL_INTERCEPT_PORT": str(ports.intercept),
        "EPHEMERAL_MCP_PORT": str(ports.mcp),
        "EPHEMERAL_SANDBOXD_PORT": str(ports.sandboxd),
    }


def addresses(state: Path, ports: Ports) -> Addresses:
    """To be asked once the rooms run: the token is made by then."""
    try:
        token = settings.get("token") or (state / "token").read_text().strip()
    except OSError:
        token = ""
    sandboxd = f"http://127.0.0.1:{ports.sandboxd}"
    return Addresses(f"http://127.0.0.1:{ports.proxy}/v1", f"http://127.0.0.1:{ports.mcp}/mcp", sandboxd, f"{sandboxd}/?token={token}")
