"""When a machine gives itself up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobs.dead_man import DeadMan

BUSY = ("task 7",)


def test_it_is_time_when_both_lasted_long_enough() -> None:
    man = DeadMan(60.0, 0.0)
    assert man.look(30.0, busy=(), heard=False) is None
    assert man.look(59.9, busy=(), heard=False) is None
    assert man.look(60.0, busy=(), heard=False) == "Nothing to do for 60s and no word from the server for 60s."
    assert man.look(960.0, busy=(), heard=False) == "Nothing to do for 16 min and no word from the server for 16 min."


def test_work_and_words_both_put_it_off() -> None:
    man = DeadMan(60.0, 0.0)
    assert man.look(50.0, busy=BUSY, heard=False) is None
    assert man.look(100.0, busy=(), heard=True) is None
    assert man.look(150.0, busy=(), heard=False) is None
    assert man.left(150.0) == 10.0
    assert man.look(160.0, busy=(), heard=False) is not None


def test_never_is_never() -> None:
    assert DeadMan(None, 0.0).look(1e9, busy=(), heard=False) is None


def test_after_one_that_did_not_come_about_it_waits_as_long_again() -> None:
    man = DeadMan(60.0, 0.0)
    assert man.look(60.0, busy=(), heard=False)
    man.again(60.0)
    assert man.look(119.0, busy=(), heard=False) is None
    assert man.look(120.0, busy=(), heard=False)


@given(st.lists(st.tuples(st.floats(0.1, 30.0), st.booleans(), st.booleans()), max_size=60), st.floats(1.0, 100.0))
def test_it_never_comes_within_its_time_of_work_or_of_a_word(
    looks: list[tuple[float, bool, bool]], patience: float
) -> None:
    man, now, last = DeadMan(patience, 0.0), 0.0, 0.0
    for step, busy, heard in looks:
        now += step
        last = now if busy or heard else last
        said = man.look(now, busy=BUSY if busy else (), heard=heard)
        assert (said is not None) == (max(last, 0.0) + patience - now <= 0)
