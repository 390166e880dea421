"""A run as it is submitted: what was asked for, with each leg pinned to its commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class NewLeg:
    """A leg as it is submitted: pinned, with the text of its seatrial.yml. `disk_limit`: its limits.disk, in bytes."""

    name: str
    ref: str
    commit: str
    subject: str
    author: str
    spec_source: str
    spec_text: str
    spec_digest: str
    database: str | None = None
    disk_limit: int | None = None


@dataclass(frozen=True)
class NewRun:
    """A run as it is submitted."""

    project: str
    pool: str
    user: str
    note: str
    priority: int
    units_filter: str | None
    database: str | None
    options: Mapping[str, Any]
    legs: tuple[NewLeg, ...]
    parent: int | None = None
