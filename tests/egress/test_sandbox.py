"""The way out of a real sandbox: its own network stays empty, and what was granted is reached through its pipe."""

from __future__ import annotations

import ipaddress
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ephemeral_sandboxd import host, process
from ephemeral_sandboxd.egress import Egress, EgressRecord
from ephemeral_sandboxd.runtimes import Box, Size
from ephemeral_sandboxd.runtimes.gvisor import GVisor

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")]

SMALL = Size(memory_bytes=512 << 20, cpus=1.0, pids=256, disk_bytes=128 << 20)


@pytest.fixture
async def box(store: Path, tmp_path: Path) -> AsyncIterator[Box]:
    process.quiet()
    parts = host.parts(store)
    runtime = GVisor(parts.runsc, parts.rootfs, tmp_path / "run", f"/ephemeral-test-{os.getpid()}-egress")
    await runtime.check()
    box = await runtime.start("egress", SMALL)
    yield box
    await box.delete()
    await runtime.close()
    shutil.rmtree(tmp_path / "run", ignore_errors=True)


async def result_of(box: Box, code: str) -> str:
    answer = await box.execute(code, language="python", timeout=60, output_bytes=10_000, slots=[], first=[])
    assert answer.fields.get("traceback") is None, answer.fields
    return answer.fields["result"]


async def test_code_reaches_what_was_granted_and_nothing_else(box, servers):
    records: list[EgressRecord] = []
    egress = Egress([f"localhost:{servers.http}"], box.send_network, records.append, permit=LOOPBACK)
    await box.open_network(egress.receive)
    get = "import urllib.request, urllib.error\ndef get(url):\n    try:\n        return urllib.request.urlopen(url, timeout=30).read()[:60]\n    except urllib.error.HTTPError as e:\n        return e.code\n"
    # urllib leaves localhost out of proxies (no_proxy): the sandbox's own loopback is not the host's.
    opener = "import os\nos.environ['no_proxy'] = os.environ['NO_PROXY'] = 'none'\n"
    assert await result_of(box, opener + get + f"get('http://localhost:{servers.http}/hello')") == f"b'/hello localhost:{servers.http} None'"
    assert await result_of(box, "get('http://example.com/')") == "403"
    assert await result_of(box, f"len(urllib.request.urlopen('http://localhost:{servers.http}/big', timeout=60).read())") == str(2 << 20)
    raw = "import socket\ns = socket.socket(); s.settimeout(3)\ntry:\n    s.connect(('93.184.216.34', 80)); out = 'reached'\nexcept OSError as e:\n    out = 'no network'\nout"
    assert await result_of(box, raw) == "'no network'"
    assert [record.verdict for record in records] == ["allowed", "refused", "allowed"]
    await egress.close()


async def test_connections_of_background_threads_work_between_executions(box, servers):
    egress = Egress([f"localhost:{servers.http}"], box.send_network, lambda record: None, permit=LOOPBACK)
    await box.open_network(egress.receive)
    code = f"import os, threading, urllib.request\nos.environ['no_proxy'] = os.environ['NO_PROXY'] = 'none'\nfound = []\n" \
           f"thread = threading.Thread(target=lambda: found.append(urllib.request.urlopen('http://localhost:{servers.http}/later').read()[:6]))\nthread.start()"
    await box.execute(code, language="python", timeout=60, output_bytes=10_000, slots=[], first=[])
    assert await result_of(box, "thread.join(30)\nfound") == "[b'/later']"
    await egress.close()
