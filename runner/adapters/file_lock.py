"""Wait for a lock on an open file, and be heard meanwhile."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from typing import Final

_PAUSE: Final = 0.02
"""Seconds between two tries."""


def locked_within(file: int, how: int, *, seconds: float, check: Callable[[], None]) -> bool:
    """Take a lock (LOCK_EX or LOCK_SH of fcntl), and tell whether it was free within so many seconds.

    `check` is called after each try in vain; what it raises is passed on.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            check()
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE)
        else:
            return True
