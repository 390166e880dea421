"""Fixtures for browser tests."""

from __future__ import annotations

import pytest
from web_browser import axe, chromium, eyes, served

__all__ = ["axe", "chromium", "eyes", "served"]


def pytest_itemcollected(item: pytest.Item) -> None:
    """A browser that leaves a page drops requests half-way: their files are closed when they are collected."""
    item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))
