from __future__ import annotations

import pytest

from jobs.run import BUDGET_WITHOUT_PROGRESS, LAST_TRY_SECONDS, OUTAGE_SECONDS, OUTAGES, WORKER_LOST, interruption

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


def test_an_outage_of_hours_needs_attention() -> None:
    outages = [NOW - OUTAGE_SECONDS - 1]
    found = interruption("database_unavailable", progress=False, fruitless=0, free=False, outages=outages, now=NOW)
    assert found.errored
    assert "6 hours" in found.why


def test_a_lost_worker_is_followed_at_once_and_one_that_is_lost_again_is_not() -> None:
    first = interruption(WORKER_LOST, progress=False, fruitless=0, free=False, outages=[], now=NOW)
    again = interruption(WORKER_LOST, progress=False, fruitless=first.fruitless, free=False, outages=[], now=NOW)
    assert (first.delay, again.delay) == (0.0, LAST_TRY_SECONDS)
    assert interruption(WORKER_LOST, progress=True, fruitless=2, free=False, outages=[], now=NOW).delay == 0.0
