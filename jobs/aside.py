"""Do beside the work what nobody has to wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from runner.errors import InfraError

AT_MOST = 2  # then the work waits: what is put off does not grow

log = structlog.get_logger(__name__)


class Aside:
    """Does one thing after the other in a thread of its own, which the process waits for when it ends."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="aside")
        self._room = threading.BoundedSemaphore(AT_MOST)

    def __call__(self, action: Callable[[], None]) -> None:
        """Do this soon."""
        self._room.acquire()
        self._thread.submit(self._do, action)

    def _do(self, action: Callable[[], None]) -> None:
        try:
            action()
        except (InfraError, OSError) as error:  # the sweeper takes away what could not be taken away now
            log.warning("aside.failed", error=str(error))
        finally:
            self._room.release()
