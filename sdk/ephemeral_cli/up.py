"""``ephemeral up``: start and supervise the rooms until told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence

from rich.console import Console

from ephemeral import settings
from ephemeral_cli import rooms
from ephemeral_cli.errors import CommandError
from ephemeral_cli.setup import command as setup_command
from ephemeral_cli.supervise import Supervisor


def run(without: Sequence[str], console: Console, errors: Console) -> None:
    """Serve until SIGINT or SIGTERM. Raises CommandError when a room cannot start."""
    left = setup_command.check(settings.get("store"))
    if left and settings.get("runtime") != "docker" and not settings.get("host"):
        raise CommandError("; ".join(left), "ephemeral setup")
    asyncio.run(_serve(without, console, errors))


async def _serve(without: Sequence[str], console: Console, errors: Console) -> None:
    state, ports = settings.get("state"), rooms.Ports.configured()
    without = [*without, *(["sandboxd"] if settings.get("host") else [])]  # it runs elsewhere then
    stopped = stop_signal()
    supervisor = Supervisor(state, rooms.services(state, ports, without), rooms.environment(state, ports),
                            lambda line: errors.print(line, markup=False, highlight=False))
    errors.print("starting " + ", ".join(service.name for service in supervisor.services) + " …", highlight=False)
    starting = asyncio.create_task(supervisor.start())
    await _first(starting, stopped)
    if not stopped.is_set():
        starting.result()
        for line in addresses_lines(rooms.addresses(state, ports), without):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        await stopped.wait()
    elif not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
    errors.print("stopping …")
    await supervisor.stop()


def addresses_lines(addresses: rooms.Addresses, without: Sequence[str]) -> list[str]:
    """What to tell the user once all is up."""
    lines = ["Ephemeral is up. For your program:", ""]
    if "proxy" not in without:
        lines.append(f"  export OPENAI_BASE_URL={addresses.openai}   (other providers, or none of its variables: ephemeral run -- COMMAND)")
    if "mcp" not in without:
        lines.append(f"  MCP server    {addresses.mcp}   (tool: execute_code)")
    if "sandboxd" not in without:
        lines.append(f"  dashboard     {addresses.dashboard}")
    return [*lines, "", "Ctrl-C stops everything."]


def stop_signal() -> asyncio.Event:
    """An event that is set by SIGINT and SIGTERM from now on."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    return stopped


async def _first(task: asyncio.Task[None], event: asyncio.Event) -> None:
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
