"""A child that is a fork of this process: it need not import anything anew, and starts in milliseconds."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import setproctitle

SIGNALS = (signal.SIGTERM, signal.SIGINT)
LOOK_SECONDS = 0.01


class Forked:
    """A process that calls `main`, named by `words` in a list of processes; speaks like `subprocess.Popen`.

    The parent must have no thread and no open connection: the child gets a copy of all that is in memory.
    """

    def __init__(self, main: Callable[[], object], words: Sequence[str], environment: Mapping[str, str]) -> None:
        if threading.active_count() > 1:
            raise RuntimeError(
                "a process with threads cannot be forked: the child could wait for ever for what they hold"
            )
        # A signal that comes before the child has its own handlers must not end in a copy of the parent's.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

        def child() -> None:
            os.setsid()
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            setproctitle.setproctitle(" ".join(words))  # first: it finds its place beside the first environment
            os.environ.clear()
            os.environ.update(environment)
            main()

        try:
            self._process = multiprocessing.get_context("fork").Process(target=child)
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Give the exit code, negative for a signal; None while it lives."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended, and give its exit code; raises TimeoutExpired after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        # Not join(): it waits for a pipe to close that the child's own children have open too.
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("", timeout or 0.0)
            time.sleep(LOOK_SECONDS)
        return code

    def terminate(self) -> None:
        """Send SIGTERM, if it lives."""
        self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL, if it lives."""
        self._process.kill()
