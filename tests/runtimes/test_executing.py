"""Code goes in; what it printed, showed and returned comes out, in order. The same on both runtimes."""

import asyncio
import base64

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_sandbox_boots_and_answers(box, value):
    assert await value(box, "6 * 7") == "42"


async def test_state_is_kept_between_executions(box, run, value):
    await run(box, "import math\ncount = 1\ndef twice(x): return 2 * x")
    assert await value(box, "count += 1\ntwice(count), math.floor(2.5)") == "(4, 2)"


async def test_the_last_expression_is_the_result_unless_it_is_none(box, value):
    assert await value(box, "x = 3\n'a' * x") == "'aaa'"
    assert await value(box, "None") is None
    assert await value(box, "y = 1") is None
    assert await value(box, "") is None


async def test_an_exception_is_a_traceback_of_the_users_own_lines(box, run):
    answer = await run(box, "def f():\n    raise ValueError('no')\nprint('before')\nf()")
    assert answer.stdout == ["before\n"]
    assert answer.gone is None
    trace = answer.fields["traceback"]
    assert trace.startswith("Traceback (most recent call last):\n  File \"<cell ")
    assert "    raise ValueError('no')" in trace
    assert trace.endswith("ValueError: no\n")
    assert "guest.py" not in trace


async def test_a_syntax_error_is_told_and_nothing_runs(box, run):
    answer = await run(box, "print('x')\ndef (:")
    assert answer.fields["traceback"].endswith("SyntaxError: invalid syntax\n")
    assert answer.stdout == []


async def test_sys_exit_is_no_error_and_the_sandbox_lives(box, run, value):
    assert (await run(box, "import sys; sys.exit(0)")).fields["traceback"] is None
    assert "SystemExit: 3" in (await run(box, "import sys; sys.exit(3)")).fields["traceback"]
    assert await value(box, "1") == "1"


async def test_stdout_and_stderr_arrive_apart(box, run):
    answer = await run(box, "import sys, os\nprint('out'); print('err', file=sys.stderr); os.write(2, b'raw\\n')")
    assert "".join(answer.stdout) == "out\n"
    assert "".join(answer.stderr) == "err\nraw\n"


async def test_prints_and_the_output_of_children_arrive_in_their_order(box, run):
    answer = await run(box, "import subprocess\nfor n in range(20):\n    print('p', n)\n    subprocess.run(['echo', 'c', str(n)])")
    assert "".join(answer.stdout) == "".join(f"p {n}\nc {n}\n" for n in range(20))


async def test_text_arrives_before_the_code_is_done(box, run):
    """An unfinished execution's output is there: what a timeout cuts off is not lost."""
    answer = await run(box, "print('early')\nwhile True: pass", timeout=1)
    assert "".join(answer.stdout) == "early\n"


async def test_broken_text_is_replaced_and_nothing_is_lost(box, run):
    answer = await run(box, "import os, sys\nsys.stdout.buffer.write(b'a\\xffb\\x00c\\n'); sys.stdout.flush()\nprint('\\ud800', '\\U0001f600')")
    assert "".join(answer.stdout) == "a\ufffdb\0c\n\\ud800 \U0001f600\n"


async def test_a_shell_runs_and_its_failure_is_told(box, run):
    answer = await run(box, "echo $HOME; exit 3", language="shell")
    assert "".join(answer.stdout) == "/scratch\n"
    assert answer.fields["traceback"] == "the shell ended with status 3"


async def test_rich_results_come_beside_the_repr(box, run):
    answer = await run(box, """
class Plot:
    def _repr_png_(self): return b'\\x89PNG not really'
    def __repr__(self): return '<plot>'
class Table:
    def _repr_html_(self): return '<table>'
display(Table())
Plot()
""")
    assert answer.fields["result"] == "<plot>"
    assert [output["mime"] for output in answer.outputs] == ["text/html", "image/png"]
    assert base64.b64decode(answer.outputs[1]["data"]) == b"\x89PNG not really"


async def test_children_of_multiprocessing_print_like_any_child(box, run, value):
    answer = await run(box, """
import multiprocessing
def work(n):
    print('x' * 5000, n)
    return n
with multiprocessing.get_context('fork').Pool(3) as pool:
    total = sum(pool.map(work, range(12)))
total
""")
    assert answer.gone is None
    assert answer.fields["result"] == "66"
    assert "".join(answer.stdout).count("x" * 5000) == 12
    assert await value(box, "total") == "66"


async def test_a_forked_child_that_falls_out_of_the_code_does_not_speak_for_the_sandbox(box, run, value):
    answer = await run(box, "import os\npid = os.fork()\nif pid: os.waitpid(pid, 0)\nprint('child' if not pid else 'parent')\npid > 0")
    assert answer.fields["result"] == "True"
    assert sorted("".join(answer.stdout).split()) == ["child", "parent"]
    for number in range(3):
        assert await value(box, f"{number}") == str(number)


async def test_code_that_closes_its_own_streams_only_silences_itself(boot, run, value):
    box = await boot()
    await run(box, "import os, sys\nos.close(1); os.close(2); sys.stdout.close()")
    assert await value(box, "'still here'") == "'still here'"
    busy = await run(box, "import time\nbegan = time.process_time(); time.sleep(0.5); time.process_time() - began")
    assert float(busy.fields["result"]) < 0.3


async def test_output_beyond_the_allowance_is_dropped_and_counted(box, run, value):
    answer = await run(box, "print('z' * 3_000_000)", output_bytes=100_000)
    assert len("".join(answer.stdout)) == 100_000
    assert answer.fields["dropped"] == 3_000_001 - 100_000
    assert await value(box, "1") == "1"


async def test_a_result_beyond_the_allowance_is_cut_and_counted(box, run):
    answer = await run(box, "'r' * 90_000_000", output_bytes=1000)
    assert answer.gone is None
    assert len(answer.fields["result"]) == 1000
    assert answer.fields["dropped"] == 90_000_002 - 1000


async def test_requests_to_one_sandbox_wait_for_each_other(box, run):
    answers = await asyncio.gather(*(run(box, f"import time; time.sleep(0.02); {n}") for n in range(8)))
    assert [answer.fields["result"] for answer in answers] == [str(n) for n in range(8)]


async def test_the_times_are_those_of_the_code(box, run):
    answer = await run(box, "import time; time.sleep(0.2)")
    assert answer.fields["run_ms"] >= 200
    assert answer.started is not None
    assert answer.arrived <= answer.started <= answer.ended


async def test_imports_are_clocked_and_named(box, run):
    answer = await run(box, "import wave")
    assert answer.fields["import_ms"] > 0
    assert "wave" in answer.fields["late"]
    assert "wave" not in (await run(box, "import wave")).fields["late"]


async def test_a_preload_says_how_long_it_took_or_why_it_failed(box):
    good = await box.request("preload", module="decimal", rehearsal="import decimal; decimal.Decimal(1) + 1")
    assert good["error"] is None
    assert good["ms"] > 0
    bad = await box.request("preload", module="no_such_module")
    assert bad["error"] == "ModuleNotFoundError: No module named 'no_such_module'"
