"""Two outputs of one unit, from the released branch and from the candidate: same, equivalent or different.

Three strides, each only for what the one before left: digests; raw records, whatever their order; then the cells
of those records that differ, matched by key.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

from runner.compare_budget import Budget, BudgetSpent, Clock
from runner.compare_files import File, Output, OutputUnreadable, ended, mismatch, open_output
from runner.compare_hashes import anti_join_large
from runner.compare_layout import Layout, Row, find_key, lay_out, text_columns
from runner.compare_match import match_records
from runner.compare_parquet import ParquetReader, ParquetUnreadable
from runner.compare_records import SMALL, Left, Listed, Source, Whole, anti_join_small
from runner.compare_table import Sink, Tally
from runner.compare_tables import CsvTable, JsonTable, Table, apart, rename
from runner.compare_text import HEAD, Dialect, Malformed, TooLong, canonical_csv, first_record, format_of, look
from runner.comparison import OF_A_PART, ROW_ORDER, SAME, Columns, Comparison, Leniency, Note, Outcome
from runner.spec_rule import Rule

__all__ = ["Budget", "Output", "OutputUnreadable", "compare"]

_DEFAULT = Rule(match="*")
_SAMPLE = 2_000


def compare(
    a: Output,
    b: Output,
    rule: Rule | None = None,
    *,
    budget: Budget | None = None,
    sink: Sink | None = None,
    spool: Path | None = None,
    parquet: ParquetReader | None = None,
) -> Comparison:
    """Compare two files under a rule.

    With equal digests no file is read. `sink` is handed each difference as it is found, in no order. `spool`: the
    directory for temporary files (default: the system's). Without a reader of Parquet its bytes are compared.
    Raises OutputUnreadable.
    """
    if a.digest is not None and a.digest == b.digest:
        return SAME
    with ExitStack() as stack:
        files = open_output(a, stack), open_output(b, stack)
        return _Pair(*files, rule, budget or Budget(), sink, spool, stack, parquet).compare()


@dataclass(frozen=True)
class _Side:
    """A file of records, with what its bytes mean."""

    dialect: Dialect
    table: Table
    source: Source
    ended: bool  # whether the last record has a line end


class _Pair:
    """The comparison of one pair of files."""

    def __init__(
        self,
        a: File,
        b: File,
        rule: Rule | None,
        budget: Budget,
        sink: Sink | None,
        spool: Path | None,
        stack: ExitStack,
        parquet: ParquetReader | None = None,
    ) -> None:
        self._a, self._b = a, b
        self._parquet = parquet
        self._rule = rule or _DEFAULT
        self._match = rule.match if rule else None
        self._budget, self._sink = budget, sink
        self._clock = Clock(budget.seconds)
        self._spool_in, self._spool, self._stack = spool, None, stack
        self._tally: Tally | None = None
        self._types: tuple[tuple[str, str, str], ...] = ()
        self._told: dict[str, Note] = {}
        self._names_tidied = False  # some differ but for spaces around them, and that is allowed

    _spool: Path | None

    def compare(self) -> Comparison:
        """Take the strides that are needed."""
        a, b = self._a, self._b
        if a.size + b.size <= SMALL:
            bytes_a, bytes_b = a.file.read(), b.file.read()
            if bytes_a == bytes_b:
                return SAME
            self._a = a = replace(a, file=BytesIO(bytes_a), size=len(bytes_a))
            self._b = b = replace(b, file=BytesIO(bytes_b), size=len(bytes_b))
        elif a.size == b.size and mismatch(a.file, b.file) is None:
            return SAME
        format = format_of(a.name)  # noqa: A001 - it is the word
        if format != format_of(b.name):
            self._tell("other_format", f"{a.name} and {b.name} are of different formats, so their bytes are compared")
            return self._by_bytes()
        if format == "bytes" or (format == "parquet" and self._parquet is None):
            return self._by_bytes()
        sizes = (a.size, b.size)
        if format == "parquet":
            try:
                self._types = self._unpacked()
            except TimeoutError:
                return replace(self._by_bytes(), truncated=self._truncated(0, 0, spent=True))
            return replace(self._by_records("csv"), format=format, sizes=sizes)
        try:
            return replace(self._by_records(format), sizes=sizes)
        except Malformed:
            self._tell("odd_quotes", "quotes do not stand as CSV wants them; the file was read as well as that goes")
        except TooLong:
            return self._too_long()
        try:
            self._a, self._b = self._rewritten(a, "a.csv"), self._rewritten(b, "b.csv")
            return replace(self._by_records(format), sizes=sizes)
        except (Malformed, TooLong):
            self._a, self._b = a, b
            return self._too_long()

    def count(self) -> int:
        """Count the records of the first side behind its header; raises Malformed, TooLong."""
        dialect = self._dialect(self._a, format_of(self._a.name))
        return 0 if dialect is None else Whole(self._side(self._a, dialect).source, self._clock.check).count

    def _too_long(self) -> Comparison:
        text = "a record is too long, or a quote is never closed, so the bytes are compared"
        self._tell("too_long", text)
        return self._by_bytes()

    def _by_bytes(self) -> Comparison:
        """Say where the bytes begin to differ."""
        a, b = self._a, self._b
        at = mismatch(a.file, b.file)
        if at is None:
            return SAME
        self._tell("bytes_differ", f"the bytes differ from byte {at:,} on; the sizes are {a.size:,} and {b.size:,}")
        return Comparison(
            Outcome.DIFFERENT, "bytes", self._match, notes=tuple(self._told.values()), sizes=(a.size, b.size)
        )

    def _rewritten(self, file: File, name: str) -> File:
        path = self._directory() / name
        format = format_of(file.name)  # noqa: A001 - it is the word
        with path.open("w+b") as out:
            canonical_csv(file.file, self._dialect(file, format) or Dialect(format), out)
        return open_output(Output(path, file.name), self._stack)

    def _unpacked(self) -> tuple[tuple[str, str, str], ...]:
        """Go on with both Parquet files as CSV; give the columns whose types differ. Raises TimeoutError."""
        assert self._parquet is not None
        types: list[dict[str, str]] = []
        for side in ("a", "b"):
            file = self._a if side == "a" else self._b
            target = self._directory() / f"{side}.csv"
            try:
                types.append(dict(self._parquet.to_csv(file.path, target, seconds=self._clock.left())))
            except ParquetUnreadable as error:
                raise OutputUnreadable(f"{file.path} cannot be read: {error}") from error
            unpacked = open_output(Output(target, file.name), self._stack)
            if side == "a":
                self._a = unpacked
            else:
                self._b = unpacked
        before, after = types
        ignored = self._rule.ignore
        # DuckDB writes commas, whatever a name of a column may hold.
        self._rule = self._rule.model_copy(update={"delimiter": ",", "encoding": "utf-8", "header": True})
        return tuple(
            (name, kind, after[name])
            for name, kind in before.items()
            if after.get(name, kind) != kind and name not in ignored
        )

    def _directory(self) -> Path:
        if self._spool is None:
            made = tempfile.TemporaryDirectory(prefix="seatrial-compare-", dir=self._spool_in)
            self._spool = Path(self._stack.enter_context(made))
        return self._spool

    def _tell(self, code: str, text: str, count: int = 1) -> None:
        known = self._told.get(code)
        self._told[code] = Note(code, known.text if known else text, count + (known.count if known else 0))

    # ---- records ------------------------------------------------------------------------------------------

    def _dialect(self, file: File, format: str) -> Dialect | None:  # noqa: A002
        file.file.seek(0)
        head = file.file.read(HEAD)
        return look(head, format, delimiter=self._rule.delimiter, encoding=self._rule.encoding)

    def _side(self, file: File, dialect: Dialect) -> _Side:
        named = self._rule.header and dialect.format != "jsonl"
        table: Table
        start = dialect.skip
        if dialect.format == "jsonl":
            table, keep_blank = JsonTable(dialect), False
        else:
            first, behind = first_record(file.file, dialect, file.size)
            table = CsvTable(first, dialect, named=named, tell=self._tell)
            keep_blank = len(table.header) == 1
            start = behind if named else start
        source = Source(file.file, dialect, start, file.size, keep_blank=keep_blank)
        return _Side(dialect, table, source, ended(file))

    def _by_records(self, format: str) -> Comparison:  # noqa: A002
        dialects = self._dialect(self._a, format), self._dialect(self._b, format)
        if dialects[0] is None or dialects[1] is None:
            self._tell("utf_16", "UTF-16 is not read, so the bytes are compared; write UTF-8")
            return self._by_bytes()
        a, b = self._side(self._a, dialects[0]), self._side(self._b, dialects[1])
        self._name_apart(a.table, b.table)
        self._tally = tally = None
        kept = 0
        try:
            layout = lay_out(a.table.header, b.table.header, self._rule)
            left, samples = self._cancel(a, b, layout)
            kept = left.kept
            if format == "jsonl":
                layout = self._learn(a, b, left)
            key, found = self._key(layout, a, b, left, samples)
            self._tally = tally = Tally(layout, key, format, self._budget, self._sink)
            tally.reordered = left.reordered
            match_records(left, (a.table, b.table), tally, self._clock, self._directory)
        except BudgetSpent:
            if tally is None:
                tally = Tally(lay_out(a.table.header, b.table.header, self._rule), (), format, self._budget, None)
                found = False
            return self._result(a, b, tally, kept, found, spent=True)
        return self._result(a, b, tally, kept, found, spent=False)

    def _name_apart(self, a: Table, b: Table) -> None:
        """Let a space before or behind a column's name make another name, as it does to whoever reads it by name."""
        if not isinstance(a, CsvTable) or not isinstance(b, CsvTable) or a.written == b.written:
            return
        places = apart(a, b)
        self._names_tidied = bool(places) and "text" in self._rule.lenient
        if places and not self._names_tidied:
            rename(a, [at for at, _ in places])
            rename(b, [at for _, at in places])

    def _cancel(self, a: _Side, b: _Side, layout: Layout) -> tuple[Left, tuple[list[bytes], list[bytes]]]:
        """Take the second stride: give what is left of both sides, and the first records of each."""
        # Equal records are equal rows only where columns stand at the same places.
        alike = a.dialect.format == "jsonl" or (layout.identical and a.dialect.delimiter == b.dialect.delimiter)
        if self._a.size + self._b.size <= SMALL:
            all_a = [record for piece in a.source.pieces() for record in piece.records]
            all_b = [record for piece in b.source.pieces() for record in piece.records]
            samples = all_a[:_SAMPLE], all_b[:_SAMPLE]
            if alike:
                return anti_join_small(all_a, all_b), samples
            return Left(Listed(all_a, bytes(len(all_a))), Listed(all_b, bytes(len(all_b))), 0, False), samples
        samples = a.source.first(_SAMPLE), b.source.first(_SAMPLE)
        if alike:
            return anti_join_large(a.source, b.source, self._directory, self._clock.check), samples
        check = self._clock.check
        return Left(Whole(a.source, check), Whole(b.source, check), 0, False), samples

    def _learn(self, a: _Side, b: _Side, left: Left) -> Layout:
        """Find the columns of JSON lines in what is left of them."""
        for side, records in ((a, left.a), (b, left.b)):
            assert isinstance(side.table, JsonTable)
            for batch, _ in records.batches():
                self._clock.check()
                side.table.learn(batch, self._tell)
        return lay_out(a.table.header, b.table.header, self._rule)

    def _key(
        self, layout: Layout, a: _Side, b: _Side, left: Left, samples: tuple[list[bytes], list[bytes]]
    ) -> tuple[list[int], bool]:
        """Give the numbers of the key's columns among the common ones, and whether they were found, not given."""
        at = {column.name: number for number, column in enumerate(layout.common)}
        given = [at[name] for name in self._rule.key if name in at]
        for name in self._rule.key:
            if name not in at:
                lacks = [word for word, side in (("first", a), ("second", b)) if name not in side.table.header]
                where = "either side" if len(lacks) == 2 else f"the {lacks[0]} side"
                self._tell(f"key_missing:{name}", f"the key column {name!r} is not there on {where}")
        for name in (*self._rule.ignore, *self._rule.tolerance.columns):
            if name not in a.table.header and name not in b.table.header and a.dialect.format != "jsonl":
                self._tell(f"column_missing:{name}", f"the rule names the column {name!r}, which neither side has")
        if given and len(given) == len(self._rule.key):
            return given, False
        if not left.a.count and not left.b.count:
            return given, False
        rows = tuple(self._parsed(side, sample) for side, sample in ((a, samples[0]), (b, samples[1])))
        rest = self._parsed(a, _head(left.a)), self._parsed(b, _head(left.b))
        if found := find_key(layout, (rows[0], rows[1]), rest):
            return found, True
        self._tell("no_key", "no key was given and none found, so rows are matched by their texts and their order")
        return text_columns(layout, rows[0]), True

    def _parsed(self, side: _Side, records: list[bytes]) -> list[Row]:
        return side.table.rows(records, lambda *_: None)

    def _result(self, a: _Side, b: _Side, tally: Tally, kept: int, found: bool, *, spent: bool) -> Comparison:
        rule = self._rule
        ignored = frozenset(rule.ignore)
        columns = replace(tally.layout.columns(ignored), types=self._types)
        for side, word in ((a, "first"), (b, "second")):
            if side.table.decoder.undecodable:
                text = f"records of the {word} side are neither UTF-8 nor CP932; their bytes are shown as codes"
                self._tell(f"undecodable:{word}", text, side.table.decoder.undecodable)
        notes = [*self._told.values(), *tally.notes()]
        if tally.reordered and rule.order:
            notes.append(Note(ROW_ORDER, "the rows come in another order, which matters by the rule"))
        rows = replace(tally.rows(), same=tally.same + kept)
        different = (
            spent
            or bool(rows.changed or rows.added or rows.removed)
            or bool(columns.added or columns.removed or columns.types)
            or (tally.reordered and rule.order)
        )
        leniencies = self._leniencies(a, b, tally, columns)
        if not different and not leniencies:
            leniencies = {Leniency.WRITING}
        differences = tally.differences()
        return Comparison(
            Outcome.DIFFERENT if different else Outcome.EQUIVALENT,
            a.dialect.format,
            self._match,
            tuple(leniency for leniency in Leniency if leniency in leniencies),
            rows,
            columns,
            tally.changes(),
            tuple(tally.layout.common[number].name for number in tally.key),
            found,
            tuple(notes),
            differences,
            tally.found,
            self._truncated(tally.found, len(differences), spent=spent),
        )

    def _leniencies(self, a: _Side, b: _Side, tally: Tally, columns: Columns) -> set[Leniency]:
        found = set(tally.leniencies)
        seen = a.table.decoder.seen, b.table.decoder.seen
        layout = tally.layout
        for leniency, there in (
            (Leniency.ENCODING, all(seen) and seen[0] != seen[1]),
            (Leniency.BOM, a.dialect.bom != b.dialect.bom),
            (Leniency.LINE_ENDS, a.dialect.newline != b.dialect.newline),
            (Leniency.BLANK_LINES, a.source.blank != b.source.blank),
            (Leniency.FINAL_NEWLINE, a.ended != b.ended),
            (Leniency.DELIMITER, a.dialect.delimiter != b.dialect.delimiter),
            (Leniency.ROW_ORDER, tally.reordered and not self._rule.order),
            (Leniency.COLUMN_ORDER, columns.reordered),
            (Leniency.TEXT_FORMAT, self._names_tidied),
            (Leniency.IGNORED_COLUMNS, (layout.added, layout.removed) != (columns.added, columns.removed)),
        ):
            if there:
                found.add(leniency)
        return found

    def _truncated(self, found: int, kept: int, *, spent: bool) -> str | None:
        parts = []
        if spent:
            parts.append(f"stopped after {self._budget.seconds:g} s, the budget of one comparison: {OF_A_PART}")
        if found > kept:
            parts.append(f"the {kept:,} largest of {found:,} differences are kept")
        return "; ".join(parts) or None


def _head(records: object) -> list[bytes]:
    """Give the first records of what is left of a side."""
    for batch, _ in records.batches():  # type: ignore[attr-defined]
        return list(batch[:_SAMPLE])
    return []


def count_rows(output: Output, rule: Rule | None = None) -> int:
    """Count the rows of a file of records, 0 for another one; raises OutputUnreadable."""
    with ExitStack() as stack:
        file = open_output(output, stack)
        if format_of(file.name) in ("bytes", "parquet"):
            return 0
        pair = _Pair(file, file, rule, Budget(), None, None, stack)
        try:
            return pair.count()
        except (Malformed, TooLong):
            return 0
