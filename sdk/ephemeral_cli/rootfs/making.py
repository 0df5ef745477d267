"""From a source to a root filesystem that has a name.

Everything happens in a directory that nobody else can enter; at the end one rename publishes it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ephemeral_cli.errors import CommandError
from ephemeral_cli.progress import Reporter, Step
from ephemeral_cli.rootfs import bootstrap, images, probe, records, removing, taming
from ephemeral_cli.rootfs.records import DEFAULT, RECIPE, Rootfs
from ephemeral_cli.setup import runsc


@dataclass(frozen=True)
class Wanted:
    """What a root filesystem is made of: Debian's ``suite`` and more ``packages``, or an ``image`` of the engine here, or an ``archive``."""

    suite: str = bootstrap.SUITE
    packages: tuple[str, ...] = ()
    image: str | None = None
    archive: Path | None = None

    @property
    def ours(self) -> bool:
        return self.image is None and self.archive is None


@dataclass(frozen=True)
class Filled:
    """What was put into a directory. ``search``: the PATH there."""

    origin: str
    search: tuple[str, ...]


def ensure(store: Path, report: Reporter) -> Rootfs:
    """The default root filesystem of ``store``; made first when need be. Raises CommandError with what to type."""
    have = records.recorded(store)
    if have:
        if os.geteuid() == 0:
            with records.alone(store, report):
                removing.collect(store)  # what a sandboxd still used when it was replaced
        return have
    records.need_root("ephemeral setup")
    wanted = Wanted()

    def fill(root: Path, work: Path, step: Step) -> Filled:
        origin = bootstrap.from_python_image(root, step) or bootstrap.from_debian(root, wanted.suite, (), step)
        return Filled(origin, probe.USUAL)

    with records.alone(store, report):
        return records.recorded(store) or _make(store, DEFAULT, wanted, fill, report)


def add(store: Path, name: str, wanted: Wanted, report: Reporter) -> Rootfs:
    """Have ``wanted`` under ``name``: at once when it is there (an image or an archive may have changed: it is unpacked again).

    What ``name`` stood for before is removed as soon as no sandboxd uses it. Raises CommandError with what to type.
    """
    records.check_name(name)
    if name == DEFAULT:
        raise CommandError("the default root filesystem is the one `ephemeral setup` makes", "choose another name, and name it where a session starts", exit_code=2)
    if wanted.ours:
        bootstrap.check(wanted.suite, wanted.packages)
        if have := _there(store, name, wanted):
            return have
    records.need_root(f"ephemeral rootfs add {name} …")

    def fill(root: Path, work: Path, step: Step) -> Filled:
        if wanted.image is not None:
            unpacked = images.from_engine(root, wanted.image, step)
        elif wanted.archive is not None:
            unpacked = images.from_archive(root, wanted.archive, work, step)
        else:
            return Filled(bootstrap.from_debian(root, wanted.suite, wanted.packages, step), probe.USUAL)
        return Filled(unpacked.origin, unpacked.search)

    with records.alone(store, report):
        return _there(store, name, wanted) or _make(store, name, wanted, fill, report)


def _there(store: Path, name: str, wanted: Wanted) -> Rootfs | None:
    have = records.recorded(store, name) if wanted.ours else None
    return have if have and (have.suite, have.installed) == (wanted.suite, wanted.packages) else None


def _make(store: Path, name: str, wanted: Wanted, fill: Callable[[Path, Path, Step], Filled], report: Reporter) -> Rootfs:
    driver = runsc.recorded(store)
    if driver is None:
        raise CommandError("gVisor's runsc is not set up, and only inside gVisor is a root filesystem tried", "ephemeral setup")
    parent = store / "rootfs"
    for left in parent.glob(".making-*"):
        taming.discard(left)  # of one that was killed: we are alone here
    work = Path(tempfile.mkdtemp(prefix=".making-", dir=parent))
    try:
        with report.step("root filesystem" if name == DEFAULT else f"root filesystem {name}") as step:
            root = work / "root"
            root.mkdir()
            filled = fill(root, work, step)
            step.update(note="taking privileges away")
            taming.tame(root, slim=wanted.ours)
            step.update(note="asking it what it holds, inside gVisor")
            facts = probe.examine(Path(driver.path), root, filled.search)
            taming.link_python(root, facts.interpreter)
            if facts.environment:
                taming.link_packages(root, *facts.environment)
            content = "\n".join((wanted.suite, facts.interpreter, facts.python, *facts.packages)) if wanted.ours else taming.digest(root)
            rootfs = Rootfs(
                name=name, id=hashlib.sha256(f"{RECIPE}\n{content}".encode()).hexdigest()[:16], python=facts.python, glibc=facts.glibc,
                origin=filled.origin, recipe=RECIPE, packages=len(facts.packages), suite=wanted.suite if wanted.ours else None,
                installed=wanted.packages, node=facts.node, tools=facts.tools, size_bytes=taming.size(root), created_at=time.time())
            target = records.directory_of(store, rootfs.id)
            if not target.exists():
                os.replace(root, target)
            records.write(store, rootfs)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    removing.collect(store)
    return rootfs
