"""What stands ready for one root filesystem: the environments for its Python, and the snapshots made on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ephemeral_sandboxd.environments import Environments
from ephemeral_sandboxd.errors import NotFound
from ephemeral_sandboxd.pool.snapshots import Snapshots
from ephemeral_sandboxd.roots import DEFAULT, Root


@dataclass(frozen=True)
class Stock:
    root: Root
    environments: Environments
    snapshots: Snapshots

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def base(self) -> list[str]:
        """The base environment's id, on slot 0 of every sandbox; empty where there is none for this Python."""
        return [self.environments.base.id] if self.environments.base else []


class Stocks:
    """By the name of the root filesystem; each is opened when it is first asked for. ``find`` raises KeyError for a name that is none."""

    def __init__(self, find: Callable[[str], Stock]):
        self._find = find
        self._open: dict[str, Stock] = {}
        self.default = self.get(DEFAULT)

    def get(self, name: str) -> Stock:
        """Raises errors.NotFound."""
        stock = self._open.get(name)
        if stock is None:
            try:
                stock = self._open[name] = self._find(name)
            except KeyError:
                raise NotFound("no such root filesystem", f"there is none called {name}", f"`ephemeral rootfs list`, then `ephemeral rootfs add {name}`") from None
        return stock

    def __iter__(self) -> Iterator[Stock]:
        return iter(list(self._open.values()))
