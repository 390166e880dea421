"""Let callers share one question to a remote without anyone getting an answer older than his asking."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Lock
from typing import Generic, TypeVar

from runner.adapters.git_command import GitTimedOut

Answer = TypeVar("Answer")


class Rounds(Generic[Answer]):
    """Put one question at a time; whoever comes while one is out shares the next one, which begins after he came.

    So any number of callers at once wait for two rounds at most, and the remote sees one question at a time.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._running: Future[Answer] | None = None
        self._next: Future[Answer] | None = None

    def ask(self, put: Callable[[float], Answer], *, timeout: float) -> Answer:
        """Give the answer of a question put after this call; `put` gets the seconds that are left.

        Raises GitTimedOut after `timeout` seconds, and whatever `put` raises.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            before = self._running
            mine = self._next
            leads = mine is None
            if mine is None:
                mine = Future()
                if before is None:
                    self._running = mine
                else:
                    self._next = mine
        if leads:
            self._lead(mine, before, put, deadline)
        try:
            return mine.result(max(0.0, deadline - time.monotonic()) if not leads else None)
        except TimeoutError:
            raise GitTimedOut(f"it did not answer within {timeout:g} s") from None

    def _lead(
        self, mine: Future[Answer], before: Future[Answer] | None, put: Callable[[float], Answer], deadline: float
    ) -> None:
        if before is not None:
            wait([before], max(0.0, deadline - time.monotonic()))
            with self._lock:  # from here on newcomers wait for the round after this one
                self._running, self._next = mine, None
        try:
            mine.set_result(put(max(0.1, deadline - time.monotonic())))
        except BaseException as error:  # noqa: BLE001  # handed over to everyone who waits, this caller included
            mine.set_exception(error)
        finally:
            with self._lock:
                if self._running is mine:
                    self._running = None
