"""sandboxd's API, served for real, over a stand-in of the pool: what "runs" is looked up in a small table.

As a program (`python stand_in.py STATE TOKEN`) it serves `STATE/sandboxd.sock` and a TCP port, which it prints, until its
standard input is closed.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import struct
import sys
import time
import zlib
from pathlib import Path

import uvloop

from ephemeral import wire
from ephemeral_sandboxd.api import build, serve
from ephemeral_sandboxd.errors import Busy, NotFound, Refused
from ephemeral_sandboxd.ledger import Recorder


def png() -> str:
    """A real picture of one pixel, base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0\0\0\0")) + chunk(b"IEND", b"")).decode()


RESULTS: dict[str, dict] = {
    "print('hello')": {"stdout": "hello\n"},
    "6 * 7": {"result": "42"},
    "plot()": {"stdout": "drawn\n", "outputs": [{"mime": "image/png", "data": png()}, {"mime": "text/html", "data": "<b>x</b>"}]},
    "1 / 0": {
        "verdict": "error",
        "stderr": "about to divide\n",
        "traceback": "Traceback (most recent call last):\n  File \"<code>\", line 1\nZeroDivisionError: division by zero",
    },
    "while True: pass": {"verdict": "timeout", "error": "The code ran for 60 s and was stopped. Give it more time or less work."},
    "import left_pad": {"verdict": "refused", "error": "left-pad is refused: not a popular package. Allow it with EPHEMERAL_ALLOW."},
}  # fmt: skip


class StandIn:
    """Satisfies api.Daemon; keeps everything in dictionaries."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.open: dict[str, wire.Session] = {}
        self.claims: dict[str, str] = {}
        self.boxes: dict[str, wire.Sandbox] = {"box1": wire.Sandbox(id="box1", state="spare", created_at=round(time.time(), 3))}
        self.arrivals: list[float] = []
        self.missing: str | None = None
        self._numbers = itertools.count(1)

    def open_session(self, request: wire.SessionRequest) -> wire.Session:
        identity = request.id or f"session-{next(self._numbers)}"
        if identity not in self.open:
            now = round(time.time(), 3)
            self.open[identity] = wire.Session(id=identity, app=request.app, policy=request.policy, started_at=now, last_at=now)
            self.recorder.session(self.open[identity])
        return self.open[identity]

    async def end_session(self, session_id: str) -> wire.Session:
        if session_id not in self.open:
            raise NotFound("No such session", f"No session {session_id} is open.", "GET /v1/sessions lists them.")
        ended = self.open.pop(session_id).model_copy(update={"state": "ended", "ended_at": round(time.time(), 3)})
        self.recorder.session(ended)
        return ended

    async def put_plan(self, plan: wire.Plan) -> wire.PlanRecord:
        self.open_session(wire.SessionRequest(id=plan.session, app=plan.app))
        accepted = [want.package for want in plan.wants]
        record = wire.PlanRecord(id=self.recorder.next_plan_id(), session=plan.session, plan=plan, accepted=accepted)
        self.recorder.plan(record)
        return record

    def claim_digest(self, digest: str, session_id: str) -> None:
        self.claims[digest] = session_id

    def add_moments(self, moments: list[wire.Moment]) -> None:
        for moment in moments:
            self.recorder.moment(moment)

    async def execute(self, request: wire.ExecutionRequest, arrived: float) -> wire.Execution:
        self.arrivals.append(arrived)
        if request.code == "raise Busy":
            raise Busy("No sandbox is free", "All budgets are used.", "Try again in a moment.", retry_after_seconds=2.5)
        if request.code == "raise Refused":
            raise Refused("Package refused", "left-pad is not a popular package.", "Allow it with EPHEMERAL_ALLOW=left-pad.")
        if request.code == "raise RuntimeError":
            raise RuntimeError("SECRET in an exception")
        digest = hashlib.sha256(request.code.encode()).hexdigest()
        session = request.session or self.claims.get(digest) or self.open_session(wire.SessionRequest()).id
        now = round(time.time(), 3)
        values = {
            "id": f"execution-{next(self._numbers)}", "session": session, "sandbox": "box1", "source": request.source,
            "state": "done", "verdict": "ok", "tier": "live", "created_at": now, "started_at": now, "ended_at": now,
            "found_by": "session" if request.session else "digest" if digest in self.claims else "none",
            "wait_ms": request.elapsed_ms + 0.5, "run_ms": 1.0, "stages": {"transport_ms": request.elapsed_ms},
            "needed": sorted(request.packages), "code_sha256": digest, "code": request.code,
        }  # fmt: skip
        execution = wire.Execution.model_validate(values | RESULTS.get(request.code, {}))
        self.recorder.execution(execution)
        return execution

    def sandboxes(self) -> list[wire.Sandbox]:
        return list(self.boxes.values())

    async def delete_sandbox(self, sandbox_id: str) -> None:
        if self.boxes.pop(sandbox_id, None) is None:
            raise NotFound("No such sandbox", f"No sandbox {sandbox_id} is here.", "GET /v1/sandboxes lists them.")

    def environments(self) -> list[wire.Environment]:
        return [wire.Environment(id="env1", python="3.13", requested=["numpy"], packages={"numpy": "2.3"}, created_at=1.0)]

    def snapshots(self) -> list[wire.Snapshot]:
        return [wire.Snapshot(id="snap1", environments=["env1"], modules=["numpy"], size_bytes=1, import_ms=90, created_at=1.0)]

    def host(self) -> wire.Host:
        return wire.Host(
            version="0", runtime="gvisor", isolation="none: a stand-in", platform="linux", cores=2, memory_bytes=1 << 30,
            memory_budget_bytes=1 << 29, memory_used_bytes=0, sandboxes=len(self.boxes), spares=1, sessions=len(self.open),
        )  # fmt: skip

    def ready(self) -> str | None:
        return self.missing


async def main(state: Path, token: str) -> None:
    recorder = Recorder(state / "ledger.db", capture=True)
    app = build(StandIn(recorder), recorder, token=token, dashboard=None)
    served = await serve(app, state / "sandboxd.sock", 0)
    print(served.port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await served.close()
    await recorder.close()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), sys.argv[2]))
