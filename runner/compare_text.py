"""What a file of records is written like, and its division into raw records without parsing them.

A raw record is the bytes between two line ends that are outside of quotes, without them. Inside of quotes a line end
is kept as the byte 0xFF, which stands in no UTF-8 and no CP932.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from runner.compare_values import EMPTY

# Read at once: as much as its records fit into a processor's cache even where others use it too.
PIECE = 1 << 16
HEAD = 1 << 16
# A record beyond this is taken for an unclosed quote; one cell of 100 MB is allowed.
LONGEST_RECORD = 1 << 28
# In a record that is longer than this a cell that is longer than a fiftieth of it is compared by its digest.
LONG_RECORD = 1 << 20
LONG_CELL = LONG_RECORD // 50
NEWLINE = b"\xff"

_BOM = codecs.BOM_UTF8
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_DELIMITERS = (",", "\t", ";", "|")
TABLES = {".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}

# Cells may be long; the module's own limit is for everybody in the process, and low.
csv.field_size_limit(min(sys.maxsize, LONGEST_RECORD))


class Malformed(Exception):
    """The quotes are not those of CSV, so that records cannot be told apart without parsing."""


class TooLong(Exception):
    """A record is longer than what is compared as a record."""


@dataclass(frozen=True)
class Dialect:
    """How a file is written. `skip` bytes stand before its first record; `newline` ends its records."""

    format: str
    delimiter: str = ","
    encoding: str | None = None  # None: UTF-8, and CP932 where that cannot be
    skip: int = 0
    newline: bytes = b"\n"

    @property
    def bom(self) -> bool:
        """Whether a byte order mark stands first."""
        return self.skip > 0

    def boundary(self, block: bytes) -> int:
        """Give where the last whole record of a block ends that begins with a record, 0 when none does."""
        if self.newline == b"\r":
            return block.rfind(b"\r") + 1
        end = block.rfind(b"\n") + 1
        # A byte is found much faster than it is counted.
        if self.format == "jsonl" or block.find(b'"', 0, end) < 0:
            return end
        # Outside of quotes there is an even number of them before.
        while end and block.count(b'"', 0, end) % 2:
            end = block.rfind(b"\n", 0, block.rfind(b'"', 0, end)) + 1
        return end


def format_of(name: str) -> str:
    """Tell by a file's name what it holds: csv, tsv, jsonl, parquet, or bytes."""
    return TABLES.get(name[name.rfind(".") :].lower(), "bytes") if "." in name else "bytes"


def look(head: bytes, format: str, *, delimiter: str | None, encoding: str | None) -> Dialect | None:  # noqa: A002
    """Tell from its first bytes how a file is written; None for what is no text that can be read."""
    if head.startswith(_UTF16):
        return None
    skip = len(_BOM) if head.startswith(_BOM) else 0
    at = head.find(b"\n")
    newline = b"\n"
    if at > 0 and head[at - 1] == 0x0D:
        newline = b"\r\n"
    elif at < 0 and b"\r" in head:
        newline = b"\r"
    if format != "csv":
        return Dialect(format, delimiter or "\t", encoding, skip, newline)
    if delimiter is None:
        first = head[skip : at if at >= 0 else None]
        delimiter = "," if b"," in first else next((d for d in _DELIMITERS if d.encode() in first), ",")
    return Dialect(format, delimiter, encoding, skip, newline)


class Pieces:
    """The raw records of a file or a part of it, some thousands at a time; counts what it saw.

    `offset` and `length` are those of the piece given last.
    """

    def __init__(self, file: BinaryIO, dialect: Dialect, start: int, end: int, piece: int = PIECE) -> None:
        self._file = file
        self._dialect = dialect
        self._start, self._end = start, end
        self._piece = piece
        self.offset = start
        self.length = 0
        self.blank = 0

    def __iter__(self) -> Iterator[list[bytes]]:
        """Give the records; raises Malformed, TooLong."""
        held = b""
        offset = at = self._start
        size = self._piece
        while at < self._end:
            self._file.seek(at)
            data = self._file.read(min(size, self._end - at))
            if not data:
                break
            at += len(data)
            held = held + data if held else data
            end = self._dialect.boundary(held)
            if not end:
                if len(held) > LONGEST_RECORD:
                    raise TooLong
                # A long record is read in ever larger pieces, so that it is copied only some times.
                size = max(self._piece, len(held))
                continue
            size = self._piece
            yield self._give(held[:end], offset)
            held, offset = held[end:], offset + end
        if held:
            yield self._give(held, offset)

    def _give(self, body: bytes, offset: int) -> list[bytes]:
        self.offset, self.length = offset, len(body)
        records = records_of(body, self._dialect)
        if b"" in records:
            self.blank += records.count(b"")
        return records


def records_of(body: bytes, dialect: Dialect) -> list[bytes]:
    """Divide whole records; raises Malformed."""
    if dialect.newline == b"\r\n":
        body = body.replace(b"\r\n", b"\n")
    elif dialect.newline == b"\r":
        body = body.replace(b"\r", b"\n")
    if dialect.format != "jsonl" and b'"' in body:
        body = sealed(body, dialect.delimiter.encode())
    records = body.split(b"\n")
    if not records[-1]:
        records.pop()
    return records


def sealed(body: bytes, delimiter: bytes) -> bytes:
    """Replace the line ends inside of quotes; raises Malformed when a quote stands where CSV has none."""
    parts = body.split(b'"')
    if not len(parts) % 2:
        raise Malformed
    outside = b'"'.join(parts[::2])
    while b'""' in outside:
        outside = outside.replace(b'""', b'"')
    count = outside.count(b'"')
    before = outside.count(delimiter + b'"') + outside.count(b'\n"') + outside.startswith(b'"')
    after = outside.count(b'"' + delimiter) + outside.count(b'"\n') + outside.endswith(b'"')
    if before != count or after + outside.count(b'"\r') != count:
        raise Malformed
    inside = b'"'.join(parts[1::2])
    if b"\n" not in inside:
        return body
    if NEWLINE in body:
        raise Malformed
    parts[1::2] = inside.replace(b"\n", NEWLINE).split(b'"')
    return b'"'.join(parts)


def first_record(file: BinaryIO, dialect: Dialect, end: int) -> tuple[bytes | None, int]:
    """Give a file's first record, None when it is empty, and where the next one begins."""
    size = 1 << 12
    while True:
        file.seek(dialect.skip)
        block = file.read(size)
        whole = dialect.skip + len(block) >= end or len(block) < size
        mark = b"\r" if dialect.newline == b"\r" else b"\n"
        at = block.find(mark)
        while at >= 0 and dialect.format != "jsonl" and block.count(b'"', 0, at) % 2:
            at = block.find(mark, at + 1)
        if at < 0 and not whole:
            if size > LONGEST_RECORD:
                raise TooLong
            size *= 4
            continue
        stop = at + 1 if at >= 0 else len(block)
        records = records_of(block[:stop], dialect)
        return (records[0] if records else None), dialect.skip + stop


def canonical_csv(file: BinaryIO, dialect: Dialect, out: BinaryIO) -> Dialect:
    """Write a file with odd quotes anew as CSV, as a lenient reader understands it; give how that is written.

    Raises TooLong when a quote that nobody closes makes a cell longer than what is read.
    """
    file.seek(dialect.skip)
    encoding = dialect.encoding or "utf-8"
    text = io.TextIOWrapper(file, encoding, errors="surrogateescape", newline="")
    target = io.TextIOWrapper(out, encoding, errors="surrogateescape", newline="", write_through=False)
    try:
        writer = csv.writer(target, lineterminator="\n", delimiter=dialect.delimiter)
        writer.writerows(_lenient_rows(text, dialect.delimiter))
    except csv.Error:
        raise TooLong from None
    finally:
        text.detach()
        target.flush()
        target.detach()
    return Dialect(dialect.format, dialect.delimiter, dialect.encoding, 0, b"\n")


def _lenient_rows(text: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    """Read rows whatever their quotes; a cell that was written `""` is given so, which the module's reader does not tell."""
    mark = re.escape(delimiter)
    cell = re.compile(rf'(?:^|(?<={mark}))(?:"[^"]*+(?:""[^"]*+)*+(?:"[^{mark}\r\n]*)?|[^{mark}\r\n]*)')
    lines: list[str] = []

    def noted() -> Iterator[str]:
        for line in text:
            lines.append(line)
            yield line

    for row in csv.reader(noted(), delimiter=delimiter):
        if "" in row and any('""' in line for line in lines):
            written = cell.findall("".join(lines))
            # Behind a quote that nobody closes one more is found.
            if len(written) >= len(row):
                row = [EMPTY if raw == EMPTY else value for raw, value in zip(written, row, strict=False)]
        lines.clear()
        yield row


def _codes(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "".join(f"\ufffd\\x{byte:02x}" for byte in error.object[error.start : error.end]), error.end


# A byte that is no text is shown as its code; the mark before it tells it from a text that holds a code.
codecs.register_error("seatrial.codes", _codes)


class Decoder:
    """Texts of raw records; remembers the encodings that it needed and what it could not read."""

    def __init__(self, encoding: str | None) -> None:
        self._given = encoding
        self._usual = encoding or "utf-8"
        self.seen: set[str] = set()
        self.undecodable = 0

    def texts(self, records: list[bytes]) -> list[str]:
        """Decode records; bytes that are no text come as their codes."""
        joined = b"\n".join(records)
        if joined.isascii():
            return joined.decode("ascii").split("\n") if records else []
        try:
            text = joined.decode(self._usual)
        except UnicodeDecodeError:
            return [self._one(record) for record in records]
        self.seen.add(self._usual)
        found = text.split("\n")
        return found if len(found) == len(records) else [self._one(record) for record in records]

    def _one(self, record: bytes) -> str:
        if record.isascii():
            return record.decode("ascii")
        # A line end inside of quotes is no part of any encoding.
        parts = record.split(NEWLINE)
        for encoding in (self._given,) if self._given else ("utf-8", "cp932"):
            try:
                text = "\n".join(part.decode(encoding) for part in parts)
            except UnicodeDecodeError:
                continue
            self.seen.add(encoding)
            return text
        self.undecodable += 1
        return "\n".join(part.decode(self._usual, "seatrial.codes") for part in parts)


def rows_of(records: list[bytes], decoder: Decoder, delimiter: str) -> list[list[str]]:
    """Parse raw records of CSV or TSV; a cell that was written `""` is given so."""
    joined = b"\n".join(records)
    if not any(mark in joined for mark in (b'""', NEWLINE, b"\r")) and max(map(len, records), default=0) <= LONG_RECORD:
        return [row or [""] for row in csv.reader(decoder.texts(records), delimiter=delimiter)]
    short: list[bytes] = []
    odd: dict[int, list[str]] = {}
    for number, record in enumerate(records):
        if len(record) > LONG_RECORD or b'""' in record or NEWLINE in record or b"\r" in record:
            odd[number] = _cells(record, decoder, delimiter)
            short.append(b"")
        else:
            short.append(record)
    rows = list(csv.reader(decoder.texts(short), delimiter=delimiter))
    # A record without any character is one empty cell.
    for number, row in enumerate(rows):
        if not row:
            rows[number] = odd.get(number, [""])
    return rows


def _cells(record: bytes, decoder: Decoder, delimiter: str) -> list[str]:
    """Parse one record; cells of very long ones are given by length and digest."""
    if len(record) > LONG_RECORD:
        return [_digested(cell, decoder) for cell in _divided(record, delimiter.encode())]
    text = decoder.texts([record])[0].rstrip("\r")
    if '"' not in text:
        return text.split(delimiter)
    cells = []
    for found in _pattern(delimiter).finditer(text):
        quoted, bare = found.groups()
        cells.append(bare if quoted is None else quoted.replace('""', '"') or EMPTY)
    return cells


def _pattern(delimiter: str) -> re.Pattern[str]:
    mark = re.escape(delimiter)
    return re.compile(rf'(?:^|(?<={mark}))(?:"((?:[^"]|"")*)"|([^{mark}]*))(?={mark}|\Z)')


def _divided(record: bytes, delimiter: bytes) -> Iterator[bytes]:
    """Give the cells of a record as they are written."""
    begin = at = 0
    while True:
        if record[at : at + 1] == b'"':
            at += 1
            while (at := record.find(b'"', at)) >= 0 and record[at + 1 : at + 2] == b'"':
                at += 2
            at = len(record) if at < 0 else at + 1
        end = record.find(delimiter, at)
        if end < 0:
            yield record[begin:]
            return
        yield record[begin:end]
        begin = at = end + 1


def _digested(cell: bytes, decoder: Decoder) -> str:
    if len(cell) > LONG_CELL:
        return f"({len(cell):,} bytes, SHA-256 {hashlib.sha256(cell).hexdigest()})"
    text = decoder.texts([cell])[0]
    if text[:1] == '"':
        return text[1:-1].replace('""', '"') or EMPTY
    return text
