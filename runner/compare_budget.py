"""What one comparison may cost."""

from __future__ import annotations

import time
from dataclasses import dataclass


class BudgetSpent(Exception):
    """The time for one comparison is over."""


@dataclass(frozen=True)
class Budget:
    """What one comparison may cost: `seconds` of time, and how many differences it keeps."""

    seconds: float | None = None
    differences: int = 1_000


class Clock:
    """Ends a comparison when its time is over."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        """Give the seconds that are left, None when nobody counts."""
        return None if self._end is None else max(0.001, self._end - time.monotonic())

    def check(self) -> None:
        """Raise BudgetSpent when the time is over."""
        if self._end is not None and time.monotonic() > self._end:
            raise BudgetSpent
