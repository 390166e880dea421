"""What is done beside the work."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from jobs.aside import AT_MOST, Aside
from runner.errors import EngineUnavailable


def test_it_is_done_in_order_and_errors_end_nothing() -> None:
    aside, done, said = Aside(), threading.Event(), list[int]()

    def fails() -> None:
        said.append(1)
        raise EngineUnavailable("away")

    def full() -> None:
        said.append(2)
        raise OSError(28, "No space left on device")

    def last() -> None:
        said.append(3)
        done.set()

    for action in (fails, full, last):
        aside(action)
    assert done.wait(10)
    assert said == [1, 2, 3]


def test_what_is_put_off_does_not_grow() -> None:
    aside, go, done = Aside(), threading.Event(), threading.Semaphore(0)

    def waits() -> None:
        go.wait(10)
        done.release()

    for _ in range(AT_MOST):
        aside(waits)
    with ThreadPoolExecutor(1) as pool:
        more = pool.submit(aside, waits)
        assert not more.done()
        go.set()
        more.result(10)
    for _ in range(AT_MOST + 1):
        assert done.acquire(timeout=10)
