"""Records before cells: what both sides have, record for record, is never parsed.

Equal raw records cancel each other out, whatever their order; only those are left that one side has more often than
the other. Small files are compared in memory. Of large ones a 64-bit hash of each record is kept on disk, and those
records whose hashes do not stand equally often on both sides are read a second time.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol

from runner.compare_text import Dialect, Pieces
from runner.compare_walk import Range, Walk

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Hashes = NDArray[np.int64]

# Files that are smaller than this together are compared in memory.
SMALL = 32 << 20
# Hashes of both sides that are looked at together: 8 bytes each, and five arrays of that size.
AT_ONCE = 1 << 23

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


class Hashed:
    """The hashes of a source's records, in a file."""

    def __init__(self, source: Source, path: Path, check: Callable[[], None]) -> None:
        import numpy as np

        self.source = source
        self.table: list[tuple[int, int, int, int]] = []
        self.count = 0
        self._path = path
        with path.open("wb") as file:
            for offset, length, rank, records in source.pieces():
                check()
                # Python's own hash of bytes: SipHash, keyed anew in each process.
                hashes = np.fromiter(map(hash, records), np.int64, len(records))
                file.write(hashes.tobytes())
                self.table.append((offset, length, rank, len(records)))
                self.count += len(records)

    def each(self) -> Iterator[Hashes]:
        """Give the hashes piece by piece."""
        import numpy as np

        with self._path.open("rb") as file:
            for _, _, _, count in self.table:
                yield np.frombuffer(file.read(8 * count), np.int64)

    def part(self, number: int, parts: int) -> Hashes:
        """Give one of `parts` shares of the hashes."""
        import numpy as np

        if parts == 1:
            return np.fromfile(self._path, np.int64)
        return np.concatenate([hashes[(hashes >> 8) % parts == number] for hashes in self.each()])


class Chosen:
    """Those records of a source whose hashes are among given ones."""

    def __init__(self, hashed: Hashed, wanted: Hashes, check: Callable[[], None]) -> None:
        import numpy as np

        self._hashed = hashed
        self._chosen: list[Hashes] = []
        self._before: list[int] = []
        self.count = self.size = 0
        kept = 0
        digest = hashlib.blake2b()
        for hashes, (_, length, rank, count) in zip(hashed.each(), hashed.table, strict=True):
            check()
            mask = _among(hashes, wanted)
            chosen = np.flatnonzero(mask)
            # The order of what cancels, among itself and among what both sides had before.
            digest.update(((hashes[~mask] if len(chosen) else hashes) ^ (rank << 20)).tobytes())
            self._chosen.append(chosen)
            self._before.append(rank + kept)
            kept += count - len(chosen)
            self.count += len(chosen)
            self.size += length * len(chosen) // max(count, 1)
        self.kept = kept
        self.order = digest.digest()

    def batches(self) -> Iterator[Batch]:
        """Read them once more."""
        import numpy as np

        for number, (offset, length, _, count) in enumerate(self._hashed.table):
            chosen = self._chosen[number]
            if not len(chosen):
                continue
            records = self._hashed.source.again(offset, length)
            ranks = (self._before[number] + chosen - np.arange(len(chosen))).tolist()
            if len(chosen) < count:
                records = [records[at] for at in chosen.tolist()]
            yield records, ranks


def anti_join_large(a: Source, b: Source, spool: Callable[[], Path], check: Callable[[], None]) -> Left:
    """Cancel equal records of two files of any size; keeps two files in the directory `spool`."""
    passed = 0
    if a.dialect.newline == b.dialect.newline != b"\r":
        walk = Walk((a.file, a.start, a.end), (b.file, b.start, b.end), a.dialect, check, keep_blank=a.keep_blank)
        a.narrow(walk.left_a)
        b.narrow(walk.left_b)
        passed = walk.kept
    if a.size + b.size <= SMALL:
        (all_a, ranks_a), (all_b, ranks_b) = _all(a), _all(b)
        left = anti_join_small(all_a, all_b, (ranks_a, ranks_b))
        return replace(left, kept=left.kept + passed)
    return _by_hashes(a, b, spool(), check, passed)


def _by_hashes(a: Source, b: Source, spool: Path, check: Callable[[], None], passed: int) -> Left:
    import numpy as np

    first, second = Hashed(a, spool / "a.hashes", check), Hashed(b, spool / "b.hashes", check)
    parts = 1 + (first.count + second.count) // AT_ONCE
    found = []
    for number in range(parts):
        check()
        found.append(_unequal(first.part(number, parts), second.part(number, parts)))
    wanted = np.sort(np.concatenate(found))
    rest_a, rest_b = Chosen(first, wanted, check), Chosen(second, wanted, check)
    return Left(rest_a, rest_b, rest_a.kept + passed, rest_a.order != rest_b.order)


def _all(source: Source) -> tuple[list[bytes], list[int]]:
    records: list[bytes] = []
    ranks: list[int] = []
    for piece in source.pieces():
        records += piece.records
        ranks += [piece.rank] * len(piece.records)
    return records, ranks


def _unequal(a: Hashes, b: Hashes) -> Hashes:
    """Give the hashes, without their last bit, that do not stand equally often in both."""
    import numpy as np

    both = np.concatenate([a & -2, b | 1])
    both.sort()
    if not len(both):
        return both
    values = both >> 1
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    balance = np.add.reduceat(1 - 2 * (both & 1), starts)
    unequal: Hashes = values[starts[balance != 0]]
    return unequal


def _among(hashes: Hashes, wanted: Hashes) -> NDArray[np.bool_]:
    """Tell which hashes are, without their last bit, among sorted ones."""
    import numpy as np

    if not len(wanted):
        return np.zeros(len(hashes), np.bool_)
    values = hashes >> 1
    places = np.searchsorted(wanted, values)
    places[places == len(wanted)] = 0
    found: NDArray[np.bool_] = wanted[places] == values
    return found
