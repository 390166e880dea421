"""Records before cells: what both sides have, record for record, is never parsed.

Equal raw records cancel each other out, whatever their order; only those are left that one side has more often than
the other. What is small is compared here in memory; `compare_hashes` has what is large.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, Protocol

from runner.compare_text import Dialect, Pieces
from runner.compare_walk import Range

# Files that are smaller than this together are compared in memory.
SMALL = 32 << 20

Batch = tuple[list[bytes], Sequence[int]]


class Records(Protocol):
    """Raw records that are left of one side; each with the number of cancelled ones before it, its rank.

    `size`: about how many bytes they are. `batches` can be asked for again.
    """

    count: int
    size: int

    def batches(self) -> Iterator[Batch]:
        """Give them in their order."""
        ...


@dataclass(frozen=True)
class Left:
    """What is left of both sides; `kept` records cancelled, in the same order or `reordered`."""

    a: Records
    b: Records
    kept: int
    reordered: bool


class Listed:
    """Records in memory."""

    def __init__(self, records: list[bytes], ranks: Sequence[int]) -> None:
        self._records, self._ranks = records, ranks
        self.count = len(records)
        self.size = sum(map(len, records)) + self.count

    def batches(self) -> Iterator[Batch]:
        """Give them, all at once."""
        if self._records:
            yield self._records, self._ranks


class Piece(NamedTuple):
    """Some records and where they stand; `rank` common records stand before all of them."""

    offset: int
    length: int
    rank: int
    records: list[bytes]


class Source:
    """The records of a file between two places; blank lines are left out, where a row has several cells."""

    def __init__(self, file: BinaryIO, dialect: Dialect, start: int, end: int, *, keep_blank: bool) -> None:
        self.file, self.dialect = file, dialect
        self.start, self.end = start, end
        self.keep_blank = keep_blank
        self.blank = 0
        self._ranges = [Range(start, end - start, 0)]

    def narrow(self, ranges: list[Range]) -> None:
        """Go on with these parts alone."""
        self._ranges = ranges

    @property
    def size(self) -> int:
        """How many bytes of it are left."""
        return sum(part.length for part in self._ranges)

    def pieces(self) -> Iterator[Piece]:
        """Give the records, some thousands at a time."""
        self.blank = 0
        for offset, length, rank in self._ranges:
            pieces = Pieces(self.file, self.dialect, offset, offset + length)
            for records in pieces:
                yield Piece(pieces.offset, pieces.length, rank, self._clean(records))
            self.blank += pieces.blank

    def first(self, count: int) -> list[bytes]:
        """Give the first records, at most so many."""
        head = Pieces(self.file, self.dialect, self.start, self.end, 1 << 18)
        return next((self._clean(records)[:count] for records in head), [])

    def again(self, offset: int, length: int) -> list[bytes]:
        """Give the records of a piece once more."""
        found: list[bytes] = []
        for records in Pieces(self.file, self.dialect, offset, offset + length, length):
            found += records
        return self._clean(found)

    def _clean(self, records: list[bytes]) -> list[bytes]:
        if not self.keep_blank and b"" in records:
            return [record for record in records if record]
        return records


class Whole:
    """All records of a source, none of them cancelled."""

    def __init__(self, source: Source, check: Callable[[], None]) -> None:
        self._source = source
        self.count = self.size = 0
        for piece in source.pieces():
            check()
            self.count += len(piece.records)
            self.size += piece.length

    def batches(self) -> Iterator[Batch]:
        """Give them; each has rank 0."""
        for piece in self._source.pieces():
            yield piece.records, bytes(len(piece.records))


def anti_join_small(a: list[bytes], b: list[bytes], ranks: tuple[Sequence[int], Sequence[int]] | None = None) -> Left:
    """Cancel equal records of two lists; `ranks`: the number of common records that stand before each already."""
    if len(a) == len(b):
        at_a = at_b = [at for at, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]
    else:
        start, end = _common_ends(a, b)
        at_a = list(range(start, len(a) - end))
        at_b = list(range(start, len(b) - end))
    crossed = False
    if at_a and at_b:
        crossed, at_a, at_b = _cancel(a, b, at_a, at_b)
    kept = len(a) - len(at_a)
    if ranks is None:
        return Left(_listed(a, at_a), _listed(b, at_b), kept, crossed)
    if kept:
        crossed = _kept(a, at_a, ranks[0]) != _kept(b, at_b, ranks[1])
    return Left(_listed(a, at_a, ranks[0]), _listed(b, at_b, ranks[1]), kept, crossed)


def _listed(records: list[bytes], places: list[int], ranks: Sequence[int] | None = None) -> Listed:
    own = [at - before for before, at in enumerate(places)]
    if ranks is not None:
        own = [rank + ranks[at] for rank, at in zip(own, places, strict=True)]
    return Listed([records[at] for at in places], own)


def _kept(records: list[bytes], gone: list[int], ranks: Sequence[int]) -> list[tuple[int, bytes]]:
    left = set(gone)
    return [(ranks[at], record) for at, record in enumerate(records) if at not in left]


def _common_ends(a: list[bytes], b: list[bytes]) -> tuple[int, int]:
    """Give how many records both begin with, and how many of the others both end with."""
    shorter = min(len(a), len(b))
    start = next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), shorter)
    most = shorter - start
    end = next((n for n, (x, y) in enumerate(zip(reversed(a), reversed(b), strict=False)) if x != y), shorter)
    return start, min(end, most)


def _cancel(a: list[bytes], b: list[bytes], at_a: list[int], at_b: list[int]) -> tuple[bool, list[int], list[int]]:
    """Cancel records at places that differ; give whether those that cancelled, now and before, are reordered."""
    there = {b[at] for at in at_b}
    if there.isdisjoint(a[at] for at in at_a):
        return False, at_a, at_b
    rest_a = _surplus(a, at_a, Counter(b[at] for at in at_b))
    rest_b = _surplus(b, at_b, Counter(a[at] for at in at_a))
    gone_a, gone_b = set(rest_a), set(rest_b)
    kept_a = [record for at, record in enumerate(a) if at not in gone_a]
    kept_b = [record for at, record in enumerate(b) if at not in gone_b]
    return kept_a != kept_b, rest_a, rest_b


def _surplus(records: list[bytes], places: list[int], others: Counter[bytes]) -> list[int]:
    rest = []
    for at in places:
        if others[records[at]] > 0:
            others[records[at]] -= 1
        else:
            rest.append(at)
    return rest
