from __future__ import annotations

import pytest

from jobs.run import (
    BUDGET_WITHOUT_PROGRESS,
    LAST_TRY_SECONDS,
    OUTAGE_SECONDS,
    OUTAGE_STEP_SECONDS,
    OUTAGES,
    WORKER_LOST,
    Interruption,
    interruption,
)

NOW = 1_000_000.0


def test_progress_gives_the_whole_budget_back() -> None:
    found = interruption("database_lost", progress=True, fruitless=2, free=False, outages=[], now=NOW)
    assert (found.errored, found.fruitless) == (False, 0)


def test_the_third_in_a_row_without_progress_needs_attention() -> None:
    fruitless = 0
    for _ in range(BUDGET_WITHOUT_PROGRESS - 1):
        found = interruption("container_lost", progress=False, fruitless=fruitless, free=False, outages=[], now=NOW)
        assert not found.errored
        fruitless = found.fruitless
    found = interruption("container_lost", progress=False, fruitless=fruitless, free=False, outages=[], now=NOW)
    assert found.errored
    assert "3 times in a row" in found.why


def test_a_drain_never_costs_and_never_waits() -> None:
    found = interruption("drained", progress=False, fruitless=2, free=True, outages=[], now=NOW)
    assert (found.errored, found.delay, found.fruitless) == (False, 0.0, 2)


@pytest.mark.parametrize("code", sorted(OUTAGES))
def test_an_outage_costs_nothing_and_is_tried_ever_more_rarely(code: str) -> None:
    delays = []
    for before in range(9):
        outages = [NOW - 60.0 * (number + 1) for number in range(before)]
        found = interruption(code, progress=False, fruitless=2, free=False, outages=outages, now=NOW)
        assert (found.errored, found.fruitless) == (False, 2)
        delays.append(found.delay)
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def away(outages: list[float], *, progress: bool = False) -> Interruption:
    return interruption("database_unavailable", progress=progress, fruitless=0, free=False, outages=outages, now=NOW)


def each(seconds: float, *, through: float) -> list[float]:
    """Give outages that were so far from each other, the newest first."""
    return [NOW - seconds * number for number in range(1, int(through / seconds) + 1)]


@pytest.mark.parametrize("seconds", [60.0, 300.0, OUTAGE_STEP_SECONDS])
def test_an_outage_that_was_tried_through_for_hours_needs_attention(seconds: float) -> None:
    found = away(each(seconds, through=OUTAGE_SECONDS + seconds))
    assert found.errored
    assert "6 hours of tries" in found.why
    assert not away(each(seconds, through=OUTAGE_SECONDS - seconds)).errored


def test_hours_in_which_nobody_tried_do_not_count() -> None:
    """The lid was closed for the night, and the tunnel is not up yet."""
    night = [NOW - 15 * 3600.0 - 60.0 * number for number in range(3)]
    assert (away(night).errored, away(night).delay) == (False, 8.0)
    assert not away([NOW - 60.0, *night]).errored


def test_hours_of_work_before_it_do_not_count() -> None:
    assert not away([NOW - OUTAGE_SECONDS - 1]).errored


def test_an_outage_after_progress_is_the_first_one() -> None:
    found = away(each(60.0, through=2 * OUTAGE_SECONDS), progress=True)
    assert (found.errored, found.delay, found.fruitless) == (False, 1.0, 0)


def test_a_lost_worker_is_followed_at_once_and_one_that_is_lost_again_is_not() -> None:
    first = interruption(WORKER_LOST, progress=False, fruitless=0, free=False, outages=[], now=NOW)
    again = interruption(WORKER_LOST, progress=False, fruitless=first.fruitless, free=False, outages=[], now=NOW)
    assert (first.delay, again.delay) == (0.0, LAST_TRY_SECONDS)
    assert interruption(WORKER_LOST, progress=True, fruitless=2, free=False, outages=[], now=NOW).delay == 0.0
