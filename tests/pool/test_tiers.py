"""Which readiness serves an execution, and what the record says of it."""

from __future__ import annotations

import hashlib

import pytest

from ephemeral import wire

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_code_of_a_planned_session_runs_live_with_its_modules_imported(house):
    sandbox = await house.prepared("live-1", ["pandas"], ["pandas"])
    assert "pandas" in sandbox.modules
    assert sandbox.frozen
    execution = await house.run("import pandas as pd\nprint(pd.Series([1, 2]).sum())", session="live-1")
    assert (execution.verdict, execution.tier, execution.stdout) == ("ok", "live", "3\n")
    assert execution.sandbox == sandbox.id
    assert execution.predicted == ["pandas"]
    assert execution.needed == ["pandas"]
    assert execution.missing == []
    assert execution.lead_ms > 0
    assert execution.wait_ms >= execution.stages.import_ms


async def test_a_session_nobody_planned_is_served_from_the_nearest_snapshot(house):
    execution = await house.run("import numpy as np\nnp.arange(3).sum()", session="snap-1")
    assert (execution.verdict, execution.tier) == ("ok", "snapshot")
    assert execution.stages.restore_ms > 0
    assert execution.lead_ms is None


async def test_code_without_packages_gets_a_spare(house):
    await house.until(lambda: house.daemon.host().spares > 0)
    execution = await house.run("print(sum(range(10)))")
    assert (execution.verdict, execution.tier, execution.stdout) == ("ok", "live", "45\n")


async def test_an_unannounced_package_is_added_to_the_live_sandbox(house):
    sandbox = await house.prepared("partial-1", ["numpy"], ["numpy"])
    execution = await house.run("import numpy\nfrom humanize import intcomma\nprint(intcomma(12345))", session="partial-1")
    assert (execution.verdict, execution.tier, execution.stdout) == ("ok", "partial", "12,345\n")
    assert execution.missing == ["humanize"]
    assert execution.sandbox == sandbox.id
    again = await house.run("print(intcomma(1000))", session="partial-1")
    assert (again.tier, again.stdout) == ("live", "1,000\n")


async def test_a_module_that_only_the_running_code_names_is_added_while_it_runs(house):
    await house.prepared("need-1", ["numpy"], ["numpy"])
    code = "print('before')\nname = 'uni' + 'decode'\nprint(__import__(name).unidecode('h\u00e9'))"
    execution = await house.run(code, session="need-1")
    assert (execution.verdict, execution.tier, execution.stdout) == ("ok", "partial", "before\nhe\n")
    assert execution.missing == execution.needed == ["unidecode"]
    assert execution.wait_ms > execution.stages.import_ms > 0


async def test_a_module_that_only_the_running_code_names_and_nobody_knows_is_missing_as_ever(house):
    execution = await house.run("name = 'no_such_module' + '_on_earth'\ntry:\n    __import__(name)\nexcept ModuleNotFoundError as e:\n    print(e.name)")
    assert (execution.verdict, execution.stdout) == ("ok", "no_such_module_on_earth\n")


async def test_a_planned_package_outside_the_base_is_mounted_before_the_code(house):
    await house.prepared("tail-1", ["inflect"], ["inflect"])
    execution = await house.run("import inflect\nprint(inflect.engine().plural('box'))", session="tail-1")
    assert (execution.verdict, execution.tier, execution.stdout, execution.missing) == ("ok", "live", "boxes\n", [])


async def test_code_finds_its_session_by_the_digest_the_proxy_saw(house):
    code = "print('whose am I')"
    await house.prepared("digest-1", ["numpy"], ["numpy"])
    house.daemon.claim_digest(hashlib.sha256(code.encode()).hexdigest(), "digest-1")
    execution = await house.run(code)
    assert (execution.session, execution.found_by) == ("digest-1", "digest")


async def test_two_sessions_that_stream_the_same_code_each_get_their_own_run(house):
    code = "print('twins')"
    digest = hashlib.sha256(code.encode()).hexdigest()
    for session in ("twin-1", "twin-2"):
        await house.prepared(session, ["numpy"], ["numpy"])
        house.daemon.claim_digest(digest, session)
    assert {(await house.run(code)).session, (await house.run(code)).session} == {"twin-1", "twin-2"}


async def test_cold_installs_everything_after_the_code_came(house):
    house.daemon.open_session(wire.SessionRequest(id="cold-1", policy="none"))
    execution = await house.run("from humanize import intcomma\nprint(intcomma(12345))", session="cold-1")
    assert (execution.verdict, execution.tier, execution.stdout) == ("ok", "cold", "12,345\n")
    assert execution.stages.boot_ms > 0
    assert execution.stages.download_ms > 0
