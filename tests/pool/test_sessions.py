"""Sessions: their state, their plans, their ends, and what was built in vain."""

from __future__ import annotations

import asyncio
import time

import pytest

from ephemeral import wire

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_calls_of_one_session_share_their_variables(house):
    await house.run("x = 41", session="state-1")
    assert (await house.run("x + 1", session="state-1")).result == "42"


async def test_sessions_share_nothing(house):
    await house.run("secret = 1; open('/scratch/f', 'w').write('x')", session="apart-1")
    execution = await house.run("import os; print('secret' in globals(), os.listdir('/scratch'))", session="apart-2")
    assert execution.stdout == "False []\n"


async def test_a_refused_package_is_recorded_with_the_rule_and_the_rest_is_built(house):
    record = await house.plan("policy-1", ["numpy", "no-such-package-on-earth-xyz"], ["numpy"])
    assert record.accepted == ["numpy"]
    assert "no-such-package-on-earth-xyz" in record.refused
    await house.until(lambda: house.sandbox("policy-1") and house.sandbox("policy-1").state == "ready")


async def test_an_explicit_package_that_policy_refuses_is_a_clear_refusal(house):
    execution = await house.run("1", packages=["no-such-package-on-earth-xyz"])
    assert execution.verdict == "refused"
    assert "no-such-package-on-earth-xyz" in execution.error


async def test_an_import_that_policy_refuses_fails_as_any_missing_module_does(house):
    execution = await house.run("import no_such_package_on_earth_xyz")
    assert execution.verdict == "error"
    assert "ModuleNotFoundError" in execution.traceback


async def test_versions_that_conflict_are_refused_with_the_resolvers_reason(house):
    execution = await house.run("%pip install boto3==1.28.0 botocore==1.20.0\nimport boto3")
    assert execution.verdict == "refused"
    assert "botocore" in execution.error


async def test_k2_can_resize_and_release(house):
    await house.prepared("k2-1", ["numpy"], ["numpy"])
    await house.plan("k2-1", [], action="resize", memory_bytes=1 << 30, proposer="k2")
    await house.until(lambda: house.sandbox("k2-1").memory_limit_bytes == 1 << 30)
    await house.plan("k2-1", [], action="release", proposer="k2")
    await house.until(lambda: house.sandbox("k2-1") is None)


async def test_the_end_of_a_session_takes_its_sandbox_and_counts_what_was_built_in_vain(house):
    await house.prepared("end-1", ["pandas"], ["pandas"])
    ended = await house.daemon.end_session("end-1")
    assert (ended.state, ended.builds, ended.wasted) == ("ended", 1, 1)
    assert house.sandbox("end-1") is None


async def test_a_build_that_was_used_is_not_wasted(house):
    await house.prepared("end-2", ["numpy"], ["numpy"])
    await house.run("import numpy", session="end-2")
    ended = await house.daemon.end_session("end-2")
    assert (ended.builds, ended.wasted) == (1, 0)


async def test_code_that_arrives_while_its_sandbox_is_being_built_waits_only_for_what_it_needs(house):
    await house.plan("hurry-1", ["numpy", "pandas", "matplotlib"], ["numpy", "pandas", "matplotlib.pyplot"])
    execution = await house.run("print('no packages')", session="hurry-1")
    assert (execution.verdict, execution.stdout) == ("ok", "no packages\n")


async def test_a_sandbox_that_died_is_replaced_and_its_session_goes_on(house):
    died = await house.run("import os; os._exit(1)", session="dead-1")
    assert died.verdict == "crashed"
    assert "Variables of earlier calls are gone" in died.error
    assert (await house.run("1 + 1", session="dead-1")).result == "2"


async def test_the_timeline_tells_the_story_in_order(house):
    await house.prepared("story-1", ["numpy"], ["numpy"])
    await house.run("import numpy", session="story-1")
    await house.daemon.end_session("story-1")
    kinds = [moment.kind for moment in await house.moments("story-1")]
    assert [kind for kind in kinds if kind in ("plan", "ready", "code_arrived", "execution", "ended")] == ["plan", "ready", "code_arrived", "execution", "ended"]


async def test_many_calls_at_once_in_one_session_run_one_after_the_other(house):
    executions = await asyncio.gather(*(house.run(f"order = globals().get('order', []) + [{n}]; order", session="queue-1") for n in range(5)))
    assert all(execution.verdict == "ok" for execution in executions)
    assert (await house.run("len(order)", session="queue-1")).result == "5"


async def test_a_session_that_is_opened_twice_is_one(house):
    first = house.daemon.open_session(wire.SessionRequest(id="same-1"))
    second = house.daemon.open_session(wire.SessionRequest(id="same-1"))
    assert first.started_at == second.started_at


async def test_what_comes_late_does_not_open_a_session_again_and_one_that_goes_on_keeps_its_figures(house):
    def moment(kind: str) -> wire.Moment:
        return wire.Moment(session="late-1", at=time.time(), kind=kind)

    await house.daemon.put_plan(wire.Plan(session="late-1", proposer="seen", wants=[], app="notebook", at=time.time()))
    await house.run("1", session="late-1")
    ended = await house.daemon.end_session("late-1")
    assert (ended.executions, ended.app) == (1, "notebook")
    house.daemon.add_moments([moment("assistant_text"), moment("turn_ended")])
    assert house.daemon._sessions.get("late-1") is None
    house.daemon.add_moments([moment("turn_started")])
    again = house.daemon._sessions.get("late-1").wire()
    assert (again.state, again.executions, again.app, again.started_at) == ("active", 1, "notebook", ended.started_at)
    await house.run("2", session="late-1")
    ended = await house.daemon.end_session("late-1")
    assert (ended.executions, ended.builds) == (2, again.builds)


async def test_a_plan_says_whose_a_session_is_that_a_moment_opened(house):
    house.daemon.add_moments([wire.Moment(session="named-1", at=time.time(), kind="user_turn")])
    await house.daemon.put_plan(wire.Plan(session="named-1", proposer="seen", wants=[], app="notebook", at=time.time()))
    assert (await house.daemon.end_session("named-1")).app == "notebook"
