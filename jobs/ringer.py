"""Ring the doorbell without keeping anybody waiting for it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Protocol

# Each ring wakes one slot. Beyond so many the slots find their work by themselves when they end a task.
MOST = 16
# A ring costs as much as the rest of a submission: a burst of them is spread out, so that it delays nobody's answer.
AT_ONCE = 4
PAUSE_SECONDS = 0.05


class Bell(Protocol):
    """What is rung (see jobs.service.Doorbell)."""

    def ring(self, pool: str) -> bool: ...


class Ringer:
    """Ring a doorbell from a thread of its own: a Redis that hangs delays no submission.

    What is not rung when the process ends is rung by the sweeper.
    """

    def __init__(self, bell: Bell, *, pause: float = PAUSE_SECONDS) -> None:
        self._bell, self._pause = bell, pause
        self._due: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def ring(self, pool: str) -> bool:
        """Have a pool rung for soon; always True."""
        with self._changed:
            self._due[pool] += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ringer", daemon=True)
                self._thread.start()
            self._changed.notify()
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._due)
                due, self._due = self._due, Counter()
            left = {pool: self._ring(pool, min(count, MOST)) for pool, count in due.items()}
            time.sleep(self._pause)
            with self._changed:
                self._due += Counter(left)

    def _ring(self, pool: str, count: int) -> int:
        """Ring some times; give how many are left for later."""
        for _ in range(min(count, AT_ONCE)):
            if not self._bell.ring(pool):
                return 0
        return max(0, count - AT_ONCE)
