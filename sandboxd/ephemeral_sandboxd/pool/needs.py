"""What a piece of code, or a plan, needs: modules, and the packages that provide them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ephemeral import names
from ephemeral.imports import scan

CANONICAL = {"matplotlib": "matplotlib.pyplot", "PIL": "PIL.Image", "sklearn": "sklearn", "scipy": "scipy", "torch": "torch"}
"""Packages whose import alone loads little: what stands for them in a snapshot. Their rehearsals load the usual rest."""

IMPLIED = {
    "cv2": ("numpy",), "matplotlib": ("numpy",), "pandas": ("numpy",), "scipy": ("numpy",), "sklearn": ("numpy", "scipy"),
    "seaborn": ("matplotlib.pyplot", "numpy", "pandas"), "statsmodels": ("numpy", "pandas", "scipy"),
}
"""What comes with a package's import anyway: named along with it, so that one snapshot serves those who want the one or both."""


@dataclass(frozen=True)
class Needs:
    """``modules``: third-party top-level modules. ``packages``: what provides them, plus explicit installs, normalised;
    with a version where the code names one."""

    modules: frozenset[str]
    packages: dict[str, str | None]


def of_code(code: str, explicit: Iterable[str] = ()) -> Needs:
    """What ``code`` imports or installs, found without executing or parsing it; ``explicit`` packages are added."""
    modules: set[str] = set()
    packages: dict[str, str | None] = {names.normalize(name): None for name in explicit}
    for found in scan(code):
        if found.kind == "pip install":
            name, _, version = found.name.partition("==")
            packages[names.normalize(name)] = version or None
            continue
        top = found.name.partition(".")[0]
        if names.is_stdlib(top):
            continue
        package = names.package_for(top)
        if package:
            modules.add(top)
            packages.setdefault(names.normalize(package), None)
    return Needs(frozenset(modules), packages)


def canonical(modules: Iterable[str]) -> list[str]:
    """The modules that name a snapshot: one a third-party package, what it implies included, the standard library left out.

    Sorted: what is implied may come after what implies it, and then costs nothing more to import.
    """
    tops = {top for module in modules if not names.is_stdlib(top := module.partition(".")[0])}
    return sorted({CANONICAL.get(top, top) for top in tops} | {implied for top in tops for implied in IMPLIED.get(top, ())})


def requirement(package: str, version: str | None) -> str:
    return f"{package}=={version}" if version else package
