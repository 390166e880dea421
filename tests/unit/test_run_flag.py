"""The flag that a signal handler raises."""

from __future__ import annotations

import os
import signal
import threading
import time

from jobs.flag import Flag


def test_it_is_down_until_it_is_raised() -> None:
    flag = Flag()
    assert not flag.is_set()
    assert flag.wait(0.01) is False
    flag.set()
    assert flag.is_set()
    assert flag.wait(60) is True


def test_who_waits_notices_soon() -> None:
    flag = Flag()
    threading.Timer(0.05, flag.set).start()
    begin = time.monotonic()
    assert flag.wait(60) is True
    assert time.monotonic() - begin < 30


def test_a_storm_of_signals_cannot_hold_up_who_waits() -> None:
    """`threading.Event` would stop for ever when a signal comes while its lock is held."""
    flag = Flag()
    hits: list[int] = []

    def handler(_number: int, _frame: object) -> None:
        hits.append(1)
        if len(hits) > 200:
            flag.set()

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        stop = threading.Event()

        def storm() -> None:
            while not stop.is_set():
                os.kill(os.getpid(), signal.SIGUSR1)
                time.sleep(0.0002)

        thread = threading.Thread(target=storm)
        thread.start()
        while not flag.wait(0.0001):
            pass
        stop.set()
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(hits) > 200
