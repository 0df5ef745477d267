"""Ends that come at the wrong moment: of a session, of a sandbox, of a plan, while somebody works with it."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from ephemeral import wire
from ephemeral_sandboxd.runtimes.cgroups import Cgroup

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def runs(house, session: str) -> None:
    await house.until(lambda: (sandbox := house.sandbox(session)) and sandbox.state == "running")


async def no_sandbox(house, session: str) -> None:
    await house.until(lambda: house.sandbox(session) is None)


def kill(house, sandbox_id: str) -> None:
    """Kill all of a sandbox from outside, as the kernel does when the machine is out of memory."""
    group = house.daemon._runtime._group
    for pid in Cgroup(f"{group}/{sandbox_id}").processes():
        os.kill(pid, signal.SIGKILL)
    Cgroup(f"{group}/{sandbox_id}").thaw()


async def test_code_whose_session_ends_under_it_is_told_so(house):
    running = asyncio.create_task(house.run("import time; time.sleep(60)", session="cut-1"))
    await runs(house, "cut-1")
    waiting = asyncio.create_task(house.run("1", session="cut-1"))
    await asyncio.sleep(0)
    await house.daemon.end_session("cut-1")
    assert (await running).verdict == "killed"
    refused = await waiting
    assert (refused.verdict, "ended" in refused.error) == ("refused", True)
    await no_sandbox(house, "cut-1")
    assert (await house.run("1 + 1", session="cut-1")).result == "2"


async def test_a_session_that_ends_while_its_sandbox_starts_leaves_none_behind(house):
    for spare in house.daemon._fleet.spares():
        house.daemon._fleet.give_back(spare)
    starting = asyncio.create_task(house.run("1", session="cut-2"))
    await house.until(lambda: house.daemon._sessions.get("cut-2"))
    await house.daemon.end_session("cut-2")
    assert (await starting).verdict in ("refused", "killed")
    await no_sandbox(house, "cut-2")


async def test_code_whose_sandbox_is_deleted_under_it_is_told_so(house):
    running = asyncio.create_task(house.run("import time; time.sleep(60)", session="cut-3"))
    await runs(house, "cut-3")
    await house.daemon.delete_sandbox(house.sandbox("cut-3").id)
    assert (await running).verdict == "killed"
    assert (await house.run("1 + 1", session="cut-3")).result == "2"


async def test_a_sandbox_that_died_while_nothing_ran_is_replaced_before_the_code_and_the_session_is_told(house):
    await house.run("x = 1", session="died-1")
    await house.until(lambda: house.sandbox("died-1").frozen)
    kill(house, house.sandbox("died-1").id)
    await house.until(lambda: not house.daemon._sessions.get("died-1").sandbox.alive)
    execution = await house.run("'x' in globals()", session="died-1")
    assert (execution.verdict, execution.result) == ("ok", "False")
    assert "variables and files" in execution.notice


async def test_a_spare_that_died_is_nobodys(house):
    await house.daemon._fleet.fill()
    dead = house.daemon._fleet.spares()[0].id
    kill(house, dead)
    await house.until(lambda: dead not in {sandbox.id for sandbox in house.daemon.sandboxes()})


async def test_files_survive_the_plan_that_comes_after_them(house):
    async def pieces():
        yield b"a,b\n"

    await house.daemon.files.write("kept-files", "in.csv", pieces())
    await house.plan("kept-files", ["pandas"], ["pandas"])
    await house.until(lambda: house.daemon._sessions.get("kept-files").builder.done())
    assert (await house.run("open('in.csv').read()", session="kept-files")).result == "'a,b\\n'"


async def test_a_release_is_told_to_the_session_that_had_variables(house):
    await house.run("x = 1", session="released-1")
    await house.plan("released-1", [], action="release", proposer="k2")
    await no_sandbox(house, "released-1")
    assert "given back" in (await house.run("1", session="released-1")).notice


async def test_another_size_does_not_end_what_is_being_built(house):
    first = await house.plan("grow-1", ["numpy"], ["numpy"])
    await house.plan("grow-1", [], action="resize", memory_bytes=1 << 30, proposer="k2")
    await house.until(lambda: (sandbox := house.sandbox("grow-1")) and sandbox.state == "ready" and sandbox.memory_limit_bytes == 1 << 30)
    assert "numpy" in house.sandbox("grow-1").modules
    await house.until(lambda: house.daemon._sessions.get("grow-1").builder.done())
    outcomes = {plan.id: plan.outcome for plan in (await house.recorder.plans("grow-1")).items}
    assert outcomes[first.id] == "ready"


async def test_a_plan_that_cannot_be_fulfilled_leaves_its_sandbox_at_rest(house):
    wants = [{"package": "unidecode", "version": "999.0", "probability": 0.9, "proposer": "seen"}]
    await house.daemon.put_plan(wire.Plan.model_validate({"session": "vain-1", "proposer": "seen", "wants": wants}))
    await house.until(lambda: house.daemon._sessions.get("vain-1").builder.done())
    assert (house.sandbox("vain-1").state, house.sandbox("vain-1").frozen) == ("ready", True)


async def test_an_interrupt_that_comes_late_does_not_hit_the_next_execution(house):
    async def one(number: int) -> None:
        identity: list[str] = []

        def tell(piece: wire.Piece) -> None:
            if piece.kind == "accepted":
                identity.append(piece.execution.id)
            elif piece.kind == "started":
                late.append(asyncio.create_task(house.daemon.interrupt(identity[0])))

        request = wire.ExecutionRequest(code="import time; time.sleep(0.01)", session="late-1")
        await house.daemon.execute(request, asyncio.get_running_loop().time(), tell)
        execution = await house.run(f"total = 0\nfor i in range(300_000):\n    total += i\n{number}", session="late-1")
        assert (execution.verdict, execution.result) == ("ok", str(number)), execution

    late: list[asyncio.Task[None]] = []
    for number in range(5):
        await one(number)
    await asyncio.gather(*late, return_exceptions=True)


async def test_memory_is_read_again_after_a_run_that_no_look_fell_into(house):
    await house.run("1", session="measured-1")
    sandbox = house.daemon._sessions.get("measured-1").sandbox
    await house.until(lambda: sandbox.box.frozen and sandbox.measured_frozen)
    before = sandbox.memory_bytes
    await house.run("kept = bytearray(b'x' * (64 << 20))", session="measured-1")
    await house.until(lambda: sandbox.box.frozen and sandbox.measured_frozen)
    assert sandbox.memory_bytes > before + (50 << 20)


async def test_what_was_restored_can_be_interrupted_and_has_a_loopback_interface(house):
    stock = house.daemon._stocks.default
    snapshot = await house.daemon._photographer.take(stock, ["json"], stock.base, [False] * len(stock.base))
    sandbox = await house.daemon._fleet.restore(stock, snapshot)
    house.daemon.open_session(wire.SessionRequest(id="restored-1"))
    sandbox.become("preparing")
    house.daemon._sessions.get("restored-1").sandbox = sandbox
    late = await house.run("import time\nkept = 1\ntime.sleep(60)", session="restored-1", timeout_seconds=1)
    assert (late.verdict, "was interrupted" in late.error) == ("timeout", True)
    own = "import socket\nhere = socket.create_server(('127.0.0.1', 0))\nsocket.create_connection(here.getsockname(), 5).close()\nkept"
    assert (await house.run(own, session="restored-1")).result == "1"
