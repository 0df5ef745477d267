"""The installed version."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _installed

try:
    VERSION = _installed("ephemeral-sidecar")
except PackageNotFoundError:
    VERSION = "unknown"
