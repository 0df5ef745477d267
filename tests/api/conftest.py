"""The API over its stand-in pool, on a TCP port and a Unix socket."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ephemeral_sandboxd.api import build, serve
from ephemeral_sandboxd.ledger import Recorder

TOKEN = "correct-horse"

_spec = importlib.util.spec_from_file_location("stand_in", Path(__file__).with_name("stand_in.py"))
assert _spec is not None
assert _spec.loader is not None
stand_in = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(stand_in)


@dataclass
class House:
    """A served API. `tcp` and `unix` are clients of the two doors; `tcp` sends no token by itself."""

    daemon: Any
    recorder: Recorder
    tcp: aiohttp.ClientSession
    unix: aiohttp.ClientSession
    port: int
    socket: Path
    dashboard: Path
    token: str = TOKEN

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    recorder = Recorder(tmp_path / "ledger.db", capture=False)
    daemon = stand_in.StandIn(recorder)
    dashboard = tmp_path / "dashboard"
    app = build(
        daemon, recorder, token=TOKEN, dashboard=dashboard,
        allowed_hosts=["ephemeral.example"], allowed_origins=["http://localhost:5173"],
    )  # fmt: skip
    socket = tmp_path / "sandboxd.sock"
    served = await serve(app, socket, 0)
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{served.port}", cookie_jar=aiohttp.CookieJar(unsafe=True)) as tcp,
        aiohttp.ClientSession("http://sandboxd", connector=aiohttp.UnixConnector(str(socket))) as unix,
    ):
        yield House(daemon, recorder, tcp, unix, served.port, socket, dashboard)
    await served.close()
    await recorder.close()
