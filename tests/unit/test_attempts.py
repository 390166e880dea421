"""What each attempt kept, finished and had to repeat."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from jobs.attempts import Container, Work, works
from jobs.run import Attempt

BEGIN = datetime(2026, 11, 22, 14, 0, tzinfo=UTC)


def at(minute: int) -> datetime:
    return BEGIN + timedelta(minutes=minute)


def attempt(number: int, begin: int, end: int | None, outcome: str | None, task: int = 7) -> Attempt:
    return Attempt(task, number, "w", "host-a", at(begin), None if end is None else at(end), outcome, None, 0)


FIRST, SECOND = attempt(1, 0, 5, "interrupted"), attempt(2, 6, 9, "done")


def test_a_single_attempt_keeps_and_repeats_nothing() -> None:
    found = works([attempt(1, 0, 5, "done")], {(7, 1): 12}, {}, {}, [Container(7, 1, at(5), 0)])
    assert found == {(7, 1): Work(kept=0, finished=12, void=0, adopted=False, begun_again=False)}


def test_what_was_in_flight_begins_again_in_a_new_container() -> None:
    containers = [Container(7, 1, at(5), None), Container(7, 2, at(9), 0)]
    found = works([SECOND, FIRST], {(7, 1): 8, (7, 2): 4}, {}, {(7, 2): 1}, containers)
    assert found[7, 1] == Work(0, 8, 0, adopted=False, begun_again=False)
    assert found[7, 2] == Work(8, 4, 1, adopted=False, begun_again=True)


def test_an_adopted_container_repeats_nothing() -> None:
    for container in (Container(7, 1, None, None), Container(7, 1, at(8), 0), Container(7, 1, at(6), 1)):
        found = works([FIRST, SECOND], {(7, 1): 8, (7, 2): 4}, {}, {}, [container])
        assert found[7, 2] == Work(8, 4, 0, adopted=True, begun_again=False)


def test_a_container_that_vanished_or_was_given_up_is_not_adopted() -> None:
    for container in (Container(7, 1, at(7), None), Container(7, 1, None, None, abandoned=True)):
        found = works([FIRST, SECOND], {}, {}, {}, [container, Container(7, 2, at(9), 0)])
        assert (found[7, 2].adopted, found[7, 2].begun_again) == (False, True)


def test_an_attempt_that_had_no_container_repeats_nothing_but_the_next_one_does() -> None:
    attempts = [FIRST, attempt(2, 6, 7, "interrupted"), attempt(3, 8, 9, "done")]
    found = works(attempts, {}, {}, {}, [Container(7, 1, at(5), None), Container(7, 3, at(9), 0)])
    assert [found[7, number].begun_again for number in (1, 2, 3)] == [False, False, True]


def test_nothing_began_before_the_first_container() -> None:
    found = works([FIRST, SECOND], {}, {}, {}, [Container(7, 2, at(9), 0)])
    assert not found[7, 2].begun_again


def test_a_resumed_failure_begins_nothing_again() -> None:
    failed = attempt(1, 0, 5, "failed")
    found = works([failed, SECOND], {(7, 1): 3}, {}, {}, [Container(7, 1, at(5), 1), Container(7, 2, at(9), 0)])
    assert (found[7, 2].begun_again, found[7, 2].kept) == (False, 3)


def test_tasks_are_kept_apart() -> None:
    other = attempt(1, 1, 4, "done", task=8)
    found = works([FIRST, other, SECOND], {(7, 1): 8, (8, 1): 5}, {}, {}, [Container(7, 1, at(5), None)])
    assert (found[7, 2].kept, found[8, 1].kept, found[8, 1].finished) == (8, 0, 5)
