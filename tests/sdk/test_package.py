"""The packages stand beside each other without getting in each other's way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import mcp
import pytest

import ephemeral


def modules_after(code: str) -> set[str]:
    """The modules a fresh interpreter holds after `code`."""
    program = f"{code}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    return set(json.loads(ran.stdout))


def test_our_folder_named_mcp_does_not_shadow_the_sdk_of_that_name():
    assert mcp.__file__ is not None
    assert "site-packages" in Path(mcp.__file__).parts


def test_importing_ephemeral_loads_neither_pydantic_nor_an_http_client():
    assert not modules_after("import ephemeral") & {"pydantic", "httpx", "http.client", "asyncio", "ephemeral.wire"}


def test_the_sdk_loads_nothing_of_the_services():
    loaded = modules_after("import ephemeral; ephemeral.Client, ephemeral.wrap, ephemeral.Plan")
    assert not loaded & {"aiohttp", "mcp", "mitmproxy", "docker", "sqlite_utils", "openai", "uvloop", "typer", "ephemeral_sandboxd"}


def test_every_public_name_can_be_had():
    for name in ephemeral.__all__:
        assert getattr(ephemeral, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = ephemeral.nonsense


@pytest.mark.parametrize("first", ["import ephemeral.wrap", "from ephemeral.wrap import session", "import ephemeral; ephemeral.wrap"])
def test_wrap_is_the_function_whoever_imported_its_module_first(first: str):
    modules_after(f"{first}\nimport ephemeral\nassert type(ephemeral.wrap).__name__ == 'function', ephemeral.wrap")
