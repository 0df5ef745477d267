"""The main job, end to end, with real parts: an ordinary program's code runs in a sandbox that stood ready before the code existed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from openai import OpenAI
from playwright.sync_api import sync_playwright

from ephemeral import wire

APP = Path(__file__).with_name("app.py")
TASKS = Path(__file__).parents[2] / "sdk" / "ephemeral_cli" / "demo" / "tasks.jsonl"
CHROMIUM = Path("/usr/bin/chromium")


def talk(up, task: str) -> dict:
    """Hold the conversation ``task`` as an ordinary program would."""
    environment = {**os.environ, "OPENAI_BASE_URL": up.openai}
    done = subprocess.run([sys.executable, APP, up.mcp, task, TASKS], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def execution_of(up, result: dict) -> wire.Execution:
    return up.client.execution(result["execution_id"])


def test_a_program_that_knows_nothing_of_us_finds_its_sandbox_standing_ready(up):
    result = talk(up, "sales-csv")
    assert result["verdict"] == "ok"
    assert "best: East" in result["stdout"]
    execution = execution_of(up, result)
    assert execution.found_by == "digest"
    assert execution.tier == "live"
    assert "pandas" in execution.predicted
    assert execution.lead_ms > 0
    session = up.client.session(execution.session)
    assert (session.builds, session.executions) == (1, 1)
    kinds = [moment.kind for moment in up.client.moments(session.id).items]
    assert kinds.index("plan") < kinds.index("ready") < kinds.index("code_done") < kinds.index("execution")


def test_a_package_that_nothing_announced_is_served_as_partial(up):
    result = talk(up, "unannounced")
    assert result["verdict"] == "ok"
    assert "2.1 GB" in result["stdout"]
    execution = execution_of(up, result)
    assert execution.missing in (["humanize"], [])
    assert execution.tier in ("partial", "live")


def test_nothing_is_built_for_a_conversation_that_needs_no_code(up):
    before = {session.id for session in up.client.sessions().items}
    assert talk(up, "just-talk") == {}
    for session in up.client.sessions().items:
        if session.id not in before:
            assert (session.builds, session.sandbox) == (0, None)


def test_a_plot_comes_back_as_an_image_over_mcp(up):
    result = talk(up, "wave-plot")
    assert result["verdict"] == "ok"
    execution = execution_of(up, result)
    assert [output.mime for output in execution.outputs] == ["image/png"]


def test_the_dashboard_shows_the_execution_and_its_session_live(up):
    if not CHROMIUM.exists():
        pytest.fail(f"{CHROMIUM} is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[
            "--no-sandbox", "--disable-background-networking", "--disable-gpu", "--disable-dev-shm-usage"])
        page = browser.new_page()
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.goto(up.dashboard)
        page.get_by_text("sessions", exact=False).first.wait_for()
        result = up.client.execute(wire.ExecutionRequest(code="print('seen in a browser')"))
        page.get_by_text(result.session, exact=False).first.wait_for(timeout=20_000)
        assert problems == []
        browser.close()


def test_the_api_over_tcp_wants_the_token_and_a_local_host_name(up):
    root = up.dashboard.partition("/?")[0]
    assert httpx.get(f"{root}/v1/host").status_code == 401
    token = (up.state / "token").read_text().strip()
    assert httpx.get(f"{root}/v1/host", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert httpx.get(f"{root}/v1/host", headers={"Authorization": f"Bearer {token}", "Host": "evil.example"}).status_code in (403, 421)
    assert httpx.get(f"{root}/v1/host", headers={"Authorization": f"Bearer {token}", "Origin": "https://evil.example"}).status_code == 403


@pytest.mark.parametrize("room", ["ephemeral_predictor", "ephemeral_sandboxd"])
def test_a_room_that_dies_is_restarted_and_the_client_notices_nothing(up, room):
    client = OpenAI(base_url=up.openai, api_key="sk-test", max_retries=0)
    with open(TASKS) as lines:
        messages = next(task for task in map(json.loads, lines) if task["id"] == "just-talk")["messages"]
    pid = up.pid(room)
    os.kill(pid, signal.SIGKILL)
    answer = client.chat.completions.create(model="m", messages=messages)
    assert answer.choices[0].message.content
    up.until(lambda: _alive(up, room, pid), f"{room} is restarted")
    up.until(lambda: _answers(up), "sandboxd answers")
    assert up.client.execute(wire.ExecutionRequest(code="1 + 1")).result == "2"


def _alive(up, room: str, old: int) -> bool:
    try:
        return up.pid(room) != old
    except LookupError:
        return False


def _answers(up) -> bool:
    try:
        return up.client.host().sandboxes >= 0
    except Exception:
        return False


def test_ctrl_c_leaves_no_process_mount_or_control_group(houses):
    running = houses()
    state = running.state
    assert running.client.execute(wire.ExecutionRequest(code="1 + 1", session="leaver")).result == "2"
    groups = set(_groups())
    assert running.stop() == 0
    assert not [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(state) in line]
    assert not [command for command in _commands() if str(state) in command]
    assert len(groups - set(_groups())) >= 1
    with sqlite3.connect(state / "ephemeral.db") as database:
        assert database.execute("select count(*) from executions").fetchone() == (1,)


def _groups() -> list[str]:
    return [entry.name for entry in Path("/sys/fs/cgroup/memory").glob("ephemeral-*")] or [entry.name for entry in Path("/sys/fs/cgroup").glob("ephemeral-*")]


def _commands() -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.append((entry / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
    return found
