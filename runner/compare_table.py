"""The records that differ, matched by key and compared cell by cell."""

from __future__ import annotations

import csv
import heapq
import io
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import combinations

from runner.compare_values import Judged, Limits, judge_of, plain_form, read_number
from runner.comparison import Change, ColumnChanges, Columns, Difference, Leniency, Note, Rows, cut
from runner.spec import Rule

Row = Sequence[str | None]
Key = tuple[str | None, ...]
Sink = Callable[[Difference], None]

# Among so many rows of one key each is looked for in all others; more of them are taken as they come.
_GROUP = 64
# A key is looked for among so many columns and rows, and is of so many columns at most.
_KEY_COLUMNS, _KEY_ROWS, _KEY_WIDTH = 8, 2_000, 3


class BudgetSpent(Exception):
    """The time for one comparison is over."""


@dataclass(frozen=True)
class Budget:
    """What one comparison may cost: `seconds` of time, and how many differences it keeps."""

    seconds: float | None = None
    differences: int = 1_000


class Clock:
    """Ends a comparison when its time is over."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        """Give the seconds that are left, None when nobody counts."""
        return None if self._end is None else max(0.001, self._end - time.monotonic())

    def check(self) -> None:
        """Raise BudgetSpent when the time is over."""
        if self._end is not None and time.monotonic() > self._end:
            raise BudgetSpent


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


@dataclass
class _Counts:
    changed: int = 0
    tolerated: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    delta: float | None = None
    relative: float | None = None


class Tally:
    """Counts what is found, and keeps the largest differences."""

    def __init__(self, layout: Layout, key: Sequence[int], format: str, budget: Budget, sink: Sink | None) -> None:  # noqa: A002
        self.layout = layout
        self.key = tuple(key)
        self.changed = self.added = self.removed = self.same = 0
        self.found = 0
        self.leniencies: set[Leniency] = set()
        self.reordered = False
        self._judge = judge_of(format)
        self._limit = budget.differences
        self._sink = sink
        self._heap: list[tuple[tuple[int, float, int], int, Difference]] = []
        self._counts: dict[str, _Counts] = {}
        self._notes: dict[str, Note] = {}
        self._key_a = [layout.common[n].a for n in key]
        self._key_b = [layout.common[n].b for n in key]
        self._cells = [(c.name, c.a, c.b, c.limits, c.ignored) for c in layout.common]

    def note(self, code: str, text: str, count: int = 1) -> None:
        """Remember something about the outputs; the first text of a code is kept, and all are counted."""
        known = self._notes.get(code)
        self._notes[code] = Note(code, known.text if known else text, count + (known.count if known else 0))

    def key_a(self, row: Row) -> Key:
        """Give the key of a row of the first side."""
        return tuple([row[at] for at in self._key_a])

    def key_b(self, row: Row) -> Key:
        """Give the key of a row of the second side."""
        return tuple([row[at] for at in self._key_b])

    def pair(self, a: Row, b: Row) -> None:
        """Count two rows that belong together."""
        different = False
        for name, at_a, at_b, limits, ignored in self._cells:
            before, after = a[at_a], b[at_b]
            if before == after:
                continue
            if ignored:
                self.leniencies.add(Leniency.IGNORED_COLUMNS)
                continue
            judged = self._judge(before, after, limits)
            counts = self._counts.get(name)
            if counts is None:
                counts = self._counts[name] = _Counts()
            if judged.leniency is not None:
                self.leniencies.add(judged.leniency)
                counts.tolerated += 1
                continue
            different = True
            self._changed(counts, judged)
            self._keep(judged, a, name, before, after)
        width_a, width_b = self.layout.widths
        if (len(a) > width_a or len(b) > width_b) and list(a[width_a:]) != list(b[width_b:]):
            different = True
            counts = self._counts.setdefault("(more cells)", _Counts())
            judged = Judged(Change.VALUE)
            self._changed(counts, judged)
            self._keep(judged, a, "(more cells)", _record(a[width_a:]), _record(b[width_b:]))
        if different:
            self.changed += 1
        else:
            self.same += 1

    def alike(self, a: Row, b: Row) -> bool:
        """Tell whether two rows are equal within the rule, without counting them."""
        for _, at_a, at_b, limits, ignored in self._cells:
            before, after = a[at_a], b[at_b]
            if before != after and not ignored and self._judge(before, after, limits).leniency is None:
                return False
        return list(a[self.layout.widths[0] :]) == list(b[self.layout.widths[1] :])

    def lone_a(self, row: Row) -> None:
        """Count a row that only the first side has."""
        self.removed += 1
        self._lone(Change.REMOVED, self.key_a(row), row)

    def lone_b(self, row: Row) -> None:
        """Count a row that only the second side has."""
        self.added += 1
        self._lone(Change.ADDED, self.key_b(row), row)

    def differences(self) -> tuple[Difference, ...]:
        """Give what was kept, the largest first."""
        return tuple(entry[2] for entry in sorted(self._heap, reverse=True))

    def changes(self) -> tuple[ColumnChanges, ...]:
        """Give the counts of each column that had changes, as the columns stand."""
        names = [column.name for column in self.layout.common] + ["(more cells)"]
        return tuple(
            ColumnChanges(n, c.changed, dict(sorted(c.kinds.items())), c.tolerated, c.delta, c.relative)
            for n in names
            if (c := self._counts.get(n)) is not None
        )

    def notes(self) -> tuple[Note, ...]:
        """Give what was remembered."""
        return tuple(self._notes.values())

    def rows(self) -> Rows:
        """Give the counts of rows."""
        return Rows(self.changed, self.added, self.removed, self.same)

    def _changed(self, counts: _Counts, judged: Judged) -> None:
        counts.changed += 1
        counts.kinds[judged.change.value] = counts.kinds.get(judged.change.value, 0) + 1
        if judged.delta is not None and (counts.delta is None or abs(judged.delta) > counts.delta):
            counts.delta = abs(judged.delta)
        if judged.relative is not None and (counts.relative is None or judged.relative > counts.relative):
            counts.relative = judged.relative

    def _keep(self, judged: Judged, a: Row, name: str, before: str | None, after: str | None) -> None:
        self.found += 1
        weight = _weight(judged)
        if self._sink is None and len(self._heap) >= self._limit and (not self._heap or weight <= self._heap[0][0]):
            return
        key = tuple([cut(text) for text in self.key_a(a)])
        self._push(
            weight,
            Difference(judged.change, key, name, cut(before), cut(after), judged.delta, judged.relative),
        )

    def _lone(self, change: Change, key: Key, row: Row) -> None:
        self.found += 1
        judged = Judged(change)
        weight = _weight(judged)
        if self._sink is None and len(self._heap) >= self._limit and (not self._heap or weight <= self._heap[0][0]):
            return
        record = cut(_record(row))
        a, b = (record, None) if change is Change.REMOVED else (None, record)
        self._push(weight, Difference(change, tuple([cut(text) for text in key]), None, a, b))

    def _push(self, weight: tuple[int, float, int], difference: Difference) -> None:
        if self._sink is not None:
            self._sink(difference)
        # The earlier one of two that weigh the same comes first.
        entry = (weight, -self.found, difference)
        if len(self._heap) < self._limit:
            heapq.heappush(self._heap, entry)
        elif self._heap and entry > self._heap[0]:
            heapq.heapreplace(self._heap, entry)


def match(
    tally: Tally, rows_a: list[Row], rows_b: list[Row], clock: Clock, *, ranks: tuple[Sequence[int], Sequence[int]]
) -> list[tuple[int, int]]:
    """Bring the rows of both sides together by key, and count them; give the places of those that belong together.

    `ranks`: how many records that both have stand before each row; rows that belong together and have others, or
    come in another order, make the tally `reordered`.
    """
    if not tally.layout.common:
        for row in rows_a:
            tally.lone_a(row)
        for row in rows_b:
            tally.lone_b(row)
        return []
    index: dict[Key, list[int]] = {}
    for at, row in enumerate(rows_a):
        index.setdefault(tally.key_a(row), []).append(at)
    others: dict[Key, list[int]] = {}
    for at, row in enumerate(rows_b):
        others.setdefault(tally.key_b(row), []).append(at)
    pairs: list[tuple[int, int]] = []
    left_a: list[int] = []
    left_b = [at for key, found in others.items() if key not in index for at in found]
    for key, found in index.items():
        twins = others.get(key)
        if twins is None:
            left_a += found
        elif len(found) == 1 == len(twins):
            pairs.append((found[0], twins[0]))
        else:
            _doubled(tally, key, found, twins)
            more, rest_a, rest_b = _group(tally, rows_a, rows_b, found, twins)
            pairs += more
            left_a += rest_a
            left_b += rest_b
    if left_a and left_b and tally.key:
        again, left_a, left_b = _by_plain_form(tally, rows_a, rows_b, left_a, left_b)
        pairs += again
    pairs.sort()
    last = -1
    for number, (at_a, at_b) in enumerate(pairs):
        if not number % 4096:
            clock.check()
        tally.pair(rows_a[at_a], rows_b[at_b])
        if at_b < last or ranks[0][at_a] != ranks[1][at_b]:
            tally.reordered = True
        last = at_b
    for at in sorted(left_a):
        tally.lone_a(rows_a[at])
    for at in sorted(left_b):
        tally.lone_b(rows_b[at])
    return pairs


def _doubled(tally: Tally, key: Key, found: list[int], twins: list[int]) -> None:
    if tally.key:
        shown = ", ".join("(null)" if text is None else str(cut(text)) for text in key)
        tally.note(
            "duplicate_key",
            f"the key ({shown}) stands {len(found)} and {len(twins)} times among the rows that differ: "
            "such rows are matched by what they hold, then in their order",
        )


def _group(
    tally: Tally, rows_a: list[Row], rows_b: list[Row], found: list[int], twins: list[int]
) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Match rows of one key: those that are equal within the rule first, the others in their order."""
    pairs: list[tuple[int, int]] = []
    rest_a, rest_b = list(found), list(twins)
    if len(found) <= _GROUP and len(twins) <= _GROUP:
        for at in found:
            twin = next((other for other in rest_b if tally.alike(rows_a[at], rows_b[other])), None)
            if twin is not None:
                pairs.append((at, twin))
                rest_a.remove(at)
                rest_b.remove(twin)
    both = min(len(rest_a), len(rest_b))
    pairs += zip(rest_a[:both], rest_b[:both], strict=True)
    return pairs, rest_a[both:], rest_b[both:]


def _by_plain_form(
    tally: Tally, rows_a: list[Row], rows_b: list[Row], left_a: list[int], left_b: list[int]
) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Match what is left by keys in one form: 1.0 finds 1.00, and a date its other spelling."""
    index: dict[Key, list[int]] = {}
    for at in reversed(left_a):
        index.setdefault(plain_key(tally.key_a(rows_a[at])), []).append(at)
    pairs: list[tuple[int, int]] = []
    rest: list[int] = []
    for at in left_b:
        if found := index.get(plain_key(tally.key_b(rows_b[at]))):
            pairs.append((found.pop(), at))
        else:
            rest.append(at)
    return pairs, [at for found in index.values() for at in found], rest


def plain_key(key: Key) -> Key:
    """Give a key in one form for all that mean the same."""
    return tuple([plain_form(text) for text in key])


def _weight(judged: Judged) -> tuple[int, float, int]:
    return Difference(judged.change, (), None, None, None, judged.delta).weight()


def _record(cells: Iterable[str | None]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(["" if cell is None else cell for cell in cells])
    return out.getvalue()
