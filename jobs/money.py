"""What machines cost: billed seconds of real intervals, shared among the runs that were done in them. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise
from typing import TypeVar
from zoneinfo import ZoneInfo

from jobs.machines import Interval

LEAST = timedelta(seconds=60)  # EC2 bills a second, and a minute at least for each start
HALF_AN_HOUR = timedelta(minutes=30)
HOUR = Decimal(3600)
_MICRO = timedelta(microseconds=1)
_Key = TypeVar("_Key")


@dataclass(frozen=True)
class Use:
    """A task's time on a machine, and for whose run."""

    instance: str
    started_at: datetime
    ended_at: datetime
    run: int
    project: str
    user: str


@dataclass(frozen=True)
class Share:
    """A part of an interval's cost: that of a run, or (run None) of a time in which the machine did nothing at all.

    `at`: when its interval began, or the month's part of it. `seconds`: billed ones. `cost` is None where no price is known.
    """

    instance: str
    pool: str
    at: datetime
    seconds: Decimal
    cost: Decimal | None
    run: int | None = None
    project: str | None = None
    user: str | None = None


@dataclass(frozen=True)
class Total:
    """A sum of shares. `cost` counts what has a price; `unpriced`: billed seconds that have none."""

    seconds: Decimal = Decimal(0)
    cost: Decimal = Decimal(0)
    unpriced: Decimal = Decimal(0)

    def plus(self, share: Share) -> Total:
        """Add a share."""
        if share.cost is None:
            return Total(self.seconds + share.seconds, self.cost, self.unpriced + share.seconds)
        return Total(self.seconds + share.seconds, self.cost + share.cost, self.unpriced)


@dataclass(frozen=True)
class Saved:
    """What was paid, and what would have been: by machines that are always on, and by a fixed idle time of 30 minutes."""

    paid: Decimal
    always_on: Decimal
    half_an_hour: Decimal


def billed(interval: Interval, now: datetime) -> Decimal:
    """Give the seconds billed for an interval, so far where it has not ended."""
    return _seconds(max(LEAST, (interval.ended_at or now) - interval.started_at))


def cost(seconds: Decimal, price: Decimal | None) -> Decimal | None:
    """Give what seconds cost, unrounded."""
    return None if price is None else seconds * price / HOUR


def money(amount: Decimal) -> Decimal:
    """Round an amount for people, to a hundredth."""
    return amount.quantize(Decimal("0.01"), ROUND_HALF_UP)


def shares(intervals: Iterable[Interval], uses: Iterable[Use], now: datetime) -> Iterator[Share]:
    """Divide each interval among the runs that were done in it; the parts sum up to what was billed, exactly.

    Time in which several tasks ran is divided evenly. What a machine did nothing in, its boot included, is borne by the runs
    of that interval in proportion to their time; by nobody where there was none.
    """
    by_instance: dict[str, list[Use]] = defaultdict(list)
    for use in uses:
        by_instance[use.instance].append(use)
    for interval in intervals:
        end = interval.ended_at or now
        there = [
            use for use in by_instance[interval.instance] if use.started_at < end and use.ended_at > interval.started_at
        ]
        yield from _divide(interval, there, end, billed(interval, now))


def months(intervals: Iterable[Interval], now: datetime, zone: str = "UTC") -> Iterator[Interval]:
    """Cut intervals where a month ends by the clock of a time zone; a start's least minute stays where it began."""
    return _pieces(intervals, now, zone, _next_month)


def days(intervals: Iterable[Interval], now: datetime, zone: str = "UTC") -> Iterator[Interval]:
    """Cut intervals at midnight by the clock of a time zone, as `months` does where a month ends."""
    return _pieces(intervals, now, zone, _next_day)


def _pieces(
    intervals: Iterable[Interval], now: datetime, zone: str, next_edge: Callable[[datetime, str], datetime]
) -> Iterator[Interval]:
    for interval in intervals:
        start, end = interval.started_at, max(interval.ended_at or now, interval.started_at + LEAST)
        while (edge := next_edge(start, zone)) < end and end - edge >= LEAST and edge - start >= LEAST:
            yield _cut(interval, start, edge)
            start = edge
        yield interval if start == interval.started_at else _cut(interval, start, interval.ended_at)


def totals(found: Iterable[Share], key: Callable[[Share], _Key]) -> dict[_Key, Total]:
    """Sum shares up by run, project, user, month or whatever a key says, most expensive first."""
    sums: dict[_Key, Total] = defaultdict(Total)
    for share in found:
        sums[key(share)] = sums[key(share)].plus(share)
    return dict(sorted(sums.items(), key=lambda item: (-item[1].cost, -item[1].seconds)))


def by_day(
    intervals: Iterable[Interval], since: datetime, until: datetime, zone: str = "UTC"
) -> tuple[tuple[date, Total], ...]:
    """Sum up what was billed on each day from `since` to `until`, also where it was nothing, by a time zone's clock."""
    place = ZoneInfo(zone)
    found = totals(shares(days(intervals, until, zone), (), until), lambda share: share.at.astimezone(place).date())
    first, last = since.astimezone(place).date(), (until - _MICRO).astimezone(place).date()
    every = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    return tuple((day, found.get(day, Total())) for day in every)


def month_of(at: datetime, zone: str = "UTC") -> str:
    """Name the month of a time: 2026-11."""
    return f"{at.astimezone(ZoneInfo(zone)):%Y-%m}"


def saved(intervals: Sequence[Interval], uses: Sequence[Use], since: datetime, now: datetime, boot: timedelta) -> Saved:
    """Hold what was paid from `since` to `now` against the two rules that people know, for the machines that ran in it.

    Always on: each machine for the whole time. Half an hour: each from the boot before its first task until 30 minutes after
    its last, again and again. Each at its newest price; machines without one are left out.
    """
    inside = [_clip(interval, since, now) for interval in intervals if (interval.ended_at or now) > since]
    inside = [interval for interval in inside if interval.price is not None and interval.started_at < now]
    prices = {one.instance: one.price for one in sorted(inside, key=lambda one: one.started_at)}
    paid = sum((cost(billed(one, now), one.price) or Decimal(0) for one in inside), Decimal(0))
    always, half = Decimal(0), Decimal(0)
    for instance, price in prices.items():
        always += cost(_seconds(now - since), price) or Decimal(0)
        mine = [(max(use.started_at, since), min(use.ended_at, now)) for use in uses if use.instance == instance]
        half += cost(_under_rule([one for one in mine if one[0] < one[1]], boot, HALF_AN_HOUR, now), price) or Decimal(
            0
        )
    return Saved(paid, always, half)


def _divide(interval: Interval, there: Sequence[Use], end: datetime, whole: Decimal) -> Iterator[Share]:
    worked = _worked(interval.started_at, end, there)
    done = sum(worked.values(), Decimal(0))
    if not done:
        yield _share(interval, whole)
        return
    left = whole
    of_run = {use.run: use for use in there if worked.get(use.run)}
    for number, (run, use) in enumerate(sorted(of_run.items()), start=1):
        part = left if number == len(of_run) else (whole * worked[run] / done).quantize(Decimal("0.000001"))
        left -= part
        yield _share(interval, part, use)


def _worked(start: datetime, end: datetime, there: Sequence[Use]) -> dict[int, Decimal]:
    """Give the seconds of each run, those of several at once divided evenly."""
    edges = sorted({start, end, *(max(start, u.started_at) for u in there), *(min(end, u.ended_at) for u in there)})
    worked: dict[int, Decimal] = defaultdict(Decimal)
    begins = sorted(there, key=lambda use: use.started_at)
    open_now: list[Use] = []
    for first, last in pairwise(edges):
        while begins and begins[0].started_at <= first:
            open_now.append(begins.pop(0))
        open_now = [use for use in open_now if use.ended_at > first]
        for use in open_now:
            worked[use.run] += _seconds(last - first) / len(open_now)
    return worked


def _share(interval: Interval, seconds: Decimal, use: Use | None = None) -> Share:
    of = (use.run, use.project, use.user) if use else (None, None, None)
    return Share(interval.instance, interval.pool, interval.started_at, seconds, cost(seconds, interval.price), *of)


def _under_rule(work: Sequence[tuple[datetime, datetime]], boot: timedelta, idle: timedelta, now: datetime) -> Decimal:
    """Give the seconds for which a machine would have been on that stops after a fixed idle time."""
    total, on, off = timedelta(0), None, None
    for start, end in sorted(work):
        if on is None or off is None or start > off:
            total += timedelta(0) if on is None or off is None else off - on
            on, off = start - boot, end + idle
        else:
            off = max(off, end + idle)
    if on is not None and off is not None:
        total += min(off, max(now, on + boot)) - on
    return _seconds(total)


def _clip(interval: Interval, since: datetime, now: datetime) -> Interval:
    return interval if interval.started_at >= since else _cut(interval, min(since, now), interval.ended_at)


def _cut(interval: Interval, start: datetime, end: datetime | None) -> Interval:
    return Interval(interval.instance, interval.pool, start, end, interval.price, interval.cause)


def _next_month(at: datetime, zone: str) -> datetime:
    local = at.astimezone(ZoneInfo(zone))
    year, month = (local.year + 1, 1) if local.month == 12 else (local.year, local.month + 1)
    return datetime(year, month, 1, tzinfo=ZoneInfo(zone)).astimezone(UTC)


def _next_day(at: datetime, zone: str) -> datetime:
    tomorrow = at.astimezone(ZoneInfo(zone)).date() + timedelta(days=1)
    return datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=ZoneInfo(zone)).astimezone(UTC)


def _seconds(span: timedelta) -> Decimal:
    return Decimal(span // _MICRO) / 1_000_000
