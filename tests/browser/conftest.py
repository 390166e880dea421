"""Fixtures for browser tests."""

from __future__ import annotations

from web_browser import axe, chromium, eyes, served

__all__ = ["axe", "chromium", "eyes", "served"]
