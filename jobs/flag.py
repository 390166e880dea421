"""A flag that a signal handler may raise."""

from __future__ import annotations

import time

LOOK_SECONDS = 0.1


class Flag:
    """Like `threading.Event`, but set() takes no lock.

    A handler runs between two steps of the main thread: when that is inside Event.wait() and holds the event's lock,
    Event.set() waits for it for ever.
    """

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        """Raise it, for good."""
        self._is_set = True

    def is_set(self) -> bool:
        """Tell whether it was raised."""
        return self._is_set

    def wait(self, seconds: float) -> bool:
        """Wait until it is raised, `seconds` at most; tell whether it is."""
        deadline = time.monotonic() + seconds
        while not self._is_set and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(LOOK_SECONDS, left))
        return self._is_set
