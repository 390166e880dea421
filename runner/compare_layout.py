"""Two headers side by side: which columns face each other, and which of them are the key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import combinations

from runner.compare_values import Limits, read_number
from runner.comparison import Columns
from runner.spec_rule import Rule

Row = Sequence[str | None]
Key = tuple[str | None, ...]

# A key is looked for among so many columns and rows, and is of so many columns at most.
_KEY_COLUMNS, _KEY_ROWS, _KEY_WIDTH = 8, 2_000, 3


@dataclass(frozen=True)
class Column:
    """A column of both sides: where it stands in each, and what may be overlooked in it."""

    name: str
    a: int
    b: int
    limits: Limits
    ignored: bool = False


@dataclass(frozen=True)
class Layout:
    """The columns of two tables side by side."""

    common: tuple[Column, ...]
    widths: tuple[int, int]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    reordered: bool

    @property
    def identical(self) -> bool:
        """Whether equal raw records are equal rows."""
        return not (self.added or self.removed or self.reordered) and self.widths[0] == self.widths[1]

    def columns(self, ignored: frozenset[str]) -> Columns:
        """Give what became of the columns that count."""
        return Columns(
            tuple(name for name in self.added if name not in ignored),
            tuple(name for name in self.removed if name not in ignored),
            self.reordered,
        )


def lay_out(a: Sequence[str], b: Sequence[str], rule: Rule) -> Layout:
    """Put two headers, each without doubled names, side by side."""
    at_b = {name: at for at, name in enumerate(b)}
    names = set(a)
    lenient = frozenset(rule.lenient)
    ignored = frozenset(rule.ignore)
    general = Limits(Decimal(str(rule.tolerance.absolute)), Decimal(str(rule.tolerance.relative)), lenient)
    own = {
        name: Limits(Decimal(str(one.absolute)), Decimal(str(one.relative)), lenient)
        for name, one in rule.tolerance.columns.items()
    }
    exact = dict.fromkeys(rule.key, Limits(lenient=lenient))
    limits = {**own, **exact}
    common = tuple(
        Column(name, at, at_b[name], limits.get(name, general), name in ignored)
        for at, name in enumerate(a)
        if name in at_b
    )
    places = [column.b for column in common]
    return Layout(
        common,
        (len(a), len(b)),
        tuple(name for name in b if name not in names),
        tuple(name for name in a if name not in at_b),
        places != sorted(places),
    )


def find_key(layout: Layout, sample: tuple[list[Row], list[Row]], rest: tuple[list[Row], list[Row]]) -> list[int]:
    """Find common columns (their numbers) whose values tell rows apart in both samples; empty when there are none.

    Among several the one wins by which most of the rows of `rest` find each other, then the first.
    """
    columns = [
        number for number, column in enumerate(layout.common) if not column.ignored and _may_be_key(column, sample[0])
    ][:_KEY_COLUMNS]
    best: list[int] = []
    most = -1
    for width in range(1, _KEY_WIDTH + 1):
        for chosen in combinations(columns, width):
            places_a = [layout.common[n].a for n in chosen]
            places_b = [layout.common[n].b for n in chosen]
            if not (_unique(sample[0], places_a) and _unique(sample[1], places_b)):
                continue
            met = len(_values(rest[0], places_a) & _values(rest[1], places_b))
            if met > most:
                best, most = list(chosen), met
        if best:
            break
    return best


def text_columns(layout: Layout, sample: list[Row]) -> list[int]:
    """Give those common columns (their numbers) that hold no numbers: what rows are matched by when no key is found."""
    return [
        number
        for number, column in enumerate(layout.common)
        if not column.ignored and not _numeric([row[column.a] for row in sample if column.a < len(row)])
    ]


def _numeric(cells: list[str | None]) -> bool:
    filled = [cell for cell in cells if cell]
    return any(read_number(cell) is not None for cell in filled[:50]) if filled else False


def _may_be_key(column: Column, rows: list[Row]) -> bool:
    """Refuse amounts: numbers with a fraction."""
    for row in rows[:50]:
        text = row[column.a] if column.a < len(row) else None
        if text and "." in text and read_number(text) is not None:
            return False
    return True


def _unique(rows: list[Row], places: list[int]) -> bool:
    seen = set()
    for row in rows[:_KEY_ROWS]:
        key = tuple(row[at] for at in places)
        if key in seen or not any(key):
            return False
        seen.add(key)
    return True


def _values(rows: list[Row], places: list[int]) -> set[Key]:
    return {tuple(row[at] for at in places) for row in rows[:_KEY_ROWS]}
