"""Differences as Parquet: what a branch may have written goes through as it is, and reaches nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb

from runner.adapters.parquet_writer import COLUMNS, parquet_of
from runner.comparison import Change, Difference


def read(content: bytes, place: Path) -> list[dict[str, Any]]:
    place.write_bytes(content)
    found = duckdb.execute("SELECT * FROM read_parquet($1)", [str(place)])
    names = [str(column[0]) for column in found.description or ()]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def difference(**more: Any) -> dict[str, Any]:
    one: dict[str, Any] = {"change": "value", "key": ["1", None], "column": "v", "a": "x", "b": None}
    return one | {"delta": None, "relative": None} | more


def test_texts_of_a_branch_go_through(tmp_path: Path) -> None:
    texts = [
        "'; DROP TABLE x; --",
        'say "a",b',
        "a\nb\r\n\tc",
        "１，２３４",
        "\u202e😀",
        "\x00",
        "=1+1",
        "/etc/passwd",
        "",
    ]
    written = read(parquet_of(difference(a=text, file=text) for text in texts), tmp_path / "x.parquet")
    assert [one["baseline"] for one in written] == texts
    assert [one["file"] for one in written] == texts
    assert list(written[0]) == list(COLUMNS)
    assert (written[0]["key"], written[0]["candidate"]) == (["1", None], None)


def test_what_is_no_unicode_is_replaced(tmp_path: Path) -> None:
    [one] = read(parquet_of([difference(a="x\ud800y")]), tmp_path / "x.parquet")
    assert one["baseline"] == "x?y"


def test_numbers_are_numbers_and_infinities_too(tmp_path: Path) -> None:
    deltas = [1.5, -2e300, 5e-324, float("inf"), float("-inf"), float("nan"), None]
    stored = [
        json.loads(json.dumps(Difference(Change.VALUE, ("1",), "v", "1", "2", delta=delta).as_json()))
        for delta in deltas
    ]
    written = [one["delta"] for one in read(parquet_of(stored), tmp_path / "x.parquet")]
    assert str(written) == str(deltas)


def test_a_large_cell_and_no_row_at_all(tmp_path: Path) -> None:
    [one] = read(parquet_of([difference(a="y" * 3_000_000)]), tmp_path / "x.parquet")
    assert len(one["baseline"]) == 3_000_000
    assert read(parquet_of([]), tmp_path / "none.parquet") == []
