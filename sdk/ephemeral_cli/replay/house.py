"""The whole path, running: rooms, the replaying provider (unless there is a real one) and the talking program."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ephemeral import settings, wire
from ephemeral.client import AsyncClient
from ephemeral_cli import rooms
from ephemeral_cli.errors import CommandError
from ephemeral_cli.replay.talker import Talker
from ephemeral_cli.supervise import Service, Supervisor, answers, free_port


@dataclass(frozen=True)
class House:
    """What a conversation needs to know of it. ``provider`` is the provider's own base URL, past the proxy."""

    sandboxd: AsyncClient
    talker: Talker
    addresses: rooms.Addresses
    provider: str


@dataclass(frozen=True)
class Provider:
    """The replaying provider's tasks file and pace."""

    file: Path
    ttft: float
    tokens_per_second: float

    def service(self, port: int) -> Service:
        command = [sys.executable, "-m", "ephemeral_cli.replay.provider", str(self.file), str(port), str(self.ttft), str(self.tokens_per_second)]
        return Service("provider", command, f"http://127.0.0.1:{port}/healthz", port)


@asynccontextmanager
async def open_house(state: Path, ports: rooms.Ports, provider: Provider | None, say: Callable[[str], None],
                     **variables: str) -> AsyncIterator[House]:
    """Start everything over ``state``; stop it all on leaving. ``provider`` None: the real one of the settings.

    Raises CommandError when something cannot start, or when another `ephemeral up` holds ``state``.
    """
    if await answers(f"unix:{state / 'sandboxd.sock'}"):
        raise CommandError(f"Ephemeral runs already over {state}", "stop that `ephemeral up` first, or give this one another EPHEMERAL_STATE", 2)
    services = rooms.services(state, ports)
    environment = {**rooms.environment(state, ports), "EPHEMERAL_STORE": str(settings.get("store")), "EPHEMERAL_HOST": "", **variables}
    upstream = settings.get("upstream")
    if provider is not None:
        port = free_port()
        upstream = f"http://127.0.0.1:{port}"
        services = [provider.service(port), *services]
    environment["EPHEMERAL_UPSTREAM"] = upstream
    async with Supervisor(state, services, environment, say) as supervisor:
        addresses = rooms.addresses(state, ports)
        talking = {**environment, "OPENAI_BASE_URL": addresses.openai, "OPENAI_API_KEY": os.environ.get("OPENAI_API_KEY") or "replayed"}
        async with Talker(talking, supervisor.log("talker")) as talker:
            async with AsyncClient(f"unix:{state / 'sandboxd.sock'}") as sandboxd:
                yield House(sandboxd, talker, addresses, f"{upstream}/v1")


async def take_fat_snapshot(sandboxd: AsyncClient) -> None:
    """Have the rival's fat snapshot taken: that happens once, at its first use, and must not count against a conversation."""
    session = await sandboxd.open_session(policy="fat-snapshot")
    try:
        await sandboxd.execute(wire.ExecutionRequest(code="pass", session=session.id))
    finally:
        await sandboxd.end_session(session.id)
