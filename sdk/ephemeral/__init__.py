"""Ephemeral: sandboxes that stand ready before the code exists.

    import ephemeral
    client = ephemeral.wrap(OpenAI())            # conversations reach the predictor without the proxy
    with ephemeral.Sandbox(["pandas"]) as box:   # or run code oneself
        print(box.run("import pandas; pandas.__version__").result)

Everything below is loaded when it is first used, so that `import ephemeral` costs a program next to nothing.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ephemeral.client import AsyncClient, Client, Sandbox
    from ephemeral.errors import EphemeralError
    from ephemeral.wire import Execution, ExecutionRequest, Output, Plan, Session, Want
    from ephemeral.wrap import session, wrap

__all__ = [
    "AsyncClient", "Client", "EphemeralError", "Execution", "ExecutionRequest", "Output", "Plan", "Sandbox", "Session",
    "Want", "session", "wrap",
]  # fmt: skip

_HOMES = {
    "client": ("AsyncClient", "Client", "Sandbox"),
    "errors": ("EphemeralError",),
    "wire": ("Execution", "ExecutionRequest", "Output", "Plan", "Session", "Want"),
    "wrap": ("session", "wrap"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ephemeral' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"ephemeral.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """`ephemeral.wrap` is the function. Importing the submodule of that name would put the module in its place."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "wrap" and isinstance(value, ModuleType):
            value = value.wrap
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
