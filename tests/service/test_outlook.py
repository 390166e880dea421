"""What is left of a run, in time."""

from __future__ import annotations

import time

import pytest
from web_compare import begin, compare_now, finish
from web_site import Site

from jobs.adapters.sql_schema import heartbeats
from jobs.heartbeats import COMPARER, SWEEPER
from jobs.outlook import Estimate, KnownUnits
from jobs.submission import SubmissionRefused
from jobs.waiting import Waiting
from runner.model import Reason

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


def test_nothing_is_estimated_before_both_legs_listed_their_units(site: Site) -> None:
    site.passed(UNITS)
    run = site.submit(options={"compare": True})
    site.prepare(UNITS, batches=1)
    baseline = next(leg for leg in site.service.run(run.id).legs if leg.prepared).name
    assert baseline == "baseline"
    assert estimate(site, run.id) is None
    text = site.app().test_client().get(f"/runs/{run.id}").text
    assert "0 units finished, those of the candidate not listed yet" in text
    assert "left" not in text.split('class="figures"')[1].split("</p>")[0]
    site.prepare(UNITS, batches=1)
    found = estimate(site, run.id)
    assert found is not None
    assert found.seconds_left == pytest.approx(100 * 2.5)
    assert "0 of 100 units on 2 legs · <span>0 compared" in site.app().test_client().get(f"/runs/{run.id}").text


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


# ---- why it does not run ----


def waiting(site: Site, run: int) -> Waiting:
    found = site.service.waiting(site.service.run(run), site.service.tasks(run))
    assert found is not None
    return found


def forget(site: Site, name: str) -> None:
    with site.store.database.write() as connection:
        connection.execute(heartbeats.delete().where(heartbeats.c.name == name))


def test_a_run_waits_for_its_comparison(site: Site) -> None:
    run = begin(site, ["a", "b"], ["a", "b"])
    assert waiting(site, run.id).code == "slots_busy"
    made = {"a": b"id,n\n1,1\n", "b": b"id,n\n1,2\n"}
    finish(site, {"baseline": made, "candidate": made})
    assert waiting(site, run.id) == Waiting("comparing", "2 units are left to compare.")
    site.store.heartbeats.beat(COMPARER, {run.id: "unit a: No room"})
    assert waiting(site, run.id).code == "comparing_later"
    forget(site, COMPARER)
    assert waiting(site, run.id).code == "no_comparer"
    compare_now(site)
    assert site.service.run(run.id).state.final


def test_an_interrupted_run_waits_for_the_sweeper_if_there_is_none(site: Site) -> None:
    run = site.submit()
    claim = site.claim()
    lost = Reason("database_lost", "The connection dropped.")
    site.store.tasks.interrupt(claim.task.id, claim.task.attempt, lost)
    assert waiting(site, run.id).code == "backing_off"
    forget(site, SWEEPER)
    found = waiting(site, run.id)
    assert (found.code, found.text.endswith("Start it: seatrial sweeper")) == ("no_sweeper", True)
    page = site.app().test_client().get(f"/runs/{run.id}").text
    assert "The connection dropped. It is not tried again by itself: no sweeper is running." in page
    assert "<b>No next try by itself.</b> &#34;Resume now&#34; begins attempt 2 of prepare" in page
    assert "Next try" not in page


def test_the_time_is_the_stores_own(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hosts' clocks may differ by minutes; when a task is due is written by one of them only."""
    run = site.submit()
    claim = site.claim()
    site.store.tasks.interrupt(claim.task.id, claim.task.attempt, Reason("database_lost", "The connection dropped."))
    ahead = time.time() + 120
    monkeypatch.setattr(type(site.store.database), "now", lambda *_: ahead)
    for name in (SWEEPER, COMPARER):
        site.store.heartbeats.beat(name)
    assert waiting(site, run.id).text == "The connection dropped. It is tried again any moment."


def test_a_task_is_left_to_the_host_on_which_its_container_stands(site: Site) -> None:
    run = site.submit()
    claim = site.claim()
    task, attempt = claim.task.id, claim.task.attempt
    ledger = site.store.ledger
    number = ledger.next_execution(task, attempt)
    ledger.execution(task, attempt, number, state="running", container="c1", exit_code=None)
    site.store.tasks.interrupt(task, attempt, Reason("drained", "The worker was stopped."), free=True)
    site.store.tasks.requeue_due()
    site.store.workers.unregister("host-a/1")
    site.store.workers.register(name="host-b/1", host="host-b", pool="local", pid=1)
    found = waiting(site, run.id)
    assert found.code == "kept_for_its_host"
    assert found.text.startswith("Its container stands on host-a, whose worker is expected back until ")
    assert site.store.tasks.claim(pool="local", host="host-b", worker="host-b/1", lease=60.0) is None


def test_a_filter_that_is_none_is_refused(site: Site) -> None:
    site.submit("main")
    site.prepare(["a", "b"])
    with pytest.raises(SubmissionRefused, match="too long"):
        site.service.known_units("accounts", None, "x" * 5_000)
