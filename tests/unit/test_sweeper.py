"""What the sweeper decides, on facts and its own clock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hands import Hands
from hypothesis import given
from hypothesis import strategies as st

from jobs.adapters.sql_store import Store
from jobs.keeping import Done
from jobs.run import RunState, TaskState
from jobs.sweeper import Sighting, Sweeper, expired, sight
from runner.errors import DatabaseUnavailable, StoreUnavailable


def test_a_lease_is_judged_from_when_it_was_last_seen_to_change() -> None:
    seen = sight({}, [(1, 1, 0), (2, 5, 3)], 100.0)
    seen = sight(seen, [(1, 1, 0), (2, 5, 4)], 103.0)
    assert seen == {1: Sighting(1, 0, 100.0), 2: Sighting(5, 4, 103.0)}
    assert expired(seen, 105.0, 5.0) == []
    assert expired(seen, 105.1, 5.0) == [(1, Sighting(1, 0, 100.0))]


def test_another_attempt_is_another_lease_and_what_ended_is_forgotten() -> None:
    seen = sight({1: Sighting(1, 7, 0.0), 2: Sighting(1, 0, 0.0)}, [(1, 2, 7)], 50.0)
    assert seen == {1: Sighting(2, 7, 50.0)}


@given(st.lists(st.floats(0.01, 1.6), min_size=1, max_size=60), st.integers(0, 3))
def test_who_renews_every_third_of_a_lease_never_expires(gaps: list[float], late: int) -> None:
    """Passes come at any moment; renewals every 5/3 s. Only a holder that is silent for a whole lease is taken for dead."""
    lease, now, seen = 5.0, 0.0, {}
    for gap in gaps:
        now += gap
        seen = sight(seen, [(1, 1, int(now / (lease / 3)))], now)
        assert expired(seen, now, lease) == []
    silent = now + lease + late + 2.0
    assert expired(sight(seen, [(1, 1, next(iter(seen.values())).renewals)], silent), silent, lease)


class Bell:
    """A doorbell that notes its rings, or is away."""

    def __init__(self, *, away: bool = False) -> None:
        self.away, self.rung = away, []  # type: ignore[var-annotated]

    def ring(self, pool: str, task: int | None = None) -> bool:
        self.rung.append((pool, task))
        return not self.away


class Broom:
    """A clean-up that notes its runs and what it removed of them, or cannot do them now."""

    def __init__(self, *left: str) -> None:
        self.left, self.ran, self.removed = left, [], []  # type: ignore[var-annotated]
        self.error: Exception | None = None
        self.bad: int | None = None  # the only run that it is raised for
        self.found: list[Done] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def run(self, run: int, still: Callable[[], bool]) -> Iterator[str]:
        self.ran.append(run)
        if self.error is not None and self.bad in (None, run):
            raise self.error
        for name in self.left:
            if not still():
                return
            self.removed.append(name)
            yield name
            self.meanwhile()

    def orphans(self) -> list[Done]:
        return self.found


def sweeper(hands: Hands, *, bell: Any = None, broom: Any = None, lease: float = 5.0) -> Sweeper:
    return Sweeper(hands.store, bell or Bell(), broom or Broom(), lease=lease)


@pytest.fixture
def twin() -> Hands:
    return Hands(Store.in_memory())


def test_a_pass_expires_the_silent_queues_the_due_and_rings(twin: Hands) -> None:
    bell = Bell()
    one = sweeper(twin, bell=bell, lease=0.0)
    run, claim = twin.preparing()
    twin.worker()
    one.sweep()
    assert twin.tasks(run)[0].state is TaskState.RUNNING
    one.sweep()  # the first time it is queued at once: its container goes on
    assert bell.rung == [("local", claim.task.id)]
    assert twin.take().task.attempt == 2
    one.sweep()
    one.sweep()
    assert twin.run(run).state is RunState.INTERRUPTED
    with twin.store.database.write() as connection:
        connection.exec_driver_sql("UPDATE tasks SET due_at = 0")
    twin.worker()
    one.sweep()
    assert len(bell.rung) == 2
    one.sweep()
    assert len(bell.rung) == 2  # it rings already
    assert twin.take().task.attempt == 3


def test_a_bell_that_is_away_is_not_rung_a_hundred_times(twin: Hands) -> None:
    for number in range(5):
        twin.submit()
        twin.worker(f"w{number}")
    bell = Bell(away=True)
    sweeper(twin, bell=bell).sweep()
    assert len(bell.rung) == 1


def test_after_an_outage_of_the_store_everyone_has_a_whole_lease(twin: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    _, claim = twin.preparing()
    one = sweeper(twin, lease=0.0)
    one.sweep()
    calls: list[int] = []

    def running() -> list[tuple[int, int, int, float, str]]:
        calls.append(1)
        if len(calls) == 1:
            raise StoreUnavailable("away")
        one.stop.set()
        return [(claim.task.id, 1, 0, 0.0, "w1")]

    monkeypatch.setattr(twin.store.tasks, "running", running)
    monkeypatch.setattr("jobs.sweeper.PASS_SECONDS", 0.01)
    one.work()
    assert len(calls) == 2
    assert twin.tasks(claim.task.run)[0].state.value == "running"


def test_what_is_over_is_cleaned_once_and_what_cannot_be_is_postponed(twin: Hands) -> None:
    broom = Broom()
    one = sweeper(twin, broom=broom)
    first = twin.submit()
    twin.store.runs.cancel(first, "mio")
    broom.error = DatabaseUnavailable("away")
    one.clean()
    one.clean()
    assert broom.ran == [first]
    assert twin.store.runs.to_clean() == [first]
    broom.error = None
    one = sweeper(twin, broom=broom)  # some time later
    one.clean()
    one.clean()
    assert broom.ran == [first, first]
    assert twin.store.runs.to_clean() == []


def test_a_run_that_can_never_be_cleaned_keeps_no_other_waiting(twin: Hands) -> None:
    broom = Broom()
    one = sweeper(twin, broom=broom)
    bad, good = twin.submit(), twin.submit()
    for run in (bad, good):
        twin.store.runs.cancel(run, "mio")
    broom.bad = bad
    broom.error = ValueError("nobody expected that")
    one.clean()
    assert broom.ran == [bad, good]
    assert twin.store.runs.to_clean() == [bad]
    one.clean()
    assert broom.ran == [bad, good], "it is left alone for a while"


def test_leases_are_judged_on_whatever_the_other_threads_come_to(twin: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        failed.add(threading.current_thread().name)
        if len(failed) == 3:
            everything_failed.set()
        raise ValueError("nobody expected that")

    failed: set[str] = set()
    everything_failed = threading.Event()
    run, _ = twin.preparing()
    broom = Broom()
    monkeypatch.setattr(broom, "orphans", broken)
    monkeypatch.setattr("jobs.sweeper.PASS_SECONDS", 0.01)
    monkeypatch.setattr("jobs.sweeper.HOUSEKEEPING_SECONDS", 0.01)
    one = Sweeper(
        twin.store, Bell(), broom, lease=0.0, housekeeping=[broken], beside={"pool": broken}  # type: ignore[arg-type]
    )  # fmt: skip
    sweep = one.sweep

    def and_stop() -> None:
        if everything_failed.wait(30):
            sweep()
            sweep()
        one.stop.set()

    monkeypatch.setattr(one, "sweep", and_stop)
    one.work()
    assert failed == {"cleaner", "housekeeper", "pool"}
    assert twin.tasks(run)[0].state is TaskState.QUEUED


def test_a_lease_that_cannot_be_judged_holds_up_no_other(twin: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    (_, bad), (run, _) = twin.preparing(), twin.preparing()
    expire = twin.store.tasks.expire

    def broken(task: int, attempt: int, renewals: int) -> bool:
        if task == bad.task.id:
            raise ValueError("nobody expected that")
        return expire(task, attempt, renewals)

    monkeypatch.setattr(twin.store.tasks, "expire", broken)
    one = sweeper(twin, lease=0.0)
    one.sweep()
    one.sweep()
    assert twin.tasks(run)[0].state is TaskState.QUEUED
    assert twin.tasks(bad.task.run)[0].state is TaskState.RUNNING


def test_a_part_of_the_housekeeping_that_fails_holds_up_no_other(twin: Hands) -> None:
    def broken() -> Iterator[Done]:
        raise ValueError("nobody expected that")

    def works() -> Iterator[Done]:
        worked.append(1)
        yield Done("tree", "accounts/1", "not used for 40d")

    worked: list[int] = []
    parts = [broken, works]
    Sweeper(twin.store, Bell(), Broom(), lease=5.0, housekeeping=parts).keep_house()  # type: ignore[arg-type]
    assert worked == [1]


def test_a_clean_up_ends_where_its_run_is_resumed(twin: Hands) -> None:
    broom = Broom("container", "database")
    run = twin.submit()
    twin.store.runs.cancel(run, "mio")
    broom.meanwhile = lambda: twin.store.runs.resume(run, "mio")
    sweeper(twin, broom=broom).clean()
    assert broom.removed == ["container"]
    assert twin.take().task.run == run, "it waits no longer for a clean-up that is over"
    assert twin.store.runs.to_clean() == []
    [event] = twin.events(run, "cleaned")
    assert event.data == {"why": "the run is over; the rest was left", "count": 1, "removed": ["container"]}


def test_what_the_sweeper_removes_is_told_on_its_run_or_in_a_list(twin: Hands) -> None:
    run, claim = twin.preparing()
    mine = Done("execution", f"seatrial-i-r{run}-t{claim.task.id}-e1", "its task is over", run, claim.task.id)
    volume, tree = Done("volume", "v", "its container went without it"), Done("tree", "p/1", "not used for 40d")
    broom = Broom()
    broom.found = [mine, volume]
    one = Sweeper(twin.store, Bell(), broom, lease=5.0, host="h1", housekeeping=[lambda: iter([tree])])  # type: ignore[arg-type]
    one.clean()
    one.keep_house()
    [event] = twin.events(run, "removed")
    assert (event.task, event.data["host"], event.data["why"]) == (claim.task.id, "h1", "its task is over")
    assert [(note.host, note.done) for note in twin.store.keeping.notes()] == [("h1", volume), ("h1", tree)]
