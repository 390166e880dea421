"""The records that are left of both sides, brought together by key in as little memory as it takes."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO

from runner.compare_budget import Clock
from runner.compare_layout import Key, Row
from runner.compare_records import Left, Records
from runner.compare_table import Tally, match, plain_key
from runner.compare_tables import Table

# Raw records of both sides that are parsed and matched at once: parsed, they take about ten times as much.
AT_ONCE = 24 << 20
_MOST_PARTS = 400
# Of one key, or of few, there may be more; this much of a share is matched at once.
_BLOCK = 32 << 20


def match_records(
    left: Left, tables: tuple[Table, Table], tally: Tally, clock: Clock, spool: Callable[[], Path]
) -> None:
    """Match and count what is left; of much, shares by key are written into `spool` and matched one by one."""
    size = left.a.size + left.b.size
    if size <= AT_ONCE:
        rows_a, ranks_a = _parsed(left.a, tables[0], tally, clock)
        rows_b, ranks_b = _parsed(left.b, tables[1], tally, clock)
        match(tally, rows_a, rows_b, clock, ranks=(ranks_a, ranks_b))
        return
    parts = min(1 + size // (AT_ONCE // 2), _MOST_PARTS)
    with ExitStack() as stack:
        first = _Shares(spool() / "a", parts, stack)
        second = _Shares(spool() / "b", parts, stack)
        first.fill(left.a, tables[0], tally.key_a, tally, clock)
        second.fill(left.b, tables[1], tally.key_b, tally, clock)
        order: tuple[array[int], array[int]] = (array("q"), array("q"))
        for number in range(parts):
            # A key that very many rows have: they are taken block by block, in their order.
            for mine, other in zip_longest(first.blocks(number), second.blocks(number)):
                clock.check()
                _match_block(mine, other, tables, tally, clock, order)
    if not tally.reordered:
        tally.reordered = _out_of_order(order)


Block = tuple[list[bytes], "array[int]", "array[int]"]
_EMPTY: Block = ([], array("q"), array("q"))


def _match_block(
    mine: Block | None,
    other: Block | None,
    tables: tuple[Table, Table],
    tally: Tally,
    clock: Clock,
    order: tuple[array[int], array[int]],
) -> None:
    records_a, ranks_a, places_a = mine or _EMPTY
    records_b, ranks_b, places_b = other or _EMPTY
    # What is odd about a row was told when the shares were made.
    rows_a = tables[0].rows(records_a, lambda *_: None)
    rows_b = tables[1].rows(records_b, lambda *_: None)
    for at_a, at_b in match(tally, rows_a, rows_b, clock, ranks=(ranks_a, ranks_b)):
        order[0].append(places_a[at_a])
        order[1].append(places_b[at_b])


def _out_of_order(order: tuple[array[int], array[int]]) -> bool:
    """Tell whether pairs of places come in different orders on both sides."""
    import numpy as np

    if len(order[0]) < 2:
        return False
    a, b = np.frombuffer(order[0], np.int64), np.frombuffer(order[1], np.int64)
    sorted_b = b[np.argsort(a, kind="stable")]
    return bool((sorted_b[1:] < sorted_b[:-1]).any())


def _parsed(records: Records, table: Table, tally: Tally, clock: Clock) -> tuple[list[Row], list[int]]:
    rows: list[Row] = []
    ranks: list[int] = []
    for batch, places in records.batches():
        clock.check()
        rows += table.rows(batch, tally.note)
        ranks += places
    return rows, ranks


class _Shares:
    """The records of one side in files, by key; with the rank and the place of each."""

    def __init__(self, directory: Path, parts: int, stack: ExitStack) -> None:
        directory.mkdir()
        self._files: list[BinaryIO] = [
            stack.enter_context((directory / str(number)).open("w+b", buffering=1 << 16)) for number in range(parts)
        ]
        self._ranks = [array("q") for _ in range(parts)]
        self._places = [array("q") for _ in range(parts)]

    def fill(self, records: Records, table: Table, key_of: Callable[[Row], Key], tally: Tally, clock: Clock) -> None:
        """Take all records on."""
        parts = len(self._files)
        place = 0
        for batch, ranks in records.batches():
            clock.check()
            for at, row in enumerate(table.rows(batch, tally.note)):
                share = hash(plain_key(key_of(row))) % parts
                self._files[share].write(batch[at] + b"\n")
                self._ranks[share].append(ranks[at])
                self._places[share].append(place)
                place += 1

    def blocks(self, number: int) -> Iterator[Block]:
        """Give the records of a share, in blocks that can be matched at once."""
        file, ranks, places = self._files[number], self._ranks[number], self._places[number]
        file.seek(0)
        at = 0
        while records := file.readlines(_BLOCK):
            upto = at + len(records)
            yield [record[:-1] for record in records], ranks[at:upto], places[at:upto]
            at = upto
