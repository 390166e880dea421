"""A clock that was set back: what was written before it is due, and nothing waits until it has caught up."""

from __future__ import annotations

import pytest
from hands import Hands
from sqlalchemy import text

from jobs.run import RunState


def set_back(hands: Hands, seconds: float) -> None:
    """Let all times that stand in tasks be so far ahead of what the clock says."""
    with hands.store.database.write() as connection:
        connection.execute(text(f"UPDATE tasks SET due_at = due_at + {seconds}, created_at = created_at + {seconds}"))


def test_what_was_queued_before_is_rung_for_and_claimed(hands: Hands) -> None:
    run = hands.submit()
    hands.worker()
    set_back(hands, 7_200.0)
    assert [pool for _, pool in hands.store.tasks.to_ring(every=60)] == ["local"]
    assert hands.store.machines.now("local").queued == 1
    assert hands.take().task.run == run


def test_what_was_interrupted_before_goes_on(hands: Hands) -> None:
    run, claim = hands.preparing()
    hands.interrupt(claim)
    set_back(hands, 7_200.0)
    now = hands.store.machines.now("local")
    assert now.due
    assert (now.due[0] - hands.run(run).created_at).total_seconds() < 600
    assert hands.store.tasks.requeue_due() == [claim.task.id]
    assert hands.run(run).state is RunState.RUNNING


@pytest.mark.parametrize("seconds", [30.0, 120.0])
def test_what_waits_as_long_as_anything_does_waits_on(hands: Hands, seconds: float) -> None:
    _, claim = hands.preparing()
    hands.interrupt(claim)
    set_back(hands, seconds)
    assert hands.store.tasks.requeue_due() == []
