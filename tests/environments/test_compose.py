from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ephemeral_sandboxd import mounts
from ephemeral_sandboxd.environments.compose import compose, link


@pytest.fixture
def layers(tmp_path: Path) -> list[Path]:
    """Three directories; each has a file of its own, one that all have, and one in a common package."""
    made = []
    for number in range(3):
        layer = tmp_path / f"layer {number}"
        (layer / "shared").mkdir(parents=True)
        (layer / f"own{number}.py").write_text(str(number))
        (layer / "all.py").write_text(str(number))
        (layer / f"shared/part{number}.py").write_text(str(number))
        made.append(layer)
    return made


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    assert os.geteuid() == 0, "mounting needs root: run the tests as root"
    yield tmp_path / "mount"
    while (tmp_path / "mount").exists() and mounts.is_mount(tmp_path / "mount"):
        mounts.unmount(tmp_path / "mount")


def test_layers_become_one_read_only_directory_in_which_the_first_wins(layers: list[Path], target: Path, tmp_path: Path) -> None:
    assert compose(layers, target, tmp_path / "links") == target
    assert mounts.is_mount(target)
    assert (target / "all.py").read_text() == "0"
    assert sorted(os.listdir(target / "shared")) == ["part0.py", "part1.py", "part2.py"]
    with pytest.raises(OSError, match="Read-only"):
        (target / "new.py").touch()


def test_one_layer_is_shown_as_it_is(layers: list[Path], target: Path, tmp_path: Path) -> None:
    compose(layers[:1], target, tmp_path / "links")
    assert (target / "all.py").samefile(layers[0] / "all.py")
    with pytest.raises(OSError, match="Read-only"):
        (target / "new.py").touch()


def test_no_layer_at_all_is_an_empty_directory(target: Path, tmp_path: Path) -> None:
    compose([], target, tmp_path / "links")
    assert os.listdir(target) == []


def test_composing_again_replaces_what_was_there(layers: list[Path], target: Path, tmp_path: Path) -> None:
    compose(layers, target, tmp_path / "links")
    compose(layers[1:], target, tmp_path / "links")
    assert (target / "all.py").read_text() == "1"
    mounts.unmount(target)
    assert not mounts.is_mount(target)


def test_three_hundred_layers_fit(tmp_path: Path, target: Path) -> None:
    many = []
    for number in range(300):
        layer = tmp_path / "store" / f"{number:064}" / "site"
        layer.mkdir(parents=True)
        (layer / f"m{number}.py").touch()
        many.append(layer)
    compose(many, target, tmp_path / "links")
    assert len(os.listdir(target)) == 300


def test_without_mounts_the_layers_are_hard_linked_with_the_same_result(layers: list[Path], tmp_path: Path) -> None:
    link(layers, tmp_path / "links/one")
    assert (tmp_path / "links/one/all.py").samefile(layers[0] / "all.py")
    assert sorted(os.listdir(tmp_path / "links/one/shared")) == ["part0.py", "part1.py", "part2.py"]
    assert os.listdir(tmp_path / "links") == ["one"]
    link(layers[1:], tmp_path / "links/one")
    assert (tmp_path / "links/one/all.py").read_text() == "0"


def test_who_may_not_mount_gets_links(layers: list[Path], tmp_path: Path) -> None:
    """In a process without the capability: as root, but with CAP_SYS_ADMIN taken away."""
    program = ("import ctypes, sys; from pathlib import Path\n"
               "libc = ctypes.CDLL(None, use_errno=True)\n"
               "header = (ctypes.c_uint32 * 2)(0x20080522, 0); data = (ctypes.c_uint32 * 6)()\n"
               "assert libc.capget(header, data) == 0\n"
               "data[0] &= ~(1 << 21); data[1] &= ~(1 << 21)\n"
               "assert libc.capset(header, data) == 0\n"
               "from ephemeral_sandboxd.environments.compose import compose\n"
               "*layers, target, links = map(Path, sys.argv[1:])\n"
               "print(compose(layers, target, links))\n")
    ran = subprocess.run([sys.executable, "-c", program, *map(str, layers), str(tmp_path / "mount"), str(tmp_path / "links/x")],
                         capture_output=True, text=True)
    assert ran.stdout.strip() == str(tmp_path / "links/x"), ran.stderr
    assert (tmp_path / "links/x/own2.py").exists()


@pytest.mark.parametrize("act", [
    lambda folder: mounts.bind(folder / "missing", folder), lambda folder: mounts.bind(folder, folder / "missing"),
    lambda folder: mounts.overlay([folder / "missing", folder], folder),
])
def test_a_failure_names_the_path(tmp_path: Path, act: Callable[[Path], None]) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        act(tmp_path)
    assert caught.value.filename == str(tmp_path / "missing")


def test_unmounting_what_is_not_mounted_is_nothing(tmp_path: Path) -> None:
    mounts.unmount(tmp_path)
    mounts.unmount(tmp_path / "missing")


def test_a_bind_can_show_one_file_and_stay_writable(tmp_path: Path) -> None:
    (tmp_path / "source").write_text("a")
    (tmp_path / "place").touch()
    mounts.bind(tmp_path / "source", tmp_path / "place", readonly=False)
    try:
        (tmp_path / "place").write_text("b")
    finally:
        mounts.unmount(tmp_path / "place")
    assert (tmp_path / "source").read_text() == "b"


def test_mounts_of_a_private_namespace_are_gone_with_a_killed_process(tmp_path: Path) -> None:
    program = ("import sys; from pathlib import Path; from ephemeral_sandboxd import mounts\n"
               "mounts.private_namespace(); place = Path(sys.argv[1]); mounts.bind(Path('/usr'), place)\n"
               "print(mounts.is_mount(place), flush=True); sys.stdin.read()\n")
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        assert not mounts.is_mount(tmp_path)
    finally:
        process.kill()
        process.communicate()
    assert os.listdir(tmp_path) == []


def test_a_private_namespace_is_refused_once_there_are_threads() -> None:
    program = ("import threading; from ephemeral_sandboxd import mounts\n"
               "stop = threading.Event(); thread = threading.Thread(target=stop.wait); thread.start()\n"
               "try:\n    mounts.private_namespace()\nexcept RuntimeError as error:\n    print(error)\nfinally:\n    stop.set()\n")
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "before any thread" in ran.stdout, ran.stderr


def test_a_mount_below_a_shared_one_appears_in_the_copy_that_a_sandbox_has(tmp_path: Path) -> None:
    """The copy: a child in a namespace of its own that receives mounts, as runsc's gofer does."""
    program = ("import ctypes, os, sys; from pathlib import Path; from ephemeral_sandboxd import mounts\n"
               "mounts.private_namespace(); slots = Path(sys.argv[1]); (slots / '0').mkdir(); mounts.make_shared(slots); mounts.make_shared(slots)\n"
               "go, done = os.pipe(), os.pipe(); child = os.fork()\n"
               "if child == 0:\n"
               "    libc = ctypes.CDLL(None); libc.unshare(0x20000); libc.mount(b'none', b'/', None, ctypes.c_ulong(0x4000 | 1 << 19), None)\n"
               "    os.write(done[1], b'.'); os.read(go[0], 1); print(os.path.exists(slots / '0/bin'), flush=True); os._exit(0)\n"
               "os.read(done[0], 1); mounts.bind(Path('/usr'), slots / '0'); os.write(go[1], b'.'); os.waitpid(child, 0)\n")
    ran = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert ran.stdout == "True\n", ran.stderr
