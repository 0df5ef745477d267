"""What people write in notebooks, what reads and what awaits: the same on both runtimes."""

import asyncio
import json

import pytest
import pytest_asyncio

from ephemeral_sandboxd import roots
from ephemeral_sandboxd.runtimes import Size

pytestmark = pytest.mark.asyncio(loop_scope="session")

SMALL = Size(memory_bytes=512 << 20, cpus=1.0, pids=256, disk_bytes=128 << 20)


@pytest_asyncio.fixture(loop_scope="session")
async def box(boot, lasting, place):
    """A sandbox for this file alone: event loops and pip's door stay open in it."""
    known = lasting.get("notebooks")
    if known is None or not known.alive:
        if known:
            await known.delete()
        lasting["notebooks"] = known = await place.runtime.start("notebooks", SMALL)
    return known


async def test_pieces_are_told_as_they_come(box):
    heard: list[tuple[str, object]] = []
    code = "import sys, time\nprint('a')\ntime.sleep(0.2)\nprint('b', file=sys.stderr)"
    answer = await box.execute(code, language="python", timeout=30, output_bytes=1000, slots=[], first=[], on_event=lambda kind, value: heard.append((kind, value)))
    assert heard == [("started", None), ("stdout", "a\n"), ("stderr", "b\n")]
    assert answer.stdout == ["a\n"]


async def test_lines_that_come_thick_and_fast_are_told_while_the_code_says_nothing_more(box):
    """The code ends only once its last line was heard."""

    def hear(kind: str, value: object) -> None:
        if kind == "stdout" and "third" in str(value):
            box.feed("go on\n", close=True)

    answer = await box.execute("print('first'); print('second'); print('third'); __import__('sys').stdin.readline()", language="python", timeout=60,
                               output_bytes=1000, slots=[], first=[], interactive=True, on_event=hear)
    assert answer.interrupted is None
    assert answer.fields["result"] == repr("go on\n")
    assert "".join(answer.stdout) == "first\nsecond\nthird\n"


async def test_standard_input_is_what_came_with_the_execution_and_nothing_after_it(box, run):
    answer = await run(box, "name = input('who? ')\nrest = __import__('sys').stdin.read()\nname, rest", stdin="Ada\nx\ny")
    assert answer.fields["result"] == "('Ada', 'x\\ny')"
    assert "".join(answer.stdout) == "who? "
    assert "EOFError" in (await run(box, "input()")).fields["traceback"]


async def test_children_read_the_same_standard_input(box, run):
    answer = await run(box, "wc -c", language="shell", stdin="x" * 200_000)
    assert "".join(answer.stdout).strip() == "200000"


async def test_interactive_code_waits_for_what_it_is_fed(box):
    heard: list[str] = []

    def hear(kind: str, value: object) -> None:
        heard.append(kind)
        if kind == "stdout" and value == "name? ":
            box.feed("Grace\n")
        if kind == "stdout" and value == "age? ":
            box.feed("37\n", close=True)

    code = "name = input('name? ')\nage = int(input('age? '))\nname, age"
    answer = await box.execute(code, language="python", timeout=30, output_bytes=1000, slots=[], first=[], interactive=True, on_event=hear)
    assert answer.fields["result"] == "('Grace', 37)"


async def test_what_is_fed_before_the_code_reads_is_not_lost_and_what_comes_too_late_is_nobodys(box, run):
    for number in range(5):
        answer = await box.execute("input()", language="python", timeout=30, output_bytes=1000, slots=[], first=[], interactive=True,
                                   on_sent=lambda: box.feed("early\nand more\n"))
        assert answer.fields["result"] == "'early'", number
    assert "EOFError" in (await run(box, "input()")).fields["traceback"]


async def test_top_level_await_shares_one_event_loop_between_cells(box, run, value):
    assert await value(box, "import asyncio\nawait asyncio.sleep(0.01, 'slept')") == "'slept'"
    await run(box, "async def later():\n    await asyncio.sleep(0.05)\n    return 7\ntask = asyncio.get_event_loop().create_task(later())\nawait asyncio.sleep(0)")
    assert await value(box, "await task") == "7"
    assert "ValueError: no" in (await run(box, "async def f(): raise ValueError('no')\nawait f()")).fields["traceback"]


async def test_code_that_awaits_can_be_interrupted(box, run, value):
    answer = await run(box, "import asyncio\nkept = 5\nawait asyncio.sleep(60)", timeout=0.5)
    assert answer.interrupted == "timeout"
    assert answer.gone is None
    assert await value(box, "kept") == "5"


async def test_an_interrupt_that_is_asked_for_ends_the_code_and_keeps_the_variables(box, run, value):
    started = asyncio.Event()
    running = asyncio.create_task(box.execute("kept = 'here'\nimport time\ntime.sleep(60)", language="python", timeout=60, output_bytes=1000,
                                              slots=[], first=[], on_event=lambda kind, _: started.set() if kind == "started" else None))
    await asyncio.wait_for(started.wait(), 30)
    await asyncio.sleep(0.2)
    assert await box.interrupt()
    answer = await asyncio.wait_for(running, 30)
    assert answer.interrupted == "asked"
    assert "KeyboardInterrupt" in answer.fields["traceback"]
    assert await value(box, "kept") == "'here'"
    assert not await box.interrupt()


async def test_an_interrupted_shell_dies_with_its_children(box, run):
    answer = await run(box, "sleep 300 & sleep 300", language="shell", timeout=1.0)
    assert answer.interrupted == "timeout"
    assert answer.gone is None
    left = await run(box, "ps ax 2>/dev/null | grep -c '[s]leep 300' || grep -l sleep /proc/[0-9]*/comm | wc -l", language="shell")
    assert "".join(left.stdout).split()[0] == "0"


async def test_one_shot_code_neither_sees_nor_changes_the_sessions_variables(box, run, value):
    await run(box, "x = 1")
    answer = await run(box, "seen = 'x' in globals()\nx = 2\nseen", one_shot=True)
    assert answer.fields["result"] == "False"
    assert await value(box, "x, 'seen' in globals()") == "(1, False)"
    await run(box, "%time x = 3\n!true", one_shot=True)
    assert await value(box, "x") == "1"


async def test_shell_lines_run_and_may_name_variables(box, run, value):
    answer = await run(box, "word = 'moon'\n!echo hello {word}\nlines = !printf 'a\\nb\\n'\nlines")
    assert "".join(answer.stdout) == "hello moon\n"
    assert answer.fields["result"] == "['a', 'b']"


async def test_signs_inside_strings_and_expressions_are_left_alone(box, value):
    assert await value(box, "text = '''\n!echo no\n%pip install nothing\n'''\n5 % 3, text.count('echo')") == "(2, 1)"
    assert await value(box, "x = (7\n% 4)\n!true\nx") == "3"


async def test_magics_that_mean_nothing_here_are_ignored_with_a_word(box, run):
    answer = await run(box, "%matplotlib inline\n%lsmagic\nprint('on')")
    assert "".join(answer.stdout) == "on\n"
    assert "".join(answer.stderr) == "%lsmagic means nothing here and was ignored\n"


async def test_a_bash_cell_is_a_shell(box, run):
    assert "".join((await run(box, "%%bash\nfor i in 1 2; do echo $i; done")).stdout) == "1\n2\n"


async def test_pip_asks_the_host_however_it_is_written(box):
    asked: list[list[str]] = []

    async def install(requirements: list[str]) -> dict[str, object]:
        asked.append(requirements)
        return {"ok": True, "text": f"Installed: {' '.join(requirements)}", "slots": [], "first": []}

    async def execute(code: str, language: str = "python"):
        return await box.execute(code, language=language, timeout=60, output_bytes=10_000, slots=[], first=[], on_install=install)

    await execute("%pip install -q 'pandas>=2' numpy==1.26.4")
    await execute("!pip install rich")
    child = await execute("import subprocess\nsubprocess.run(['pip', 'install', 'tqdm'], capture_output=True, text=True).stdout")
    shell = await execute("printf 'attrs\\n# no\\nidna==3.7\\n' > req.txt; pip install -r req.txt", "shell")
    assert asked == [["pandas", "numpy==1.26.4"], ["rich"], ["tqdm"], ["attrs", "idna==3.7"]]
    assert child.fields["result"] == "'Installed: tqdm\\n'"
    asked.clear()
    await execute("import subprocess, sys\nsubprocess.check_call([sys.executable, '-m', 'pip', 'install', 'six'])")
    await execute("uv pip install toml", "shell")
    assert asked == [["six"], ["toml"]]
    assert "".join(shell.stdout) == "Installed: attrs idna==3.7\n"


async def test_a_version_that_is_not_in_the_range_asked_for_is_told(box, run):
    await run(box, "import os\nos.makedirs('/scratch/site/demo-2.4.1.dist-info')\n"
                   "open('/scratch/site/demo-2.4.1.dist-info/METADATA', 'w').write('Metadata-Version: 2.1\\nName: demo\\nVersion: 2.4.1\\n')")

    async def install(requirements: list[str]) -> dict[str, object]:
        return {"ok": True, "text": "Installed: demo", "slots": ["/scratch/site"], "first": []}

    async def trouble(wanted: str) -> str | None:
        answer = await box.execute(f"%pip install '{wanted}'", language="python", timeout=60, output_bytes=10_000, slots=[], first=[], on_install=install)
        return answer.fields["traceback"]

    for met in ("demo>=2", "demo>2.4,<3", "demo~=2.3", "demo==2.4.*", "demo[extra]>=2.4.1", "demo!=2.5"):
        assert await trouble(met) is None, met
    for unmet in ("demo<2", "demo~=2.3.0", "demo!=2.4.1", "demo==1.*", "demo>2.4.1"):
        assert "demo 2.4.1 is what is there now" in (await trouble(unmet) or ""), unmet


async def test_an_interrupt_ends_the_wait_for_packages_and_the_next_question_gets_its_own_answer(box):
    asked = asyncio.Event()

    async def never(requirements: list[str]) -> dict[str, object]:
        asked.set()
        await asyncio.Event().wait()
        return {}

    async def at_once(requirements: list[str]) -> dict[str, object]:
        return {"ok": True, "text": "Installed: " + requirements[0], "slots": [], "first": []}

    waiting = asyncio.create_task(box.execute("%pip install slow", language="python", timeout=60, output_bytes=1000, slots=[], first=[], on_install=never))
    await asyncio.wait_for(asked.wait(), 30)
    assert await box.interrupt()
    assert (await asyncio.wait_for(waiting, 30)).interrupted == "asked"
    answer = await box.execute("%pip install quick", language="python", timeout=60, output_bytes=1000, slots=[], first=[], on_install=at_once)
    assert "".join(answer.stdout) == "Installed: quick\n"
    assert answer.fields["traceback"] is None


async def test_a_timeout_while_the_host_looks_for_a_module_keeps_the_variables(boot, run, value):
    box = await boot()

    async def never(module: str) -> None:
        await asyncio.Event().wait()

    answer = await box.execute("kept = 1\nimport not_there", language="python", timeout=1, output_bytes=1000, slots=[], first=[], on_need=never)
    assert answer.interrupted == "timeout"
    assert answer.gone is None
    assert await value(box, "kept") == "1"
    asked: list[str] = []

    async def nowhere(module: str) -> None:
        asked.append(module)

    for _ in range(2):  # what was cut off is asked for again, what was answered is not
        again = await box.execute("import not_there", language="python", timeout=30, output_bytes=1000, slots=[], first=[], on_need=nowhere)
        assert "ModuleNotFoundError" in again.fields["traceback"]
    assert asked == ["not_there"]


async def test_pip_refuses_what_is_no_name(box, run):
    for words in ("git+https://example.com/x", "./local", "-i https://example.com/simple x", "-e ."):
        answer = await run(box, f"%pip install {words}")
        assert "RuntimeError" in answer.fields["traceback"]
        assert "packages" in "".join(answer.stderr)


async def test_javascript_without_node_says_what_to_do(box, run):
    answer = await run(box, "1 + 1", language="javascript")
    assert "rootfs add" in answer.fields["traceback"]


async def test_javascript_runs_with_node_and_tells_what_its_last_expression_came_to(place, store, run):
    root = roots.roots(store).get("trixie")
    assert root, "the test store has no root filesystem with Node: run `make test-store`"
    box = await place.runtime.start("node", SMALL, root=root.path)
    try:
        answer = await run(box, "const x = [1, 2].map(n => n * 2);\nconsole.log('on'); console.error('err');\nx", language="javascript")
        assert (answer.fields["result"], "".join(answer.stdout), "".join(answer.stderr)) == ("[ 2, 4 ]", "on\n", "err\n")
        awaited = await run(box, "const fs = require('fs/promises');\nconst text = await fs.readFile('/proc/version', 'utf8');\ntext.length > 3;", language="javascript")
        assert (awaited.fields["result"], awaited.fields["traceback"]) == ("true", None)
        module = await run(box, "import { basename } from 'path';\nconsole.log(basename('/a/b'))", language="javascript")
        assert "".join(module.stdout) == "b\n"
        failed = await run(box, "await 1; throw new Error('no')", language="javascript")
        assert "Error: no" in "".join(failed.stderr)
        assert failed.fields["traceback"] == "node ended with status 1"
        assert (await run(box, "const x = (", language="javascript")).fields["traceback"]
        endless = await run(box, "while (true);", language="javascript", timeout=2)
        assert endless.interrupted == "timeout"
        assert endless.gone is None
        cell = await run(box, "%%javascript\nconsole.log(6 * 7)")
        assert "".join(cell.stdout) == "42\n"
    finally:
        await box.delete()


async def test_data_frames_are_shown_as_a_table_and_as_its_rows(boot, run, wheel):
    wheels = [wheel(name) for name in ("numpy", "pandas", "python-dateutil")]
    box = await boot(SMALL, slots=dict(enumerate(wheels)))
    code = """
import numpy, pandas
frame = pandas.DataFrame({"n": range(600), "x": [0.5, numpy.nan] * 300, "when": pandas.Timestamp("2024-01-02"), "s": ["a", None] * 300, "ok": True})
frame
"""
    answer = await run(box, code, slots=[f"/slots/{slot}" for slot in range(len(wheels))])
    assert answer.fields["traceback"] is None
    assert [output["mime"] for output in answer.outputs] == ["text/html", "application/json"]
    table = json.loads(answer.outputs[1]["data"], parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    assert table["columns"] == ["n", "x", "when", "s", "ok"]
    assert table["rows"][:2] == [[0, 0.5, "2024-01-02 00:00:00", "a", True], [1, None, "2024-01-02 00:00:00", None, True]]
    assert (len(table["rows"]), table["rows_left_out"], table["columns_left_out"]) == (500, 100, 0)
    wide = await run(box, "pandas.DataFrame([range(300)])")
    assert json.loads(wide.outputs[1]["data"])["columns_left_out"] == 100


async def test_values_are_shown_by_ipythons_protocol(box, run):
    answer = await run(box, "class Bundle:\n    def _repr_mimebundle_(self, include=None, exclude=None):\n        return {'text/plain': 'p', 'application/vnd.x+json': {'a': 1}}\nBundle()")
    assert answer.outputs == [{"mime": "application/vnd.x+json", "data": json.dumps({"a": 1})}]
    answer = await run(box, "class Marked:\n    def _repr_markdown_(self): return '**b**'\ndisplay(Marked(), Marked())")
    assert [output["mime"] for output in answer.outputs] == ["text/markdown"] * 2


async def test_more_to_show_than_an_execution_may_is_left_out_and_that_is_said(box, run, value):
    answer = await run(box, "class Large:\n    def _repr_html_(self): return '<p>\\n' * 6_000_000\ndisplay(Large(), Large())")
    assert [output["mime"] for output in answer.outputs] == ["text/html"]
    assert "text/html of 30 MB was left out" in "".join(answer.stderr)
    assert await value(box, "1") == "1"


async def test_what_an_execution_used_is_what_the_kernel_counted(box, run):
    answer = await run(box, "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'x = bytearray(80_000_000); sum(range(5_000_000))'])")
    assert answer.cpu_ms > 50
    assert answer.peak_bytes > 80_000_000
