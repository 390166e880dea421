"""The records that differ, matched by key and compared cell by cell."""

from __future__ import annotations

import csv
import heapq
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from runner.compare_budget import Budget, Clock
from runner.compare_layout import Key, Layout, Row
from runner.compare_values import Judged, judge_of, plain_form
from runner.comparison import Change, ColumnChanges, Difference, Leniency, Note, Rows, cut

Sink = Callable[[Difference], None]

# Among so many rows of one key each is looked for in all others; more of them are taken as they come.
_GROUP = 64


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
