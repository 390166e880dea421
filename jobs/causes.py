"""Why a unit differs, in so few words that thousands of units share them. Pure."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jobs.comparing import HARMLESS, Compared, UnitClass
from runner.comparison import ROW_ORDER

Bounds = tuple[float, float]  # the least and the greatest

# Ways in which numbers of a column went in a unit, in the order in which they are told.
EITHER: Mapping[str, int] = {"mixed": 0, "up": 1, "down": 2}
ANY = "any"  # the sign of a cause that holds all of them

# Written numbers are rounded, mostly to cents: a ratio is the same when it explains the number but for that.
ROUNDING = 0.01
_PLAIN = {
    "value": "another value",
    "type": "another type",
    "null": "null and empty",
    "format": "written otherwise",
    "added_rows": "rows were added",
    "removed_rows": "rows were removed",
    "added_column": "the column was added",
    "removed_column": "the column was removed",
    "column_type": "the column has another type",
    "bytes": "other bytes",
    "unreadable": "could not be compared",
    "files": "files are missing or new",
    "baseline_failed": "failed on the baseline",
    "candidate_failed": "failed on the candidate",
    "both_failed": "failed on both legs",
    "missing": "the candidate does not list it",
    "other": "differs otherwise",
}
_MOVED = {
    "up": "values went up",
    "down": "values went down",
    "mixed": "values went up and down",
    ANY: "values went up or down",
}


@dataclass(frozen=True)
class Cause:
    """One reason why units differ.

    `pattern`: the rule that held, or the last part of the unit's name; `what`: a key of the words above; `sign`: up,
    down or mixed, where numbers changed in a unit; any, where groups of several signs are one (see jobs.grouping).
    """

    pattern: str
    what: str
    column: str | None = None
    sign: str | None = None

    @property
    def key(self) -> str:
        """Give a short name that is the same in every run."""
        text = json.dumps([self.pattern, self.what, self.column, self.sign])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def either(self) -> Cause:
        """Give the cause of the same change whichever way its numbers went."""
        return self if self.sign is None else replace(self, sign=ANY)

    @property
    def meant(self) -> tuple[Cause, ...]:
        """Give the causes of units that this one speaks of."""
        return tuple(replace(self, sign=sign) for sign in EITHER) if self.sign == ANY else (self,)

    @property
    def title(self) -> str:
        """Say it in words."""
        words = _PLAIN[self.what]
        if self.sign is not None:
            words = _MOVED[self.sign]
        column = f" {self.column}:" if self.column is not None else ""
        return f"{self.pattern}:{column} {words}"


@dataclass(frozen=True)
class Share:
    """What a unit has of a cause: how many cells or rows, and between which bounds numbers moved.

    `ratio` and `offset` are (least, greatest) of b / a and b - a among the stored differences; None without numbers.
    """

    cause: Cause
    count: int
    ratio: Bounds | None = None
    offset: Bounds | None = None


def causes(found: Compared, differences: Sequence[Mapping[str, Any]] = ()) -> tuple[Share, ...]:
    """Give the causes of a unit's difference; none when it does no harm.

    `differences`: those that are stored, each with its `file` where there are several.
    """
    if found.kind in HARMLESS:
        return ()
    pattern = f"*/{found.unit.rsplit('/', 1)[-1]}" if "/" in found.unit else "*"
    if found.kind is not UnitClass.DIFFERENT:
        return (Share(Cause(pattern, found.kind.value), 1),)
    summary = found.summary
    shares = []
    for file in summary.get("results", [summary]):
        if file.get("class") == "different":
            mine = [one for one in differences if one.get("file") == file.get("file")]
            shares += _of_file(file.get("rule") or pattern, file, mine)
    files = summary.get("files", {})
    if count := len(files.get("missing", ())) + len(files.get("new", ())):
        shares.append(Share(Cause(pattern, "files"), count))
    return merged(shares) or (Share(Cause(pattern, "other"), 1),)


def _of_file(pattern: str, file: Mapping[str, Any], differences: Sequence[Mapping[str, Any]]) -> list[Share]:
    if any(note["code"] == "unreadable" for note in file.get("notes", ())):
        return [Share(Cause(pattern, "unreadable"), 1)]
    if file.get("format") == "bytes":
        return [Share(Cause(pattern, "bytes"), 1)]
    shares = []
    rows, columns = file.get("rows", {}), file.get("columns", {})
    for name in ("added", "removed"):
        if rows.get(name):
            shares.append(Share(Cause(pattern, f"{name}_rows"), rows[name]))
        shares += [Share(Cause(pattern, f"{name}_column", column), 1) for column in columns.get(name, ())]
    shares += [Share(Cause(pattern, "column_type", one["column"]), 1) for one in columns.get("types", ())]
    for change in file.get("changes", ()):
        for kind, count in change["kinds"].items():
            if not count or not change["changed"]:
                continue
            cells = [one for one in differences if one["column"] == change["column"] and one["change"] == kind]
            numbers = [(one["a"], one["delta"]) for one in cells if _finite(one["delta"])]
            sign = _sign([delta for _, delta in numbers]) if kind == "value" else None
            cause = Cause(pattern, kind if kind in _PLAIN else "other", change["column"], sign)
            if sign is None:
                shares.append(Share(cause, count))
                continue
            # A number that became nothing, or a text, is not explained by how others moved.
            rest = len(cells) - len(numbers)
            shares.append(Share(cause, count - rest, *_bounds(numbers)))
            if rest:
                shares.append(Share(replace(cause, sign=None), rest))
    if any(note["code"] == ROW_ORDER for note in file.get("notes", ())):
        shares.append(Share(Cause(pattern, "other"), 1))
    return shares


def merged(shares: Sequence[Share]) -> tuple[Share, ...]:
    """Put together what shares have of the same cause."""
    found: dict[Cause, Share] = {}
    for one in shares:
        other = found.get(one.cause)
        if other is not None:
            one = Share(
                one.cause, one.count + other.count, around(one.ratio, other.ratio), around(one.offset, other.offset)
            )
        found[one.cause] = one
    return tuple(found.values())


def constant(bounds: Bounds | None) -> float | None:
    """Give the one number that all of them are, within the rounding of written numbers; None when there is none."""
    if bounds is None:
        return None
    low, high = bounds
    middle = (low + high) / 2
    return middle if high - low <= ROUNDING * max(abs(middle), ROUNDING) else None


def one_ratio(bounds: Bounds | None) -> float | None:
    """Give the one number that multiplied all of them; none made some larger and others smaller."""
    return None if bounds is None or bounds[0] < 1 < bounds[1] else constant(bounds)


def _bounds(numbers: Sequence[tuple[str, float]]) -> tuple[Bounds | None, Bounds]:
    ratios = []
    for text, delta in numbers:
        try:
            before = float(text)
        except (TypeError, ValueError):
            continue
        if before and math.isfinite(before) and math.isfinite(before + delta):
            ratios.append((before + delta) / before)
    deltas = [delta for _, delta in numbers]
    whole = len(ratios) == len(numbers)
    return (min(ratios), max(ratios)) if ratios and whole else None, (min(deltas), max(deltas))


def around(one: Bounds | None, other: Bounds | None) -> Bounds | None:
    """Give the bounds around both; None when one has none."""
    return None if one is None or other is None else (min(one[0], other[0]), max(one[1], other[1]))


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _sign(deltas: Sequence[float]) -> str | None:
    if not deltas:
        return None
    if all(delta > 0 for delta in deltas):
        return "up"
    return "down" if all(delta < 0 for delta in deltas) else "mixed"
