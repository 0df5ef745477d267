"""A real daemon, in this process: real runsc, real environments, a real ledger."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from ephemeral import wire
from ephemeral_sandboxd import host
from ephemeral_sandboxd.daemon import Daemon
from ephemeral_sandboxd.ledger import Recorder
from ephemeral_sandboxd.process import quiet


@dataclass
class House:
    """The daemon and what it wrote down."""

    daemon: Daemon
    recorder: Recorder
    state: Path

    async def run(self, code: str, **fields: object) -> wire.Execution:
        request = wire.ExecutionRequest.model_validate({"code": code, **fields})
        return await self.daemon.execute(request, asyncio.get_running_loop().time())

    async def plan(self, session: str, packages: list[str], modules: list[str] | None = None, **fields: object) -> wire.PlanRecord:
        wants = [{"package": package, "probability": 0.9, "proposer": "seen", "evidence": "import"} for package in packages]
        plan = {"session": session, "proposer": "seen", "wants": wants, "modules": modules or [], **fields}
        return await self.daemon.put_plan(wire.Plan.model_validate(plan))

    async def prepared(self, session: str, packages: list[str], modules: list[str] | None = None) -> wire.Sandbox:
        """Plan, and wait until the session's sandbox is ready."""
        await self.plan(session, packages, modules)
        await self.until(lambda: self.sandbox(session) is not None and self.sandbox(session).state == "ready")
        sandbox = self.sandbox(session)
        assert sandbox is not None
        return sandbox

    def sandbox(self, session: str) -> wire.Sandbox | None:
        return next((sandbox for sandbox in self.daemon.sandboxes() if sandbox.session == session), None)

    async def until(self, true: Callable[[], object], seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            while not true():
                await asyncio.sleep(0.02)

    async def moments(self, session: str) -> list[wire.Moment]:
        return (await self.recorder.moments(session)).items


async def open_house(store: Path, state: Path) -> House:
    quiet()
    runtime = host.runtime("gvisor", store, state)
    recorder = Recorder(state / "ephemeral.db", capture=True)
    daemon = Daemon(state, store, runtime, recorder, host.finder(store, state, runtime))
    await daemon.start()
    return House(daemon, recorder, state)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(store: Path, short_directory: Path) -> AsyncIterator[House]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPHEMERAL_TIMEOUT_SECONDS", "60")
        house = await open_house(store, Path(tempfile.mkdtemp(dir=short_directory)))
        yield house
        await house.daemon.close()
        await house.recorder.close()
