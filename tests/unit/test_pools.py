"""Gaps, load and words of pools: pure functions of times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from jobs.gaps import gaps_of
from jobs.idle_policy import IdleKind
from jobs.machines import Interval
from jobs.money import Use
from jobs.pool_policy import policy_of
from jobs.pool_settings import PoolSettings, written
from jobs.usage import usage
from web.capacitywords import held_against, load

T = datetime(2026, 11, 22, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("works", "forms", "gaps"),
    [
        ([], [], ()),
        ([(0, 10)], [], ()),
        ([(0, 10), (15, 20), (60, 61)], [], (5, 40)),
        ([(60, 61), (0, 10), (15, 20)], [], (5, 40)),
        ([(0, 100), (10, 20), (130, 140)], [], (30,)),  # one lies within another
        ([(0, 10), (10, 12), (13, None), (500, 501)], [], (1,)),  # what goes on is followed by no gap
        ([(0, 10), (50, 60)], [20], (10, 30)),
        ([(0, 10), (50, 60)], [5], (40,)),  # opened while there was work
        ([(10, 20)], [1], ()),  # before the first that is known
    ],
)
def test_gaps(works: list[tuple[float, float | None]], forms: list[float], gaps: tuple[float, ...]) -> None:
    assert gaps_of(works, forms) == gaps


def test_a_days_load_is_what_ran_and_what_was_needed() -> None:
    intervals = [Interval("i-1", "p", T, T + 2 * HOUR, None), Interval("i-2", "p", T + HOUR, None, None)]
    uses = [Use("i-1", T, T + HOUR / 2, 1, "a", "mio"), Use("i-1", T + HOUR / 4, T + HOUR, 2, "a", "mio")]
    spans = usage(intervals, uses, T - HOUR, T + 3 * HOUR, 4)
    assert [span.running for span in spans] == [0, 1, 2, 1]
    assert [span.needed for span in spans] == [0, 1, 0, 0]
    drawn = load(spans)
    assert drawn is not None
    assert drawn.most == 2
    assert drawn.words == "In the last 24 hours machines ran for 4.0 h and worked for 1.0 h of that."
    assert drawn.running == "M0 100H240V50.0H480V0.0H720V50.0H960V100Z"
    assert load(usage([], uses, T, T + HOUR, 4)) is None


@pytest.mark.parametrize(
    ("paid", "other", "words"),
    [
        ("25", "100", "USD 75.00 less (75 %)"),
        ("110", "100", "USD 10.00 more (10 %)"),
        ("100.001", "100", "the same"),
        ("0", "0", "nothing to compare with yet"),
        ("100", "1", "USD 99.00 more"),
    ],
)
def test_savings_are_said_in_words(paid: str, other: str, words: str) -> None:
    assert held_against(Decimal(paid), Decimal(other), "USD") == words


def test_a_policy_is_what_the_settings_say() -> None:
    made = policy_of(PoolSettings(), lease=5.0)
    assert (made.idle.kind, made.min_running, made.max_running, made.grow) == (IdleKind.LEARNED, 0, 1, False)
    pool = PoolSettings.model_validate(
        {
            "idle": "at once",
            "prewarm": "never",
            "maximum_run": "never",
            "on_hours": ("mon-fri 08:00-18:00",),
            "off_hours": ("sat,sun 00:00-24:00",),
            "time_zone": "Europe/Warsaw",
            "launch_template": "lt-0123456789abcdef0",
            "types": ("m7i.large",),
        }
    )
    made = policy_of(pool, lease=5.0)
    assert (made.idle.kind, made.idle.time) == (IdleKind.FIXED, timedelta(0))
    assert (made.prewarm, made.maximum_run, made.grow, made.grow_kinds) == (timedelta(0), None, True, ("m7i.large",))
    monday = datetime(2026, 11, 23, 7, 30, tzinfo=UTC)
    assert (made.schedule.keep(monday), made.schedule.keep(monday - timedelta(days=1))) == (1, 0)


def test_times_are_spelled_out() -> None:
    assert [written(seconds) for seconds in (None, 0.0, 90.0)] == ["never", "at once", "90s"]
