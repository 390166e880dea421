"""A history for whoever checks the records from outside: a line of JSON for each write that the fence let pass or refused.

It is written only where the environment of the process has SEATRIAL_HISTORY, the path of a file that many processes may
share. A line is appended by one call of write(2) while the task's row is locked, so that a task's lines have the order of its
writes. A write that was let pass may still be rolled back.
"""

from __future__ import annotations

import inspect
import json
import os
import socket
import time
from typing import Any

from sqlalchemy import Row

_PATH = os.environ.get("SEATRIAL_HISTORY")


def note_write(row: Row[Any] | None, task: int, attempt: int, *, accepted: bool) -> None:
    """Append what an attempt is about to write, or was kept from writing; nothing without SEATRIAL_HISTORY."""
    if _PATH is not None:
        _append(_PATH, row, task, attempt, accepted)


def _append(path: str, row: Row[Any] | None, task: int, attempt: int, accepted: bool) -> None:
    line: dict[str, Any] = {"at": time.time(), "kind": "write", "host": socket.gethostname(), "pid": os.getpid()}
    line |= {"task": task, "attempt": attempt, "accepted": accepted, "what": _who_asks()}
    if row is not None:
        found = {"current": row.attempt, "state": str(row.state), "log_size": row.log_size}
        line |= found | {"done": row.units_done, "failed": row.units_failed}
    file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, json.dumps(line).encode() + b"\n")
    finally:
        os.close(file)


def _who_asks() -> str:
    """Name the function that asked the fence."""
    frame = inspect.currentframe()
    for _ in range(4):
        frame = frame.f_back if frame is not None else None
    return frame.f_code.co_name if frame is not None else ""
