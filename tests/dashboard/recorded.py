"""A recorded day: three sessions as sandboxd would tell them. Deterministic, but for the time at which it begins."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Literal

from ephemeral import wire

PLOT = "plot-7f3a"
GREETING = "greeting-11c0"
SURPRISE = "surprise-52de"

QUESTION = ("The user: Plot the monthly sales in sales.csv, my key is [api key]. ", "<b>Candidates</b>: pandas 0.81, matplotlib 0.64")
ANSWER = "A plot of a table: pandas is certain, <i>seaborn</i> is not.\npackage matplotlib\npackage seaborn\ndone"

CODE = "import pandas as pd\nimport matplotlib.pyplot as plt\npd.read_csv('sales.csv').plot()\nprint('<b>not bold</b>')\n"


def fill(stand_in, now: float) -> None:
    """Fills ``stand_in`` (a StandIn) with the day, which ended a minute before ``now`` (Unix seconds)."""
    _plot(stand_in, now - 90)
    _surprise(stand_in, now - 400)
    _greeting(stand_in, now - 700)


def _plot(stand_in, start: float) -> None:
    def say(at: float, kind: str, detail: str = "", took: float | None = None, **data: object) -> None:
        stand_in.moments.append(
            wire.Moment(session=PLOT, at=start + at, kind=kind, detail=detail, duration_ms=took, data=data)
        )

    say(0.0, "user_turn", "Plot the monthly sales in sales.csv.")
    say(0.0, "turn_started", model="gpt-4.1")
    say(0.02, "tool_declared", name="execute_code")
    for part, text in enumerate(QUESTION, start=1):
        say(0.14, "k2_prompt", text, part=part, parts=len(QUESTION), model="k2-think")
    say(0.9, "restore", "snapshot base-9c", 211.0)
    say(0.95, "ready")
    for step in range(4):
        say(1.1 + step * 0.5, "assistant_text", "I’ll read the file with pandas and draw it. ", chars=44)
    say(1.6, "mount", "pandas, matplotlib", 6.2)
    say(2.1, "k2_answer", ANSWER, 1960.0, outcome="answered", model="k2-think", action="provision", packages=["matplotlib", "seaborn"],
        tokens_read=812, tokens_written=164)
    say(3.0, "preload", "pandas, matplotlib.pyplot", 1390.0)
    say(3.1, "ready")
    say(3.2, "tool_call_started", name="execute_code")
    for step in range(6):
        say(3.3 + step * 0.35, "code", CODE[step * 20 : step * 20 + 20])
    say(3.9, "frozen")
    say(4.4, "shadow_build", "a kind this page has never heard of", 300.0)
    say(5.3, "code_done")
    say(5.35, "turn_ended", "tool_calls")
    say(5.42, "code_arrived", execution="ex-3")
    say(5.6, "execution", "ok")
    say(5.8, "tool_result")
    say(5.8, "turn_started", model="gpt-4.1")
    for step in range(3):
        say(6.5 + step * 0.3, "assistant_text", "Sales rise until May. ")
    say(7.3, "turn_ended", "stop")
    say(7.9, "frozen")

    def want(package: str, probability: float, proposer: wire.Proposer, evidence: str, import_ms: float = 400.0) -> wire.Want:
        saves, costs = probability * import_ms, (1 - probability) * 200
        decision: Literal["import", "available"] = "import" if saves > costs else "available"
        return wire.Want(
            package=package, probability=probability, proposer=proposer, evidence=evidence, decision=decision, saves_ms=saves, costs_ms=costs
        )

    steps: list[tuple[float, wire.Proposer, list[wire.Want]]] = [
        (0.12, "learned", [want("pandas", 0.81, "learned", "file"), want("matplotlib", 0.64, "learned", "concept")]),
        (1.2, "seen", [want("pandas", 0.95, "seen", "mention"), want("matplotlib", 0.7, "learned", "concept")]),
        (2.1, "k2", [want("pandas", 0.95, "seen", "mention"), want("matplotlib", 0.9, "k2", "k2"), want("seaborn", 0.2, "k2", "k2")]),
        (3.6, "seen", [want("pandas", 1.0, "seen", "import"), want("matplotlib", 1.0, "seen", "import"), want("pandaz", 0.1, "seen", "import")]),
    ]
    for number, (at, proposer, wants) in enumerate(steps, start=1):
        stand_in.plans.append(
            wire.PlanRecord(
                id=number, session=PLOT, plan=wire.Plan(session=PLOT, proposer=proposer, wants=wants, at=start + at),
                accepted=[each.package for each in wants if each.package != "pandaz"],
                refused={"pandaz": "not a known package"} if number == 4 else {},
                outcome="ready" if number == 1 else "unchanged", ready_at=start + 3.0,
            )
        )  # fmt: skip

    stand_in.sessions.append(
        wire.Session(id=PLOT, app="notebook", started_at=start, last_at=start + 7.9, sandbox="sb-41", executions=1, builds=2)
    )
    stand_in.sandboxes.append(
        wire.Sandbox(id="sb-41", session=PLOT, state="ready", frozen=True, memory_bytes=143 << 20, created_at=start)
    )
    stand_in.executions.append(
        wire.Execution(
            id="ex-3", session=PLOT, sandbox="sb-41", source="mcp", state="done", verdict="ok", tier="live", found_by="digest",
            created_at=start + 5.42, started_at=start + 5.422, ended_at=start + 5.56, wait_ms=2.1, run_ms=138.4, lead_ms=5300.0,
            stages=wire.Stages(transport_ms=0.4, find_session_ms=0.2, thaw_ms=1.1, dispatch_ms=0.4),
            predicted=["matplotlib", "pandas"], needed=["matplotlib", "pandas"], stdout="<b>not bold</b>\n<script>alert(1)</script>\n",
            outputs=[wire.Output(mime="image/png", data=_png()), wire.Output(mime="text/html", data="<table><tr><td>1</td></tr></table>")],
            peak_memory_bytes=143 << 20, cpu_ms=120.0, code=CODE,
        )
    )  # fmt: skip


def _surprise(stand_in, start: float) -> None:
    stand_in.sessions.append(
        wire.Session(id=SURPRISE, state="ended", started_at=start, last_at=start + 9, ended_at=start + 309, executions=2, builds=2, wasted=1)
    )
    stand_in.executions.append(
        wire.Execution(
            id="ex-2", session=SURPRISE, source="mcp", state="done", verdict="timeout", tier="cold", found_by="none",
            created_at=start + 8, started_at=start + 19, ended_at=start + 79, wait_ms=11_300.0, run_ms=60_000.0,
            stages=wire.Stages(queue_ms=20, resolve_ms=800, download_ms=7_900, compose_ms=12, boot_ms=410, import_ms=2_100),
            needed=["torch"], missing=["torch"], late_imports=["torch", "torch.nn"], peak_memory_bytes=612 << 20,
            error="The code ran for 60 s, its limit: pass timeout_seconds to allow more.",
        )
    )  # fmt: skip
    stand_in.plans.append(
        wire.PlanRecord(
            id=11, session=SURPRISE, accepted=["numpy", "scipy"], outcome="ready", ready_at=start + 2.9,
            plan=wire.Plan(
                session=SURPRISE, proposer="learned", at=start + 1.5,
                wants=[wire.Want(package=name, probability=0.6, proposer="learned", evidence="concept") for name in ("numpy", "scipy")],
            ),
        )
    )  # fmt: skip
    stand_in.executions.append(
        wire.Execution(
            id="ex-1", session=SURPRISE, source="mcp", state="done", verdict="ok", tier="partial", found_by="session",
            created_at=start + 4, started_at=start + 4.2, ended_at=start + 4.3, wait_ms=212.0, run_ms=90.0, lead_ms=1_200.0,
            stages=wire.Stages(transport_ms=0.5, resolve_ms=20, compose_ms=8, import_ms=180),
            predicted=["numpy"], needed=["numpy", "polars"], missing=["polars"], peak_memory_bytes=88 << 20,
        )
    )  # fmt: skip


def _greeting(stand_in, start: float) -> None:
    stand_in.sessions.append(wire.Session(id=GREETING, state="ended", started_at=start, last_at=start + 2, ended_at=start + 302))
    stand_in.moments.append(wire.Moment(session=GREETING, at=start, kind="turn_started"))
    stand_in.moments.append(wire.Moment(session=GREETING, at=start + 2, kind="turn_ended"))
    stand_in.plans.append(
        wire.PlanRecord(
            id=1, session=GREETING, outcome="nothing",
            plan=wire.Plan(session=GREETING, proposer="learned", action="nothing", needs_code=0.03, at=start + 0.1),
        )
    )  # fmt: skip


def _png(width: int = 240, height: int = 90) -> str:
    """A picture that is one: rising stripes, base64."""
    rows = b"".join(
        b"\0" + b"".join(b"\x0b\x6b\x63" if height - y < x * height / width else b"\xff\xff\xff" for x in range(width))
        for y in range(height)
    )

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    picture = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return base64.b64encode(picture).decode()
