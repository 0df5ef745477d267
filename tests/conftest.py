"""What every test gets: a scrubbed environment; and, for those that ask, the test store and a short-lived state directory."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
sys.path.append(str(REPOSITORY / "tests" / "fakes"))  # importlib import mode has no path to it
STORE = Path(os.environ.get("EPHEMERAL_TEST_STORE") or REPOSITORY / "build" / "test" / "store")
"""Made by `make test-store`: runsc, the root filesystem, and a small base environment (tests/base.txt)."""


@pytest.fixture(autouse=True)
def _scrubbed_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting, key or address of the machine gets into a test."""
    for name in list(os.environ):
        if name.startswith(("EPHEMERAL_", "OPENAI_", "ANTHROPIC_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def store() -> Path:
    if not (STORE / "base.json").exists():
        pytest.fail(f"there is no test store at {STORE}: run `make test-store`")
    return STORE


@pytest.fixture(scope="session")
def short_directory() -> Iterator[Path]:
    """For Unix sockets, whose paths may have 107 bytes only."""
    directory = Path(tempfile.mkdtemp(prefix="eph-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def state(short_directory: Path) -> Path:
    """A state directory of this test's own."""
    return Path(tempfile.mkdtemp(dir=short_directory))
