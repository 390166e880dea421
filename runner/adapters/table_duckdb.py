"""Parquet through DuckDB, which sees one file, writes one, and can reach nothing else."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import duckdb

from runner.compare_parquet import ParquetUnreadable

MEMORY = "512MB"
SETTINGS = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "memory_limit": MEMORY,
    "threads": "2",
}


class DuckdbParquet:
    """Reads Parquet files that semi-trusted code wrote."""

    def to_csv(self, source: Path, target: Path, *, seconds: float | None) -> tuple[tuple[str, str], ...]:
        """Write a file's rows as CSV, null as nothing and empty text as `""`; give its columns and their types."""
        # Neither the path nor a name in it is ever part of a pattern or of SQL: DuckDB sees two names of ours.
        link = target.with_suffix(".parquet")
        link.symlink_to(source.absolute())
        settings: dict[str, str | bool | int | float | list[str]] = {
            **SETTINGS,
            "temp_directory": str(target.with_suffix(".spill")),
        }
        try:
            with duckdb.connect(":memory:", config=settings) as connection:
                connection.execute(f"SET allowed_paths = [{sql_text(link)}, {sql_text(target)}]")
                connection.execute("SET enable_external_access = false")
                connection.execute("SET lock_configuration = true")
                timer = threading.Timer(seconds, connection.interrupt) if seconds is not None else None
                if timer is not None:
                    timer.start()
                try:
                    columns = connection.execute(
                        "SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM read_parquet($1))", [str(link)]
                    ).fetchall()
                    connection.execute(
                        f"COPY (SELECT * FROM read_parquet($1)) TO {sql_text(target)} (FORMAT csv, HEADER true)",  # noqa: S608
                        [str(link)],
                    )
                finally:
                    if timer is not None:
                        timer.cancel()
        except duckdb.InterruptException:
            raise TimeoutError from None
        except duckdb.Error as error:
            if is_full(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target.parent)) from error
            raise ParquetUnreadable(str(error).split("\n", 1)[0].replace(str(link), source.name)) from error
        return tuple((str(name), str(kind)) for name, kind in columns)


def is_full(error: duckdb.Error) -> bool:
    """Tell whether it is the disk that lacks room, for what is written or what is kept aside."""
    text = str(error)
    if isinstance(error, duckdb.IOException):
        return any(os.strerror(number) in text for number in (errno.ENOSPC, errno.EDQUOT))
    return isinstance(error, duckdb.OutOfMemoryException) and "max_temp_directory_size" in text


def sql_text(path: Path) -> str:
    """Write a path as SQL does."""
    return "'" + str(path).replace("'", "''") + "'"
