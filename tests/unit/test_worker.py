"""How a slot writes the end of an attempt, on the records in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hands import WORLD, Hands

from jobs import worker
from jobs.adapters.sql_store import Store
from jobs.adapters.sql_tasks import Claim
from jobs.recorder import LedgerRecorder
from jobs.run import TaskState
from jobs.worker import Ending, Place, Slot
from runner.errors import Fenced, StoreUnavailable

NOBODY: Any = None


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    monkeypatch.setattr(worker, "AGAIN_SECONDS", 0.0)
    return Hands(Store.in_memory())


def record(hands: Hands, claim: Claim, ending: Ending) -> list[str]:
    """Write the end as a slot does; gives what was refused."""
    slot = Slot(Place("w1", "h1", "local", 1, 1, "i", 5.0), hands.store, NOBODY, NOBODY)
    task, attempt = claim.task.id, claim.task.attempt
    recorder = LedgerRecorder(hands.store, NOBODY, task=task, attempt=attempt, lease=3600.0, drain=threading.Event())
    recorder.ending()
    try:
        slot._record(claim, ending, recorder)
    finally:
        recorder.close()
    return recorder.refused


def lose_the_first_answer(hands: Hands, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    does: Callable[..., Any] = getattr(hands.store.tasks, name)
    lost: list[Any] = []

    def losing(*values: Any, **more: Any) -> Any:
        done = does(*values, **more)
        if not lost:
            lost.append(done)
            raise StoreUnavailable("The store does not answer: the link dropped")
        return done

    monkeypatch.setattr(hands.store.tasks, name, losing)


def test_an_end_whose_answer_was_lost_is_known_again_though_it_was_recorded_otherwise(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, claim = hands.verifying(["a", "b"])
    hands.mark(claim, "a")
    lose_the_first_answer(hands, monkeypatch, "end")
    assert record(hands, claim, Ending(TaskState.DONE)) == []
    assert hands.store.tasks.outcome(claim.task.id, 1) == "failed", "a unit is left"


@pytest.mark.parametrize("drains", [False, True])
def test_a_task_whose_claim_was_never_heard_of_is_given_back(
    hands: Hands, monkeypatch: pytest.MonkeyPatch, *, drains: bool
) -> None:
    hands.submit()
    lose_the_first_answer(hands, monkeypatch, "claim")
    losing = hands.store.tasks.claim

    def claim(**values: Any) -> Claim | None:
        if drains:
            slot.drain.set()
        return losing(**values)

    monkeypatch.setattr(hands.store.tasks, "claim", claim)
    bell = SimpleNamespace(listen=lambda *_, **__: slot.drain.set())
    slot = Slot(Place("w1", "h1", "local", 1, 1, "i", 5.0), hands.store, cast(Any, bell), NOBODY)
    slot.work()
    assert hands.store.tasks.running() == []
    [task] = hands.tasks(1)
    assert (task.state, task.attempt) == (TaskState.INTERRUPTED, 1)


def test_an_interruption_whose_answer_was_lost_is_known_again_as_a_cancellation(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, claim = hands.preparing()
    hands.store.runs.cancel(run, "mio")
    lose_the_first_answer(hands, monkeypatch, "interrupt")
    assert record(hands, claim, Ending(None, WORLD)) == []
    assert hands.store.tasks.outcome(claim.task.id, 1) == "cancelled"


def test_an_end_that_comes_too_late_is_refused_and_named(hands: Hands) -> None:
    _, claim = hands.verifying(["a", "b"])
    hands.store.tasks.revoke("w1", WORLD)
    with pytest.raises(Fenced):
        record(hands, claim, Ending(TaskState.DONE))
