"""What the sweeper decides, on facts and its own clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hands import Hands
from hypothesis import given
from hypothesis import strategies as st

from jobs.adapters.sql_store import Store
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
        self.away = False
        self.meanwhile: Callable[[], object] = lambda: None

    def run(self, run: int, still: Callable[[], bool]) -> Iterator[str]:
        self.ran.append(run)
        if self.away:
            raise DatabaseUnavailable("away")
        for name in self.left:
            if not still():
                return
            self.removed.append(name)
            yield name
            self.meanwhile()

    def orphans(self) -> list[str]:
        return []


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
    broom.away = True
    one.clean()
    one.clean()
    assert broom.ran == [first]
    assert twin.store.runs.to_clean() == [first]
    broom.away = False
    one._postponed.clear()
    one.clean()
    one.clean()
    assert broom.ran == [first, first]
    assert twin.store.runs.to_clean() == []


def test_a_clean_up_ends_where_its_run_is_resumed(twin: Hands) -> None:
    broom = Broom("container", "database")
    run = twin.submit()
    twin.store.runs.cancel(run, "mio")
    broom.meanwhile = lambda: twin.store.runs.resume(run, "mio")
    sweeper(twin, broom=broom).clean()
    assert broom.removed == ["container"]
    assert twin.take().task.run == run, "it waits no longer for a clean-up that is over"
    assert twin.store.runs.to_clean() == []
