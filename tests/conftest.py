"""What all tests share: the support modules beside them, importable by name."""

import sys
from pathlib import Path

SUPPORT = Path(__file__).parent / "support"
if str(SUPPORT) not in sys.path:
    sys.path.insert(0, str(SUPPORT))

from fault_plugin import pytest_addoption, pytest_configure  # noqa: E402 - only now it is found

__all__ = ["pytest_addoption", "pytest_configure"]
