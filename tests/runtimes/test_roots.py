"""Root filesystems by name: which there are, that one in use stays, and that each boots with its own Python."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ephemeral_sandboxd import roots
from ephemeral_sandboxd.errors import Unavailable
from ephemeral_sandboxd.runtimes import Size, cgroups
from ephemeral_sandboxd.runtimes.gvisor import GVisor

RECORD = {"python": "3.11.2", "glibc": "2.36", "origin": "a test", "recipe": 1, "packages": 3}


def made(store: Path, record: str, identity: str, **more: object) -> None:
    (store / "rootfs" / identity / "usr").mkdir(parents=True, exist_ok=True)
    (store / record).parent.mkdir(parents=True, exist_ok=True)
    (store / record).write_text(json.dumps({**RECORD, "id": identity, **more}))


def test_without_setup_the_error_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        roots.roots(tmp_path)
    assert caught.value.hint == "ephemeral setup"


def test_a_record_of_an_earlier_version_is_the_default(tmp_path: Path) -> None:
    made(tmp_path, "rootfs.json", "aaaa")
    assert roots.roots(tmp_path) == {"default": roots.Root("default", "aaaa", tmp_path / "rootfs/aaaa", "3.11", (2, 36), origin="a test")}


def test_the_others_come_by_their_names_with_what_they_hold(tmp_path: Path) -> None:
    made(tmp_path, "rootfs.json", "aaaa")
    made(tmp_path, "roots/media.json", "bbbb", node="18.20.4", tools=["ffmpeg", "git"], size_bytes=7, created_at=5.5)
    found = roots.roots(tmp_path)
    assert set(found) == {"default", "media"}
    media = found["media"]
    assert (media.node, media.tools, media.size_bytes, media.created_at) == (True, ("ffmpeg", "git"), 7, 5.5)


def test_records_that_cannot_be_read_are_left_out_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path, "rootfs.json", "aaaa")
    made(tmp_path, "roots/good.json", "aaaa")
    made(tmp_path, "roots/gone.json", "cccc")
    shutil.rmtree(tmp_path / "rootfs/cccc")
    for name, text in {"half": "{", "list": "[]", "number": '{"id": 1}', "glibc": json.dumps({**RECORD, "id": "aaaa", "glibc": "musl"})}.items():
        (tmp_path / f"roots/{name}.json").write_text(text)
    assert set(roots.roots(tmp_path)) == {"default", "good"}
    assert all(name in caplog.text for name in ("gone", "half", "list", "number", "glibc"))


def test_several_may_hold_one_and_none_can_hold_what_is_gone(tmp_path: Path) -> None:
    made(tmp_path, "rootfs.json", "aaaa")
    root = roots.roots(tmp_path)["default"]
    descriptors = [roots.hold(root), roots.hold(root)]
    for descriptor in descriptors:
        os.close(descriptor)
    shutil.rmtree(root.path)
    with pytest.raises(Unavailable, match="was removed"):
        roots.hold(root)


@pytest.mark.timeout(900)  # the first time it is fetched from the mirror
async def test_debian_13_stands_beside_debian_12_and_answers_as_python_3_13(parts, run, store: Path, short_directory: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "ephemeral_cli", "rootfs", "add", "trixie", "--suite", "trixie", "--package", "nodejs"], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, env={**os.environ, "EPHEMERAL_STORE": str(store), "EPHEMERAL_STATE": str(store.parent)}, check=False)
    assert done.returncode == 0, done.stderr
    found = roots.roots(store)
    assert (found["default"].python, found["trixie"].python, found["trixie"].glibc) == ("3.11", "3.13", (2, 41))
    place, group = short_directory / "roots", f"/ephemeral-test-{os.getpid()}-roots"
    runtime = GVisor(parts.runsc, found["default"].path, place, group)
    await runtime.check()
    held = roots.hold(found["trixie"])
    box = await runtime.start("trixie", Size(memory_bytes=512 << 20, cpus=1.0, pids=256, disk_bytes=64 << 20), root=found["trixie"].path)
    try:
        answer = await run(box, "import platform, ssl, sqlite3; platform.python_version()")
        assert answer.fields["traceback"] is None
        assert answer.fields["result"].startswith("'3.13.")
    finally:
        await box.delete()
        await runtime.close()
        os.close(held)
        cgroups.Cgroup(group).remove()
        shutil.rmtree(place, ignore_errors=True)
