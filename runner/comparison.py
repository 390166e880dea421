"""What a comparison of two outputs found: frozen values that can be stored as JSON."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

# What spreadsheets take for the beginning of a formula, or drop before they look.
_FORMULA = frozenset("=+-@\t\r\n")
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")

# A stored cell is cut here, and ends with an ellipsis then.
CELL_LIMIT = 1_000
# How `truncated` says that not all of an output was compared.
OF_A_PART = "counts are of a part"
# The note that rows which both sides have come in another order, and that this matters.
ROW_ORDER = "row_order"


class Outcome(StrEnum):
    """The class of two outputs that are both there."""

    SAME = "same"
    EQUIVALENT = "equivalent"
    DIFFERENT = "different"


class Change(StrEnum):
    """What kind of difference a cell or a row is, in the order in which people want to see them."""

    VALUE = "value"  # another value
    TYPE = "type"  # a number, date or text became one of the others
    NULL = "null"  # null and empty
    FORMAT = "format"  # the same value, written otherwise
    REMOVED = "removed"  # a row that only the first output has
    ADDED = "added"  # a row that only the second output has


class Leniency(StrEnum):
    """Why outputs whose bytes differ are still equivalent."""

    ENCODING = "encoding"
    BOM = "bom"
    LINE_ENDS = "line_ends"
    BLANK_LINES = "blank_lines"
    FINAL_NEWLINE = "final_newline"
    DELIMITER = "delimiter"
    WRITING = "writing"  # quotes of CSV, spaces of JSON, encodings and compression of Parquet
    ROW_ORDER = "row_order"
    COLUMN_ORDER = "column_order"
    IGNORED_COLUMNS = "ignored_columns"
    TOLERANCE = "tolerance"
    NUMBER_FORMAT = "number_format"
    DATE_FORMAT = "date_format"
    NULL_FORMAT = "null_format"
    TEXT_FORMAT = "text_format"


@dataclass(frozen=True)
class Note:
    """Something about the outputs or the rule that a reader should know; `count` says how often."""

    code: str
    text: str
    count: int = 1


@dataclass(frozen=True)
class Difference:
    """One changed cell, or one row that only one output has.

    `a` and `b` are the texts of the cell (None: null, or not there), of a lone row the whole record; long ones are cut.
    `delta` is b - a of numbers and `relative` its size as a part of the larger one, both without a unit.
    """

    change: Change
    key: tuple[str | None, ...]
    column: str | None
    a: str | None
    b: str | None
    delta: float | None = None
    relative: float | None = None

    def weight(self) -> tuple[int, float, int]:
        """Give what differences are sorted by, largest first: size of delta, then kind."""
        kind = -_KINDS.index(self.change)
        if self.delta is None:
            return (1 if kind > _KINDS_QUIET else 0), 0.0, kind
        size = abs(self.delta)
        return (2 if size else 0), (math.inf if math.isnan(size) else size), kind

    def as_json(self) -> dict[str, Any]:
        """Give it as plain values."""
        return {
            "change": self.change.value,
            "key": list(self.key),
            "column": self.column,
            "a": self.a,
            "b": self.b,
            "delta": number(self.delta),
            "relative": number(self.relative),
        }


_KINDS = list(Change)
_KINDS_QUIET = -_KINDS.index(Change.FORMAT)


@dataclass(frozen=True)
class Rows:
    """Counts of rows; `same` are those equal within the rule."""

    changed: int = 0
    added: int = 0
    removed: int = 0
    same: int = 0

    def __add__(self, other: Rows) -> Rows:
        return Rows(
            self.changed + other.changed,
            self.added + other.added,
            self.removed + other.removed,
            self.same + other.same,
        )

    def as_json(self) -> dict[str, int]:
        """Give them as plain values."""
        return {"changed": self.changed, "added": self.added, "removed": self.removed, "same": self.same}


@dataclass(frozen=True)
class Columns:
    """What became of the columns. `types` are (name, before, after), which only Parquet states."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    reordered: bool = False
    types: tuple[tuple[str, str, str], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Give them as plain values."""
        types = [{"column": name, "a": a, "b": b} for name, a, b in self.types]
        return {
            "added": list(self.added),
            "removed": list(self.removed),
            "reordered": self.reordered,
            "types": types,
        }


@dataclass(frozen=True)
class ColumnChanges:
    """Counts of a column's changed cells by kind, of those within the rule, and its largest differences.

    `delta` and `relative` are the largest sizes among changed cells, `tolerated` counts cells within the rule.
    """

    column: str
    changed: int
    kinds: dict[str, int]
    tolerated: int
    delta: float | None = None
    relative: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Give them as plain values."""
        return {
            "column": self.column,
            "changed": self.changed,
            "kinds": dict(self.kinds),
            "tolerated": self.tolerated,
            "delta": number(self.delta),
            "relative": number(self.relative),
        }


@dataclass(frozen=True)
class Comparison:
    """What became of one output.

    `format`: csv, tsv, jsonl, parquet, bytes, or empty when digests said enough. `rule`: the pattern of the rule that held.
    `leniencies`: what had to be overlooked; a different output may have some too. `key`: the columns by which rows were
    matched. `differences`: the largest, as many as the budget stores; `found` counts all. `truncated` says in words that a
    budget ended the comparison early or that differences were left out.
    """

    outcome: Outcome
    format: str = ""
    rule: str | None = None
    leniencies: tuple[Leniency, ...] = ()
    rows: Rows = Rows()
    columns: Columns = Columns()
    changes: tuple[ColumnChanges, ...] = ()
    key: tuple[str, ...] = ()
    key_found: bool = False
    notes: tuple[Note, ...] = ()
    differences: tuple[Difference, ...] = field(default=(), repr=False)
    found: int = 0
    truncated: str | None = None
    sizes: tuple[int, int] | None = None

    def as_json(self, *, differences: bool = True) -> dict[str, Any]:
        """Give it as plain values, with or without the stored differences."""
        document: dict[str, Any] = {
            "class": self.outcome.value,
            "format": self.format,
            "rule": self.rule,
            "leniencies": [leniency.value for leniency in self.leniencies],
            "rows": self.rows.as_json(),
            "columns": self.columns.as_json(),
            "changes": [change.as_json() for change in self.changes],
            "key": {"columns": list(self.key), "found": self.key_found},
            "notes": [{"code": note.code, "text": note.text, "count": note.count} for note in self.notes],
            "truncated": self.truncated,
            "sizes": None if self.sizes is None else {"a": self.sizes[0], "b": self.sizes[1]},
            "found": self.found,
        }
        if differences:
            document["differences"] = [difference.as_json() for difference in self.differences]
        return document


SAME = Comparison(Outcome.SAME)


@dataclass(frozen=True)
class OutputsComparison:
    """What became of an output that is several files: each file by its path, `missing` and `new` ones by name."""

    files: tuple[tuple[str, Comparison], ...] = ()
    missing: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    same: int = 0  # files that are the same and not listed

    @property
    def outcome(self) -> Outcome:
        """The worst of the files; one that is missing or new makes it different."""
        found = {comparison.outcome for _, comparison in self.files}
        if self.missing or self.new or Outcome.DIFFERENT in found:
            return Outcome.DIFFERENT
        return Outcome.EQUIVALENT if Outcome.EQUIVALENT in found else Outcome.SAME

    def count(self, outcome: Outcome) -> int:
        """Count the files of a class."""
        listed = sum(comparison.outcome is outcome for _, comparison in self.files)
        return listed + (self.same if outcome is Outcome.SAME else 0)

    def rows(self) -> Rows:
        """Add the rows of all files that were read."""
        return sum((comparison.rows for _, comparison in self.files), Rows())

    def each(self) -> Iterator[tuple[str, Difference]]:
        """Give the stored differences of all files."""
        for name, comparison in self.files:
            for difference in comparison.differences:
                yield name, difference

    def as_json(self, *, differences: bool = True) -> dict[str, Any]:
        """Give it as plain values."""
        return {
            "class": self.outcome.value,
            "rows": self.rows().as_json(),
            "files": {
                **{outcome.value: self.count(outcome) for outcome in Outcome},
                "missing": list(self.missing),
                "new": list(self.new),
            },
            "results": [
                {"file": name, **comparison.as_json(differences=differences)} for name, comparison in self.files
            ],
        }


def number(value: float | None) -> float | str | None:
    """Give a number as JSON can hold it: those that are not finite as text."""
    if value is None or math.isfinite(value):
        return value
    return str(value)


def neutral(cell: str) -> str:
    """Make a cell of a CSV that people open in a spreadsheet harmless: a formula becomes a text, a number stays one."""
    first = unicodedata.normalize("NFKC", cell[:1])
    if first in _FORMULA and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def cut(text: str | None) -> str | None:
    """Cut a long cell, and say so by an ellipsis."""
    return text if text is None or len(text) <= CELL_LIMIT else f"{text[: CELL_LIMIT - 1]}…"
