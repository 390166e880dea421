"""What came to a pool in the past, as the store remembers it."""

from __future__ import annotations

from hands import Hands

from jobs.machines import Arrivals
from jobs.run import TaskState


def test_runs_and_forms_of_a_pool_are_told_oldest_first(hands: Hands) -> None:
    store = hands.store
    assert store.machines.arrived("local", 10) == Arrivals((), ())
    first = hands.submit()
    hands.submit()
    hands.submit(pool="other")
    claim = hands.take()
    assert claim.task.run == first
    store.tasks.end(claim.task.id, claim.task.attempt, TaskState.FAILED, None)
    store.machines.form_opened("local", made_by="ada")
    store.machines.form_opened("other", made_by="ada")
    found = store.machines.arrived("local", 10)
    done, waiting = found.runs
    known = hands.run(first)
    assert (done.created_at, done.started_at, done.finished_at) == (
        known.created_at,
        known.started_at,
        known.finished_at,
    )
    assert done.started_at is not None
    assert done.finished_at is not None
    assert (waiting.started_at, waiting.finished_at) == (None, None)
    assert waiting.created_at >= done.created_at
    (form,) = found.forms
    assert form >= waiting.created_at


def test_only_the_newest_are_told(hands: Hands) -> None:
    known = [hands.run(hands.submit()).created_at for _ in range(3)]
    assert [one.created_at for one in hands.store.machines.arrived("local", 2).runs] == known[1:]
