"""What policies would have cost: the model by examples that can be reckoned by hand, the default by traces it has not seen."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.arrivals import weeks as made_up
from jobs.capacity import Policy
from jobs.idle_policy import Idle, IdleKind
from jobs.pool_policy import policy_of
from jobs.pool_settings import PoolSettings
from jobs.simulate import OWN, WEEK, Outcome, Submit, Week, bound, compare, outcomes, usual
from jobs.traces import read_trace

TRACES = Path(__file__).parents[2] / "examples" / "traces"
MINUTE = timedelta(minutes=1)
AT_ONCE = Policy(idle=Idle(IdleKind.FIXED, timedelta(0)), prewarm=timedelta(0))
DEFAULT = policy_of(PoolSettings(provider="ec2", region="eu-central-1", account="123456789012"), lease=5.0)


def run(policy: Policy, *submits: tuple[float, float], forms: tuple[float, ...] = ()) -> Outcome:
    (found,) = outcomes([Week(0, tuple(Submit(*one) for one in submits), forms)], policy)
    return found


def fixed(seconds: float) -> Policy:
    return replace(AT_ONCE, idle=Idle(IdleKind.FIXED, timedelta(seconds=seconds)))


def test_a_run_waits_for_the_boot_and_is_billed_with_it() -> None:
    assert run(AT_ONCE, (1000, 600)) == Outcome(660, 1, (60,))


def test_who_comes_while_it_boots_waits_for_the_rest_and_who_queues_for_no_boot() -> None:
    assert run(AT_ONCE, (1000, 600), (1020, 600), (1100, 600)) == Outcome(1860, 1, (60, 40, 0))


def test_idle_time_is_billed_and_saves_a_boot() -> None:
    assert run(fixed(300), (1000, 600), (1900, 600)) == Outcome(60 + 600 + 240 + 600 + 300, 1, (60, 0))
    assert run(fixed(200), (1000, 600), (1900, 600)) == Outcome(2 * (60 + 600 + 200), 2, (60, 60))


def test_a_stop_and_a_start_may_be_of_the_same_moment() -> None:
    assert run(fixed(240), (1000, 600), (1900, 600)).boot_waits == (60, 0)


def test_an_opened_form_saves_waiting() -> None:
    policy = replace(AT_ONCE, prewarm=timedelta(seconds=90))
    assert run(policy, (1000, 600), forms=(960,)) == Outcome(660, 1, (20,))
    assert run(policy, (1000, 600), forms=(920,)) == Outcome(680, 1, (0,))
    assert run(policy, forms=(920,)) == Outcome(90, 1, ())
    assert run(policy, (1000, 600), (1650, 60), forms=(1580,)) == Outcome(720, 1, (60, 0))


def test_always_on_is_a_whole_week_and_never_stops_at_all() -> None:
    week = [Week(0, (Submit(1000, 600),))]
    scores = {score.name: score for score in compare(week, usual(DEFAULT))}
    assert scores["always on"].hours == WEEK / 3600
    assert scores["always on"].wait == 0


def test_a_minute_is_billed_at_least() -> None:
    policy = replace(AT_ONCE, boot=timedelta(seconds=10))
    assert run(policy, (1000, 5)).billed == 60
    assert bound(Week(0, (Submit(1000, 5),)), 10).billed == 60


def test_the_least_minute_is_that_of_a_start_not_of_a_task() -> None:
    assert bound(Week(0, (Submit(0, 1), Submit(0, 1))), 20) == Outcome(60, 1, (20, 20))
    assert run(replace(AT_ONCE, boot=timedelta(seconds=20)), (0, 1), (0, 1)) == Outcome(60, 1, (20, 20))


def test_work_goes_on_over_the_end_of_the_week() -> None:
    assert run(AT_ONCE, (WEEK - 10, 600)).billed == 660


def test_the_bound_stays_on_for_a_gap_as_long_as_a_boot_and_no_longer() -> None:
    assert bound(Week(0, (Submit(0, 100), Submit(220, 100))), 60) == Outcome(320, 1, (60, 0))
    assert bound(Week(0, (Submit(0, 100), Submit(221, 100))), 60) == Outcome(320, 2, (60, 60))


def test_nothing_to_compare_is_said() -> None:
    with pytest.raises(ValueError, match="there is no run"):
        compare([Week(0, ())], usual(DEFAULT))


arrivals = st.lists(st.tuples(st.floats(0, 50_000), st.floats(1, 5_000)), min_size=1, max_size=25).map(
    lambda found: Week(0, tuple(Submit(round(at, 1), round(work, 1)) for at, work in sorted(found)))
)
times = st.none() | st.sampled_from([0, 15, 60, 1800]).map(lambda seconds: timedelta(seconds=seconds))


@given(arrivals, times, st.sampled_from([60, 90, 300]))
def test_no_policy_is_below_the_bound(week: Week, idle: timedelta | None, boot: int) -> None:
    policy = replace(AT_ONCE, idle=Idle(IdleKind.FIXED, idle), boot=timedelta(seconds=boot))
    (found,) = outcomes([week], policy)
    least = bound(week, boot)
    assert found.billed >= least.billed - 1e-3
    assert len(found.boot_waits) == len(week.submits)
    assert all(-1e-6 <= wait <= boot + 1e-6 for wait in found.boot_waits)
    assert found.billed >= sum(submit.duration for submit in week.submits)


@given(arrivals)
def test_break_even_costs_at_most_twice_the_bound(week: Week) -> None:
    (found,) = outcomes([week], replace(AT_ONCE, idle=Idle(IdleKind.BREAK_EVEN)))
    assert found.billed <= 2 * bound(week, 60).billed + 1e-3


@pytest.mark.parametrize("rate", ["0.3", "1", "3"])
def test_the_default_meets_the_aim_on_the_traces(rate: str) -> None:
    score = compare(read_trace(TRACES / f"rate-{rate}.csv"), {OWN: DEFAULT})[1]
    assert score.ratio <= 1.05
    assert score.wait <= 15


@pytest.mark.parametrize(("rate", "seed"), [(0.3, 1), (0.5, 2), (1.0, 3), (2.0, 4), (6.0, 5)])
def test_the_default_meets_the_aim_on_traces_that_it_has_not_seen(rate: float, seed: int) -> None:
    score = compare(made_up(rate, seed, count=6), {OWN: DEFAULT})[1]
    assert score.ratio <= 1.05
    assert score.wait <= 15
