"""Memory of processes that share an address space."""

import os
import subprocess
import sys

from ephemeral_sandboxd.bench import memory

SHARING = """
import os, sys, time
block = bytearray(b"x" * (64 << 20))
if os.fork() == 0:
    block[:] = b"y" * len(block)  # a child with pages of its own
    sys.stdout.write("ready\\n"); sys.stdout.flush()
    time.sleep(600)
os.wait()
"""


def test_a_descendants_own_pages_count_and_its_ancestors_do_not_twice() -> None:
    before = memory.tree_pss_mb()
    with subprocess.Popen([sys.executable, "-c", SHARING], stdout=subprocess.PIPE, text=True, start_new_session=True) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == "ready\n"
        grown = memory.tree_pss_mb() - before
        os.killpg(parent.pid, 9)
    assert 120 < grown < 190  # 64 MB of each


def test_a_sandbox_that_is_not_there_takes_nothing() -> None:
    assert memory.sandbox_pss_mb("no-such-sandbox") == 0
