"""Other programs, run to their end."""

from __future__ import annotations

import asyncio
import contextlib


async def run(*command: str, timeout: float = 30.0, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a command; its exit status and what it said on both streams. A hanging one is killed and counts as 124; so is one whose caller is
    cancelled."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=env)
    try:
        async with asyncio.timeout(timeout):
            out, _ = await process.communicate()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):  # it ended this very moment
            process.kill()
        await process.wait()
        return 124, f"no answer for {timeout:.0f} s"
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    return process.returncode or 0, out.decode(errors="replace")
