"""What is left of a run, in time."""

from __future__ import annotations

import pytest
from web_site import Site

UNITS = [f"tenant_{number:03}/pl" for number in range(50)]


@pytest.fixture(autouse=True)
def worker(site: Site) -> None:
    site.worker()


def test_without_any_duration_nothing_is_estimated(site: Site) -> None:
    run = site.submit()
    assert site.service.estimate(run.id) is None
    site.prepare(UNITS)
    assert site.service.estimate(run.id) is None


def test_a_young_runs_pace_is_guessed_from_the_last_one(site: Site) -> None:
    last = site.passed(UNITS)
    run = site.submit()
    site.prepare(UNITS)
    claim = site.claim()
    found = site.service.estimate(run.id)
    assert found is not None
    assert found.basis == f"from run {last.id}"
    assert found.seconds_left == pytest.approx(50 * 2.5)
    site.mark(claim, claim.units[:10])
    again = site.service.estimate(run.id)
    assert again is not None
    assert again.seconds_left == pytest.approx(40 * 2.5)


def test_a_runs_own_units_count_when_there_are_enough(site: Site) -> None:
    site.passed(UNITS)
    run = site.submit()
    site.prepare(UNITS, batches=1)
    claim = site.claim()
    site.mark(claim, claim.units[:25])
    found = site.service.estimate(run.id)
    assert found is not None
    assert found.basis == "from this run's finished units"
    assert found.seconds_left == pytest.approx(25 * 2.5)
    assert found.units_per_minute == pytest.approx(24)
