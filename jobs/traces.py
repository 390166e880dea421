"""Arrivals that a policy is tried on: trace files, and what a server remembers of its runs."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from jobs.simulate import Submit, Week

HEAD = ("week", "event", "at_s", "duration_s")
LONGEST_WEEK = 7 * 86400.0 + 3600.0  # one in which the clocks are set back


class TraceError(ValueError):
    """A trace file is not what it should be; the text names its line."""


def read_trace(path: Path) -> tuple[Week, ...]:
    """Read a trace file: CSV with the columns week, event (submit, form_opened), at_s, duration_s. Raises TraceError, OSError."""
    submits: dict[int, list[Submit]] = {}
    forms: dict[int, list[float]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            if tuple(next(rows, ())) != HEAD:
                raise TraceError(f"{path}:1: the first line must be {','.join(HEAD)}")
            for row in rows:
                week, event, at, duration = _row(f"{path}:{rows.line_num}", row)
                submits.setdefault(week, [])
                if event == "submit":
                    submits[week].append(Submit(at, duration))
                else:
                    forms.setdefault(week, []).append(at)
    except (UnicodeDecodeError, csv.Error) as e:
        raise TraceError(f"{path}: is no CSV in UTF-8: {e}") from e
    return tuple(
        Week(week, tuple(sorted(found, key=lambda s: s.at)), tuple(sorted(forms.get(week, ()))))
        for week, found in sorted(submits.items())
    )


def write_trace(path: Path, weeks: Iterable[Week]) -> None:
    """Write a trace file, in the order of time."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(HEAD)
        for week in weeks:
            events = [(form, "form_opened", "") for form in week.forms]
            events += [(submit.at, "submit", f"{submit.duration:.1f}") for submit in week.submits]
            rows.writerows((week.number, event, f"{at:.1f}", duration) for at, event, duration in sorted(events))


def history(runs: Iterable[Mapping[str, Any]], forms: Iterable[str] = (), zone: str = "UTC") -> tuple[Week, ...]:
    """Make weeks of what the API says came to a pool; runs that never started, or have not ended, are left out.

    A week begins on Monday by the clock of a time zone. Work is what lies between a run's first start and its end.
    """
    submits: dict[datetime, list[Submit]] = defaultdict(list)
    opened: dict[datetime, list[float]] = defaultdict(list)
    for run in runs:
        if run["started_at"] is None or run["finished_at"] is None:
            continue
        created, started, finished = (
            datetime.fromisoformat(run[key]) for key in ("created_at", "started_at", "finished_at")
        )
        monday = _monday(created, zone)
        work = max(0.0, (finished - started).total_seconds())
        submits[monday].append(Submit((created - monday).total_seconds(), work))
    for form in map(datetime.fromisoformat, forms):
        monday = _monday(form, zone)
        opened[monday].append((form - monday).total_seconds())
    return tuple(
        Week(number, tuple(sorted(submits[monday], key=lambda s: s.at)), tuple(sorted(opened[monday])), monday)
        for number, monday in enumerate(sorted(submits))
    )


def _monday(at: datetime, zone: str) -> datetime:
    local = at.astimezone(ZoneInfo(zone))
    day = (local - timedelta(days=local.weekday())).date()
    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).astimezone(UTC)


def _row(place: str, row: Sequence[str]) -> tuple[int, str, float, float]:
    if len(row) != len(HEAD):
        raise TraceError(f"{place}: {len(row)} cells, and there are {len(HEAD)} columns")
    week, event, at, duration = row
    if not (week.isascii() and week.isdigit() and len(week) < 5):
        raise TraceError(f"{place}: week must be a number from 0 to 9999, and is {week!r}")
    if event not in ("submit", "form_opened"):
        raise TraceError(f"{place}: event must be submit or form_opened, and is {event!r}")
    if event == "form_opened" and duration:
        raise TraceError(f"{place}: duration_s is for submit; a form_opened has none")
    seconds = _seconds(place, "duration_s", duration, 365 * 86400.0) if event == "submit" else 0.0
    return int(week), event, _seconds(place, "at_s", at, LONGEST_WEEK), seconds


def _seconds(place: str, column: str, text: str, most: float) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 <= found <= most:
        raise TraceError(f"{place}: {column} must be seconds from 0 to {most:,.0f}, and is {text!r}")
    return found
