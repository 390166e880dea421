"""What executions took of a disk, and who is left to another host because of it: on each backend."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fixtures_store import older_store
from hands import Hands

from jobs.adapters.sql_store import Store
from jobs.adapters.sql_tasks import Claim
from jobs.new_run import NewLeg
from jobs.run import TaskState
from runner.model import Reason, TaskKind
from runner.quota import Used

GIB = 1 << 30
MUCH = Used(5 * GIB, 1_000)
ENOUGH = Used(6 * GIB, 2_000)


def wrote(hands: Hands, claim: Claim, used: Used | None, fault: Reason | None = None) -> None:
    """Let a claim's container tell what it took."""
    task, attempt = claim.task.id, claim.task.attempt
    number = hands.store.ledger.next_execution(task, attempt)
    for state in ("running", "ended"):
        told = {"wrote": used, "fault": fault}
        hands.store.ledger.execution(task, attempt, number, state=state, container="c", exit_code=None, **told)


def measured(hands: Hands, *, prepare: Used | None = None, batch: Used | None = MUCH, **more: object) -> int:
    """Do a run whose executions took so much."""
    run, claim = hands.preparing(**more)
    wrote(hands, claim, prepare)
    hands.prepared(claim)
    for _ in range(2):
        claim = hands.take()
        wrote(hands, claim, batch)
        hands.mark(claim, *claim.units)
        hands.end(claim)
    return run


def needs(hands: Hands, run: int) -> list[tuple[TaskKind, Used | None]]:
    return [(task.kind, task.need) for task in hands.tasks(run)]


def take(hands: Hands, spare: Used | None, *, host: str = "h1", worker: str = "w1") -> Claim | None:
    return hands.store.tasks.claim(pool="local", host=host, worker=worker, lease=60.0, spare=spare)


def waiting_for_room(hands: Hands) -> int:
    """Give a run of which two batches are queued that need room."""
    measured(hands)
    run = hands.submit()
    hands.prepared(hands.take())
    return run


def limited(hands: Hands, limit: int) -> int:
    """Submit a run whose limits.disk is so much."""
    new = hands.new()
    new = replace(new, legs=tuple(replace(leg, disk_limit=limit) for leg in new.legs))
    return hands.store.runs.add(new, key=None, body="")[0].id


def test_a_task_is_expected_to_take_what_the_largest_of_its_kind_took_before(hands: Hands) -> None:
    first = measured(hands, prepare=Used(7, 3))
    assert needs(hands, first) == [(TaskKind.PREPARE, None)] + [(TaskKind.VERIFY, None)] * 2
    run, claim = hands.preparing()
    hands.prepared(claim)
    assert needs(hands, run) == [(TaskKind.PREPARE, Used(7, 3))] + [(TaskKind.VERIFY, MUCH)] * 2
    other = hands.submit(project="other")
    assert needs(hands, other) == [(TaskKind.PREPARE, None)]


def test_what_was_told_last_does_not_lessen_the_peak(hands: Hands) -> None:
    run, claim = hands.preparing()
    hands.prepared(claim, ["a", "b"], batches=1)
    claim = hands.take()
    task, ledger = claim.task.id, hands.store.ledger
    number = ledger.next_execution(task, 1)
    for used in (Used(5, 50), None, Used(9, 20), Used(3, 1)):
        ledger.execution(task, 1, number, state="running", container="c", exit_code=None, wrote=used)
    hands.mark(claim, "a", "b")
    hands.end(claim)
    run, claim = hands.preparing()
    hands.prepared(claim, batches=1)
    assert needs(hands, run)[1] == (TaskKind.VERIFY, Used(9, 50))


def test_a_leg_is_expected_to_take_no_more_than_its_limit_allows(hands: Hands) -> None:
    measured(hands, batch=Used(5 * GIB, 5_000_000))
    run = limited(hands, GIB)
    hands.prepared(hands.take())
    assert needs(hands, run)[1] == (TaskKind.VERIFY, Used(GIB, 65_536))


def test_what_ran_into_a_limit_or_was_never_seen_is_no_measure(hands: Hands) -> None:
    run, claim = hands.preparing()
    hands.prepared(claim)
    for fault in (Reason("limit_exceeded", "Too much."), Reason("units_failed", "No.")):
        claim = hands.take()
        wrote(hands, claim, MUCH if fault.code == "limit_exceeded" else Used(4, 2), fault)
        hands.mark(claim, *claim.units)
        hands.end(claim, TaskState.FAILED, fault)
    run = hands.submit()
    hands.prepared(hands.take())
    assert needs(hands, run)[1] == (TaskKind.VERIFY, Used(4, 2))
    hands.finish(run)  # of which nobody saw anything
    run = hands.submit()
    hands.prepared(hands.take())
    assert needs(hands, run)[1] == (TaskKind.VERIFY, None)


def test_a_run_that_is_resumed_anew_is_expected_to_take_the_same(hands: Hands) -> None:
    measured(hands, prepare=Used(7, 3))
    run, claim = hands.preparing()
    hands.prepared(claim, batches=1, data="night")
    claim = hands.take()
    hands.end(claim, TaskState.FAILED, Reason("step_failed", "No."))
    hands.clean(run)
    hands.store.runs.resume(run, "mio")
    assert needs(hands, run).count((TaskKind.PREPARE, Used(7, 3))) == 2


def test_a_batch_is_left_to_a_host_with_room_for_it(hands: Hands) -> None:
    run = waiting_for_room(hands)
    little, few = Used(5 * GIB - 1, 2_000), Used(6 * GIB, 999)
    for spare in (little, few):
        assert take(hands, spare) is None
        assert hands.store.tasks.does_not_fit(pool="local", host="h1", spare=spare) == Used()
    assert hands.store.tasks.does_not_fit(pool="local", host="h1", spare=MUCH) is None
    claim = take(hands, MUCH, host="h2")
    assert claim is not None
    assert claim.task.run == run
    assert take(hands, None) is not None  # of a host that cannot be looked at nothing is asked


def test_what_needs_no_room_passes_what_does(hands: Hands) -> None:
    waiting_for_room(hands)
    small = hands.submit(project="other")
    claim = take(hands, Used(1, 1))
    assert claim is not None
    assert claim.task.run == small


def test_what_runs_on_a_host_is_still_to_write_what_it_has_not_yet(hands: Hands) -> None:
    waiting_for_room(hands)
    first = take(hands, ENOUGH)
    assert first is not None
    tasks, ledger = hands.store.tasks, hands.store.ledger
    assert take(hands, ENOUGH, worker="w2") is None
    assert tasks.does_not_fit(pool="local", host="h1", spare=ENOUGH) == MUCH
    number = ledger.next_execution(first.task.id, 1)
    seen = Used(5 * GIB - 10, 2_000)
    ledger.execution(first.task.id, 1, number, state="running", container="c", exit_code=None, wrote=seen)
    assert tasks.does_not_fit(pool="local", host="h1", spare=Used(5 * GIB + 9, 9_000)) == Used(10, 0)
    assert take(hands, Used(5 * GIB + 10, 9_000), worker="w2") is not None


def test_what_stands_on_a_host_is_gone_on_with_there_whatever_room_it_has(hands: Hands) -> None:
    waiting_for_room(hands)
    claim = take(hands, ENOUGH)
    assert claim is not None
    number = hands.store.ledger.next_execution(claim.task.id, 1)
    hands.store.ledger.execution(claim.task.id, 1, number, state="running", container="c", exit_code=None)
    hands.interrupt(claim, free=True)
    hands.make_due()
    again = take(hands, Used(1, 1))
    assert again is not None
    assert again.task.id == claim.task.id


def test_a_filter_or_another_project_is_no_comparison(hands: Hands) -> None:
    measured(hands, units_filter="a*")
    run = hands.submit()
    hands.prepared(hands.take())
    assert needs(hands, run)[1] == (TaskKind.VERIFY, None)


def test_a_leg_that_is_submitted_again_keeps_its_limit(hands: Hands) -> None:
    run = limited(hands, GIB)
    (leg,) = hands.store.runs.new_legs(run)
    assert isinstance(leg, NewLeg)
    assert leg.disk_limit == GIB


@pytest.mark.parametrize("revision", ["0018"])
def test_a_store_of_before_takes_its_tasks_as_it_did(empty_url: str, revision: str) -> None:
    with older_store(empty_url, revision):
        pass
    store = Store.open(empty_url)
    try:
        hands = Hands(store)
        run, claim = hands.preparing()
        hands.prepared(claim)
        assert needs(hands, run)[1] == (TaskKind.VERIFY, None)
        assert take(hands, Used()) is not None
    finally:
        store.close()
