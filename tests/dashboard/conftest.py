"""A browser, and a server for it to look at."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

CHROMIUM = Path("/usr/bin/chromium")


def _sibling(name: str) -> ModuleType:
    """A module of this folder. Tests are no packages here, and two folders may use the same name."""
    spec = importlib.util.spec_from_file_location(f"dashboard_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


stand_in = _sibling("stand_in")
recorded = _sibling("recorded")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    if not CHROMIUM.exists():
        pytest.fail(f"{CHROMIUM} is missing: apt-get install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-background-networking", "--disable-gpu", "--disable-dev-shm-usage"],
        )
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def dashboard_server() -> AsyncIterator[stand_in.StandIn]:
    """Serves the built dashboard and, so far, nothing to show."""
    if not (stand_in.BUILT / "index.html").exists():
        pytest.fail(f"{stand_in.BUILT} holds no built dashboard: run `make dashboard`")
    server = stand_in.StandIn()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def record():
    """Fills a server with the recorded day, which ended a minute before the given Unix time."""
    return recorded.fill
