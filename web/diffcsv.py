"""Differences as CSV that a spreadsheet may open: what looks like a formula stays a text. Pure."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

HEAD = ("file", "change", "key", "column", "baseline", "candidate", "delta", "relative")
UNITS_HEAD = (
    "unit",
    "class",
    "rows changed",
    "rows added",
    "rows removed",
    "rows same",
    "largest delta",
    "rule",
    "seconds",
)

# What Excel, LibreOffice and Sheets may take for the beginning of a formula.
_FORMULA = re.compile(r"^[\s]*[=+\-@\t\r\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"^[+-]?[0-9][0-9,.\u202f ]*([eE][+-]?[0-9]+)?%?$")


def neutral(text: str | None) -> str:
    """Put an apostrophe before what a spreadsheet would calculate; a number, negative ones too, stays as it is."""
    if not text:
        return ""
    if _FORMULA.match(text) and not _NUMBER.match(text):
        return f"'{text}"
    return text


def lines(differences: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Write stored differences, one a line."""
    yield line(HEAD)
    for one in differences:
        yield line(
            (
                neutral(one.get("file", "")),
                one["change"],
                " | ".join(neutral(part) for part in one["key"]),
                neutral(one["column"]),
                neutral(one["a"]),
                neutral(one["b"]),
                "" if one["delta"] is None else str(one["delta"]),
                "" if one["relative"] is None else str(one["relative"]),
            )
        )


def unit_line(unit: str, kind: str, rows: Mapping[str, int], largest: float | None, rule: str, seconds: float) -> bytes:
    """Write one unit of a list."""
    counts = [str(rows.get(what, "")) for what in ("changed", "added", "removed", "same")]
    return line(
        (neutral(unit), kind, *counts, "" if largest is None else repr(largest), neutral(rule), f"{seconds:.3f}")
    )


def units_head() -> bytes:
    """Write the names of a unit's columns."""
    return line(UNITS_HEAD)


def line(cells: Iterable[str]) -> bytes:
    """Write one line of cells."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\r\n").writerow(cells)
    return file.getvalue().encode("utf-8", "replace")
