"""What the comparison asks of a library that reads Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class ParquetUnreadable(Exception):
    """The file is no Parquet, or is damaged."""


class ParquetReader(Protocol):
    """Reads Parquet files that nobody vouches for."""

    def to_csv(self, source: Path, target: Path, *, seconds: float | None) -> tuple[tuple[str, str], ...]:
        """Write a file's rows as CSV with a header; give the columns in their order as (name, type).

        Null is written as nothing, an empty text as `""`. `target` is in a directory of its own and does not exist.
        Raises ParquetUnreadable, TimeoutError when it takes longer than `seconds`, and OSError when the disk is full.
        """
        ...
