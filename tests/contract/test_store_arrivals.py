"""What came to a pool in the past, as the store remembers it."""

from __future__ import annotations

from hands import Hands

from jobs.machines import Arrivals, MachineState
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


def test_slots_that_take_no_work_do_not_count_unless_they_do_some(hands: Hands) -> None:
    found = hands.store.machines
    found.upsert("i-0123456789abcdef0", pool="local", state=MachineState.RUNNING)
    found.register("i-0123456789abcdef0", host="h1", pool="local")
    for name in ("w1", "w2", "w3"):
        hands.worker(name)
    hands.submit()
    hands.take("w1")
    hands.store.workers.seen("w1", shortage="no room")
    hands.store.workers.seen("w2", shortage="no room")
    hands.store.workers.seen("w3", draining=True)
    (now,) = found.now("local").machines
    assert (now.leases, now.slots) == (1, 1)
    hands.store.workers.seen("w2")
    (now,) = found.now("local").machines
    assert (now.leases, now.slots) == (1, 2)
