"""What happened in a trial: an append-only file, written by the trial, its nemesis and those who look on.

The processes of the server append what they write to another one of the same form (jobs/adapters/sql_history.py).
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

Json = dict[str, Any]


class History:
    """Lines of JSON, each written by one call of write(2), so that many threads may append at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)

    def note(self, kind: str, **data: Any) -> None:
        """Append an entry; `at` is seconds since 1970."""
        line = json.dumps({"at": time.time(), "kind": kind, **data})
        os.write(self._file, line.encode() + b"\n")

    def entries(self, kind: str | None = None) -> list[Json]:
        """Give the entries in the order in which they were written."""
        return [entry for entry in self.read(self.path) if kind in (None, entry["kind"])]

    @staticmethod
    def read(path: Path) -> list[Json]:
        """Give the entries of a file that this or another process wrote."""
        return [json.loads(line) for line in path.read_text().splitlines()]

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
