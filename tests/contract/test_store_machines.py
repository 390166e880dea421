"""Machines in the store: what EC2 and they themselves say, the stop protocol, and a claim at any point of it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hands import Hands
from sqlalchemy import text

from jobs.adapters.sql_machines import SqlMachines
from jobs.adapters.sql_starts import SqlStarts
from jobs.machines import Action, Decision, Disk, Drain, Machine, MachineState, Notice, WishKind
from jobs.run import TaskState
from runner.errors import NotFound

ID = "i-0123456789abcdef0"
OTHER = "i-0123456789abcdef1"
S = MachineState


def running(hands: Hands, instance: str = ID, host: str = "h1", pool: str = "local") -> SqlMachines:
    """Have a machine on which a worker runs."""
    found = hands.store.machines
    found.upsert(instance, pool=pool, state=S.RUNNING, region="eu-central-1", account="123456789012", kind="m7i.large")
    found.register(instance, host=host, pool=pool)
    return found


def machine(found: SqlMachines, instance: str = ID) -> Machine:
    known = found.machine(instance)
    assert known is not None
    return known


def drained(found: SqlMachines, instance: str = ID, **more: str) -> Drain:
    drain = found.begin_drain(instance, reason="Idle for 60 s.", **more)
    assert drain is not None
    return drain


def confirmed(found: SqlMachines, instance: str = ID) -> Drain:
    drain = drained(found, instance)
    assert found.answer(instance, drain.token, ())
    assert found.confirm_stop(instance, drain.token)
    return drain


# ---- what is known of a machine ----


def test_a_machine_is_what_ec2_and_it_itself_say(hands: Hands) -> None:
    found = running(hands)
    known = machine(found)
    assert (known.pool, known.state, known.region, known.kind) == ("local", S.RUNNING, "eu-central-1", "m7i.large")
    assert known.host == "h1"
    assert known.registered_at == known.seen_at is not None
    assert known.started_at is not None
    disk = Disk(5, 10, 1, 2, "/var/lib/seatrial", "vol-1")
    seen = found.seen(ID, busy=["a debug shell"], disk=disk)
    assert seen is not None
    assert seen.disk == disk
    assert found.seen(ID).disk == disk  # type: ignore[union-attr]
    notice = Notice("spot", datetime(2026, 11, 22, 12, tzinfo=UTC), "It is taken at 12:00.")
    assert found.notice(ID, notice)
    assert machine(found).notice == notice
    assert found.notice(ID, None)
    assert machine(found).notice is None
    assert found.machine_of_host("h1") == machine(found)
    assert found.machines("local") == [machine(found)]
    assert found.machines("other") == []


def test_what_is_not_known_says_so(hands: Hands) -> None:
    found = hands.store.machines
    assert found.seen(ID) is None
    assert found.notice(ID, None) is False
    assert found.machine(ID) is None
    assert found.machine_of_host("h1") is None
    assert found.begin_drain(ID, reason="x") is None
    assert found.keeps_on(ID) == ("unknown", "No such machine is known.")
    assert found.notes(ID) == {}
    found.note(ID, step="none")


def test_an_answer_that_is_older_than_a_start_does_not_undo_it(hands: Hands) -> None:
    """Two controllers: one asks EC2 while it stops, the other one has seen that it stopped, and starts it meanwhile."""
    found = hands.store.machines
    known = found.upsert(ID, pool="local", state=S.STOPPING)
    found.upsert(ID, pool="local", state=S.STOPPED, before=known)
    assert SqlStarts(hands.store.database).begin_start(ID, why="queued")
    assert found.upsert(ID, pool="local", state=S.STOPPED, before=known).state is S.PENDING
    assert found.upsert(ID, pool="local", state=S.RUNNING, before=machine(found)).state is S.RUNNING


def test_a_worker_may_register_before_ec2_was_asked(hands: Hands) -> None:
    found = hands.store.machines
    assert found.register(ID, host="h1", pool="local").state is S.UNKNOWN
    assert found.begin_drain(ID, reason="x") is None  # unknown is busy
    found.upsert(ID, pool="local", state=S.RUNNING)
    assert machine(found).host == "h1"


def test_a_host_name_is_one_machines(hands: Hands) -> None:
    found = running(hands)
    running(hands, OTHER)
    assert machine(found).host is None
    assert machine(found, OTHER).host == "h1"


def test_the_controller_keeps_notes(hands: Hands) -> None:
    found = running(hands)
    found.note(ID, step="asked", tries=2)
    found.note(ID, tries=None, again=1.5)
    assert found.notes(ID) == {"step": "asked", "again": 1.5}


# ---- the stop protocol ----


def test_an_idle_machine_is_drained_asked_and_stopped(hands: Hands) -> None:
    found = running(hands)
    drain = drained(found)
    assert machine(found).drain == drain
    assert found.begin_drain(ID, reason="again") is None
    assert found.confirm_stop(ID, drain.token) is False  # it has not answered
    assert found.answer(ID, "another", ()) is False
    assert found.answer(ID, drain.token, ["ssh of mio"])
    assert found.confirm_stop(ID, drain.token) is False  # it is busy
    assert found.answer(ID, drain.token, ())
    assert found.confirm_stop(ID, "another") is False
    assert found.confirm_stop(ID, drain.token)
    assert found.confirm_stop(ID, drain.token) is False  # one of two controllers
    assert machine(found).state is S.STOPPING
    assert found.cancel_drain(ID, drain.token) is False
    found.upsert(ID, pool="local", state=S.STOPPED)
    known = machine(found)
    assert (known.state, known.drain, known.started_at) == (S.STOPPED, None, None)


def test_an_answer_counts_for_its_own_question_only(hands: Hands) -> None:
    found = running(hands)
    first = drained(found)
    found.answer(ID, first.token, ())
    assert found.cancel_drain(ID, first.token)
    second = drained(found)
    assert second.token != first.token
    assert machine(found).drain == second
    assert found.answer(ID, first.token, ()) is False
    assert found.confirm_stop(ID, second.token) is False
    assert found.cancel_drain(ID, first.token) is False


def test_ec2_does_not_take_a_confirmed_stop_back(hands: Hands) -> None:
    found = running(hands)
    drain = confirmed(found)
    for said in (S.RUNNING, S.UNKNOWN, S.PENDING):
        assert found.upsert(ID, pool="local", state=said).state is S.STOPPING
    assert found.stop_failed(ID, "another") is False
    assert found.stop_failed(ID, drain.token)
    assert (machine(found).state, machine(found).drain) == (S.RUNNING, None)
    assert found.stop_failed(ID, drain.token) is False


def test_a_machine_that_was_started_since_its_stop_takes_work_again(hands: Hands) -> None:
    found = running(hands)
    confirmed(found)
    started = found.time() + timedelta(seconds=5)
    known = found.upsert(ID, pool="local", state=S.RUNNING, started_at=started)
    assert (known.state, known.drain) == (S.RUNNING, None)
    hands.submit()
    assert hands.claim() is not None


def test_work_a_hold_and_an_unregistered_machine_keep_it_on(hands: Hands) -> None:
    found = running(hands)
    run = hands.submit()
    assert found.keeps_on(ID) == ("queued", "1 task of its pool is waiting.")
    assert found.begin_drain(ID, reason="x") is None
    claim = hands.take()
    assert found.keeps_on(ID) == ("works", "It does 1 task.")
    hands.store.runs.cancel(run, "mio")
    assert found.begin_drain(ID, reason="x") is None  # it still runs
    hands.end(claim, TaskState.CANCELLED)
    hold = found.hold("local", seconds=60, reason="a demonstration", made_by="mio")
    assert found.keeps_on(ID) == ("held", f"mio keeps it awake until {hold.until:%Y-%m-%d %H:%M} UTC.")
    assert found.begin_drain(ID, reason="x") is None
    found.release(hold.id, by="ann")
    found.upsert(ID, pool="local", state=S.RUNNING, refused="It has the tag env=prod.")
    assert found.keeps_on(ID) == ("refused", "Seatrial leaves this machine alone: It has the tag env=prod.")
    found.upsert(OTHER, pool="local", state=S.RUNNING)
    assert found.begin_drain(OTHER, reason="x") is None
    assert found.begin_drain(OTHER, reason="x", asked_by="mio", silent=True) is not None


def test_a_machine_is_kept_by_what_runs_on_it_for_any_pool(hands: Hands) -> None:
    found = running(hands)
    hands.submit(pool="other")
    hands.take(pool="other")
    assert found.keeps_on(ID) == ("works", "It does 1 task.")


@pytest.mark.parametrize("kept", [True, False])
def test_a_drain_that_was_given_up_is_remembered(hands: Hands, *, kept: bool) -> None:
    found = running(hands)
    found.cancel_drain(ID, drained(found).token, kept=kept)
    (now,) = found.now("local").machines
    assert (now.kept_at is not None) == kept


# ---- a claim at any point of it ----


def test_a_task_that_arrives_cancels_the_drain(hands: Hands) -> None:
    found = running(hands)
    drain = drained(found)
    found.answer(ID, drain.token, ())
    assert hands.claim() is None  # nothing to claim cancels nothing
    assert machine(found).drain is not None
    hands.submit()
    assert found.confirm_stop(ID, drain.token) is False  # it is queued
    assert hands.claim() is not None
    assert machine(found).drain is None
    assert found.confirm_stop(ID, drain.token) is False
    (said,) = found.decisions("local")
    assert (said.action, said.code, said.instance) == (Action.CANCEL_DRAIN, "claimed", ID)


def test_a_machine_whose_stop_is_confirmed_claims_nothing(hands: Hands) -> None:
    found = running(hands)
    drain = confirmed(found)
    run = hands.submit()
    assert hands.claim() is None
    assert hands.claim(host="h2") is not None  # another host does
    assert [task.host for task in hands.tasks(run)] == ["h2"]
    hands.submit()
    found.stop_failed(ID, drain.token)
    assert hands.claim() is not None


def test_a_machine_that_was_stopped_and_started_claims_again(hands: Hands) -> None:
    found = running(hands)
    confirmed(found)
    for state in (S.STOPPING, S.STOPPED, S.PENDING, S.RUNNING):
        found.upsert(ID, pool="local", state=state)
    found.register(ID, host="h1", pool="local")
    hands.submit()
    assert hands.claim() is not None


def test_a_claim_and_a_stop_exclude_each_other(shared_hands: Hands) -> None:
    """Let several slots claim while the stop is confirmed: never are both granted."""
    found = running(shared_hands)
    for _ in range(15):
        drain = drained(found)
        found.answer(ID, drain.token, ())
        begin = threading.Barrier(5)

        def claim(slot: int, begin: threading.Barrier = begin) -> bool:
            begin.wait()
            return shared_hands.claim(f"w{slot}") is not None

        def stop(begin: threading.Barrier = begin, token: str = drain.token) -> bool:
            begin.wait()
            return found.confirm_stop(ID, token)

        def submit(begin: threading.Barrier = begin) -> int:
            begin.wait()
            return shared_hands.submit()

        with ThreadPoolExecutor(5) as pool:
            submitted = pool.submit(submit)
            claims = [pool.submit(claim, slot) for slot in range(3)]
            stopped = pool.submit(stop).result()
            claimed = sum(one.result() for one in claims)
        assert not (stopped and claimed)
        run = submitted.result()
        if stopped:
            assert shared_hands.claim("w9") is None
            assert found.stop_failed(ID, drain.token)
        if not claimed:
            assert shared_hands.claim("w9") is not None
        assert machine(found).drain is None
        assert found.begin_drain(ID, reason="x") is None  # it works
        (task,) = shared_hands.tasks(run)
        shared_hands.store.tasks.end(task.id, task.attempt, TaskState.ERRORED, None)


def test_two_drains_of_one_machine_are_one(shared_hands: Hands) -> None:
    found = running(shared_hands)
    begin = threading.Barrier(6)

    def drain(_: int) -> Drain | None:
        begin.wait()
        return found.begin_drain(ID, reason="x")

    with ThreadPoolExecutor(6) as pool:
        made = [one for one in pool.map(drain, range(6)) if one is not None]
    assert made == [machine(found).drain]


def test_a_machine_may_be_told_of_by_many_at_once(shared_hands: Hands) -> None:
    found = shared_hands.store.machines

    def tell(number: int) -> None:
        if number % 2:
            found.upsert(ID, pool="local", state=S.RUNNING)
        else:
            found.register(ID, host="h1", pool="local")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(tell, range(16)))
    assert (machine(found).state, machine(found).host) == (S.RUNNING, "h1")
    assert len(found.intervals("local")) == 1


# ---- all of a pool ----


def test_a_pool_now(hands: Hands) -> None:
    found = running(hands)
    hands.worker("w1")
    hands.worker("w2")
    (idle,) = found.now("local").machines
    assert (idle.leases, idle.slots, idle.idle_since) == (0, 2, idle.machine.registered_at)
    run, claim = hands.verifying()
    waiting = hands.submit()
    now = found.now("local")
    (busy,) = now.machines
    assert (busy.leases, busy.idle_since, now.queued) == (1, None, 1)
    assert now.oldest_queued == hands.tasks(waiting)[0].created_at
    assert now.arrivals == tuple(hands.run(one).created_at for one in (run, waiting))
    hands.interrupt(claim)
    now = found.now("local")
    assert len(now.due) == 1
    (idle,) = now.machines
    assert idle.idle_since is not None
    assert idle.idle_since > idle.machine.registered_at  # type: ignore[operator]
    found.seen(ID, busy=["a debug shell"])
    found.form_opened("local", made_by="mio")
    found.short("local", "m7i.large", for_seconds=60, text="InsufficientInstanceCapacity")
    hold = found.hold("local", seconds=60, reason="", made_by="mio", instance=ID)
    now = found.now("local")
    assert now.machines[0].busy == ("a debug shell",)
    assert len(now.forms) == 1
    assert list(now.short) == ["m7i.large"]
    assert now.holds == (hold,)
    assert found.now("other").machines == ()


def test_a_machine_without_a_worker_is_not_idle(hands: Hands) -> None:
    found = hands.store.machines
    found.upsert(ID, pool="local", state=S.RUNNING)
    (now,) = found.now("local", slots=4).machines
    assert (now.idle_since, now.slots) == (None, 4)


# ---- holds and wishes ----


def test_a_hold_ends_by_itself_or_by_a_hand(hands: Hands) -> None:
    found = hands.store.machines
    short = found.hold("local", seconds=-1, reason="", made_by="mio")
    long = found.hold("local", seconds=7_200, reason="a demonstration", made_by="mio", instance=ID)
    assert found.holds() == [long]
    assert found.holds("other") == []
    released = found.release(long.id, by="ann")
    assert released.released_by == "ann"
    assert found.release(long.id, by="bob") == released
    assert found.release(short.id, by="bob").released_by is None
    assert found.holds("local") == []
    assert [hold.id for hold in found.holds("local", also_over=True)] == [long.id, short.id]
    with pytest.raises(NotFound):
        found.release(99, by="mio")


def test_a_wish_is_done_once(hands: Hands) -> None:
    found = hands.store.machines
    wish = found.wish("local", WishKind.STOP, made_by="mio", instance=ID, reason="going home")
    assert found.wish("local", WishKind.STOP, made_by="ann", instance=ID) == wish
    other = found.wish("local", WishKind.START, made_by="ann")
    assert found.open_wishes("local") == [wish, other]
    assert found.wish_done(wish.id, "It was stopped.")
    assert found.wish_done(wish.id, "It was stopped twice.") is False
    assert found.open_wishes() == [other]
    assert found.wish("local", WishKind.STOP, made_by="ann", instance=ID).id > other.id
    assert [(one.kind, one.outcome) for one in found.wishes()][-1] == (WishKind.STOP, "It was stopped.")


def test_a_form_that_is_loaded_again_is_one(hands: Hands) -> None:
    found = hands.store.machines
    assert found.form_opened("local", made_by="mio")
    assert found.form_opened("local", made_by="mio") is False
    assert found.form_opened("local", made_by="ann")
    assert found.open_wishes() == []
    assert found.wishes() == []


# ---- the books ----


def test_a_machine_is_billed_while_it_runs(hands: Hands) -> None:
    found = hands.store.machines
    price = Decimal("0.384")
    for state in (S.STOPPED, S.PENDING, S.RUNNING, S.UNKNOWN, S.RUNNING):
        found.upsert(ID, pool="local", state=state, price=price, why_on="run 7")
    (open_one,) = found.intervals()
    assert (open_one.ended_at, open_one.price, open_one.cause) == (None, price, "run 7")
    found.upsert(ID, pool="local", state=S.STOPPING, price=price)
    found.upsert(ID, pool="local", state=S.STOPPED, price=price)
    (closed,) = found.intervals("local")
    assert closed.ended_at is not None
    found.upsert(ID, pool="local", state=S.RUNNING, price=price)
    assert len(found.intervals()) == 2
    assert len(found.intervals(since=found.time())) == 1
    assert found.intervals(until=closed.started_at - timedelta(milliseconds=1)) == []
    assert found.intervals("other") == []


def test_a_machine_that_was_started_by_hand_is_billed_from_then_on(hands: Hands) -> None:
    found = hands.store.machines
    started = found.time() - timedelta(hours=2)
    found.upsert(ID, pool="local", state=S.RUNNING, started_at=started)
    (one,) = found.intervals()
    assert abs(one.started_at - started) < timedelta(seconds=0.001)
    assert machine(found).started_at == one.started_at


def test_what_is_decided_again_is_told_once(hands: Hands) -> None:
    found = hands.store.machines
    idle = Decision(Action.NOTHING, "idle_time", "Idle for 5 s.", ID)
    assert found.record("local", idle) is not None
    assert found.record("local", Decision(Action.NOTHING, "idle_time", "Idle for 6 s.", ID)) is None
    assert SqlMachines(hands.store.database).record("local", idle) is None  # another sweeper
    alarm = Decision(Action.ALARM, "maximum_run", "It runs for 25 h.", ID)
    assert found.record("local", alarm) is not None
    assert found.record("local", alarm) is None
    with hands.store.database.write() as connection:
        connection.execute(text("UPDATE decisions SET at = at - 4000 WHERE action = 'alarm'"))
    assert found.record("local", alarm) is not None
    assert found.record("local", idle) is None
    start = Decision(Action.START, "queued", "1 task is waiting.", ID)
    for _ in range(2):
        assert found.record("local", start, made_by="mio", data={"run": 7}) is not None
    assert found.record("local", idle) is not None
    told = found.decisions("local", instance=ID)
    assert [one.action for one in told][:3] == [Action.NOTHING, Action.START, Action.START]
    assert (told[1].made_by, told[1].data) == ("mio", {"run": 7})
    assert found.decisions(before=told[-1].id) == []
    assert found.decisions("other") == []


def test_what_was_decided_long_ago_is_forgotten(hands: Hands) -> None:
    found = hands.store.machines
    for number in range(3):
        found.record("local", Decision(Action.START, f"c{number}", "It is wanted.", ID))
    found.form_opened("local", made_by="mio")
    found.form_opened("local", made_by="rin")
    assert found.forget_old() == 0
    with hands.store.database.write() as connection:
        connection.execute(text("UPDATE decisions SET at = at - 401 * 86400 WHERE code <> 'c2'"))
        connection.execute(text("UPDATE wishes SET made_at = made_at - 401 * 86400 WHERE made_by = 'mio'"))
    assert found.forget_old() == 3
    assert found.forget_old() == 0
    assert [one.code for one in found.decisions("local", limit=9)] == ["c2"]
    assert len(hands.store.machines.arrived("local", 9).forms) == 1


def test_a_shortage_passes(hands: Hands) -> None:
    found = hands.store.machines
    found.short("local", ID, for_seconds=60, text="None left.")
    found.short("local", ID, for_seconds=120, text="None left.")
    found.short("local", "m7i.large", for_seconds=-1, text="None left.")
    assert list(found.shortages("local")) == [ID]
    found.not_short("local", ID)
    assert found.shortages("local") == {}


def test_who_looks_after_a_pool_is_known(hands: Hands) -> None:
    found = hands.store.machines
    assert found.controller_seen_at() is None
    found.controller_seen("local", asked=True)
    found.controller_seen("local", problem="EC2 does not answer.")
    (watch,) = found.watches()
    assert (watch.pool, watch.problem) == ("local", "EC2 does not answer.")
    assert watch.asked_at is not None
    assert watch.asked_at <= watch.seen_at == found.controller_seen_at() == found.controller_seen_at("local")
    assert found.controller_seen_at("other") is None
