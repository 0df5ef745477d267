"""`ephemeral rootfs`, as a person types it: own images in every form, hostile ones, and what is in use.

The images are made here, from a few files of the Debian 13 that the test store has under the name trixie.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import io
import json
import os
import platform
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ephemeral_cli.__main__ import main
from ephemeral_cli.rootfs import probe

pytestmark = pytest.mark.timeout(900)  # the first time trixie is fetched from the mirror
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
Member = tuple[tarfile.TarInfo, bytes]


def ephemeral(store: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command line's own entry, in this process: starting Python each time would take longer than what is tested."""
    out, errors = io.StringIO(), io.StringIO()
    command = ["ephemeral", "rootfs", *arguments]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        patch.setattr(sys, "argv", command)
        for name, value in {"EPHEMERAL_STORE": str(store), "EPHEMERAL_STATE": str(store.parent), "COLUMNS": "200", **variables}.items():
            patch.setenv(name, value)
        try:
            main()
            status: object = 0
        except SystemExit as ended:
            status = ended.code
    return subprocess.CompletedProcess(command, int(str(status or 0)), out.getvalue(), errors.getvalue())


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode in (1, 2), done.stdout + done.stderr
    assert "next: " in done.stderr
    assert all(word in done.stderr for word in words), done.stderr


@pytest.fixture(scope="session")
def own(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store of these tests' own; runsc is the test store's."""
    if os.geteuid():
        pytest.fail("root filesystems need root: run as root or with sudo")
    found = tmp_path_factory.mktemp("own") / "store"
    found.mkdir()
    driver = json.loads((store / "runsc.json").read_text())
    (found / "runsc.json").write_text(json.dumps({**driver, "path": str(store / "bin/runsc")}))
    yield found
    shutil.rmtree(found)


@pytest.fixture(autouse=True)
def _tidy(tmp_path: Path) -> Iterator[None]:
    """pytest keeps the directories of three runs: a gigabyte each, here."""
    yield
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="session")
def small(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar of a root filesystem that has a Python and a shell, and little else."""
    done = ephemeral(store, "add", "trixie", "--suite", "trixie", "--package", "nodejs")
    assert done.returncode == 0, done.stderr
    root = store / "rootfs" / json.loads((store / "roots/trixie.json").read_text())["id"]
    found = tmp_path_factory.mktemp("small") / "small.tar"
    libraries = [str(path.relative_to(root)) for path in (root / f"usr/lib/{platform.machine()}-linux-gnu").glob("*.so*")]
    links = [name for name in ("bin", "lib", "lib64") if (root / name).is_symlink()]
    lib64 = ["usr/lib64"] if (root / "usr/lib64").exists() else []
    programs = ["usr/bin/python3", "usr/bin/python3.13", "usr/bin/dash", "usr/bin/sh", "usr/lib/python3.13"]
    subprocess.run(["tar", "-C", root, "--exclude=__pycache__", "--exclude=*/test", "-cf", found, *links, *lib64, *programs, *libraries, "etc/ld.so.cache"], check=True)
    return found


def extended(small: Path, target: Path, *members: Member) -> Path:
    """``small`` with more in it."""
    shutil.copyfile(small, target)
    with tarfile.open(target, "a") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return target


def file(name: str, content: bytes = b"planted", mode: int = 0o644) -> Member:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    return info, content


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def special(name: str, kind: bytes) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.devmajor, info.devminor, info.mode = kind, 1, 3, 0o666
    return info, b""


def oci(folder: Path, layers: list[Path]) -> Path:
    """An OCI image layout of these layers."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(content: bytes, media: str) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": f"application/vnd.oci.image.{media}+json", "digest": f"sha256:{digest}", "size": len(content)}

    described = [{**blob(layer.read_bytes(), ""), "mediaType": "application/vnd.oci.image.layer.v1.tar"} for layer in layers]
    config = {"architecture": ARCHITECTURE, "os": "linux", "config": {"Env": ["PATH=/opt/py/bin:/usr/bin:/bin"]},
              "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in described]}}
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": blob(json.dumps(config).encode(), "config.v1"), "layers": described}
    index = {"schemaVersion": 2, "manifests": [blob(json.dumps(manifest).encode(), "manifest.v1")]}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder


def root_of(store: Path, name: str) -> Path:
    return store / "rootfs" / json.loads((store / f"roots/{name}.json").read_text())["id"]


# --------------------------------------------------------------------------------------------- what cannot be meant


@pytest.mark.parametrize(("arguments", "words"), [
    (["add", "Not/A/Name"], ["cannot name a root filesystem"]),
    (["add", "../up"], ["cannot name a root filesystem"]),
    (["add", "default"], ["ephemeral setup"]),
    (["add", "x", "--suite", "noble"], ["no suite 'noble'", "--suite trixie"]),
    (["add", "x", "--package", "git,?essential"], ["not the name of a Debian package"]),
    (["add", "x", "--image", "-v"], ["not the name of an image"]),
    (["add", "x", "--image", "a", "--archive", "b"], ["exclude each other"]),
    (["add", "x", "--image", "a", "--package", "git"], ["exclude each other"]),
    (["add", "x", "--archive", "/no/such/file"], ["there is no file /no/such/file"]),
    (["remove", "default"], ["cannot be removed"]),
    (["remove", "nobody"], ["there is no root filesystem nobody"]),
])
def test_what_cannot_be_meant_is_one_sentence_and_what_to_type(own: Path, arguments: list[str], words: list[str]) -> None:
    refused(ephemeral(own, *arguments), *words)
    assert not list((own / "rootfs").glob(".making-*"))


def test_without_any_list_says_setup_and_json_is_an_empty_list(tmp_path: Path) -> None:
    refused(ephemeral(tmp_path, "list"), "ephemeral setup")
    assert json.loads(ephemeral(tmp_path, "list", "--json").stdout) == []


def test_without_runsc_nothing_is_tried(tmp_path: Path, small: Path) -> None:
    refused(ephemeral(tmp_path, "add", "x", "--archive", str(small)), "runsc is not set up", "ephemeral setup")


# --------------------------------------------------------------------------------------------- archives


def test_a_tar_of_a_root_filesystem_becomes_one_with_its_facts(own: Path, small: Path, tmp_path: Path) -> None:
    packed = extended(small, tmp_path / "mine.tar", file("usr/bin/git", b"#!/bin/sh\n", 0o755), file("opt/mine/data", b"42"))
    subprocess.run(["gzip", "-1", packed], check=True)
    done = ephemeral(own, "add", "mine", "--archive", f"{packed}.gz")
    assert done.returncode == 0, done.stderr
    (listed,) = [entry for entry in json.loads(ephemeral(own, "list", "--json").stdout) if entry["name"] == "mine"]
    assert listed["python"].startswith("3.13.")
    assert (listed["glibc"], listed["node"], listed["tools"], listed["suite"]) == ("2.41", None, ["git"], None)
    assert listed["size_bytes"] > 10 << 20
    assert "mine.tar.gz" in listed["origin"]
    root = root_of(own, "mine")
    assert (root / "opt/mine/data").read_bytes() == b"42"
    assert all((root / name).is_dir() and not (root / name).is_symlink() for name in ("dev/shm", "ephemeral", "proc", "scratch", "slots", "sys", "tmp"))
    assert "mine" in ephemeral(own, "list").stdout


def test_layers_whiteouts_and_the_path_of_an_oci_image_are_heeded(own: Path, small: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    lower = extended(small, tmp_path / "lower.tar", file("opt/old"), file("opt/kept", b"kept"), link("opt/py/bin/python3", "/usr/bin/python3.13"))
    upper = tmp_path / "upper.tar"
    with tarfile.open(upper, "w") as archive:
        for info, content in (file("opt/.wh.old", b""), link("out", str(outside)), file("out/planted"), file("../../../../../../planted-by-a-layer"), file("/absolute")):
            archive.addfile(info, io.BytesIO(content))
    done = ephemeral(own, "add", "layered", "--archive", str(oci(tmp_path / "layout", [lower, upper])))
    assert done.returncode == 0, done.stderr
    root = root_of(own, "layered")
    assert sorted(entry.name for entry in (root / "opt").iterdir()) == ["kept", "py"]
    assert (root / "usr/bin/python3").readlink() == Path("/opt/py/bin/python3")  # the guest is the Python that a shell in it would start
    assert list(outside.iterdir()) == []
    assert not Path("/planted-by-a-layer").exists()
    assert not Path("/absolute").exists()


def test_the_packages_of_an_images_virtual_environment_are_seen(own: Path, small: Path, tmp_path: Path) -> None:
    venv = (link("opt/py/bin/python3", "/usr/bin/python3.13"), file("opt/py/pyvenv.cfg", b"home = /usr/bin\ninclude-system-site-packages = false\n"),
            file("opt/py/lib/python3.13/site-packages/mine.py", b"answer = 42"))
    layers = [extended(small, tmp_path / "layer.tar", *venv)]
    done = ephemeral(own, "add", "venv", "--archive", str(oci(tmp_path / "layout", layers)))
    assert done.returncode == 0, done.stderr
    (found,) = root_of(own, "venv").glob("usr/**/*.pth")
    assert found.parent.name == "dist-packages"  # where Debian's Python looks, once it is not in a virtual environment
    assert found.read_text() == "/opt/py/lib/python3.13/site-packages\n"


def test_what_docker_save_writes_and_an_oci_archive_hold_the_same_as_the_layout(own: Path, small: Path, tmp_path: Path) -> None:
    layout = oci(tmp_path / "layout", [extended(small, tmp_path / "layer.tar", link("opt/py/bin/python3", "/usr/bin/python3.13"))])
    subprocess.run(["tar", "-C", layout, "-cf", tmp_path / "oci.tar", "."], check=True)
    assert ephemeral(own, "add", "oci", "--archive", str(tmp_path / "oci.tar")).returncode == 0
    # The format of engines before version 25: manifest.json, a configuration, a tar a layer.
    config = next(path for path in (layout / "blobs/sha256").iterdir() if path.read_bytes()[:16] == b'{"architecture":')
    saved = tmp_path / "saved"
    saved.mkdir()
    shutil.copy(config, saved / f"{config.name}.json")
    shutil.copy(tmp_path / "layer.tar", saved / "layer.tar")
    (saved / "manifest.json").write_text(json.dumps([{"Config": f"{config.name}.json", "RepoTags": ["mine:latest"], "Layers": ["layer.tar"]}]))
    subprocess.run(["tar", "-C", saved, "-cf", tmp_path / "saved.tar", "manifest.json", f"{config.name}.json", "layer.tar"], check=True)
    done = ephemeral(own, "add", "saved", "--archive", str(tmp_path / "saved.tar"))
    assert done.returncode == 0, done.stderr
    assert root_of(own, "saved") == root_of(own, "oci")  # shared, as they hold the same
    assert ephemeral(own, "remove", "oci").returncode == 0
    assert root_of(own, "saved").is_dir()


# --------------------------------------------------------------------------------------------- hostile ones


def test_an_archive_leaves_no_privilege_and_touches_nothing_outside(own: Path, small: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    capability = tarfile.TarInfo("usr/bin/capable")
    capability.pax_headers = {"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}
    foreign = file("opt/foreign", mode=0o666)
    foreign[0].uid = foreign[0].gid = 1000
    hostile = extended(
        small, tmp_path / "hostile.tar", file(f"{outside}/absolute"), link("out", str(outside)), link("dev", str(outside)),
        link("scratch", str(outside)), file("usr/bin/setuid", mode=0o6755), (capability, b""), special("null", tarfile.CHRTYPE), special("disk", tarfile.BLKTYPE),
        special("pipe", tarfile.FIFOTYPE), foreign, link("etc/resolv.conf", str(outside / "precious")))
    done = ephemeral(own, "add", "hostile", "--archive", str(hostile))
    assert done.returncode == 0, done.stderr
    assert [(entry.name, entry.read_text()) for entry in outside.iterdir()] == [("precious", "precious")]
    root = root_of(own, "hostile")
    for folder, directories, names in os.walk(root):
        for name in (*directories, *names):
            path = os.path.join(folder, name)
            state = os.lstat(path)
            assert (state.st_uid, state.st_gid) == (0, 0), path
            if not stat.S_ISLNK(state.st_mode):
                assert stat.S_ISREG(state.st_mode) or stat.S_ISDIR(state.st_mode), path
                assert not state.st_mode & 0o7022, path
                assert "security.capability" not in os.listxattr(path), path
    assert not (root / "etc/resolv.conf").is_symlink()
    assert (root / "dev").is_dir()
    assert not (root / "dev").is_symlink()


@pytest.mark.parametrize(("members", "words"), [
    ([file("usr/x"), file("../planted")], ["cannot be unpacked"]),
    ([file("usr/x"), link("usr/hard", "../../../../../../../../etc/hostname", tarfile.LNKTYPE)], ["cannot be unpacked"]),
    ([file("usr/x"), link("out", "/var/tmp"), file("out/planted")], ["cannot be unpacked"]),
    ([file("usr/x"), link("etc", "/etc")], ["/etc is not a directory there"]),
    ([link("usr", "/usr"), file("bin/x")], ["/usr is not a directory there"]),
    ([file("usr/x"), link("usr/bin", "/usr/bin")], ["/usr/bin is not a directory there"]),
    ([file("readme")], ["neither an image archive nor a root filesystem"]),
    ([file("usr/bin/true")], ["there is no Python 3 in it"]),
    ([file("usr/bin/true"), file("lib/ld-musl-x86_64.so.1")], ["musl", "Debian"]),
    ([file("manifest.json", b"[]")], ["cannot be read as an image"]),
    ([file("usr/bin/python3", b"\x7fELFwrong", 0o755)], ["its Python does not start"]),
])
def test_what_can_be_no_root_filesystem_is_refused_and_leaves_nothing(own: Path, tmp_path: Path, members: list[Member], words: list[str]) -> None:
    before = sorted(os.listdir(own / "rootfs")) if (own / "rootfs").exists() else [".lock"]
    archive = tmp_path / "bad.tar"
    with tarfile.open(archive, "w") as opened:
        for info, content in members:
            opened.addfile(info, io.BytesIO(content))
    refused(ephemeral(own, "add", "bad", "--archive", str(archive)), *words)
    assert not (own / "roots/bad.json").exists()
    assert not Path("/var/tmp/planted").exists()
    assert sorted(os.listdir(own / "rootfs")) == before


@pytest.mark.parametrize("name", ["/precious", "out/precious", "../../../../../../../../..{outside}/precious"])
def test_a_layer_cannot_get_hold_of_a_file_outside_by_a_hard_link(own: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    with tarfile.open(tmp_path / "layer.tar", "w") as opened:
        for info, content in (file("usr/x"), link("out", str(outside)), link("hard", name.format(outside=outside), tarfile.LNKTYPE)):
            opened.addfile(info, io.BytesIO(content))
    refused(ephemeral(own, "add", "bad", "--archive", str(oci(tmp_path / "layout", [tmp_path / "layer.tar"]))))
    assert (outside / "precious").stat().st_nlink == 1


def test_what_is_no_archive_at_all_is_refused(own: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello " * 1000)
    refused(ephemeral(own, "add", "bad", "--archive", str(tmp_path / "text")), "cannot be read")
    refused(ephemeral(own, "add", "bad", "--archive", str(tmp_path)), "no OCI image layout")


@pytest.mark.parametrize(("said", "words"), [
    ({"python": [3, 8, 1]}, ["is 3.8.1", "3.9"]),
    ({"libc": ""}, ["musl"]),
    ({"missing": ["ctypes"]}, ["lacks ctypes"]),
    ({"implementation": "pypy"}, ["pypy"]),
    ({"python": "$(reboot)"}, ["does not say what it is"]),
    ({"tools": None}, ["does not say what it is"]),
    ({"environment": "/opt/../../var/tmp"}, ["where they cannot be found"]),
    ({"environment": "/opt/venv", "site": "/opt/venv\nimport os"}, ["where they cannot be found"]),
])
def test_an_image_whose_python_cannot_serve_is_told_why(own: Path, small: Path, tmp_path: Path, said: dict[str, object], words: list[str]) -> None:
    answer = {"python": [3, 12, 1], "libc": "glibc 2.36", "missing": [], "node": "", "packages": [], "tools": [], "implementation": "cpython",
              "environment": "", "site": "", **said}
    program = f"#!/bin/sh\nprintf '%s\\n' '{probe.MARK}{json.dumps(answer)}'\n".encode()
    refused(ephemeral(own, "add", "bad", "--archive", str(extended(small, tmp_path / "bad.tar", file("usr/local/bin/python3", program, 0o755)))), *words)


# --------------------------------------------------------------------------------------------- in use, replaced, removed


@pytest.fixture
def held(own: Path) -> Iterator[Callable[[Path], None]]:
    """Use a root filesystem, as sandboxd does."""
    descriptors: list[int] = []

    def hold(root: Path) -> None:
        descriptors.append(os.open(root.with_name(f"{root.name}.lock"), os.O_RDWR | os.O_CREAT))
        fcntl.flock(descriptors[-1], fcntl.LOCK_SH)

    yield hold
    for descriptor in descriptors:
        os.close(descriptor)


def test_one_in_use_is_neither_removed_nor_taken_away_by_its_successor(own: Path, small: Path, tmp_path: Path, held: Callable[[Path], None]) -> None:
    assert ephemeral(own, "add", "used", "--archive", str(extended(small, tmp_path / "one.tar", file("opt/one")))).returncode == 0
    first = root_of(own, "used")
    held(first)
    refused(ephemeral(own, "remove", "used"), "in use by a sandboxd")
    assert ephemeral(own, "add", "used", "--archive", str(extended(small, tmp_path / "two.tar", file("opt/two")))).returncode == 0
    assert root_of(own, "used") != first
    assert first.is_dir()


def test_the_engines_image_is_taken_and_its_copy_goes_with_the_name(own: Path, small: Path, store: Path) -> None:
    spec = importlib.util.spec_from_file_location("engine", Path(__file__).parent.parent / "engine.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.engine(store / "bin/runsc", ()) as engine:
        subprocess.run(["docker", "--host", engine.host, "import", "--change=VOLUME /data", "--change=ENV PATH=/usr/bin", small, "mine:latest"], check=True, stdout=subprocess.DEVNULL)
        refused(ephemeral(own, "add", "engine", "--image", "other:latest", DOCKER_HOST=engine.host), "docker pull other:latest")
        done = ephemeral(own, "add", "engine", "--image", "mine:latest", DOCKER_HOST=engine.host)
        assert done.returncode == 0, done.stderr
        assert engine.client.containers.list(all=True) == []
        assert engine.client.volumes.list() == []
        root = root_of(own, "engine")
        assert engine.client.images.get("mine:latest").tag("ephemeral-rootfs", root.name)  # as the docker runtime does
        assert ephemeral(own, "remove", "engine", DOCKER_HOST=engine.host).returncode == 0
        assert [image.tags for image in engine.client.images.list()] == [["mine:latest"]]
        assert not root.exists()
        assert not root.with_name(f"{root.name}.lock").exists()
    refused(ephemeral(own, "add", "engine", "--image", "mine:latest", DOCKER_HOST=engine.host), "engine does not answer")
