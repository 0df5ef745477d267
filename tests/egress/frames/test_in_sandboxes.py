"""Programs in real sandboxes of both runtimes: their own network stays empty, and what was granted is reached through their pipe."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from ephemeral_sandboxd import host, process
from ephemeral_sandboxd.egress import Egress, EgressRecord
from ephemeral_sandboxd.runtimes import Box, Size, cgroups
from ephemeral_sandboxd.runtimes.docker import DockerRuntime
from ephemeral_sandboxd.runtimes.gvisor import FLAGS, GVisor

pytestmark = pytest.mark.asyncio(loop_scope="session")
SIZE = Size(memory_bytes=512 << 20, cpus=1.0, pids=256, disk_bytes=128 << 20)

TOOLS = """
import json, os, socket, ssl, threading, time, urllib.error, urllib.request
trusting = ssl.create_default_context(cadata=AUTHORITY)

def fetch(url, data=None):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=60, context=trusting) as answer:
            return [answer.status, answer.read().decode()]
    except urllib.error.HTTPError as problem:
        return [problem.code, problem.read().decode()]
    except OSError as problem:
        return [0, str(problem)]

def proxy():
    host, port = os.environ["http_proxy"].rpartition("/")[2].split(":")
    return host, int(port)
"""


@pytest.fixture(scope="module")
def parts(store: Path) -> host.Parts:
    process.quiet()
    if os.geteuid():
        pytest.fail("sandboxes need root (mounts, control groups): run as root or with sudo")
    return host.parts(store)


@pytest.fixture(scope="module")
def engine(parts: host.Parts) -> Iterator[None]:
    """A Docker engine of the tests' own; DOCKER_HOST names it."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("engine", Path(__file__).parents[2] / "engine.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.MonkeyPatch.context() as patch, module.engine(parts.runsc, FLAGS) as running:
        patch.setenv("DOCKER_HOST", running.host)
        yield


class Inside:
    """A sandbox whose network leads to ``egress``, which tests replace as a changed grant does."""

    def __init__(self, box: Box):
        self.box = box
        self.records: list[EgressRecord] = []
        self.egress: Egress | None = None

    async def grant(self, allow: list[str], **more: Any) -> None:
        first = self.egress is None
        if self.egress:
            await self.egress.close()
        self.records = []
        self.egress = Egress(allow, self.box.send_network, self.records.append, **more)
        if first:
            await self.box.open_network(self.egress.receive)
        else:
            self.box.on_network = self.egress.receive

    async def recorded(self, count: int) -> None:
        """Wait until so many connections have ended."""
        async with asyncio.timeout(30):
            while len(self.records) < count:
                await asyncio.sleep(0.005)

    async def value(self, code: str) -> Any:
        """What the expression at the end of ``code`` is."""
        lines = code.strip().split("\n")
        answer = await self.box.execute("\n".join([*lines[:-1], f"json.dumps({lines[-1]})"]), language="python", timeout=120, output_bytes=1 << 20, slots=[], first=[])
        assert answer.gone is None, answer.gone
        assert answer.fields["traceback"] is None, answer.fields["traceback"]
        return json.loads(answer.fields["result"][1:-1].encode().decode("unicode_escape"))


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=["gvisor", "docker"])
async def inside(request: pytest.FixtureRequest, parts: host.Parts, authority: Any, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Inside]:
    if request.param == "docker":
        request.getfixturevalue("engine")
    run = tmp_path_factory.mktemp(request.param)
    group = f"/ephemeral-test-{os.getpid()}-egress-{request.param}"
    runtime = GVisor(parts.runsc, parts.rootfs, run, group) if request.param == "gvisor" else DockerRuntime(parts.rootfs, run, group)
    await runtime.check()
    found = Inside(await runtime.start("egress", SIZE))
    await found.grant([])
    pem = authority.cert_pem.bytes().decode()
    assert await found.value(f"AUTHORITY = {pem!r}\n{TOOLS}\nTrue")
    yield found
    assert found.egress
    await found.egress.close()
    await found.box.delete()
    await runtime.close()
    cgroups.Cgroup(group).remove()
    shutil.rmtree(run, ignore_errors=True)


@pytest.fixture
def grant(inside: Inside, names: Any, loopback: Any) -> Callable[..., Any]:
    async def make(allow: list[str], **more: Any) -> Inside:
        await inside.grant(allow, **{"permit": loopback, "resolve": names, **more})
        return inside

    return make


async def test_http_and_https_reach_what_was_granted(grant, web, secure):
    one = await grant([f"api.example.com:{web.port}", f"api.example.com:{secure.port}"])
    assert await one.value(f"fetch('http://api.example.com:{web.port}/a')") == [200, "hello"]
    assert await one.value(f"fetch('https://api.example.com:{secure.port}/a')") == [200, "hello"]
    assert await one.value(f"fetch('https://api.example.com:{secure.port}/', b'sent' * 50_000) == [200, 'sent' * 50_000]")
    await one.recorded(3)
    assert [(record.host, record.scheme, record.verdict) for record in one.records] == [
        ("api.example.com", "http", "allowed"), ("api.example.com", "https", "allowed"), ("api.example.com", "https", "allowed")]


async def test_everything_else_is_refused_and_says_by_which_rule(grant, web, secure):
    one = await grant([f"api.example.com:{web.port}", f"api.example.com:{secure.port}", "inner.example.com", "127.0.0.1"], permit=())
    status, said = await one.value("fetch('http://evil.net/')")
    assert status == 403
    assert 'network=["evil.net"]' in said
    assert (await one.value("fetch('http://169.254.169.254/latest/meta-data')"))[0] == 403
    assert (await one.value("fetch('http://2130706433/')"))[0] == 403
    assert (await one.value("fetch('http://api.example.com/')"))[0] == 403, "another port"
    assert "not public" in (await one.value(f"fetch('http://api.example.com:{web.port}/')"))[1], "a granted name that leads to 127.0.0.1"
    status, said = await one.value("fetch('https://evil.net/')")
    assert (status, "403" in said) == (0, True)
    assert {record.verdict for record in one.records} == {"refused"}
    assert web.seen == []


async def test_the_sandbox_has_no_way_around(grant):
    one = await grant(["api.example.com"])
    direct = await one.value("""
found = []
for family, address in ((socket.AF_INET, ('93.184.215.14', 80)), (socket.AF_INET, ('10.0.0.1', 80)), (socket.AF_INET6, ('2606:4700::1111', 80))):
    try:
        socket.socket(family).connect(address)
        found.append(address)
    except OSError:
        pass
[found, [name for _, name in socket.if_nameindex()]]""")
    assert direct[0] == []
    assert set(direct[1]) <= {"lo"}
    resolved = await one.value("""
try:
    found = socket.getaddrinfo('api.example.com', 80)
except OSError as problem:
    found = str(type(problem))
found""")
    assert "gaierror" in resolved


async def test_a_domain_that_is_granted_later_is_reached_by_the_same_listener(grant, web):
    one = await grant([])
    assert (await one.value(f"fetch('http://api.example.com:{web.port}/')"))[0] == 403
    one = await grant([f"api.example.com:{web.port}"])
    assert (await one.value(f"fetch('http://api.example.com:{web.port}/')"))[0] == 200


async def test_twenty_connections_at_once(grant, secure):
    one = await grant([f"api.example.com:{secure.port}"])
    found = await one.value(f"""
found = [None] * 20
def one(n):
    found[n] = fetch('https://api.example.com:{secure.port}/bytes/' + str(10_000 + n))
threads = [threading.Thread(target=one, args=(n,)) for n in range(20)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
[[status, len(text)] for status, text in found]""")
    assert found == [[200, 10_000 + n] for n in range(20)]


async def test_a_slow_reader_gets_all_and_stops_nobody(grant, web):
    one = await grant([f"api.example.com:{web.port}"])
    found = await one.value(f"""
slow = urllib.request.urlopen('http://api.example.com:{web.port}/bytes/3000000', timeout=60)
first = slow.read(10)
other = fetch('http://api.example.com:{web.port}/')
[len(first), other, len(slow.read())]""")
    assert found == [10, [200, "hello"], 3_000_000 - 10]


async def test_a_connection_ends_although_a_forked_child_holds_a_copy_of_it(grant, web):
    one = await grant([f"api.example.com:{web.port}"])
    said = await one.value(f"""
connection = socket.create_connection(proxy(), timeout=60)
time.sleep(0.3)  # so that the other end of it is there to be copied
child = os.fork()
if not child:
    time.sleep(300)
    os._exit(0)
connection.sendall(b'GET http://api.example.com:{web.port}/ HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n')
said = b''
while piece := connection.recv(65536):
    said += piece
os.kill(child, 9)
os.waitpid(child, 0)
said.decode()[-5:]""")
    assert said == "hello"


async def test_children_of_the_code_use_the_tunnel_too(grant, web):
    one = await grant([f"api.example.com:{web.port}"])
    assert await one.value(f"""
import subprocess, sys
program = "import urllib.request; print(urllib.request.urlopen('http://api.example.com:{web.port}/', timeout=60).read().decode())"
subprocess.run([sys.executable, '-c', program], capture_output=True, text=True).stdout.strip()""") == "hello"


async def test_throughput(grant, secure, web, record_property, request):
    """Measured, not judged."""
    one = await grant([f"api.example.com:{web.port}", f"api.example.com:{secure.port}"])
    for scheme, port in (("http", web.port), ("https", secure.port)):
        count = 32 << 20
        began = time.perf_counter()
        got = await one.value(f"""
answer = urllib.request.urlopen('{scheme}://api.example.com:{port}/bytes/{count}', timeout=120, context=trusting)
got = 0
while piece := answer.read(1 << 18):
    got += len(piece)
got""")
        took = time.perf_counter() - began
        assert got == count
        record_property(f"{scheme} MB/s", round(count / took / 1e6, 1))
        print(f"{request.node.name}: {scheme} {count / took / 1e6:.1f} MB/s")
