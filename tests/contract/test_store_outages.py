"""How long what a task needs has been away, as the store counts it: by tries, and from where it began."""

from __future__ import annotations

import pytest
from hands import Hands
from sqlalchemy import text

from jobs.adapters.sql_tasks import Claim
from jobs.run import OUTAGE_STEP_SECONDS, RunState, TaskState
from runner.model import Reason

AWAY = Reason("database_unavailable", "The server does not answer.")
STEPS = 4


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is away through so many tries needs attention."""
    monkeypatch.setattr("jobs.run.OUTAGE_SECONDS", (STEPS - 0.5) * OUTAGE_STEP_SECONDS)


def passes(hands: Hands, seconds: float) -> None:
    """Let time pass: all that is recorded is older."""
    with hands.store.database.write() as connection:
        connection.execute(text(f"UPDATE attempts SET ended_at = ended_at - {seconds}"))
        connection.execute(text(f"UPDATE events SET at = at - {seconds}"))


def again(hands: Hands) -> Claim:
    hands.make_due()
    return hands.take()


def fails(hands: Hands, claim: Claim, times: int) -> Claim:
    """Try in vain, so often, and claim it once more."""
    for _ in range(times):
        assert hands.interrupt(claim, AWAY) is TaskState.INTERRUPTED
        passes(hands, OUTAGE_STEP_SECONDS)
        claim = again(hands)
    return claim


def test_what_is_away_through_all_tries_needs_attention(hands: Hands) -> None:
    run, claim = hands.verifying()
    claim = fails(hands, claim, STEPS)
    assert hands.interrupt(claim, AWAY) is TaskState.ERRORED
    found = hands.run(run).reason
    assert found is not None
    assert found.code == "needs_attention"


def test_a_night_without_tries_is_none(hands: Hands) -> None:
    _, claim = hands.verifying()
    claim = fails(hands, claim, 1)
    passes(hands, 15 * 3600.0)
    fails(hands, claim, STEPS - 2)


@pytest.mark.parametrize("how", ["interrupted", "cancelled"])
def test_a_resume_by_hand_begins_anew(hands: Hands, how: str) -> None:
    run, claim = hands.verifying()
    claim = fails(hands, claim, STEPS - 1)
    assert hands.interrupt(claim, AWAY) is TaskState.INTERRUPTED
    passes(hands, OUTAGE_STEP_SECONDS)
    if how == "cancelled":
        hands.store.runs.cancel(run, "mio")
        assert hands.run(run).state is RunState.CANCELLED
    hands.store.runs.resume(run, "mio")
    passes(hands, OUTAGE_STEP_SECONDS)
    claim = fails(hands, hands.take(), STEPS)
    assert hands.interrupt(claim, AWAY) is TaskState.ERRORED


@pytest.mark.parametrize("progress", ["unit", "token"])
def test_progress_begins_anew(hands: Hands, progress: str) -> None:
    _, claim = hands.verifying()
    claim = fails(hands, claim, STEPS)
    if progress == "unit":
        hands.mark(claim, "a")
    else:
        hands.store.ledger.token(claim.task.id, claim.task.attempt, "1")
    claim = fails(hands, claim, STEPS)
    assert hands.interrupt(claim, AWAY) is TaskState.ERRORED


def test_any_other_interruption_ends_it(hands: Hands) -> None:
    _, claim = hands.verifying()
    claim = fails(hands, claim, STEPS)
    hands.interrupt(claim)
    fails(hands, again(hands), STEPS)
