"""A look into an output without downloading it: rows of a table, or lines of a text. Pure."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import PurePosixPath

# What is read of an output for its preview.
READ = 256 << 10
ROWS = 200
COLUMNS = 60
CELL = 200


@dataclass(frozen=True)
class Preview:
    """`kind`: table, text, binary or empty. `cut` tells that there is more than is shown."""

    kind: str
    header: list[str]
    rows: list[list[str]]
    text: str
    cut: bool


def preview(name: str, data: bytes, size: int) -> Preview:
    """Look at the first bytes of an output of that name; `size` is the whole output's."""
    if not size:
        return Preview("empty", [], [], "", cut=False)
    if b"\x00" in data[:8_192]:
        return Preview("binary", [], [], "", cut=True)
    cut = len(data) < size
    if cut:
        data = data[: data.rfind(b"\n") + 1] or data
    text = data.decode("utf-8-sig", "replace")
    if PurePosixPath(name).suffix.lower() in (".csv", ".tsv"):
        table = _table(name, text, cut=cut)
        if table is not None:
            return table
    return Preview("text", [], [], text[: 64 << 10], cut=cut or len(text) > 64 << 10)


def _table(name: str, text: str, *, cut: bool) -> Preview | None:
    first = text.split("\n", 1)[0]
    separator = max("\t;,", key=first.count) if not name.lower().endswith(".tsv") else "\t"
    rows: list[list[str]] = []
    try:
        for row in csv.reader(text.splitlines(keepends=True), delimiter=separator):
            if len(rows) > ROWS:
                cut = True
                break
            rows.append([cell if len(cell) <= CELL else cell[:CELL] + "…" for cell in row[:COLUMNS]])
            cut = cut or len(row) > COLUMNS
    except csv.Error:
        return None
    if not rows:
        return None
    return Preview("table", rows[0], rows[1:], "", cut=cut)
