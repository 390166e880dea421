"""Ringing in the background: nobody waits for Redis, and nothing is rung more often than it can be heard."""

from __future__ import annotations

import queue
import threading
from collections import Counter

from jobs.ringer import AT_ONCE, MOST, Ringer


class SlowBell:
    """A bell that answers only when the test lets it."""

    def __init__(self) -> None:
        self.rung: queue.Queue[str] = queue.Queue()
        self.gate = threading.Semaphore(0)
        self.works = True

    def ring(self, pool: str) -> bool:
        self.rung.put(pool)
        assert self.gate.acquire(timeout=30)
        return self.works

    def heard(self) -> str:
        return self.rung.get(timeout=30)


def test_a_bell_that_hangs_keeps_nobody_waiting() -> None:
    bell = SlowBell()
    ringer = Ringer(bell)
    assert ringer.ring("local")  # returns although the bell does not
    assert bell.heard() == "local"
    for _ in range(3):
        ringer.ring("large")
    assert bell.rung.empty()
    bell.gate.release(4)
    assert [bell.heard() for _ in range(3)] == ["large"] * 3


def test_a_thousand_at_once_are_rung_for_a_few_times() -> None:
    bell = SlowBell()
    ringer = Ringer(bell, pause=0)
    ringer.ring("local")
    assert bell.heard() == "local"
    for _ in range(1_000):
        ringer.ring("local")
    ringer.ring("last")
    bell.gate.release(1 + MOST + 1)
    rung = [bell.heard() for _ in range(MOST + 1)]
    assert Counter(rung) == {"local": MOST, "last": 1}
    assert rung.index("last") == AT_ONCE, "a burst of one pool holds up no other"
    bell.gate.release(1)
    ringer.ring("end")
    assert bell.heard() == "end"


def test_when_redis_is_away_it_is_not_asked_again_for_each() -> None:
    bell = SlowBell()
    bell.works = False
    ringer = Ringer(bell)
    ringer.ring("local")
    assert bell.heard() == "local"
    for _ in range(5):
        ringer.ring("local")
    ringer.ring("large")
    bell.gate.release(3)
    assert [bell.heard() for _ in range(2)] == ["local", "large"]
