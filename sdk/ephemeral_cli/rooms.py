"""Which services there are: one ordered list. Started from the first to the last, stopped the other way round."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ephemeral import settings
from ephemeral_cli.supervise import Service, free_port


@dataclass(frozen=True)
class Ports:
    proxy: int
    mcp: int
    sandboxd: int

    @classmethod
    def configured(cls) -> Ports:
        return cls(settings.get("proxy_port"), settings.get("mcp_port"), settings.get("sandboxd_port"))

    @classmethod
    def free(cls) -> Ports:
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
        Service("proxy", module("proxy"), f"http://127.0.0.1:{ports.proxy}/healthz", ports.proxy, "EPHEMERAL_PROXY_PORT"),
    ]
    return [room for room in rooms if room.name not in without]


def environment(state: Path, ports: Ports) -> dict[str, str]:
    """The variables that give every room the same state directory and ports."""
    return {
        "EPHEMERAL_STATE": str(state),
        "EPHEMERAL_PROXY_PORT": str(ports.proxy),
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
