"""The predictor in this process on a real Unix socket, a sandboxd that records, and a stand-in K2."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from ephemeral_predictor.app import LISTENER, Configuration, create
from ephemeral_predictor.reasoned.service import K2 as K2Settings

_SPEC = importlib.util.spec_from_file_location("fake_k2", Path(__file__).parents[1] / "fakes" / "k2.py")
assert _SPEC
assert _SPEC.loader
fake_k2 = importlib.util.module_from_spec(_SPEC)
sys.modules["fake_k2"] = fake_k2
_SPEC.loader.exec_module(fake_k2)


class RecordingSandboxd:
    """Answers like sandboxd and keeps what it was sent, in order. ``changed`` wakes whoever waits."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plans: list[dict[str, Any]] = []
        self.moments: list[dict[str, Any]] = []
        self.digests: dict[str, str] = {}
        self.pages: dict[str, list[dict[str, Any]]] = {}
        """``snapshots``, ``environments``, ``sandboxes`` or ``executions`` -> what it lists."""
        self.order: list[str] = []
        self.posts = 0
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_put("/v1/digests/{digest}", self._digest)
        app.router.add_put("/v1/sessions/{id}/plan", self._plan)
        app.router.add_post("/v1/sessions/{id}/moments", self._moments)
        app.router.add_get("/v1/host", self._host)
        for name in ("snapshots", "environments", "sandboxes", "executions"):
            app.router.add_get(f"/v1/{name}", self._page)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.path)).start()

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def until(self, true: Callable[[], bool], what: str, seconds: float = 20) -> None:
        """Wait until ``true`` holds, at most ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                while not true():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pytest.fail(f"sandboxd never got {what}; plans: {self.plans}")

    async def plan(self, number: int = 1) -> dict[str, Any]:
        """The plan of this number, 1 for the first."""
        await self.until(lambda: len(self.plans) >= number, f"plan {number}")
        return self.plans[number - 1]

    def _note(self, what: str) -> None:
        self.order.append(what)
        self._changed.set()

    async def _digest(self, request: web.Request) -> web.Response:
        self.digests[request.match_info["digest"]] = (await request.json())["session"]
        self._note("digest")
        return web.Response(status=204)

    async def _plan(self, request: web.Request) -> web.Response:
        plan = await request.json()
        assert plan["session"] == request.match_info["id"]
        self.plans.append(plan)
        self._note("plan")
        return web.json_response({"id": len(self.plans), "session": plan["session"], "plan": plan})

    async def _moments(self, request: web.Request) -> web.Response:
        self.moments += await request.json()
        self.posts += 1
        self._note("moments")
        return web.Response(status=204)

    async def _host(self, request: web.Request) -> web.Response:
        return web.json_response({"cores": 2, "memory_budget_bytes": 4 << 30, "memory_used_bytes": 0, "base_packages": ["numpy"]})

    async def _page(self, request: web.Request) -> web.Response:
        return web.json_response({"items": self.pages.get(request.path.rpartition("/")[2], []), "next": None})


class Predictor:
    """A running predictor, spoken to as the proxy does."""

    def __init__(self, runner: web.AppRunner, path: Path) -> None:
        self.listener = runner.app[LISTENER]
        self._http = aiohttp.ClientSession("http://predictor", connector=aiohttp.UnixConnector(str(path)))

    async def send(self, *events: dict[str, Any], session: str = "s1") -> int:
        """POST events in one batch; the answer's status."""
        lines = "".join(json.dumps({"session": session, "at": time.time(), **event}) + "\n" for event in events)
        return await self.raw(lines.encode())

    async def raw(self, body: bytes) -> int:
        async with self._http.post("/v1/events", data=body) as answer:
            return answer.status

    async def get(self, path: str) -> tuple[int, Any]:
        async with self._http.get(path) as answer:
            return answer.status, await answer.json(content_type=None)

    async def close(self) -> None:
        await self._http.close()


@pytest.fixture
def folder() -> Any:
    """A folder with a short name: a Unix socket's path must fit in 108 bytes."""
    with tempfile.TemporaryDirectory(prefix="eph-") as name:
        yield Path(name)


@pytest.fixture
async def sandboxd(folder: Path) -> AsyncIterator[RecordingSandboxd]:
    server = RecordingSandboxd(folder / "sandboxd.sock")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def k2() -> AsyncIterator[Any]:
    server = fake_k2.K2()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def start(folder: Path) -> AsyncIterator[Callable[..., Any]]:
    """Start a predictor: ``await start(**fields of Configuration)``."""
    running: list[tuple[web.AppRunner, Predictor]] = []

    async def start(**fields: Any) -> Predictor:
        configuration = Configuration(**{"sandboxd": f"unix:{folder / 'sandboxd.sock'}", **fields})
        runner = web.AppRunner(create(configuration), access_log=None)
        await runner.setup()
        path = folder / f"predictor{len(running)}.sock"
        await web.UnixSite(runner, str(path)).start()
        predictor = Predictor(runner, path)
        running.append((runner, predictor))
        return predictor

    yield start
    for runner, predictor in running:
        await predictor.close()
        await runner.cleanup()


@pytest.fixture
def k2_settings(k2: Any) -> Callable[..., K2Settings]:
    def settings(**fields: Any) -> K2Settings:
        return K2Settings(
            **{"api_key": k2.key, "base_url": k2.base_url, "model": fake_k2.MODEL, "effort": "low", "deadline_seconds": 20.0, **fields}
        )

    return settings


@pytest.fixture
def behaviour() -> Any:
    """``Behaviour`` of the stand-in K2."""
    return fake_k2.Behaviour
