"""What is left of a run, in time."""

from __future__ import annotations

import pytest
from web_site import Site

from jobs.outlook import Estimate, KnownUnits
from jobs.submission import SubmissionRefused

UNITS = [f"tenant_{number:03}/pl" for number in range(50)]


def estimate(site: Site, run: int) -> Estimate | None:
    return site.service.estimate(site.service.run(run), site.service.tasks(run))


@pytest.fixture(autouse=True)
def worker(site: Site) -> None:
    site.worker()


def test_without_any_duration_nothing_is_estimated(site: Site) -> None:
    run = site.submit()
    assert estimate(site, run.id) is None
    site.prepare(UNITS)
    assert estimate(site, run.id) is None


def test_a_young_runs_pace_is_guessed_from_the_last_one(site: Site) -> None:
    last = site.passed(UNITS)
    run = site.submit()
    site.prepare(UNITS)
    claim = site.claim()
    found = estimate(site, run.id)
    assert found is not None
    assert found.basis == f"from run {last.id}"
    assert found.seconds_left == pytest.approx(50 * 2.5)
    site.mark(claim, claim.units[:10])
    again = estimate(site, run.id)
    assert again is not None
    assert again.seconds_left == pytest.approx(40 * 2.5)


def test_a_runs_own_units_count_when_there_are_enough(site: Site) -> None:
    site.passed(UNITS)
    run = site.submit()
    site.prepare(UNITS, batches=1)
    claim = site.claim()
    site.mark(claim, claim.units[:25])
    found = estimate(site, run.id)
    assert found is not None
    assert found.basis == "from this run's finished units"
    assert found.seconds_left == pytest.approx(25 * 2.5)
    assert found.units_per_minute == pytest.approx(24)


def test_units_are_unknown_before_the_first_run_that_lists_them_all(site: Site) -> None:
    assert site.service.known_units("accounts") is None
    site.submit(units="*/pl")
    site.prepare(["a/pl"])
    assert site.service.known_units("accounts") is None


def test_a_filter_is_counted_on_the_last_list(site: Site) -> None:
    site.passed(["a/pl", "a/bs", "b/pl"], ref="main")
    last = site.submit("feature/rounding")
    site.prepare(["a/pl", "a/bs", "b/pl", "b/bs", "c/pl"])
    found = site.service.known_units("accounts", None, "*/pl, !c/*")
    assert found == KnownUnits(last.id, "feature/rounding", 5, 2, ("a/pl", "b/pl"))
    own = site.service.known_units("accounts", "main")
    assert own == KnownUnits(1, "main", 3, 3, ("a/pl", "a/bs", "b/pl"))
    other = site.service.known_units("accounts", "never-run", "nothing")
    assert other == KnownUnits(last.id, "feature/rounding", 5, 0, ())
    assert site.service.known_units("plain") is None


def test_a_filter_that_is_none_is_refused(site: Site) -> None:
    site.submit("main")
    site.prepare(["a", "b"])
    with pytest.raises(SubmissionRefused, match="too long"):
        site.service.known_units("accounts", None, "x" * 5_000)
