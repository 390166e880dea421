"""A log by its lines: where each begins, windows of them, and a search. Logs only grow, so an index only grows."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from web.ansi import stripped

# Lines are found by counting newlines in blocks of this size: 4,096 numbers for a log of 256 MiB.
BLOCK = 65_536

# What is read of a log at once: whole blocks.
READ = 16 * BLOCK

# A longer line is shown up to here; the rest is in the download.
LINE_LIMIT = 16_384

# A window holds at most so much text, however many lines were asked for.
WINDOW_LIMIT = 2 << 20

# One search request looks at so many bytes; the next one goes on. So many are looked at from the end for a line.
SEARCH_LIMIT = 64 << 20

# Indexes kept in memory; an index of a 256 MiB log takes about 150 KB.
KEPT = 256


_CONTROLS = bytes(code for code in range(32) if code not in b"\t\n") + b"\x7f"


class Reader(Protocol):
    """Reads bytes of a task's log."""

    def log(self, task: int, *, offset: int = 0, limit: int = BLOCK) -> bytes: ...


@dataclass(frozen=True)
class Line:
    """A line: its number from 1, where it begins, its text, and how many of its bytes are not shown."""

    n: int
    offset: int
    text: str
    cut: int


@dataclass(frozen=True)
class Window:
    """Some lines of a log; `next_offset` is the byte after the last one, `open` tells that no newline ends it."""

    lines: tuple[Line, ...]
    total: int
    size: int
    next_offset: int
    open: bool


@dataclass(frozen=True)
class Hits:
    """What a search found; `next` is the line to go on from."""

    hits: tuple[Line, ...]
    next: int | None
    total: int


class LogIndex:
    """How many newlines stand before each block of one task's log."""

    def __init__(self, reader: Reader, task: int) -> None:
        self._reader = reader
        self._task = task
        self._lock = threading.Lock()
        self._before: list[int] = [0]  # newlines before block i; one more entry than there are full blocks
        self._partial = b""  # what stands after the last full block
        self._searching = threading.Lock()
        self._newest: tuple[str, int, int | None] = ("", 0, None)  # the line looked for, in how many bytes, its number

    def _grow(self) -> None:
        while True:
            start = (len(self._before) - 1) * BLOCK + len(self._partial)
            data = self._reader.log(self._task, offset=start, limit=READ)
            if not data:
                return
            held = self._partial + data
            whole = len(held) // BLOCK * BLOCK
            for at in range(0, whole, BLOCK):
                self._before.append(self._before[-1] + held.count(b"\n", at, at + BLOCK))
            self._partial = held[whole:]

    def _facts(self) -> tuple[list[int], int, int, bool]:
        """Give newlines before each block, newlines in all, size, and whether the last line is open."""
        with self._lock:
            self._grow()
            newlines = self._before[-1] + self._partial.count(b"\n")
            size = (len(self._before) - 1) * BLOCK + len(self._partial)
            ends = self._partial[-1:] or (self._reader.log(self._task, offset=size - 1, limit=1) if size else b"\n")
            return self._before, newlines, size, ends != b"\n"

    def total(self) -> int:
        """Count the lines, one that no newline ends included."""
        _, newlines, _, is_open = self._facts()
        return newlines + is_open

    def window(self, start: int, count: int) -> Window:
        """Give up to `count` lines from line `start` on; a negative `start` counts from the end."""
        before, newlines, size, is_open = self._facts()
        total = newlines + is_open
        first = max(1, total + start + 1 if start < 0 else max(1, start))
        offset = self._offset(before, first) if first <= total else size
        lines: list[Line] = []
        room = WINDOW_LIMIT
        for line, length in self._lines(first, offset, size):
            lines.append(line)
            offset += length
            room -= len(line.text)
            if len(lines) >= count or room <= 0:
                break
        return Window(tuple(lines), total, size, offset, is_open and bool(lines) and lines[-1].n == total)

    def search(self, text: str, start: int, limit: int) -> Hits:
        """Find the lines that hold `text`, case ignored, from line `start` on.

        Terminal sequences are looked past; of a line longer than 1 MiB the first MiB is searched.
        """
        before, newlines, size, is_open = self._facts()
        total = newlines + is_open
        if start > total:
            return Hits((), None, total)
        wanted = text.casefold()
        hits: list[Line] = []
        left = SEARCH_LIMIT
        for number, offset, block in self._blocks(start, self._offset(before, start), size):
            following = number + block.count(b"\n") + 1
            for hit in _hits(wanted, number, offset, block):
                hits.append(hit)
                if len(hits) >= limit:
                    following = hit.n + 1
                    break
            left -= len(block)
            if len(hits) >= limit or left <= 0:
                return Hits(tuple(hits), following if following <= total else None, total)
        return Hits(tuple(hits), None, total)

    def last(self, text: str) -> int | None:
        """Find the newest line that is `text`, among the last SEARCH_LIMIT bytes; None when there is none.

        What stands before a carriage return was overwritten. Who asks for the same meanwhile waits for the one answer.
        """
        with self._searching:
            before, _, size, _ = self._facts()
            if self._newest[:2] != (text, size):
                self._newest = (text, size, self._newest_line(text.encode(), before, size))
            return self._newest[2]

    def _newest_line(self, text: bytes, before: list[int], size: int) -> int | None:
        """Go through the log once, from its end: a piece at a time, with as much of the one after as a line needs."""
        needles = (b"\n" + text + b"\n", b"\r" + text + b"\n")
        after = b"\n"
        start = max(0, size - 1) // READ * READ
        while start >= 0 and size - start <= SEARCH_LIMIT:
            held = self._read(start, min(READ, size - start)) + after
            first = b"" if start else b"\n"
            found = max((first + held).rfind(needle) for needle in needles)
            if found >= 0:
                return before[start // BLOCK] + held.count(b"\n", 0, found + 1 - len(first)) + 1
            after = held[: len(text) + 1]
            start -= READ
        return None

    def _blocks(self, number: int, offset: int, size: int) -> Iterator[tuple[int, int, bytes]]:
        """Walk over whole lines, about a MiB at a time: their first number, their offset, their bytes."""
        held, at, too_long = b"", offset, False
        while at < size:
            data = self._reader.log(self._task, offset=at, limit=min(READ, size - at))
            if not data:
                break
            at += len(data)
            if too_long:
                end = data.find(b"\n")
                if end < 0:
                    continue
                yield number, offset, held
                number, offset, held, too_long = number + 1, at - len(data) + end + 1, data[end + 1 :], False
            else:
                held += data
            end = held.rfind(b"\n")
            if end >= 0:
                yield number, offset, held[:end]
                number += held.count(b"\n")
                offset, held = offset + end + 1, held[end + 1 :]
            elif len(held) >= READ:
                held, too_long = held[:READ], True
        if held:
            yield number, offset, held

    def _offset(self, before: list[int], line: int) -> int:
        """Find the byte at which a line begins: after newline number `line - 1`."""
        wanted = line - 1
        if wanted == 0:
            return 0
        block = bisect_left(before, wanted) - 1
        left = wanted - before[block]
        start = block * BLOCK
        data = self._read(start, BLOCK)
        place = -1
        for _ in range(left):
            place = data.index(b"\n", place + 1)
        return start + place + 1

    def _read(self, start: int, length: int) -> bytes:
        """Read so many bytes, or up to the log's end."""
        data = b""
        while len(data) < length:
            more = self._reader.log(self._task, offset=start + len(data), limit=length - len(data))
            if not more:
                break
            data += more
        return data

    def _lines(self, number: int, offset: int, size: int) -> Iterator[tuple[Line, int]]:
        """Walk over lines from `offset` to `size` with their whole lengths; a long line is never held whole."""
        begin, held, length = offset, b"", 0
        while offset < size:
            data = self._reader.log(self._task, offset=offset, limit=min(BLOCK, size - offset))
            if not data:
                break
            offset += len(data)
            at = 0
            while (end := data.find(b"\n", at)) >= 0:
                held += data[at : min(end, at + LINE_LIMIT - len(held))]
                length += end - at
                yield _line(number, begin, held, length), length + 1
                number, begin, held, length = number + 1, begin + length + 1, b"", 0
                at = end + 1
            rest = len(data) - at
            held += data[at : at + max(0, LINE_LIMIT - len(held))]
            length += rest
        if length:
            yield _line(number, begin, held, length), length


def _hits(wanted: str, number: int, offset: int, block: bytes) -> Iterator[Line]:
    """Find the lines of a block that hold `wanted`, which is casefolded."""
    text = block.decode("utf-8", "replace")
    if len(block.translate(None, _CONTROLS)) < len(block):  # much faster than looking for sequences
        text = stripped(text)
    text = text.casefold()
    found = text.find(wanted)
    if found < 0:
        return
    lines, line, seen = block.split(b"\n"), 0, 0
    while found >= 0:
        step = text.count("\n", seen, found)
        offset += sum(len(raw) + 1 for raw in lines[line : line + step])
        line, seen = line + step, found
        yield _line(number + line, offset, lines[line][:LINE_LIMIT], len(lines[line]))
        end = text.find("\n", found)
        found = text.find(wanted, end) if end >= 0 else -1


def _line(number: int, offset: int, held: bytes, length: int) -> Line:
    return Line(number, offset, held.decode("utf-8", "replace"), length - len(held))


class LogIndexes:
    """The indexes of the logs that were read lately."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, LogIndex] = OrderedDict()

    def of(self, task: int) -> LogIndex:
        with self._lock:
            index = self._kept.pop(task, None) or LogIndex(self._reader, task)
            self._kept[task] = index
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return index
