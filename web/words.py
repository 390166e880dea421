"""Figures and times as people read them. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from markupsafe import Markup, escape

from jobs.run import Task
from runner.model import TaskKind

_RUN = re.compile(r"(?<![&\w])#(\d{1,18})\b", re.ASCII)

THIN = "\u202f"  # narrow no-break space


def number(value: int) -> str:
    """Group digits with thin spaces: 1 920."""
    return f"{value:,}".replace(",", THIN)


def plural(value: int, noun: str) -> str:
    """Count things: 1 unit, 1 920 units."""
    return f"{number(value)} {noun}" + ("" if value == 1 else "es" if noun.endswith("ch") else "s")


def duration(seconds: float | None) -> str:
    """Say how long something took or takes: 0.03 s, 41 s, 4 min 12 s, 1 h 04 min, 2 d 03 h."""
    if seconds is None:
        return ""
    seconds = max(0.0, seconds)
    if seconds < 0.095:
        return f"{seconds:.2f} s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(seconds / 60)
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes // 1_440} d {minutes % 1_440 // 60:02} h"


def about(seconds: float) -> str:
    """Say roughly how long something will take."""
    if seconds < 10:
        return "a few seconds"
    if seconds < 90:
        return f"{round(seconds / 5) * 5} s"
    if seconds < 5_400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3_600:.1f} h"


def size(count: int) -> str:
    """Say how large something is: 812 B, 1.4 KiB, 256 MiB."""
    if count < 1_000:
        return f"{count} B"
    amount = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1_024
        if amount < 1_000:
            return f"{_short(amount)} {unit}"
    return f"{_short(amount / 1_024)} TiB"


def _short(amount: float) -> str:
    return f"{amount:.0f}" if amount >= 9.95 else f"{amount:.1f}".removesuffix(".0")


def with_runs(text: str) -> Markup:
    """Make links of the runs that a sentence of ours names: #12."""
    return Markup(_RUN.sub(r'<a href="/runs/\1">#\1</a>', str(escape(text))))  # noqa: S704 - escaped, digits only


def ago(at: datetime, now: datetime | None = None) -> str:
    """Say how long ago a time was."""
    seconds = ((now or datetime.now(UTC)) - at).total_seconds()
    if seconds < -1:
        return f"in {about(-seconds)}"
    if seconds < 45:
        return "just now"
    if seconds < 5_400:
        return f"{max(1, round(seconds / 60))} min ago"
    if seconds < 129_600:
        return f"{round(seconds / 3_600)} h ago"
    return f"{round(seconds / 86_400)} d ago"


def soon(at: datetime, now: datetime | None = None) -> str:
    """Say in how long something is due."""
    seconds = (at - (now or datetime.now(UTC))).total_seconds()
    return (
        f"in {about(seconds)}" if seconds >= 10 else f"in {max(1, round(seconds))} s" if seconds > 0 else "any moment"
    )


def moment(at: datetime) -> str:
    """Write a time with its zone."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def clock(at: datetime, now: datetime | None = None) -> str:
    """Write the time of day with its zone, and the date unless it is today's."""
    own, today = at.astimezone(UTC), (now or datetime.now(UTC)).astimezone(UTC).date()
    return f"{own:%H:%M:%S} UTC" if own.date() == today else moment(at)


def task_title(task: Task) -> str:
    """Name a task: prepare, batch 3; with its leg when that is not the candidate."""
    name = "prepare" if task.kind is TaskKind.PREPARE else f"batch {task.batch}"
    return name if task.leg == "candidate" else f"{task.leg.replace('_', ' ')} {name}"
