# The plugins that pytest itself consists of; those of other packages are loaded by a run only.
import pytest

try:
    from _pytest.config import get_config

    get_config()
except (ImportError, TypeError):
    pass
