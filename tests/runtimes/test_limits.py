"""What code may not do to itself, to its neighbours or to the host: each with its named verdict."""

import time

import pytest

from ephemeral_sandboxd.runtimes import Size
from ephemeral_sandboxd.runtimes.frames import LARGEST_FRAME_BYTES

pytestmark = pytest.mark.asyncio(loop_scope="session")

TINY = Size(memory_bytes=256 << 20, cpus=1.0, pids=64, disk_bytes=32 << 20)


async def test_a_timeout_interrupts_the_code_and_keeps_its_variables(box, run, value):
    await run(box, "kept = 'yes'")
    answer = await run(box, "while True: pass", timeout=1)
    assert answer.interrupted
    assert answer.gone is None
    assert answer.fields["traceback"] == "KeyboardInterrupt: the execution was interrupted\n"
    assert await value(box, "kept") == "'yes'"


async def test_code_that_ignores_the_interrupt_is_killed(boot, run):
    box = await boot()
    answer = await run(box, "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('on')\nwhile True: pass", timeout=1)
    assert answer.gone.verdict == "timeout"
    assert "".join(answer.stdout) == "on\n"
    assert not box.alive
    assert (await run(box, "1")).gone.verdict == "timeout"


async def test_a_child_that_was_sent_away_does_not_outlive_its_sandbox(place, boot, run):
    box = await boot()
    answer = await run(box, "import subprocess\nchild = subprocess.Popen(['sleep', '600'], start_new_session=True)\nchild.poll()")
    assert answer.gone is None
    await box.delete()
    assert place.left(box.name) == []


async def test_a_memory_hog_dies_alone_of_its_memory(boot, box, run, value):
    hog = await boot(TINY)
    answer = await run(hog, "print('before')\nx = b'x' * (1 << 30)")
    assert answer.gone.verdict == "memory"
    assert "256 MiB" in answer.gone.reason
    assert "".join(answer.stdout) == "before\n"
    assert await value(box, "1 + 1") == "2"


async def test_scratch_is_limited_and_counts_as_memory(boot, run, value):
    box = await boot(TINY)
    answer = await run(box, "with open('/scratch/big', 'wb') as file:\n    while True: file.write(bytes(1 << 20))")
    assert answer.gone is None
    assert "No space left on device" in answer.fields["traceback"]
    assert 30 << 20 <= int(await value(box, "import os; os.path.getsize('/scratch/big')")) <= 32 << 20


async def test_a_fork_bomb_is_contained_and_its_neighbours_still_answer(boot, box, run, value):
    bomber = await boot(TINY)
    began = time.monotonic()
    answer = await run(bomber, "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", timeout=10)
    assert answer.gone is not None
    assert answer.gone.verdict in ("killed", "timeout")
    assert time.monotonic() - began < 60
    assert await value(box, "2 + 2") == "4"


async def test_an_interpreter_that_exits_has_crashed(place, boot, run):
    box = await boot()
    answer = await run(box, "print('last words')\nimport os; os._exit(3)")
    assert answer.gone.verdict == "crashed"
    assert "".join(answer.stdout) == "last words\n"
    assert "ended with status 3" in answer.gone.reason


async def test_a_segmentation_fault_has_crashed(place, boot, run):
    answer = await run(await boot(), "import ctypes; ctypes.string_at(0)")
    assert answer.gone.verdict == "crashed"
    assert "SIGSEGV" in answer.gone.reason


async def test_a_gigabyte_of_output_is_counted_and_costs_the_host_nothing(boot, run, value):
    box = await boot()
    answer = await run(box, "text = 'x' * (1 << 20)\nfor _ in range(1024): print(text, end='')", output_bytes=65536, timeout=120)
    assert answer.gone is None
    assert len("".join(answer.stdout)) == 65536
    assert answer.fields["dropped"] == (1 << 30) - 65536
    assert await value(box, "'alive'") == "'alive'"


STEAL = "import os, struct, sys\nfd = sys.stdout.buffer.raw._output._channel._write_fd\n"
"""Code that talks to the host in the guest's name: nothing inside a sandbox can keep it from that."""


@pytest.mark.parametrize(("forged", "reason"), [
    (f"os.write(fd, struct.pack('>I', {LARGEST_FRAME_BYTES} + 1))", "a frame of"),
    ("os.write(fd, struct.pack('>I', 5) + b'nope!')", "not JSON"),
    ("os.write(fd, struct.pack('>I', 2) + b'[]')", "not an object"),
], ids=["too long", "not JSON", "not an object"])
async def test_a_guest_that_talks_nonsense_is_ended(boot, run, forged, reason):
    box = await boot()
    answer = await run(box, STEAL + forged + "\nimport time; time.sleep(60)")
    assert answer.gone.verdict == "crashed"
    assert reason in answer.gone.reason


async def test_a_guest_that_ignores_its_allowance_is_ended(boot, run):
    box = await boot()
    answer = await run(box, STEAL + """
import json
body = json.dumps({'op': 'stdout', 'id': 1, 'text': 'x' * 100_000}).encode()
while True:
    frame = memoryview(struct.pack('>I', len(body)) + body)
    while frame: frame = frame[os.write(fd, frame):]
""", output_bytes=1000)
    assert answer.gone.verdict == "output"
    assert len("".join(answer.stdout)) < 1_000_000


async def test_a_forged_answer_of_the_wrong_shape_is_refused(boot, run):
    box = await boot()
    answer = await run(box, STEAL + """
import json
body = json.dumps({'op': 'done', 'id': 1, 'late': 5}).encode()
os.write(fd, struct.pack('>I', len(body)) + body)
""")
    assert answer.gone.verdict == "crashed"


async def test_forged_answers_to_other_requests_are_not_believed(box, run, value):
    answer = await run(box, STEAL + """
import json
for identity in (0, 999999, None, 'x', [1]):
    body = json.dumps({'op': 'done', 'id': identity, 'result': 'forged'}).encode()
    os.write(fd, struct.pack('>I', len(body)) + body)
'true'
""")
    assert answer.fields["result"] == "'true'"
    assert await value(box, "'next'") == "'next'"
