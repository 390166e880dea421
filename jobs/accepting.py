"""Groups of differences that somebody accepted: what they explain, and for how long. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Any

from jobs.causes import Bounds, Cause, Share, constant, one_ratio
from runner.errors import Problem, RequestError

NAME_LIMIT = 100
REASON_LIMIT = 2_000
DEFAULT_DAYS = 90
MOST_DAYS = 3_650  # ten years: who wants it for ever means a rule in seatrial.yml

# What says nothing about what happened: accepted once, it would hide whatever else happens later.
UNACCEPTABLE: Mapping[str, str] = {
    "candidate_failed": "Mend the candidate, or leave the units out of its list.",
    "unreadable": "See the notes of its units: they could not be compared.",
}


class AcceptanceRefused(RequestError):
    """The acceptance is not valid."""

    code = "acceptance_invalid"


class Standing(StrEnum):
    """Whether an acceptance holds for runs that are compared now."""

    LIVE = "live"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True)
class Wish:
    """What somebody accepts a group with."""

    name: str
    reason: str
    expires_at: datetime


@dataclass(frozen=True)
class Acceptance:
    """A cause of differences that a project lives with.

    `run`: in which it was accepted. `ratio` or `offset`: the one number that explained the group there; then nothing
    else is accepted. An acceptance is never deleted.
    """

    id: int
    project: str
    key: str
    cause: Cause
    name: str
    reason: str
    run: int
    made_by: str
    made_at: datetime
    expires_at: datetime
    ratio: float | None = None
    offset: float | None = None
    withdrawn_at: datetime | None = None
    withdrawn_by: str | None = None

    @property
    def last_day(self) -> date:
        """Give the last day on which it holds, by UTC."""
        return (self.expires_at - timedelta(microseconds=1)).astimezone(UTC).date()

    def standing(self, now: datetime) -> Standing:
        """Tell whether it holds now."""
        if self.withdrawn_at is not None:
            return Standing.WITHDRAWN
        return Standing.EXPIRED if self.expires_at <= now else Standing.LIVE

    def covers(self, share: Share) -> bool:
        """Tell whether it is what a unit has of its cause: the same ratio or offset, when it had one."""
        if self.ratio is None and self.offset is None:
            return True
        return _fits(share.ratio, self.ratio, one_ratio) or _fits(share.offset, self.offset, constant)


# The acceptances that hold for a run, by the key of their cause.
Held = Mapping[str, Sequence[Acceptance]]


@dataclass(frozen=True)
class InRun:
    """How a group stands in a run. `units` of it are accepted, by those that are `held`.

    `offered`: acceptances that hold in the project now, and did not when the run was compared.
    """

    units: int = 0
    held: tuple[Acceptance, ...] = ()
    offered: tuple[Acceptance, ...] = ()


def covered(key: str, share: Share, held: Held) -> bool:
    """Tell whether what a unit has of a cause is accepted."""
    return any(one.covers(share) for one in held.get(key, ()))


def explained(shares: Mapping[str, Share], held: Held, *, cut: bool) -> bool:
    """Tell whether a unit is wholly explained: each of its causes, by key, is accepted.

    `cut`: not all differences of the unit are known, so neither are its causes; then it never is.
    """
    return bool(shares) and not cut and all(covered(key, share, held) for key, share in shares.items())


def is_cut(summary: Mapping[str, Any]) -> bool:
    """Tell whether a comparison did not look at, or not keep, all differences of a unit (see runner.comparison)."""
    return any(file.get("truncated") for file in summary.get("results", [summary]))


def check_acceptable(key: str, cause: Cause) -> None:
    """Refuse a cause that may not be accepted; raises AcceptanceRefused."""
    if (remedy := UNACCEPTABLE.get(cause.what)) is not None:
        text = f"This group cannot be accepted: {cause.title}. It does not say what happened, and later it may be else."
        raise AcceptanceRefused(text, field="key", value=key, remedy=remedy)


@dataclass(frozen=True)
class Asked:
    """What came from a person: `expires` is a date (2027-02-28), or days (90, 90d)."""

    name: str = ""
    reason: str = ""
    expires: str | int | None = None

    @property
    def empty(self) -> bool:
        """Tell that nothing was said: take over what the project accepted already."""
        return not (self.name.strip() or self.reason.strip() or str(self.expires or "").strip())

    def wish(self, now: datetime) -> Wish:
        """Check all fields; raises AcceptanceRefused that names each that is wrong, with its remedy."""
        problems = []
        for key, value, limit, remedy in (
            ("name", self.name, NAME_LIMIT, "Give the group a name that others know it by."),
            ("reason", self.reason, REASON_LIMIT, "Say why the difference is right."),
        ):
            if not value.strip():
                problems.append(Problem(key, f"is required. {remedy}", value or None))
            elif len(value.strip()) > limit:
                problems.append(
                    Problem(key, f"has {len(value.strip())} characters, of {limit} at most. Shorten it.", value[:80])
                )
            elif any(ord(letter) < 32 and letter not in "\n\t" for letter in value):
                problems.append(Problem(key, "has control characters. Leave them out.", repr(value[:80])))
        at, problem = _expiry(self.expires, now)
        if problem is not None:
            problems.append(problem)
        if problems:
            raise AcceptanceRefused("; ".join(map(str, problems)), problems=tuple(problems))
        return Wish(" ".join(self.name.split()), self.reason.strip(), at)


def _expiry(asked: str | int | None, now: datetime) -> tuple[datetime, Problem | None]:
    """Read until when an acceptance holds: a number of days, or the last day on which it does, by UTC."""
    shown = None if asked is None else str(asked)[:80]
    text = str(DEFAULT_DAYS if asked is None or not str(asked).strip() else asked).strip().lower()
    last = (now + timedelta(days=MOST_DAYS)).date()
    how = f"Give days (90d) or a date (2027-02-28), until {last} at the latest."
    if re.fullmatch(r"\d{1,9}d?", text, re.ASCII):
        days = int(text.rstrip("d"))
        if 1 <= days <= MOST_DAYS:
            return now + timedelta(days=days), None
        return now, Problem("expires", f"is not between 1 and {MOST_DAYS} days. {how}", shown)
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return now, Problem("expires", f"is neither days nor a date. {how}", shown)
    if day < now.astimezone(UTC).date():
        return now, Problem("expires", f"is in the past. {how}", shown)
    if day > last:
        return now, Problem("expires", f"is more than {MOST_DAYS} days ahead. {how}", shown)
    return datetime.combine(day + timedelta(days=1), time(), UTC), None


def _fits(bounds: Bounds | None, wanted: float | None, one: Callable[[Bounds], float | None]) -> bool:
    """Tell whether what lies between bounds is one number, within the rounding of written numbers."""
    if bounds is None or wanted is None:
        return False
    return one((min(bounds[0], wanted), max(bounds[1], wanted))) is not None
