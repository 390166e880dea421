"""How long an idle machine stays on, and how that is said."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.idle_policy import ENOUGH, LONGEST, Idle, IdleKind, learned, seconds_words, spelled

BOOT = timedelta(seconds=60)


def cost(idle: float, gaps: tuple[float, ...]) -> float:
    return sum(gap if gap <= idle else idle + BOOT.total_seconds() for gap in gaps)


def test_fixed_and_break_even() -> None:
    assert Idle(IdleKind.FIXED, timedelta(0)).after(BOOT) == timedelta(0)
    assert Idle(IdleKind.FIXED, None).after(BOOT) is None
    assert Idle(IdleKind.BREAK_EVEN).after(BOOT) == BOOT


def test_nothing_is_learned_of_too_few_gaps() -> None:
    assert learned(BOOT, (5.0,) * (ENOUGH - 1)) == BOOT
    assert learned(BOOT, (5.0,) * ENOUGH) == timedelta(seconds=5)


def test_long_gaps_are_not_waited_for_and_short_ones_are() -> None:
    assert learned(BOOT, (1200.0,) * 50) == timedelta(0)
    assert learned(BOOT, (50.0,) * 50) == timedelta(seconds=50)
    assert learned(BOOT, (10.0,) * 40 + (9000.0,) * 10) == timedelta(seconds=10)


def test_only_the_newest_gaps_count() -> None:
    policy = Idle(IdleKind.LEARNED)
    assert policy.after(BOOT, [5.0] * 1000 + [9000.0] * 200) == timedelta(0)


@given(st.lists(st.floats(0.1, 20_000), min_size=ENOUGH, max_size=60).map(tuple))
def test_what_is_learned_would_have_cost_least(gaps: tuple[float, ...]) -> None:
    found = learned(BOOT, gaps).total_seconds()
    assert 0 <= found <= LONGEST.total_seconds()
    others = [0.0, *(gap for gap in gaps if gap <= LONGEST.total_seconds())]
    least = min(cost(other, gaps) for other in others)
    assert cost(found + 1e-6, gaps) == pytest.approx(least, rel=1e-3, abs=0.1)


@pytest.mark.parametrize(
    ("time", "words"),
    [
        (None, "never"),
        (timedelta(0), "at once"),
        (timedelta(seconds=45), "after 45 s"),
        (timedelta(seconds=90), "after 1 min 30 s"),
        (timedelta(hours=2), "after 2 h"),
        (timedelta(days=3, hours=4, minutes=5), "after 3 d 4 h"),
    ],
)
def test_zero_and_none_are_spelled_out(time: timedelta | None, words: str) -> None:
    assert spelled(time) == words
    assert str(Idle(IdleKind.FIXED, time)) == words


def test_words() -> None:
    assert seconds_words(timedelta(seconds=-3)) == "0 s"
    assert str(Idle()) == "after an idle time learned from past gaps"
    assert str(Idle(IdleKind.BREAK_EVEN)) == "after as much idle time as a boot takes"
