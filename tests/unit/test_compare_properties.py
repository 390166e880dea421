"""The comparison against a naive one: read both files whole, match rows by key, look at every cell."""

from __future__ import annotations

import csv
import io
import random
import re
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import runner.compare
import runner.compare_hashes
import runner.compare_match
from runner.compare import Output, compare
from runner.compare_records import anti_join_small
from runner.comparison import Comparison, Outcome, Rows
from runner.spec import Rule

Table = dict[str, dict[str, str]]

CELLS = st.sampled_from(
    ["", "0", "-0", "1", "1.0", "1.004", "1.01", "1e0", "007", "x", "x,y", 'q"q', "two\nlines", "NaN", "inf", "1e999"]
) | st.sampled_from(["表", "1,234", " 1", "１", "NULL", "2024-01-02", "2024/01/02", "\x00", "a\rb"])
NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?(e\d+)?", re.ASCII)
TOLERANCE = Fraction("0.005")


def naive(a: Table, b: Table, columns: list[str], *, tolerant: bool) -> tuple[Rows, set[tuple[str, str]]]:
    """Give the counts of rows, and which cells changed."""
    changed: set[tuple[str, str]] = set()
    for key in a.keys() & b.keys():
        for column in columns:
            x, y = a[key][column], b[key][column]
            if x == y or (tolerant and near(x, y)):
                continue
            changed.add((key, column))
    rows = {key for key, _ in changed}
    return Rows(
        len(rows), len(b.keys() - a.keys()), len(a.keys() - b.keys()), len(a.keys() & b.keys()) - len(rows)
    ), changed


def near(x: str, y: str) -> bool:
    if not NUMBER.fullmatch(x) or not NUMBER.fullmatch(y):
        return False
    return abs(Fraction(x) - Fraction(y)) <= TOLERANCE


@st.composite
def tables(draw: st.DrawFn) -> tuple[Table, Table]:
    """Two tables, the second one made from the first by some changes."""
    keys = draw(st.lists(st.integers(1, 40).map(str), unique=True, max_size=12))
    a = {key: {"v": draw(CELLS), "w": draw(CELLS)} for key in keys}
    b = {key: dict(row) for key, row in a.items()}
    for key in draw(st.lists(st.sampled_from(keys), max_size=3)) if keys else []:
        b[key] = {"v": draw(CELLS), "w": draw(CELLS)}
    for key in draw(st.lists(st.integers(1, 40).map(str), max_size=2)):
        if key in b:
            del b[key]
        else:
            b[key] = {"v": draw(CELLS), "w": draw(CELLS)}
    return a, b


@st.composite
def writings(draw: st.DrawFn) -> dict[str, Any]:
    """A way to write a table as CSV."""
    return {
        "order": draw(st.permutations(["id", "v", "w"])),
        "end": draw(st.sampled_from(["\n", "\r\n"])),
        "quoted": draw(st.booleans()),
        "bom": draw(st.booleans()),
        "last": draw(st.booleans()),
        "seed": draw(st.none() | st.integers(0, 9)),
    }


def written(table: Table, how: dict[str, Any]) -> bytes:
    def cell(text: str) -> str:
        if (text and how["quoted"]) or any(mark in text for mark in ',"\n\r'):
            return '"' + text.replace('"', '""') + '"'
        return text

    rows = [{"id": key, **row} for key, row in table.items()]
    if how["seed"] is not None:
        random.Random(how["seed"]).shuffle(rows)
    lines = [",".join(how["order"]), *(",".join(cell(row[name]) for name in how["order"]) for row in rows)]
    text = how["end"].join(lines) + (how["end"] if how["last"] else "")
    return (b"\xef\xbb\xbf" if how["bom"] else b"") + text.encode()


def compared(a: bytes, b: bytes, **rule: Any) -> Comparison:
    with tempfile.TemporaryDirectory() as directory:
        files = [Path(directory) / "a.csv", Path(directory) / "b.csv"]
        for file, content in zip(files, (a, b), strict=True):
            file.write_bytes(content)
        return compare(Output.of(files[0]), Output.of(files[1]), Rule(match="*", **rule))


@given(tables(), writings(), writings(), st.booleans())
def test_it_finds_what_the_naive_one_finds(
    both: tuple[Table, Table], how_a: dict[str, Any], how_b: dict[str, Any], tolerant: bool
) -> None:
    a, b = both
    first, second = written(a, how_a), written(b, how_b)
    found = compared(first, second, key=("id",), tolerance={"absolute": 0.005 if tolerant else 0})
    if first == second:
        assert found.outcome is Outcome.SAME
        return
    rows, cells = naive(a, b, ["v", "w"], tolerant=tolerant)
    assert found.rows == rows
    assert {(one.key[0], one.column) for one in found.differences if one.column} == cells
    different = bool(rows.changed or rows.added or rows.removed)
    assert found.outcome is (Outcome.DIFFERENT if different else Outcome.EQUIVALENT)
    assert different or found.leniencies


@given(tables(), writings(), writings())
def test_the_other_way_round_it_finds_the_same(
    both: tuple[Table, Table], how_a: dict[str, Any], how_b: dict[str, Any]
) -> None:
    first, second = written(both[0], how_a), written(both[1], how_b)
    there, back = compared(first, second), compared(second, first)
    assert there.outcome is back.outcome
    if there.outcome is not Outcome.DIFFERENT:  # else it stops looking for them when it has found what differs
        assert set(there.leniencies) == set(back.leniencies)
    assert (there.rows.added, there.rows.removed) == (back.rows.removed, back.rows.added)


@given(st.lists(st.tuples(st.sampled_from("123"), st.sampled_from(["1", "1.0", "2", ""]))), st.randoms())
def test_with_doubled_keys_no_row_is_lost(rows: list[tuple[str, str]], chance: random.Random) -> None:
    others = [row for row in rows if chance.random() < 0.8] + [("4", "x")] * (chance.random() < 0.3)
    chance.shuffle(others)
    first = ("id,v\n" + "".join(f"{key},{value}\n" for key, value in rows)).encode()
    second = ("id,v\n" + "".join(f"{key},{value}\n" for key, value in others)).encode()
    found = compared(first, second, key=("id",))
    if found.outcome is Outcome.SAME:
        return
    assert found.rows.same + found.rows.changed + found.rows.removed == len(rows)
    assert found.rows.same + found.rows.changed + found.rows.added == len(others)


RECORDS = st.lists(st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), max_size=12)


@given(RECORDS, RECORDS)
def test_what_is_left_is_what_one_side_has_more_often(a: list[bytes], b: list[bytes]) -> None:
    left = anti_join_small(a, b)
    rest = [[r for batch, _ in side.batches() for r in batch] for side in (left.a, left.b)]
    for mine, other, found in ((a, b, rest[0]), (b, a, rest[1])):
        for record in set(mine):
            assert found.count(record) == max(0, mine.count(record) - other.count(record))
    assert left.kept == len(a) - len(rest[0]) == len(b) - len(rest[1])


@given(st.lists(st.text(st.sampled_from('ab,"\r\n表'), max_size=4), min_size=1, max_size=6))
def test_records_are_told_apart_whatever_their_cells_hold(cells: list[str]) -> None:
    texts = []
    for mark in "ab":
        out = io.StringIO()
        csv.writer(out).writerow([mark + cell for cell in cells])
        texts.append(out.getvalue())
    head = ",".join(f"c{n}" for n in range(len(cells)))
    found = compared(f"{head}\n{texts[0]}".encode(), f"{head}\n{texts[1]}{texts[0]}".encode())
    assert (found.rows.same, found.rows.added, found.rows.removed) == (1, 1, 0)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_end_in_a_class(a: bytes, b: bytes) -> None:
    found = compared(a, b)
    assert (found.outcome is Outcome.SAME) is (a == b)
    found.as_json()


@given(tables(), writings(), writings(), st.booleans())
def test_the_roads_of_large_files_lead_to_the_same(
    both: tuple[Table, Table], how_a: dict[str, Any], how_b: dict[str, Any], ordered: bool
) -> None:
    first, second = written(both[0], how_a), written(both[1], how_b)
    rule: dict[str, Any] = {"key": ("id",), "order": ordered, "tolerance": {"absolute": 0.005}}
    found = compared(first, second, **rule)
    if found.outcome is Outcome.SAME:
        return
    told = {**found.as_json(), "differences": None}
    for hashed in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runner.compare, "SMALL", 0)
            patch.setattr(runner.compare_match, "AT_ONCE", 64)
            if hashed:
                patch.setattr(runner.compare_hashes, "SMALL", 0)
                patch.setattr(runner.compare_hashes, "AT_ONCE", 4)
            other = compared(first, second, **rule)
        assert {**other.as_json(), "differences": None} == told
        assert set(other.differences) == set(found.differences)
