"""The life of a task in the store: one contract for SQLite in a file, in memory, and PostgreSQL."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hands import OUTPUT, WORLD, Hands
from sqlalchemy import text

from jobs.adapters.sql_moves import move
from jobs.adapters.sql_schema import tasks as task_table
from jobs.adapters.sql_tasks import Claim
from jobs.run import TRANSITIONS, IllegalTransition, RunState, TaskState, Verdict
from runner.errors import Fenced
from runner.model import Prepared, Reason, TaskKind, UnitResult, UnitState

S = TaskState


# ---- the state machine ----


def test_each_pair_of_states_is_a_step_or_is_refused(hands: Hands) -> None:
    for old, new in itertools.product(TaskState, TaskState):
        run = hands.submit()
        with hands.store.database.write() as connection:
            connection.execute(text(f"UPDATE tasks SET state = '{old}' WHERE run = {run}"))
        before = len(hands.events(run))
        with hands.store.database.write() as connection:
            row = connection.execute(task_table.select().where(task_table.c.run == run)).one()
            if (old, new) in TRANSITIONS:
                move(connection, row, new, 1.0)
            else:
                with pytest.raises(IllegalTransition):
                    move(connection, row, new, 1.0)
        (task,) = hands.tasks(run)
        if (old, new) in TRANSITIONS:
            event = hands.events(run)[-1]
            assert task.state is new
            assert (event.kind, event.data["from"], event.data["to"]) == ("task", old.value, new.value)
        else:
            assert task.state is old
            assert len(hands.events(run)) == before


def test_a_step_from_a_state_that_is_no_longer_the_present_one_is_refused(hands: Hands) -> None:
    run, claim = hands.preparing()
    with hands.store.database.write() as connection:
        row = connection.execute(task_table.select()).one()
    hands.interrupt(claim)
    with pytest.raises(Fenced), hands.store.database.write() as connection:
        move(connection, row, S.DONE, 1.0)
    assert hands.run(run).state is RunState.INTERRUPTED


# ---- claiming ----


def test_a_claim_raises_the_attempt_and_gives_all_that_was_recorded(hands: Hands) -> None:
    run = hands.submit(units_filter="a*")
    hands.worker()
    claim = hands.take()
    task = claim.task
    assert (task.run, task.kind, task.state, task.attempt, task.worker, task.host) == (
        run, TaskKind.PREPARE, S.RUNNING, 1, "w1", "h1",
    )  # fmt: skip
    assert (claim.units, claim.units_filter, claim.migrate, claim.template) == ((), "a*", True, None)
    assert hands.claim() is None
    found = hands.run(run)
    assert (found.state, found.attempts, found.started_at is not None) == (RunState.RUNNING, 1, True)
    (worker,) = hands.store.workers.workers()
    assert worker.task == task.id
    assert [event.kind for event in hands.events(run)] == ["submitted", "task", "claim", "run"]


def test_a_batch_is_given_the_image_of_its_leg_and_a_preparation_finds_its_own(hands: Hands) -> None:
    run = hands.submit()
    hands.worker()
    claim = hands.take()
    hands.prepared(claim, image="sha256:9")
    batch = hands.take()
    assert (batch.task.run, batch.task.kind, batch.image_digest) == (run, TaskKind.VERIFY, "sha256:9")
    assert batch.image is not None
    assert claim.image_digest is None


def test_a_host_without_room_adopts_what_stands_on_it_and_takes_nothing_new(hands: Hands) -> None:
    run = hands.submit()
    hands.worker()
    assert hands.store.tasks.claim(pool="local", host="h1", worker="w1", lease=60.0, adopt_only=True) is None
    claim = hands.take()
    hands.store.ledger.execution(claim.task.id, claim.task.attempt, 1, state="running", container="c1", exit_code=None)
    hands.interrupt(claim)
    hands.make_due()
    hands.submit()
    assert hands.store.tasks.claim(pool="local", host="h2", worker="w2", lease=60.0, adopt_only=True) is None
    again = hands.store.tasks.claim(pool="local", host="h1", worker="w1", lease=60.0, adopt_only=True)
    assert again is not None
    assert (again.task.run, again.task.attempt) == (run, 2)


def test_a_slot_tells_what_it_lacks_until_it_lacks_nothing(hands: Hands) -> None:
    hands.worker()
    hands.store.workers.seen("w1", shortage="12 MiB free")
    assert [worker.shortage for worker in hands.store.workers.workers()] == ["12 MiB free"]
    hands.store.workers.seen("w1")
    assert [worker.shortage for worker in hands.store.workers.workers()] == [None]


def test_other_pools_are_not_touched(hands: Hands) -> None:
    hands.submit(pool="large")
    assert hands.claim(pool="local") is None
    assert hands.claim(pool="large") is not None


def test_order_is_adoption_then_priority_then_fair_share_then_age(hands: Hands) -> None:
    adoptable = hands.submit("mio")
    claim = hands.take(host="h1")
    hands.store.ledger.execution(claim.task.id, 1, 1, state="running", container="c", exit_code=None)
    hands.submit("mio")
    hands.take(host="h2")  # mio has one running
    old = hands.submit("mio")
    urgent = hands.submit("mio", priority=5)
    of_another = hands.submit("rin")
    hands.interrupt(claim)
    hands.make_due()
    assert [hands.take(host="h1").task.run for _ in range(4)] == [adoptable, urgent, of_another, old]


def test_a_task_that_left_no_container_here_is_not_preferred(hands: Hands) -> None:
    first = hands.submit()
    hands.interrupt(hands.take(host="h1"))
    hands.make_due()
    urgent = hands.submit(priority=1)
    assert [hands.take(host="h1").task.run for _ in range(2)] == [urgent, first]


def test_a_batch_waits_for_its_leg(hands: Hands) -> None:
    run, claim = hands.preparing()
    assert hands.claim() is None
    hands.prepared(claim, ["a", "b", "c"], batches=3)
    assert [hands.take().units for _ in range(3)] == [("a",), ("b",), ("c",)]
    assert hands.run(run).units.total == 3


def test_a_claim_gives_only_the_units_that_are_left(hands: Hands) -> None:
    run, claim = hands.verifying(["a", "b", "c"])
    hands.mark(claim, "b")
    hands.interrupt(claim)
    hands.make_due()
    again = hands.take()
    assert (again.task.attempt, again.units) == (2, ("a", "c"))
    assert hands.run(run).attempts == 3


# ---- fencing: every write of a stale attempt is refused, and nothing of it is written ----

WRITES: dict[str, Callable[[Hands, Claim], Any]] = {
    "log": lambda h, c: h.log(c, b"late", source=(1, 4)),
    "mark": lambda h, c: h.mark(c, "a", source=(1, 2)),
    "void": lambda h, c: h.store.ledger.void(c.task.id, c.task.attempt, "b", "changed"),
    "token": lambda h, c: h.store.ledger.token(c.task.id, c.task.attempt, "t", (1, 2)),
    "resume_point": lambda h, c: h.store.ledger.resume_point(c.task.id, c.task.attempt, "t", OUTPUT),
    "step": lambda h, c: h.store.ledger.step(c.task.id, c.task.attempt, "run", state="done", seconds=1.0, detail=""),
    "execution": lambda h, c: h.store.ledger.execution(
        c.task.id, c.task.attempt, 1, state="ended", container="c", exit_code=0
    ),
    "next_execution": lambda h, c: h.store.ledger.next_execution(c.task.id, c.task.attempt),
    "end": lambda h, c: h.end(c),
    "fail": lambda h, c: h.end(c, S.FAILED, Reason("x", "y")),
    "interrupt": lambda h, c: h.interrupt(c),
    "prepared": lambda h, c: h.prepared(c, ["a", "z"]),
    "renew": lambda h, c: h.store.tasks.renew(c.task.id, c.task.attempt, 60.0),
}


def everything(hands: Hands) -> dict[str, list[Any]]:
    """Give all rows of all tables."""
    tables = ("runs", "legs", "tasks", "attempts", "executions", "steps", "units", "log_chunks", "events", "workers")
    with hands.store.database.read() as connection:
        return {name: sorted(map(str, connection.execute(text(f'SELECT * FROM "{name}"')))) for name in tables}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("world", ["taken over", "waiting", "ended"])
def test_b07_a_stale_attempt_can_write_nothing(hands: Hands, write: str, world: str) -> None:
    _, stale = hands.verifying(["a", "b"])
    hands.store.ledger.execution(stale.task.id, 1, 1, state="running", container="c", exit_code=None)
    hands.mark(stale, "b")
    if world == "ended":
        hands.mark(stale, "a")
        hands.end(stale)
    else:
        hands.interrupt(stale)
    if world == "taken over":
        hands.make_due()
        assert hands.take("w2").task.attempt == 2
    before = everything(hands)
    with pytest.raises(Fenced):
        WRITES[write](hands, stale)
    assert everything(hands) == before


def test_a_refusal_is_an_event(hands: Hands) -> None:
    run, claim = hands.preparing()
    assert hands.store.tasks.refused() == 0
    hands.store.tasks.note_refusal(claim.task.id, 1, worker="w1", what=["the lease", "12 bytes of the log"])
    [event] = hands.events(run, "refused")
    assert (event.task, event.attempt) == (claim.task.id, 1)
    assert event.data == {
        "worker": "w1",
        "what": ["the lease", "12 bytes of the log"],
        "writes": 2,
        "text": "Another attempt holds the task: 2 writes were refused.",
    }
    hands.store.tasks.note_refusal(10**6, 1, worker="w1", what=["its end as done"])  # its run was removed meanwhile
    assert hands.store.tasks.refused() == 3


# ---- ends ----


def test_a_run_passes_when_all_batches_are_done(hands: Hands) -> None:
    run, first = hands.verifying(batches=2)
    second = hands.take()
    for claim in (first, second):
        assert hands.run(run).state is RunState.RUNNING
        hands.mark(claim, *claim.units)
        assert hands.end(claim) is S.DONE
    found = hands.run(run)
    assert (found.state, found.verdict, found.units.done, found.finished_at is not None) == (
        RunState.DONE, Verdict.PASSED, 4, True,
    )  # fmt: skip
    assert [attempt.outcome for attempt in hands.store.inside.attempts(run)] == ["done"] * 3
    assert hands.store.tasks.outcome(first.task.id, 1) == "done"


def test_a_batch_with_units_missing_is_incomplete_whatever_the_worker_says(hands: Hands) -> None:
    run, claim = hands.verifying(["a", "b"])
    hands.mark(claim, "a")
    assert hands.end(claim) is S.FAILED
    reason = hands.run(run).reason
    assert reason is not None
    assert (reason.code, hands.run(run).state) == ("incomplete", RunState.FAILED)


def test_units_that_failed_in_an_earlier_attempt_fail_the_batch(hands: Hands) -> None:
    run, claim = hands.verifying(["a", "b"])
    hands.mark(claim, "a", failed=True)
    hands.interrupt(claim)
    hands.make_due()
    again = hands.take()
    assert again.units == ("b",)
    hands.mark(again, "b")
    assert hands.end(again) is S.FAILED
    found = hands.run(run)
    assert found.reason is not None
    assert (found.state, found.reason.code, found.units.failed) == (RunState.FAILED, "units_failed", 1)


def test_the_end_of_an_attempt_ends_its_steps(hands: Hands) -> None:
    run, claim = hands.preparing()
    hands.store.ledger.step(claim.task.id, 1, "setup", state="running", seconds=None, detail="")
    hands.interrupt(claim)
    (step,) = hands.store.inside.steps(run)
    assert (step.state, step.seconds is not None) == ("ended", True)


# ---- interruptions and their budget ----


def test_three_interruptions_in_a_row_without_progress_need_attention(hands: Hands) -> None:
    run, claim = hands.verifying()
    assert hands.interrupt(claim) is S.INTERRUPTED
    hands.make_due()
    assert hands.interrupt(hands.take()) is S.INTERRUPTED
    hands.make_due()
    assert hands.interrupt(hands.take()) is S.ERRORED
    found = hands.run(run)
    assert found.reason is not None
    assert (found.state, found.reason.code) == (RunState.ERRORED, "needs_attention")
    assert WORLD.text in found.reason.text


def test_progress_pays_the_budget_back(hands: Hands) -> None:
    run, claim = hands.verifying(["a", "b", "c", "d"])
    for unit in ("a", "b", "c"):
        hands.interrupt(claim)
        hands.make_due()
        claim = hands.take()
        hands.mark(claim, unit)
        hands.interrupt(claim)
        hands.make_due()
        claim = hands.take()
    assert hands.run(run).state is RunState.RUNNING


def test_a_container_that_goes_on_printing_in_other_hands_is_progress(hands: Hands) -> None:
    """A unit of hours may outlive any number of workers."""
    _, claim = hands.verifying(["a"])
    task, ledger = claim.task.id, hands.store.ledger
    first = ledger.next_execution(task, claim.task.attempt)
    ledger.execution(task, claim.task.attempt, first, state="running", container="c", exit_code=None)
    for number in range(5):
        ledger.append_log(task, claim.task.attempt, b"x", object_digest=None, source=(first, number + 1))
        assert hands.interrupt(claim) is S.INTERRUPTED
        hands.make_due()
        claim = hands.take()
    for expected in (S.INTERRUPTED, S.INTERRUPTED, S.ERRORED):  # now each attempt begins it anew
        number = ledger.next_execution(task, claim.task.attempt)
        ledger.execution(task, claim.task.attempt, number, state="running", container="c", exit_code=None)
        ledger.append_log(task, claim.task.attempt, b"x", object_digest=None, source=(number, 1))
        assert hands.interrupt(claim) is expected
        if expected is S.INTERRUPTED:
            hands.make_due()
            claim = hands.take()


def test_a_mark_that_changes_nothing_is_no_progress(hands: Hands) -> None:
    _, claim = hands.verifying(["a", "b"])
    hands.mark(claim, "a")
    for expected in (S.INTERRUPTED, S.INTERRUPTED, S.INTERRUPTED, S.ERRORED):
        assert hands.interrupt(claim) is expected
        if expected is S.INTERRUPTED:
            hands.make_due()
            claim = hands.take()
            hands.mark(claim, "a")


def come_to(hands: Hands, claim: Claim, *tokens: str, size: int | None = None) -> TaskState:
    """Give tokens, keep the last one with an output of that size, and be interrupted."""
    ledger, task, attempt = hands.store.ledger, claim.task.id, claim.task.attempt
    for token in tokens:
        ledger.token(task, attempt, token)
    if size is not None:
        ledger.resume_point(task, attempt, tokens[-1], replace(OUTPUT, size=size))
    state = hands.interrupt(claim)
    hands.make_due()
    return state


def test_a_new_token_is_progress(hands: Hands) -> None:
    _, claim = hands.verifying(["all"])
    for number in range(4):
        assert come_to(hands, claim, f"row {number}") is S.INTERRUPTED
        claim = hands.take()


@pytest.mark.parametrize("tokens", [("begun",), ("begun", "halfway"), ("x" * 500,)])
def test_a_script_that_gives_the_same_tokens_over_and_over_needs_attention(
    hands: Hands, tokens: tuple[str, ...]
) -> None:
    run, claim = hands.verifying(["all"])
    for _ in range(3):
        assert come_to(hands, claim, *tokens, size=OUTPUT.size) is S.INTERRUPTED
        claim = hands.take()
    assert come_to(hands, claim, *tokens, size=OUTPUT.size) is S.ERRORED
    assert hands.run(run).reason == Reason(
        "needs_attention", f"Needs attention: interrupted 3 times in a row without progress. Last: {WORLD.text}"
    )


def test_long_tokens_that_begin_alike_are_told_apart(hands: Hands) -> None:
    _, claim = hands.verifying(["all"])
    for number in range(4):
        assert come_to(hands, claim, "x" * 500 + str(number)) is S.INTERRUPTED
        claim = hands.take()


def test_one_token_with_more_output_each_time_is_progress(hands: Hands) -> None:
    _, claim = hands.verifying(["all"])
    for number in range(4):
        assert come_to(hands, claim, "begun", size=1_000 + number) is S.INTERRUPTED
        claim = hands.take()


def test_tokens_count_anew_after_a_resume_by_hand(hands: Hands) -> None:
    run, claim = hands.verifying(["all"])
    for _ in range(4):
        come_to(hands, claim, "begun")
        claim = hands.claim() or claim
    assert hands.run(run).state is RunState.ERRORED
    hands.store.runs.resume(run, "mio")
    assert come_to(hands, hands.take(), "begun") is S.INTERRUPTED
    hands.take()
    (task,) = [task for task in hands.tasks(run) if task.kind is TaskKind.VERIFY]
    with hands.store.database.read() as connection:
        fruitless = connection.execute(text(f"SELECT fruitless FROM tasks WHERE id = {task.id}")).scalar_one()
    assert fruitless == 0


def test_a_drain_is_free_and_comes_back_at_once(hands: Hands) -> None:
    run, claim = hands.verifying()
    hands.interrupt(claim)
    hands.make_due()
    for _ in range(5):
        assert hands.interrupt(hands.take(), Reason("drained", "…"), free=True) is S.INTERRUPTED
        assert hands.store.tasks.requeue_due()
    hands.interrupt(hands.take())
    hands.make_due()
    assert hands.interrupt(hands.take()) is S.ERRORED
    assert hands.run(run).state is RunState.ERRORED


def test_an_interrupted_task_comes_back_when_its_time_has_come(hands: Hands) -> None:
    run, claim = hands.verifying()
    hands.interrupt(claim)
    assert hands.store.tasks.requeue_due() == []
    assert hands.claim() is None
    assert hands.make_due() == [claim.task.id]
    assert hands.run(run).state is RunState.RUNNING
    assert hands.take().task.attempt == 2


STANDS = {"state": "running", "container": "c1", "exit_code": None}


@pytest.mark.parametrize("how", ["drained", "store_unavailable", "died"])
def test_what_stands_on_a_host_that_is_about_to_come_back_is_left_to_it_for_a_while(hands: Hands, how: str) -> None:
    _, claim = hands.verifying(["a"])
    task, store = claim.task.id, hands.store
    store.ledger.execution(task, 1, store.ledger.next_execution(task, 1), **STANDS)
    if how == "died":
        assert store.tasks.revoke("w1", Reason("worker_lost", "It died.")) == [task]
    else:
        hands.interrupt(claim, Reason(how, "…"), free=how == "drained")
    hands.make_due()
    assert hands.claim("w2", host="h2") is None
    again = hands.take("w3", host="h1")
    assert again.task.attempt == 2
    hands.interrupt(again, Reason("drained", "…"), free=True)
    hands.make_due()
    with store.database.write() as connection:
        connection.execute(text("UPDATE executions SET kept_until = kept_until - 30"))
    assert hands.take("w2", host="h2").task.attempt == 3


def test_a_batch_whose_worker_died_at_its_end_has_the_fault_that_its_last_container_ended_with(hands: Hands) -> None:
    run, claim = hands.verifying(["a", "b"])
    task, store = claim.task.id, hands.store
    ended = {"state": "ended", "container": "c", "exit_code": 3}
    for number, fault in ((1, Reason("timed_out", "…")), (2, Reason("step_failed", "It ended with 3."))):
        assert store.ledger.next_execution(task, 1) == number
        store.ledger.execution(task, 1, number, **STANDS, fault=fault)
        store.ledger.execution(task, 1, number, **ended)
    hands.mark(claim, "a")
    hands.mark(claim, "b", failed=True)
    hands.interrupt(claim, Reason("worker_lost", "It died."))
    hands.make_due()
    again = hands.take()
    assert again.units == ()
    assert hands.end(again) is S.FAILED
    assert hands.run(run).reason == Reason("step_failed", "It ended with 3.")
    hands.store.runs.resume(run, "mio")  # by hand: what it ended with was told
    again = hands.take()
    hands.mark(again, "b")
    assert hands.end(again) is S.DONE
    assert hands.run(run).verdict is Verdict.PASSED


@pytest.mark.parametrize("how", ["0", "75", "running", "abandoned"])
def test_a_batch_whose_units_are_all_done_is_done_when_its_last_container_told_no_fault(hands: Hands, how: str) -> None:
    run, claim = hands.verifying(["a"])
    task, ledger = claim.task.id, hands.store.ledger
    ledger.execution(task, 1, ledger.next_execution(task, 1), **STANDS, fault=Reason("timed_out", "…"))
    ledger.execution(task, 1, ledger.next_execution(task, 1), **STANDS)
    if how.isdigit():
        ledger.execution(task, 1, 2, state="ended", container="c", exit_code=int(how))
    elif how == "abandoned":
        ledger.next_execution(task, 1)
    hands.mark(claim, "a")
    hands.interrupt(claim, Reason("worker_lost", "It died."))
    hands.make_due()
    assert hands.end(hands.take("w2", host="h2")) is S.DONE
    assert hands.run(run).verdict is Verdict.PASSED


@pytest.mark.parametrize("how", ["engine_unavailable", "silent", "nothing stands"])
def test_what_nobody_is_about_to_go_on_with_is_taken_by_any_host_at_once(hands: Hands, how: str) -> None:
    _, claim = hands.verifying(["a"])
    task, store = claim.task.id, hands.store
    if how == "silent":
        store.ledger.execution(task, 1, store.ledger.next_execution(task, 1), **STANDS)
        store.tasks.renew(task, 1, 0.0)
        assert store.tasks.expire(task, 1, 1)
    elif how == "engine_unavailable":
        store.ledger.execution(task, 1, store.ledger.next_execution(task, 1), **STANDS)
        hands.interrupt(claim, Reason(how, "…"))
    else:
        hands.interrupt(claim, Reason("drained", "…"), free=True)
    hands.make_due()
    assert hands.take("w2", host="h2").task.attempt == 2


# ---- leases ----


def test_a_lease_is_renewed_by_its_holder_only(hands: Hands) -> None:
    _, claim = hands.preparing()
    assert hands.store.tasks.renew(claim.task.id, 1, 60.0) is False
    ((task, attempt, renewals, _, worker),) = hands.store.tasks.running()
    assert (task, attempt, renewals, worker) == (claim.task.id, 1, 1, "w1")
    with pytest.raises(Fenced):
        hands.store.tasks.renew(claim.task.id, 2, 60.0)
    with pytest.raises(Fenced):
        hands.store.tasks.renew(4711, 1, 60.0)


def test_only_a_lease_that_was_not_renewed_expires(hands: Hands) -> None:
    run, claim = hands.preparing()
    hands.store.tasks.renew(claim.task.id, 1, 0.0)
    assert hands.store.tasks.expire(claim.task.id, 1, 0) is False
    assert hands.store.tasks.expire(claim.task.id, 2, 1) is False
    assert hands.store.tasks.expire(4711, 1, 1) is False
    assert hands.store.tasks.expire(claim.task.id, 1, 1) is True
    found = hands.run(run)
    assert found.reason is not None
    assert (found.state, found.reason.code) == (RunState.INTERRUPTED, "worker_lost")
    assert hands.store.tasks.expire(claim.task.id, 1, 1) is False


def test_a_lease_counts_by_the_stores_clock_where_it_has_one(hands: Hands) -> None:
    """Hosts may have leases of different lengths; a short one's sweeper lets the others have theirs."""
    _, claim = hands.preparing()
    assert hands.store.tasks.expire(claim.task.id, 1, 0) is hands.store.database.is_sqlite


def test_what_a_dead_worker_held_is_given_back(hands: Hands) -> None:
    hands.worker("w1")
    hands.worker("w2")
    mine, other = hands.submit(), hands.submit()
    hands.take("w1")
    hands.take("w2")
    (task,) = hands.store.tasks.revoke("w1", Reason("worker_lost", "It died."))
    assert hands.store.inside.task(task).run == mine
    assert (hands.run(mine).state, hands.run(other).state) == (RunState.INTERRUPTED, RunState.RUNNING)
    assert [worker.name for worker in hands.store.workers.workers()] == ["w2"]
    assert hands.store.tasks.revoke("w1", WORLD) == []


def test_what_a_slot_held_that_was_killed_while_it_was_to_end_costs_nothing(hands: Hands) -> None:
    run = hands.submit()
    for _ in range(4):
        claim = hands.take("w1")
        assert hands.store.tasks.revoke("w1", Reason("drained", "…"), free=True) == [claim.task.id]
        assert hands.run(run).state is RunState.INTERRUPTED
        assert hands.store.tasks.requeue_due() == [claim.task.id], "at once"


LOST = Reason("store_unavailable", "The answer to its claim was lost.")


def test_what_was_claimed_for_a_slot_that_never_heard_of_it_is_given_back_at_no_cost(hands: Hands) -> None:
    run, store = hands.submit(), hands.store
    since = store.workers.register(name="w1", host="h1", pool="local", pid=1)
    for _ in range(4):
        claim = hands.take("w1")
        assert store.tasks.give_back("w1", since, LOST) == [claim.task.id]
        assert hands.run(run).state is RunState.INTERRUPTED
        assert [worker.task for worker in store.workers.workers()] == [None]
        hands.make_due()
    assert store.tasks.give_back("w1", since, LOST) == []


def test_nothing_is_given_back_of_what_another_slot_of_the_same_name_holds(hands: Hands) -> None:
    hands.submit()
    before = hands.store.workers.register(name="w1", host="h1", pool="local", pid=1)
    claim = hands.take("w1")
    since = hands.store.workers.register(name="w1", host="h1", pool="local", pid=1)
    for asking in (before, since):
        assert hands.store.tasks.give_back("w1", asking, LOST) == []
    assert hands.store.tasks.outcome(claim.task.id, 1) is None


# ---- rings ----


def test_a_ring_for_each_idle_slot_and_none_for_busy_ones(hands: Hands) -> None:
    runs = [hands.submit() for _ in range(5)]
    assert hands.store.tasks.to_ring(every=60) == []
    hands.worker("w1")
    hands.worker("w2")
    hands.worker("w3", pool="other")
    first = hands.store.tasks.to_ring(every=60)
    assert [hands.store.inside.task(task).run for task, _ in first] == runs[:2]
    assert {pool for _, pool in first} == {"local"}
    hands.take("w1")
    assert len(hands.store.tasks.to_ring(every=60)) == 1
    hands.take("w2")
    assert hands.store.tasks.to_ring(every=0) == []
    hands.store.workers.seen("w1", idle=True)
    assert len(hands.store.tasks.to_ring(every=0)) == 1


def test_nothing_rings_for_what_cannot_be_claimed(hands: Hands) -> None:
    hands.worker("w1")
    hands.worker("w2")
    run, claim = hands.preparing()
    assert hands.store.tasks.to_ring(every=0) == []
    hands.prepared(claim, batches=2)
    assert len(hands.store.tasks.to_ring(every=60)) == 1
    hands.store.runs.cancel(run, "mio")
    assert hands.store.tasks.to_ring(every=0) == []


# ---- text that a branch wrote ----


def test_text_that_no_database_takes_is_stored_all_the_same(hands: Hands) -> None:
    run, claim = hands.verifying(["a"])
    dirty = "NUL \0, half a pair \ud83d, and é 😀"
    result = UnitResult("a", UnitState.FAILED, None, dirty)
    hands.store.ledger.mark(claim.task.id, 1, [result], None)
    hands.store.ledger.step(claim.task.id, 1, "run", state="failed", seconds=1.0, detail=dirty)
    hands.store.ledger.token(claim.task.id, 1, dirty)
    hands.end(claim, S.FAILED, Reason("units_failed", dirty))
    (unit,) = hands.units(run)
    found = hands.run(run).reason
    assert found is not None
    assert unit.text == found.text == hands.store.inside.steps(run)[0].detail == "NUL �, half a pair ?, and é 😀"
    assert hands.events(run, "token")


def test_a_prepared_that_names_a_unit_twice_is_refused_whole(hands: Hands) -> None:
    run, claim = hands.preparing()
    result = Prepared("image", "sha256:1", ("a", "a"))
    with pytest.raises(Exception, match=r"(?i)unique"):
        hands.store.plan.prepared(claim.task.id, 1, result, lambda names: [tuple(names)])
    assert hands.units(run) == []
    assert hands.run(run).state is RunState.RUNNING
