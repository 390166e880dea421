"""One side of a comparison as a table: its header, and the parsing of its raw records."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Protocol

from runner.compare_layout import Row
from runner.compare_text import Decoder, Dialect, rows_of
from runner.compare_values import EMPTY

Tell = Callable[[str, str, int], None]
# A column of JSON lines for what is no object.
WHOLE = "(value)"
# Values are written anew so deep; Python's own limit would depend on who calls.
_DEEPEST = 200


class Table(Protocol):
    """What a side's records mean. `header`: distinct names of its columns."""

    header: list[str]
    decoder: Decoder

    def rows(self, records: list[bytes], tell: Tell) -> list[Row]:
        """Parse raw records; each row has at least as many cells as the header."""
        ...


class CsvTable:
    """CSV and TSV. `written`: the names of its columns with the spaces around them."""

    def __init__(self, first: bytes | None, dialect: Dialect, *, named: bool, tell: Tell) -> None:
        """`first`: the file's first record, None when it has none; with `named` it is the header."""
        self.decoder = Decoder(dialect.encoding)
        self._delimiter = dialect.delimiter
        cells = [] if first is None else rows_of([first], self.decoder, self._delimiter)[0]
        if not named:
            self.header = self.written = [str(number) for number in range(1, len(cells) + 1)]
            return
        self.written = ["" if cell == EMPTY else cell for cell in cells]
        self.header = distinct([cell.strip() for cell in self.written])
        doubled = len(cells) - len({cell.strip() for cell in cells})
        if doubled:
            names = ", ".join(sorted({cell.strip() for cell in cells if cells.count(cell) > 1})[:5])
            tell(
                "doubled_column",
                f"column names stand twice in the header, the later ones got numbers: {names}",
                doubled,
            )
        if cells and all(cell[:1].isdigit() or cell[:1] == "-" for cell in cells):
            tell("header_of_numbers", "the header looks like data; say `header: false` in the rule if there is none", 1)

    def rows(self, records: list[bytes], tell: Tell) -> list[Row]:
        """Parse records; what a ragged one lacks is None."""
        rows: list[Row] = []
        rows += rows_of(records, self.decoder, self._delimiter)
        width = len(self.header)
        ragged = 0
        for at, row in enumerate(rows):
            if len(row) != width:
                ragged += 1
                if len(row) < width:
                    rows[at] = [*row, *[None] * (width - len(row))]
        if ragged:
            tell("ragged", f"rows that differ have more or fewer cells than the {width} of the header", ragged)
        return rows


class JsonTable:
    """JSON lines; the columns are all names of the records that differ, as they come, and cells are JSON texts."""

    def __init__(self, dialect: Dialect) -> None:
        self.decoder = Decoder(dialect.encoding)
        self.header: list[str] = []
        self._reader = json.JSONDecoder(parse_float=_Raw, parse_int=_Raw, parse_constant=_Raw, object_pairs_hook=_Pairs)

    def learn(self, records: list[bytes], tell: Tell) -> None:
        """Take the names of some records into the header."""
        known = dict.fromkeys(self.header)
        for cells in self._read(records, tell):
            known.update(dict.fromkeys(cells))
        self.header = list(known)

    def rows(self, records: list[bytes], tell: Tell) -> list[Row]:
        """Parse records; a name that one lacks is None."""
        return [[cells.get(name) for name in self.header] for cells in self._read(records, lambda *_: None)]

    def _read(self, records: list[bytes], tell: Tell) -> Iterable[dict[str, str]]:
        for text in self.decoder.texts(records):
            try:
                value = self._reader.decode(text)
                pairs = value if isinstance(value, _Pairs) else [(WHOLE, value)]
                cells = {name: _token(cell) for name, cell in pairs}
            except ValueError:
                tell("not_json", "lines are no JSON; each is compared as one text", 1)
                yield {WHOLE: json.dumps(text, ensure_ascii=False)}
                continue
            except RecursionError:
                tell("not_json", "lines are nested too deeply; each is compared as one text", 1)
                yield {WHOLE: json.dumps(text, ensure_ascii=False)}
                continue
            if len(pairs) != len(cells):
                tell("doubled_name", "objects have a name twice; the last one counts", 1)
            yield cells


class _Raw(str):
    """A number as it is written."""

    __slots__ = ()


class _Pairs(list[tuple[str, object]]):
    """An object as it is written."""


def _token(value: object, depth: int = 1) -> str:
    """Write a value as JSON, numbers as they were written, names sorted; raises RecursionError."""
    if isinstance(value, _Raw):
        return str(value)
    if not isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    if depth >= _DEEPEST:
        raise RecursionError
    if isinstance(value, _Pairs):
        items = [(json.dumps(name, ensure_ascii=False), cell) for name, cell in sorted(dict(value).items())]
        return "{" + ", ".join([f"{name}: {_token(cell, depth + 1)}" for name, cell in items]) + "}"
    return "[" + ", ".join([_token(cell, depth + 1) for cell in value]) + "]"


def apart(a: CsvTable, b: CsvTable) -> list[tuple[int, int]]:
    """Give where columns stand whose names are the same but for spaces around them."""
    at_b = {name: at for at, name in enumerate(b.header)}
    both = [(at, at_b[name]) for at, name in enumerate(a.header) if name in at_b]
    return [(at, other) for at, other in both if a.written[at] != b.written[other]]


def rename(table: CsvTable, places: Iterable[int]) -> None:
    """Give columns the names that are written."""
    names = list(table.header)
    for at in places:
        names[at] = table.written[at]
    table.header = distinct(names)


def distinct(names: list[str]) -> list[str]:
    """Number the names that stand there before: name, name (2)."""
    found: dict[str, None] = {}
    for name in names:
        unique, number = name, 1
        while unique in found:
            number += 1
            unique = f"{name} ({number})"
        found[unique] = None
    return list(found)
