"""A daemon that will be killed: boots one sandbox, says so, and waits for SIGKILL. Arguments: runtime, runsc, rootfs, run, group, slot."""

import asyncio
import sys
from pathlib import Path

import uvloop

from ephemeral_sandboxd import mounts
from ephemeral_sandboxd.runtimes import Size
from ephemeral_sandboxd.runtimes.docker import DockerRuntime
from ephemeral_sandboxd.runtimes.gvisor import GVisor


async def main(kind: str, runsc: str, rootfs: str, run: str, group: str, slot: str) -> None:
    runtime = GVisor(Path(runsc), Path(rootfs), Path(run), group) if kind == "gvisor" else DockerRuntime(Path(rootfs), Path(run), group)
    await runtime.check()
    box = await runtime.start("orphan", Size(256 << 20, 1.0, 64, 32 << 20), slots={0: Path(slot)})
    await box.execute("import subprocess; child = subprocess.Popen(['sleep', '600'])", language="python", timeout=60, output_bytes=1000, slots=[], first=[])
    box.freeze()
    print("frozen", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[1] == "gvisor":
        mounts.private_namespace()  # as the daemon does
    uvloop.run(main(*sys.argv[1:]))
