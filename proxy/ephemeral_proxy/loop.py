"""uvloop, made to fit mitmproxy on every Python 3.13."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import uvloop


class Loop(uvloop.Loop):
    """mitmproxy sets asyncio's eager task factory. uvloop hands every factory ``eager_start``, which that one only knows
    since Python 3.13.3; being eager, it can do without."""

    def set_task_factory(self, factory: Callable[..., Any] | None) -> None:
        if factory is None:
            super().set_task_factory(None)
            return

        def without_eager_start(loop: Any, coro: Any, eager_start: bool | None = None, **options: Any) -> Any:
            return factory(loop, coro, **options)

        super().set_task_factory(without_eager_start)
