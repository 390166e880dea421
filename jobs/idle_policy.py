"""How long an idle machine stays on: a fixed time, as long as a boot costs, or what past gaps have taught."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import lru_cache
from itertools import accumulate

ENOUGH = 10  # gaps, before anything is learned of them
REMEMBERED = 200  # the newest gaps; what is older says little of this week
LONGEST = timedelta(hours=1)  # what is learned is never longer


class IdleKind(StrEnum):
    """How the idle time of a pool is found."""

    FIXED = "fixed"
    BREAK_EVEN = "break_even"
    LEARNED = "learned"


@dataclass(frozen=True)
class Idle:
    """The idle time of a pool. `time` is that of FIXED: zero stops at once, None never stops."""

    kind: IdleKind = IdleKind.LEARNED
    time: timedelta | None = None

    def after(self, boot: timedelta, gaps: Sequence[float] = ()) -> timedelta | None:
        """Tell after how much idle time a machine is stopped; None: never. `gaps`: see PoolNow."""
        match self.kind:
            case IdleKind.FIXED:
                return self.time
            case IdleKind.BREAK_EVEN:
                return boot
            case IdleKind.LEARNED:
                return learned(boot, tuple(gaps[-REMEMBERED:]))

    def __str__(self) -> str:
        match self.kind:
            case IdleKind.FIXED:
                return spelled(self.time)
            case IdleKind.BREAK_EVEN:
                return "after as much idle time as a boot takes"
            case IdleKind.LEARNED:
                return "after an idle time learned from past gaps"


def spelled(time: timedelta | None) -> str:
    """Say an idle time in words: zero and none are never shown as numbers."""
    if time is None:
        return "never"
    return "at once" if time <= timedelta(0) else f"after {seconds_words(time)}"


@lru_cache(maxsize=64)
def learned(boot: timedelta, gaps: tuple[float, ...]) -> timedelta:
    """Find the idle time that would have cost least over the newest gaps; with too few of them, that of a boot.

    Of a gap that is shorter the machine idles it away; of a longer one it idles that time, and boots again.
    """
    known = sorted(gaps)
    price = boot.total_seconds()
    if len(known) < ENOUGH:
        return boot
    sums = [0.0, *accumulate(known)]
    best, least = 0.0, price * len(known)
    for index, gap in enumerate(known, start=1):
        longer = len(known) - index
        cost = sums[index] + longer * (gap + price)
        if cost < least and gap <= LONGEST.total_seconds():
            best, least = gap, cost
    return timedelta(seconds=best)


def seconds_words(time: timedelta) -> str:
    """Say a duration as people do: `45 s`, `5 min`, `1 min 30 s`, `2 h`, `3 d 4 h`."""
    left = max(0, round(time.total_seconds()))
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"
