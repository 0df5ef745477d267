"""The proxy: an embedded mitmproxy in reverse mode that passes every byte on and tees a copy into events.

``python -m ephemeral_proxy`` serves it. The traffic is sacred: nothing here may alter, delay, retry or break a request.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def _leave_out_unused_addons() -> None:
    """Let ``mitmproxy.addons`` be a plain folder of modules.

    Its own ``__init__`` imports all thirty addons, and with them Flask and an LDAP client, which is half of the
    processor time of a start; we use two. Must happen before mitmproxy is imported, hence here.
    """
    spec = importlib.util.find_spec("mitmproxy")
    if spec and spec.submodule_search_locations and "mitmproxy.addons" not in sys.modules:
        package = ModuleType("mitmproxy.addons")
        package.__path__ = [str(Path(location) / "addons") for location in spec.submodule_search_locations]
        sys.modules[package.__name__] = package


_leave_out_unused_addons()
