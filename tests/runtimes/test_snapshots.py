"""Checkpoint and restore: the gvisor runtime has them, the docker runtime says that it has not."""

import ast
import shutil

import pytest

from ephemeral_sandboxd.errors import Unavailable
from ephemeral_sandboxd.runtimes import Size

pytestmark = pytest.mark.asyncio(loop_scope="session")

SMALL = Size(memory_bytes=512 << 20, cpus=1.0, pids=256, disk_bytes=128 << 20)


async def photograph(box, folder, code=""):
    await box.request("preload", module="decimal")
    await box.execute(code + "\nkept = {'a': 1}\ndef f(): return 'f'", language="python", timeout=60, output_bytes=1000, slots=[], first=[])
    await box.request("settle")
    folder.mkdir()
    await box.checkpoint(folder)
    await box.delete()
    return folder


async def test_a_restored_sandbox_goes_on_with_modules_and_variables(place, boot, run, value, tmp_path):
    if not place.runtime.can_snapshot:
        await _says_that_it_cannot(place, await boot(), tmp_path)
        return
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "held.py").write_text("where = 'slot'")
    image = await photograph(await boot(slots={0: tmp_path / "package"}), tmp_path / "image")
    box = await boot(image=image, slots={0: tmp_path / "package"})
    assert await value(box, "import sys; 'decimal' in sys.modules, kept, f()") == "(True, {'a': 1}, 'f')"
    assert (await run(box, "import held; held.where", slots=["/slots/0"])).fields["result"] == "'slot'"
    assert (await run(box, "import decimal")).fields["import_ms"] == 0


DRAWN = """
import os, random, secrets, ssl, sys, tempfile, uuid
sys.path.append("/slots/0")
import numpy
def draw():
    once = uuid.uuid1()
    return {"random": random.random(), "urandom": os.urandom(8), "secrets": secrets.token_hex(8), "uuid4": uuid.uuid4().hex, "node": once.node,
            "clock": (once.clock_seq, once.time), "tempfile": tempfile.mktemp(), "numpy": float(numpy.random.random()),
            "generator": float(numpy.random.default_rng().random()), "openssl": ssl.RAND_bytes(8)}
"""
"""Every source of chance that Python code usually has, all used once before the snapshot."""


async def test_copies_of_one_snapshot_have_randomness_of_their_own(place, boot, value, tmp_path, wheel):
    if not place.runtime.can_snapshot:
        await _says_that_it_cannot(place, await boot(), tmp_path)
        return
    slots = {0: wheel("numpy")}
    image = await photograph(await boot(slots=slots), tmp_path / "image", DRAWN + "draw()")
    boxes = [await boot(image=image, slots=slots), await boot(image=image, slots=slots)]
    drawn = [ast.literal_eval(str(await value(box, "draw()"))) for box in boxes]
    assert [name for name in drawn[0] if drawn[0][name] == drawn[1][name]] == []


async def test_a_damaged_image_is_refused_and_leaves_nothing(place, boot, tmp_path):
    if not place.runtime.can_snapshot:
        await _says_that_it_cannot(place, await boot(), tmp_path)
        return
    image = await photograph(await boot(), tmp_path / "image")
    largest = max(image.iterdir(), key=lambda file: file.stat().st_size)
    with largest.open("r+b") as file:
        file.truncate(largest.stat().st_size // 2)
    with pytest.raises(Unavailable, match="sandbox did not start: damaged"):
        await place.runtime.start("damaged", SMALL, image)
    assert place.left("damaged") == []
    shutil.rmtree(image)
    with pytest.raises(Unavailable):
        await place.runtime.start("missing", SMALL, image)
    assert place.left("missing") == []


async def _says_that_it_cannot(place, box, tmp_path):
    with pytest.raises(Unavailable, match="the docker runtime cannot make one"):
        await box.checkpoint(tmp_path / "none")
    with pytest.raises(Unavailable, match="the docker runtime cannot restore one"):
        await place.runtime.start("restored", SMALL, tmp_path)
    assert place.left("restored") == []


async def test_a_fingerprint_is_the_same_for_the_same_host_and_runtime(place):
    assert place.runtime.fingerprint() == place.runtime.fingerprint()
    assert len(place.runtime.fingerprint()) == 64
