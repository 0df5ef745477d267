"""Which Docker engines are taken, which are refused, and what each refusal tells to do."""

import contextlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer

import pytest

from ephemeral_sandboxd.errors import Unavailable
from ephemeral_sandboxd.runtimes import Size
from ephemeral_sandboxd.runtimes.docker import DockerRuntime

pytestmark = pytest.mark.asyncio(loop_scope="session")

SMALL = Size(memory_bytes=256 << 20, cpus=1.0, pids=64, disk_bytes=32 << 20)


@contextlib.contextmanager
def _engine_that_knows(runtime: str, path: Path) -> Iterator[None]:
    """An engine that says it knows ``runtime``, and has nothing else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            facts = {"Runtimes": {runtime: {"path": runtime}}, "DefaultRuntime": runtime, "ServerVersion": "26.1", "ApiVersion": "1.45"}
            known = self.path.endswith(("/info", "/version"))
            body = json.dumps(facts if known else {"message": "no"}).encode()
            self.send_response(200 if known else 500)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "engine"

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingUnixStreamServer(str(path), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        try:
            yield
        finally:
            server.shutdown()


async def refusal(runtime: DockerRuntime) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        await runtime.check()
    return caught.value


async def test_without_an_engine_it_says_how_to_get_one(parts, tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    problem = await refusal(DockerRuntime(parts.rootfs, tmp_path, "/g"))
    assert problem.title == "no Docker engine"
    assert "nobody.sock" in problem.detail
    assert "EPHEMERAL_RUNTIME=gvisor" in problem.hint


async def test_an_engine_on_another_machine_is_refused(parts, tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2375")
    assert (await refusal(DockerRuntime(parts.rootfs, tmp_path, "/g"))).title == "Docker engine elsewhere"


async def test_without_a_root_filesystem_it_says_to_run_setup(engine, tmp_path):
    problem = await refusal(DockerRuntime(tmp_path / "none", tmp_path, "/g"))
    assert problem.hint == "ephemeral setup"


async def test_a_runtime_that_the_engine_does_not_know_is_refused(engine, parts, tmp_path):
    problem = await refusal(DockerRuntime(parts.rootfs, tmp_path, "/g", runtime="kata"))
    assert problem.title == "no such OCI runtime"
    assert "knows no runtime kata" in problem.detail
    assert "EPHEMERAL_OCI_RUNTIME" in problem.hint


async def test_a_runtime_that_shares_the_kernel_is_refused_unless_it_is_allowed(engine, parts, tmp_path):
    problem = await refusal(DockerRuntime(parts.rootfs, tmp_path, "/g", runtime="runc"))
    assert problem.title == "weak isolation"
    assert "EPHEMERAL_ALLOW_WEAK_ISOLATION=1" in problem.hint


async def test_weak_isolation_that_was_allowed_runs_and_is_told_as_what_it_is(engine, parts, tmp_path, value):
    runtime = DockerRuntime(parts.rootfs, tmp_path, "/ephemeral-test-weak", runtime="unknown", allow_weak_isolation=True)
    await runtime.check()
    assert runtime.isolation == "runc: shares the host's kernel"
    package = tmp_path / "package"
    package.mkdir(mode=0o755)
    (package / "module.py").touch(0o644)
    box = await runtime.start("weak", SMALL)
    try:
        box.mount(2, package)
        assert await value(box, "import os; os.getuid(), os.listdir('/slots/2')") == "(65534, ['module.py'])"
    finally:
        await box.delete()
    assert await runtime.reap() == 0


async def test_allowing_weak_isolation_does_not_weaken_what_is_strong(engine, parts, tmp_path):
    runtime = DockerRuntime(parts.rootfs, tmp_path, "/g", allow_weak_isolation=True)
    await runtime.check()
    assert runtime.isolation.startswith("gVisor (runsc, Docker ")


@pytest.mark.parametrize(("name", "told"), [("kata-qemu", "microVM (kata-qemu, Docker "), ("sysbox", "as isolated as sysbox is, the operator's choice (sysbox, Docker ")])
async def test_other_runtimes_are_told_as_what_their_names_say(parts, tmp_path, monkeypatch, name, told):
    with _engine_that_knows(name, tmp_path / "docker.sock"):
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
        runtime = DockerRuntime(parts.rootfs, tmp_path, "/g", runtime=name)
        with pytest.raises(Unavailable):
            await runtime.check()  # that engine has no images
    assert runtime.isolation.startswith(told)


async def test_the_image_of_a_root_filesystem_that_is_gone_is_taken_back(engine, parts, tmp_path):
    root = tmp_path / "old-root"
    (root / "etc").mkdir(parents=True)
    runtime = DockerRuntime(root, tmp_path, "/g")
    await runtime.check()
    assert engine.client.images.list("ephemeral-rootfs:old-root")
    shutil.rmtree(root)
    await DockerRuntime(parts.rootfs, tmp_path, "/g").check()
    assert not engine.client.images.list("ephemeral-rootfs:old-root")
    assert engine.client.images.list(f"ephemeral-rootfs:{parts.rootfs.name}")


async def test_the_engine_is_given_the_root_filesystem_once(engine, parts, tmp_path):
    for _ in range(2):
        await DockerRuntime(parts.rootfs, tmp_path, "/g").check()
    images = engine.client.images.list("ephemeral-rootfs")
    assert [image.tags for image in images] == [[f"ephemeral-rootfs:{parts.rootfs.name}"]]


async def test_the_live_container_is_what_the_spec_says(engine, parts, tmp_path):
    runtime = DockerRuntime(parts.rootfs, tmp_path, "/ephemeral-test-live")
    await runtime.check()
    box = await runtime.start("audited", SMALL)
    try:
        facts = runtime.facts("audited")
    finally:
        await box.delete()
    host, config = facts["HostConfig"], facts["Config"]
    assert host["Runtime"] == "runsc"
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert not host["Privileged"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["ReadonlyRootfs"]
    assert (host["NetworkMode"], host["IpcMode"], host["PidMode"], host["UTSMode"], host["UsernsMode"]) == ("none", "private", "", "", "")
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"], host["NanoCpus"]) == (256 << 20, 256 << 20, 64, 10**9)
    assert host["LogConfig"]["Type"] == "none"
    assert host["RestartPolicy"]["Name"] in ("", "no")
    assert not host["Binds"]
    assert not host["Devices"]
    assert config["User"] == "65534:65534"
    assert {mount["Destination"]: (mount["RW"], mount["Propagation"]) for mount in facts["Mounts"]} == {
        "/slots": (False, "rslave"), "/ephemeral": (False, "rprivate")}
