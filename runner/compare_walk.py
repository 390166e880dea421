"""Two large files side by side: what they have in the same order is passed over at the speed of comparing bytes.

Exports are mostly sorted. Then almost all of both files is the same but for some records, and nothing of it needs to
be hashed. Where the files part they are brought together again at the nearest record that both have; when that goes
wrong too often the rest is left to the hashes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, NamedTuple

from runner.compare_text import LONGEST_RECORD, Dialect, records_of, sealed

# What is compared at once: more than the largest step does not fit into a processor's cache.
_STEP, _LARGEST_STEP = 1 << 12, 1 << 16
# How far a record that both have is looked for.
_AHEAD = 1 << 15
# Records that differ closer to each other than this are better left to the hashes, with all between them.
_NEAR = 1 << 12
_WORTH = 1 << 15
_PATIENCE = 32


class Range(NamedTuple):
    """A part of a file that is left: whole records, `rank` common ones before them."""

    offset: int
    length: int
    rank: int


class _Window:
    """A file read forwards from a record's beginning."""

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        self._file = file
        self._data = b""
        self._at = 0
        self.place = start
        self.end = end

    @property
    def left(self) -> int:
        """How many bytes there are still."""
        return self.end - self.place

    def peek(self, count: int) -> bytes:
        """Give the next bytes, as many as there are."""
        if self._at + count > len(self._data):
            # No more than is asked for, which is then given as it is; what is left of the last time costs less to read
            # again than to copy.
            self._file.seek(self.place)
            self._data = self._file.read(min(count, self.left))
            self._at = 0
        return self._data[self._at : self._at + count]

    def skip(self, count: int) -> None:
        """Go on."""
        self._at += count
        self.place += count


class Walk:
    """What a walk through both files left of each; `kept` records were passed over."""

    def __init__(
        self,
        a: tuple[BinaryIO, int, int],
        b: tuple[BinaryIO, int, int],
        dialect: Dialect,
        check: Callable[[], None],
        *,
        keep_blank: bool,
    ) -> None:
        """Walk through two files of one dialect from their first records (file, start, end); raises Malformed."""
        self._a, self._b = _Window(*a), _Window(*b)
        self._dialect = dialect
        self._keep_blank = keep_blank
        self.kept = 0
        self.left_a: list[Range] = []
        self.left_b: list[Range] = []
        self._start = a[1]
        self._partings = 0
        self._walk(check)
        for window, left in ((self._a, self.left_a), (self._b, self.left_b)):
            if window.left:
                left.append(Range(window.place, window.left, self.kept))

    def _walk(self, check: Callable[[], None]) -> None:
        a, b = self._a, self._b
        step = _STEP
        while a.left and b.left:
            check()
            size = min(step, a.left, b.left)
            block_a, block_b = a.peek(size), b.peek(size)
            if block_a == block_b:
                last = size == a.left == b.left
                if end := size if last else self._dialect.boundary(block_a):
                    self._pass(block_a[:end])
                elif step > LONGEST_RECORD or size < step:
                    return
                step = step * 2 if not end else min(2 * step, _LARGEST_STEP)
                continue
            if end := self._dialect.boundary(block_a[: first_difference(block_a, block_b)]):
                self._pass(block_a[:end])
            step = _STEP
            if not self._rejoin():
                return

    def _pass(self, block: bytes) -> None:
        self._a.skip(len(block))
        self._b.skip(len(block))
        self.kept += self._count(block)

    def _count(self, block: bytes) -> int:
        """Count the records of a block."""
        records = records_of(block, self._dialect)
        return len(records) if self._keep_blank or b"" not in records else len(records) - records.count(b"")

    def _rejoin(self) -> bool:
        """Leave the records up to the next that both have; False when it is not worth while to go on."""
        self._partings += 1
        if self._partings > _PATIENCE and self._partings * _WORTH > self._a.place - self._start:
            return False
        ahead_a, ahead_b = self._ahead(self._a), self._ahead(self._b)
        if not ahead_a or not ahead_b:
            return False
        at = {}
        for number in range(len(ahead_b) - 1, -1, -1):
            at[ahead_b[number]] = number
        best: tuple[int, int] | None = None
        for number, record in enumerate(ahead_a):
            if best is not None and number >= sum(best):
                break
            other = at.get(record)
            if other is not None and (best is None or number + other < sum(best)):
                best = number, other
        if best is None or not sum(best):
            return False
        self._leave(self.left_a, self._a, sum(map(len, ahead_a[: best[0]])))
        self._leave(self.left_b, self._b, sum(map(len, ahead_b[: best[1]])))
        return True

    def _ahead(self, window: _Window) -> list[bytes]:
        """Give the next records, each with its line end."""
        block = window.peek(min(_AHEAD, window.left))
        end = len(block) if len(block) == window.left else self._dialect.boundary(block)
        block = block[:end]
        if self._dialect.format != "jsonl" and b'"' in block:
            block = sealed(block, self._dialect.delimiter.encode())
        records = block.split(b"\n")
        last = records.pop()
        return [record + b"\n" for record in records] + ([last] if last else [])

    def _leave(self, left: list[Range], window: _Window, length: int) -> None:
        if length:
            left.append(Range(window.place, length, self.kept))
            window.skip(length)


def first_difference(a: bytes, b: bytes) -> int:
    """Give the first place where two texts of the same length, which are not equal, differ."""
    low, high = 0, len(a)
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low
