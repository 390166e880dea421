from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from runner.adapters.git_command import GitFailed, GitTimedOut
from runner.adapters.git_rounds import Rounds


def test_everyone_gets_an_answer_put_after_he_asked_and_rounds_are_shared() -> None:
    rounds: Rounds[float] = Rounds()
    put: list[float] = []

    def question(_: float) -> float:
        put.append(time.monotonic())
        time.sleep(0.02)
        return put[-1]

    def ask(_: int) -> bool:
        began = time.monotonic()
        return rounds.ask(question, timeout=10) >= began

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(ask, range(100)))
    assert len(put) <= 60  # who is late for a round begins one more


def test_one_alone_is_not_kept_waiting() -> None:
    rounds: Rounds[int] = Rounds()
    assert [rounds.ask(lambda _: 1, timeout=1), rounds.ask(lambda _: 2, timeout=1)] == [1, 2]


def test_a_failure_is_told_to_all_of_its_round_and_to_no_other() -> None:
    rounds: Rounds[int] = Rounds()

    def fail(_: float) -> int:
        raise GitFailed("broken")

    with pytest.raises(GitFailed, match="broken"):
        rounds.ask(fail, timeout=1)
    assert rounds.ask(lambda _: 1, timeout=1) == 1


def test_nobody_waits_longer_than_his_time() -> None:
    rounds: Rounds[int] = Rounds()
    end = threading.Event()

    def hang(left: float) -> int:
        end.wait(60)
        return 1

    def brief(left: float) -> int:
        assert left <= 0.1, "nothing is left of it"
        raise GitTimedOut("late")

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(rounds.ask, hang, timeout=60)
        time.sleep(0.05)
        second = pool.submit(rounds.ask, brief, timeout=0.2)
        time.sleep(0.05)
        third = pool.submit(rounds.ask, brief, timeout=0.1)
        for late in (third, second):
            with pytest.raises(GitTimedOut):
                late.result()
        assert not first.done()
        end.set()
        assert first.result() == 1
    assert rounds.ask(lambda _: 2, timeout=1) == 2
