"""How many machines ran, and how many were needed, over a time. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from jobs.machines import Interval
from jobs.money import Use


@dataclass(frozen=True)
class Span:
    """A piece of time: how many machines were billed in it, and how many of them did a task, on average."""

    at: datetime
    running: float
    needed: float


def usage(
    intervals: Iterable[Interval], uses: Iterable[Use], since: datetime, until: datetime, pieces: int
) -> list[Span]:
    """Cut a time into pieces and tell of each how many machines ran and how many were needed."""
    length = (until - since) / pieces
    billed = [(one.started_at, one.ended_at or until) for one in intervals]
    worked: dict[str, list[tuple[datetime, datetime]]] = {}
    for use in uses:
        worked.setdefault(use.instance, []).append((use.started_at, use.ended_at))
    needed = [span for spans in worked.values() for span in _joined(spans)]
    running = _fill(billed, since, length, pieces)
    busy = _fill(needed, since, length, pieces)
    # A task goes on for a moment while its machine is recorded as stopped; nobody needs more than runs.
    return [Span(since + length * n, running[n], min(busy[n], running[n])) for n in range(pieces)]


def _joined(spans: Sequence[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """Join what overlaps: a machine that does two tasks at once is one machine."""
    found: list[tuple[datetime, datetime]] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def _fill(spans: Iterable[tuple[datetime, datetime]], since: datetime, length: timedelta, pieces: int) -> list[float]:
    shares = [0.0] * pieces
    for start, end in spans:
        first = max(0, int((start - since) / length))
        for number in range(first, pieces):
            begin = since + length * number
            overlap = min(end, begin + length) - max(start, begin)
            if overlap > timedelta(0):
                shares[number] += overlap / length
            elif begin >= end:
                break
    return shares
