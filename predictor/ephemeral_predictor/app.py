"""The predictor's process: its endpoints on a Unix socket, and the one list that wires its parts."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from pydantic import ValidationError

from ephemeral import remote, settings
from ephemeral.costs import Prices
from ephemeral.tasks import Tasks
from ephemeral.wire import Event, Problem
from ephemeral_predictor.costs import CostSource
from ephemeral_predictor.following import Follower
from ephemeral_predictor.history import History
from ephemeral_predictor.listener import Listener
from ephemeral_predictor.moments import Moments
from ephemeral_predictor.reasoned.agent import Agent
from ephemeral_predictor.reasoned.service import K2
from ephemeral_predictor.sandboxd import Sandboxd
from ephemeral_predictor.sizes import Bounds

log = logging.getLogger(__name__)

_BODY_BYTES = 16 << 20


@dataclass(frozen=True)
class Configuration:
    """What the process needs to know. ``k2`` None: no conversation leaves this machine."""

    sandboxd: str
    token: str = ""
    planning: bool = True
    capture: bool = False
    idle_seconds: float = 300.0
    k2: K2 | None = field(default=None, repr=False)
    prices: Prices = field(default_factory=Prices)
    bounds: Bounds = field(default_factory=Bounds)
    history: Path | None = None
    """File of what each app's sessions imported. None: nothing is learned from them."""

    @classmethod
    def from_settings(cls) -> Configuration:
        """Read the settings. Raises settings.SettingError, or ValueError that says what to write, for one that is no good."""
        predictor = settings.get("predictor")
        if predictor not in ("ours", "none"):
            raise settings.SettingError(f"EPHEMERAL_PREDICTOR is {predictor!r}: write ours or none")
        return cls(
            sandboxd=settings.sandboxd_address(),
            token=settings.token(),
            planning=predictor == "ours",
            # Text stays on this machine unless it was said in so many words that it may go to another.
            capture=settings.get("capture_remote" if remote.is_remote(settings.sandboxd_address()) else "capture"),
            idle_seconds=settings.get("idle_seconds"),
            k2=K2.from_settings(),
            prices=Prices.from_settings(),
            bounds=Bounds.from_settings(),
            history=settings.get("state") / "history.db",
        )


LISTENER = web.AppKey("listener", Listener)
AGENT = web.AppKey("agent", Agent)
_CLIENT = web.AppKey("client", Sandboxd)
_MOMENTS = web.AppKey("moments", Moments)


class _Counts:
    malformed = 0


_COUNTS = web.AppKey("counts", _Counts)


def create(configuration: Configuration) -> web.Application:
    """The application, wired but not yet listening."""
    app = web.Application(client_max_size=_BODY_BYTES)
    app[_COUNTS] = _Counts()

    async def parts(app: web.Application) -> AsyncIterator[None]:
        tasks = Tasks()
        client = Sandboxd(configuration.sandboxd, configuration.token)
        await client.open()
        moments = Moments(client, configuration.capture)
        listener = Listener(client, tasks, moments, configuration.planning, configuration.idle_seconds, configuration.prices, configuration.bounds)
        agent = None
        if configuration.k2 and configuration.planning:
            agent = Agent(configuration.k2, client, tasks, listener.turn_of, listener.decided, moments.add)
            await agent.open()
            listener.reasoner = agent
            app[AGENT] = agent
        app[_CLIENT], app[_MOMENTS], app[LISTENER] = client, moments, listener
        tasks.start(moments.run(), "moments")
        if configuration.planning:
            listener.costs = CostSource(client)
            tasks.start(listener.costs.run(), "costs")
        history = None
        if configuration.history and configuration.planning:
            history = listener.history = History(configuration.history)
            listener.follower = Follower(client, history)
            tasks.start(listener.follower.run(), "history")
        yield
        await tasks.cancel()
        if history:
            history.close()
        await moments.flush()
        if agent:
            await agent.close()
        await client.close()

    app.cleanup_ctx.append(parts)
    app.router.add_post("/v1/events", _events)
    app.router.add_get("/v1/sessions/{id}", _session)
    app.router.add_get("/healthz", _health)
    return app


async def _events(request: web.Request) -> web.Response:
    """Take events, one JSON object a line. A line that is none is counted and left out."""
    events = []
    for line in (await request.read()).split(b"\n"):
        if line.strip():
            try:
                events.append(Event.model_validate_json(line))
            except ValidationError:
                request.app[_COUNTS].malformed += 1
    listener = request.app[LISTENER]
    listener.claim(events)
    await asyncio.sleep(0)  # the claims go out before anything is thought about
    listener.take(events)
    return web.Response(status=204)


async def _session(request: web.Request) -> web.Response:
    """What is believed of a session: packages with probability and kind of evidence; never text."""
    session = request.match_info["id"]
    listener = request.app[LISTENER]
    belief = listener.belief(session)
    if belief is None:
        problem = Problem(
            title="no such session",
            status=404,
            detail=f"the predictor holds nothing about {session[:200]}",
            hint="a session appears with its first event and is forgotten when it has been idle",
            id=session[:200],
        )
        return web.Response(status=404, text=problem.model_dump_json(), content_type="application/problem+json")
    plan = listener.plan_of(session)
    evidence = [
        {"package": e.package, "probability": round(e.probability, 3), "proposer": e.proposer, "evidence": e.kind}
        for e in sorted(belief.evidence.values(), key=lambda e: -e.probability)
    ]
    return web.json_response(
        {
            "session": session,
            "needs_code": belief.needs_code,
            "evidence": evidence,
            "plan": plan.model_dump(mode="json") if plan else None,
        }
    )


async def _health(request: web.Request) -> web.Response:
    app = request.app
    agent = app.get(AGENT)
    return web.json_response(
        {
            "status": "ok",
            "sessions": len(app[LISTENER]),
            "malformed_events": app[_COUNTS].malformed,
            "sent": app[_CLIENT].sent,
            "dropped": app[_CLIENT].dropped,
            "dropped_moments": app[_MOMENTS].dropped,
            "k2": agent.health() if agent else None,
        }
    )


async def serve(configuration: Configuration, socket: Path) -> None:
    """Listen on ``socket`` (mode 0600) until SIGTERM or SIGINT."""
    socket.parent.mkdir(parents=True, exist_ok=True)
    runner = web.AppRunner(create(configuration), access_log=None, handle_signals=False)
    await runner.setup()
    # Made under another name and moved into place: whoever finds the socket finds it with its mode, and listening.
    young = socket.with_name(f"{socket.name}.{os.getpid()}")
    young.unlink(missing_ok=True)
    mask = os.umask(0o177)
    try:
        await web.UnixSite(runner, str(young)).start()
    finally:
        os.umask(mask)
    young.replace(socket)
    inode = socket.stat().st_ino
    log.info("listening on %s", socket)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await stop.wait()
    finally:
        try:
            if socket.stat().st_ino == inode:  # not one that a successor has put there
                socket.unlink()
        except FileNotFoundError:
            pass
        await runner.cleanup()
