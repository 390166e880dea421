"""Signs of life of the two processes without which runs stand still: the sweeper and the comparer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

SWEEPER, COMPARER = "sweeper", "comparer"
BEAT_SECONDS = 5.0
# Six signs in a row are missing. One that ended is started again within seconds, and SQLite may let a write wait as long.
SILENT_SECONDS = 30.0


@dataclass(frozen=True)
class Signs:
    """When each of them was last heard of, by the clock of the store, which says that it is `now`.

    `put_off`: why the comparer cannot compare a run for the moment, by the run's number.
    """

    now: datetime
    seen: Mapping[str, datetime] = field(default_factory=dict)
    put_off: Mapping[int, str] = field(default_factory=dict)

    def is_silent(self, name: str) -> bool:
        """Tell whether nothing was heard of it for so long that it must be taken for dead."""
        seen = self.seen.get(name)
        return seen is None or self.now - seen > timedelta(seconds=SILENT_SECONDS)


class Heart:
    """Beats every few seconds, however often it is asked to."""

    def __init__(self, beat: Callable[[], None]) -> None:
        self._beat = beat
        self._next = float("-inf")

    def beat(self) -> None:
        """Give a sign of life if one is due; raises StoreUnavailable."""
        now = time.monotonic()
        if now >= self._next:
            self._beat()
            self._next = now + BEAT_SECONDS
