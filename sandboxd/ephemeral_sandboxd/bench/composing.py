"""Wheels of the store, put together to one directory."""

from __future__ import annotations

import shutil
from importlib.metadata import PathDistribution
from pathlib import Path

from packaging.requirements import Requirement

from ephemeral import names
from ephemeral_sandboxd import mounts
from ephemeral_sandboxd.bench.figures import Figures
from ephemeral_sandboxd.bench.place import NotHere, Place, reasons, timed
from ephemeral_sandboxd.environments.compose import compose
from ephemeral_sandboxd.environments.index import Index
from ephemeral_sandboxd.environments.store import Store
from ephemeral_sandboxd.environments.target import Target

USUAL = ("numpy", "pandas", "scipy", "scikit-learn", "matplotlib", "requests", "pillow")
WHEELS = 20


async def compositions(place: Place, figures: Figures) -> None:
    """compose_ms."""
    root = place.stock.root
    store = Store(place.store, Index.configured(Target(root.python, glibc=root.glibc)))
    try:
        base = place.stock.environments.base
        layers = {wheel.name: store.layer(wheel.sha256) for wheel in base.lock.wheels} if base else {}
    finally:
        await store.close()
    for name in ("wheels20", "torch"):
        if not figures.wanted(f"compose_ms.{name}"):
            continue
        with reasons(figures, f"compose_ms.{name}"):
            chosen = _twenty(layers) if name == "wheels20" else _closure(["torch"], layers)
            samples = [await _once([layers[wheel] for wheel in chosen], place.state / "composed" / f"{name}-{number}")
                       for number in range(place.times(50, 10))]
            figures.add(f"compose_ms.{name}", samples, wheels=len(chosen))


async def _once(layers: list[Path], target: Path) -> float:
    """Milliseconds until the directory is there."""
    links = target.with_name(f"{target.name}-links")
    try:
        return await timed(lambda: compose(layers, target, links))
    finally:
        mounts.unmount(target)
        shutil.rmtree(links, ignore_errors=True)


def _twenty(layers: dict[str, Path]) -> list[str]:
    """The usual ones with all that they need, filled up to twenty."""
    chosen = _closure([name for name in USUAL if name in layers], layers)
    chosen += [name for name in layers if name not in chosen]
    if len(chosen) < WHEELS:
        raise NotHere(f"the store's base environment has {len(chosen)} wheels only")
    return chosen[:WHEELS]


def _closure(packages: list[str], layers: dict[str, Path]) -> list[str]:
    """``packages`` and what they depend on, as far as the base environment holds it."""
    found: list[str] = []
    todo = list(packages)
    while todo:
        name = todo.pop(0)
        if name in found or name not in layers:
            if not found and name not in layers:
                raise NotHere(f"the store's base environment has no {name}")
            continue
        found.append(name)
        todo += _requires(layers[name])
    return found


def _requires(layer: Path) -> list[str]:
    """Names that the wheel unpacked at ``layer`` depends on here, without extras."""
    information = next(layer.glob("*.dist-info"))
    requirements = [Requirement(text) for text in PathDistribution(information).requires or ()]
    return [names.normalize(requirement.name) for requirement in requirements
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""})]
