"""A stand-in for sandboxd: a real HTTP server with the dashboard's files, its API and its event stream, over recorded
data. ``python tests/dashboard/stand_in.py`` serves it for a look with one's own eyes.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from aiohttp import web

from ephemeral import wire

BUILT = Path(__file__).parents[2] / "sandboxd" / "ephemeral_sandboxd" / "dashboard"
TOKEN = "stand-in-token"
COOKIE = "ephemeral_token"
# As strict as a page can be served: whatever the dashboard does beyond its own files, the browser reports as an error.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class StandIn:
    """The server and what it tells. Change the lists before a page is opened, ``push`` news to pages that are open."""

    def __init__(self) -> None:
        self.sessions: list[wire.Session] = []
        self.executions: list[wire.Execution] = []
        self.moments: list[wire.Moment] = []
        self.plans: list[wire.PlanRecord] = []
        self.sandboxes: list[wire.Sandbox] = []
        self.host = wire.Host(
            version="0.1.0", runtime="gvisor", isolation="gVisor (runsc, systrap)", platform="Linux x86_64", cores=2,
            memory_bytes=8 << 30, memory_budget_bytes=4 << 30, memory_used_bytes=700 << 20, sandboxes=3, spares=2,
            sessions=1, capture=True,
        )  # fmt: skip
        self.url = ""
        self._listeners: set[asyncio.Queue[wire.Live | None]] = set()
        self._runner: web.AppRunner | None = None

    @property
    def signed_in_url(self) -> str:
        """The address that ``ephemeral up`` would print."""
        return f"{self.url}/?token={TOKEN}"

    def push(self, live: wire.Live) -> None:
        """Sends one event to every page that is open."""
        for listener in self._listeners:
            listener.put_nowait(live)

    async def start(self, port: int = 0) -> None:
        app = web.Application(middlewares=[_security])
        app.add_routes(
            [
                web.get("/", self._index),
                web.static("/assets", BUILT / "assets"),
                web.get("/v1/host", lambda _: _json(self.host)),
                web.get("/v1/sessions", lambda _: _page(self.sessions)),
                web.get("/v1/sessions/{id}", self._session),
                web.get("/v1/sessions/{id}/moments", lambda request: _page(_of_session(request, self.moments))),
                web.get("/v1/sessions/{id}/plans", lambda request: _page(_of_session(request, self.plans)[::-1])),
                web.get("/v1/executions", self._executions),
                web.get("/v1/sandboxes", lambda _: _page(self.sandboxes)),
                web.get("/v1/stream", self._stream),
            ]
        )
        app.on_response_prepare.append(_add_headers)
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        for listener in self._listeners:
            listener.put_nowait(None)
        if self._runner:
            await self._runner.cleanup()

    async def _index(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("token") == TOKEN:
            answer = web.HTTPFound("/")
            answer.set_cookie(COOKIE, TOKEN, httponly=True, samesite="Strict")
            return answer
        return web.FileResponse(BUILT / "index.html")

    async def _session(self, request: web.Request) -> web.Response:
        for session in self.sessions:
            if session.id == request.match_info["id"]:
                return await _json(session)
        return _problem(404, "No such session", f"No session is called {request.match_info['id']}.")

    async def _executions(self, request: web.Request) -> web.Response:
        wanted = request.query.get("session")
        return await _page([each for each in self.executions if wanted in (None, each.session)])

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b": welcome\n\n")
        listener: asyncio.Queue[wire.Live | None] = asyncio.Queue()
        self._listeners.add(listener)
        try:
            while (live := await listener.get()) is not None:
                await response.write(f"event: {live.kind}\ndata: {live.model_dump_json()}\n\n".encode())
        finally:
            self._listeners.discard(listener)
        return response


@web.middleware
async def _security(request: web.Request, handler) -> web.StreamResponse:
    if request.path.startswith("/v1") and request.cookies.get(COOKIE) != TOKEN:
        return _problem(401, "Not signed in", "The request carries no token.")
    return await handler(request)


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"


def _of_session(request: web.Request, items: list) -> list:
    return [item for item in items if item.session == request.match_info["id"]]


async def _json(message: wire.Wire) -> web.Response:
    return web.Response(text=message.model_dump_json(), content_type="application/json")


async def _page(items: list) -> web.Response:
    return await _json(wire.Page[type(items[0]) if items else wire.Session](items=items))


def _problem(status: int, title: str, detail: str) -> web.Response:
    problem = wire.Problem(title=title, status=status, detail=detail)
    return web.Response(status=status, text=problem.model_dump_json(), content_type="application/problem+json")


async def _look(port: int) -> None:
    from recorded import fill

    server = StandIn()
    fill(server, time.time())
    await server.start(port)
    print(f"Open {server.signed_in_url}  (Ctrl-C ends)")
    await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(_look(port=8790))
    except KeyboardInterrupt:
        pass
