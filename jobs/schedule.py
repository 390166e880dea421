"""Hours in which a pool keeps machines running, or keeps none: windows of a week, in a time zone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(r"(?P<days>[a-z,\s-]+?)\s+(?P<start>\d{1,2}:\d{2})\s*-\s*(?P<end>\d{1,2}:\d{2})")
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Window:
    """Hours of some days of a week, by the clock on the wall; an end that is not after the start lies on the next day.

    `running`: how many machines are kept running; 0: none, what is idle is stopped at once and nothing is started ahead.
    """

    days: frozenset[int]  # 0 is Monday
    start: time
    end: time
    running: int = 1

    @classmethod
    def parse(cls, text: str, running: int = 1) -> Window:
        """Read `mon-fri 08:00-18:00`, `sat,sun 00:00-24:00` or `daily 22:00-06:00`; ValueError says what is wrong."""
        found = _WINDOW.fullmatch(text.strip().lower())
        if found is None:
            raise ValueError(f"{text!r} is no window: write it as 'mon-fri 08:00-18:00'")
        return cls(_days(found["days"], text), _clock(found["start"], text), _clock(found["end"], text), running)

    def __str__(self) -> str:
        end = "24:00" if self.end == time(0) else f"{self.end:%H:%M}"
        return f"{_day_words(self.days)} {self.start:%H:%M}-{end}"

    def span(self, day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
        """Tell from when to when the window of a day is, in UTC.

        A time that the clocks skip is taken an hour later; of one that comes twice, a start is the first and an end the second.
        """
        last = day if self.end > self.start else day + _DAY
        start = datetime.combine(day, self.start, zone)
        end = datetime.combine(last, self.end, zone).replace(fold=1)
        if not _exists(end):
            end = end.replace(fold=0)
        return start.astimezone(UTC), end.astimezone(UTC)


@dataclass(frozen=True)
class Schedule:
    """The windows of a pool. Where windows lie on each other the largest number counts."""

    windows: tuple[Window, ...] = ()
    zone: str = "UTC"

    def __post_init__(self) -> None:
        _zone(self.zone)

    def keep(self, now: datetime) -> int | None:
        """Tell how many machines are kept running at a time; None when no window says anything."""
        kept = [window.running for window, start, end in self._near(now) if start <= now < end]
        return max(kept, default=None)

    def ahead(self, now: datetime, lead: timedelta) -> int:
        """Tell how many machines a window keeps running that is open, or opens within a lead."""
        return max((w.running for w, start, end in self._near(now) if start - lead <= now < end), default=0)

    def until(self, now: datetime) -> datetime | None:
        """Tell when `keep` changes next; None when it does not within a week."""
        present = self.keep(now)
        edges = sorted({edge for _, *span in self._near(now, 8) for edge in span if edge > now})
        return next((edge for edge in edges if self.keep(edge) != present), None)

    def local(self, at: datetime) -> datetime:
        """Give a time by the clock on the wall of this schedule."""
        return at.astimezone(_zone(self.zone))

    def _near(self, now: datetime, days: int = 1) -> Iterator[tuple[Window, datetime, datetime]]:
        if not self.windows:
            return
        zone = _zone(self.zone)
        today = now.astimezone(zone).date()
        for back in range(-1, days + 1):
            day = today + back * _DAY
            for window in self.windows:
                if day.weekday() in window.days:
                    yield window, *window.span(day, zone)


@cache
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as e:
        raise ValueError(f"there is no time zone {name!r}: write it as 'Europe/Berlin'") from e


def _exists(at: datetime) -> bool:
    return at.astimezone(UTC).astimezone(at.tzinfo).replace(tzinfo=None) == at.replace(tzinfo=None)


def _clock(text: str, whole: str) -> time:
    hour, minute = (int(part) for part in text.split(":"))
    if (hour, minute) == (24, 0):
        return time(0)
    if hour > 23 or minute > 59:
        raise ValueError(f"{whole!r}: {text} is no time of a day")
    return time(hour, minute)


def _days(text: str, whole: str) -> frozenset[int]:
    if text.strip() == "daily":
        return frozenset(range(7))
    days: set[int] = set()
    for part in text.split(","):
        first, _, last = (word.strip() for word in part.partition("-"))
        for word in (first, last or first):
            if word not in DAYS:
                raise ValueError(f"{whole!r}: {word!r} is no day: write mon, tue, wed, thu, fri, sat, sun or daily")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        days.update(day % 7 for day in range(begin, end + 1 if end >= begin else end + 8))
    return frozenset(days)


def _day_words(days: frozenset[int]) -> str:
    if len(days) == 7:
        return "daily"
    ordered = sorted(days)
    if len(ordered) > 2 and ordered[-1] - ordered[0] == len(ordered) - 1:
        return f"{DAYS[ordered[0]]}-{DAYS[ordered[-1]]}"
    return ",".join(DAYS[day] for day in ordered)
