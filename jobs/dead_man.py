"""When a machine stops itself: nobody needs it, and nobody could tell it to. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.pool_settings import written


class DeadMan:
    """Watch how long a machine has had nothing to do and heard from nobody; seconds are those of one monotonic clock.

    `patience`: how long both have to last, None for never. What cannot be told counts as busy.
    """

    def __init__(self, patience: float | None, now: float) -> None:
        self.patience = patience
        self._busy_at = self._heard_at = now

    def look(self, now: float, *, busy: Sequence[str], heard: bool) -> str | None:
        """Take in what was seen just now; give the reason for a shutdown, in words, once it is time for it."""
        if busy:
            self._busy_at = now
        if heard:
            self._heard_at = now
        if self.patience is None or self.left(now) > 0:
            return None
        silence, idle = now - self._heard_at, now - self._busy_at
        return f"Nothing to do for {_rounded(idle)} and no word from the server for {_rounded(silence)}."

    def left(self, now: float) -> float:
        """Give the seconds until it is time, as things stand."""
        if self.patience is None:
            return float("inf")
        return max(self._busy_at, self._heard_at) + self.patience - now

    def again(self, now: float) -> None:
        """Begin anew: a shutdown did not come about."""
        self._busy_at = now


def _rounded(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes >= 2 else written(float(round(seconds)))


__all__ = ["DeadMan"]
