"""Remember when the host's disk was full: whoever follows a container may himself hang on a write that does not fit."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from runner.disk import host_is_full

LOOK_SECONDS = 0.5
SLACK = 2.0  # a look may be late, and a script writes before anybody watches it


class RoomWatch:
    """Look at the file system of a directory twice a second, until closed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._full_at: float | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look, name="room", daemon=True)
        self._thread.start()

    def was_full(self, since: float) -> bool:
        """Tell whether it is full, or was seen so after a `time.monotonic()` value (- 2 s): what failed since is tried again."""
        seen = self._full_at is not None and self._full_at > since - SLACK
        return seen or host_is_full(self._path)

    def close(self) -> None:
        """Look no more; safe to call twice."""
        self._closed.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._closed.wait(LOOK_SECONDS):
            try:
                if host_is_full(self._path):
                    self._full_at = time.monotonic()
            except OSError:
                continue  # the directory is on its way out
