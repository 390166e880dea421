"""Differences as Parquet, written by DuckDB, which reaches one file to read, one to write, and nothing else."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import duckdb

from runner.adapters.table_duckdb import SETTINGS, sql_text

# As runner.comparison writes a difference; infinities and NaN stand there as texts, which DuckDB reads as such.
COLUMNS: Mapping[str, str] = {
    "file": "VARCHAR",
    "change": "VARCHAR",
    "key": "VARCHAR[]",
    "column": "VARCHAR",
    "baseline": "VARCHAR",
    "candidate": "VARCHAR",
    "delta": "DOUBLE",
    "relative": "DOUBLE",
}


def parquet_of(differences: Iterable[Mapping[str, Any]]) -> bytes:
    """Write stored differences as one Parquet file, a row each."""
    with tempfile.TemporaryDirectory(prefix="seatrial-parquet-") as directory:
        source, target = Path(directory) / "rows.json", Path(directory) / "rows.parquet"
        with source.open("w", encoding="utf-8") as file:
            for one in differences:
                row = {**one, "baseline": one["a"], "candidate": one["b"]}
                text = json.dumps({name: row.get(name) for name in COLUMNS}, ensure_ascii=False, allow_nan=False)
                # What is no Unicode (a lone surrogate) would end the file.
                file.write(text.encode("utf-8", "replace").decode() + "\n")
        settings: dict[str, str | bool | int | float | list[str]] = {
            **SETTINGS,
            "temp_directory": str(Path(directory) / "spill"),
        }
        types = ", ".join(f"'{name}': '{kind}'" for name, kind in COLUMNS.items())
        with duckdb.connect(":memory:", config=settings) as connection:
            connection.execute(f"SET allowed_paths = [{sql_text(source)}, {sql_text(target)}]")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
            connection.execute(
                f"COPY (SELECT * FROM read_json({sql_text(source)}, format = 'newline_delimited', "  # noqa: S608
                f"columns = {{{types}}}, maximum_object_size = {_LONGEST})) TO {sql_text(target)} (FORMAT parquet)"
            )
        return target.read_bytes()


_LONGEST = 64 << 20  # bytes of a difference
