"""What is decided on a pool: each reason by an example, and what never happens by properties."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.capacity import Policy, decide, grow_kind
from jobs.idle_policy import Idle, IdleKind
from jobs.machines import (
    Action,
    Answer,
    Decision,
    Drain,
    Hold,
    Machine,
    MachineNow,
    MachineState,
    Notice,
    PoolNow,
)
from jobs.schedule import Schedule, Window

NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)  # a Monday
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
FIXED = Policy(idle=Idle(IdleKind.FIXED, 5 * MINUTE), prewarm=90 * SECOND)
NEVER = Policy(idle=Idle(IdleKind.FIXED, None))


def on(name: str = "i-1", *, idle: timedelta | None = None, now: datetime = NOW, **more: Any) -> MachineNow:
    """Give a machine that has been up for an hour, and idle for a time."""
    of_machine = {key: more.pop(key) for key in list(more) if key in Machine.__dataclass_fields__}
    hour_ago = now - 60 * MINUTE
    machine = Machine(name, "p", MachineState.RUNNING, hour_ago, host=f"host-{name}", started_at=hour_ago)
    machine = replace(machine, **{"registered_at": hour_ago + MINUTE, "seen_at": now} | of_machine)
    return MachineNow(machine, slots=1, idle_since=None if idle is None else now - idle, **more)


def off(name: str = "i-1", state: MachineState = MachineState.STOPPED, **more: Any) -> MachineNow:
    return MachineNow(Machine(name, "p", state, NOW - 60 * MINUTE, **more), slots=1)


def pool(*machines: MachineNow, **more: Any) -> PoolNow:
    return PoolNow("p", machines, **more)


def only(found: tuple[Decision, ...]) -> Decision:
    assert len(found) == 1, found
    return found[0]


def told(found: tuple[Decision, ...]) -> list[tuple[Action, str, str | None]]:
    return [(one.action, one.code, one.instance) for one in found]


def draining(token: str = "t", since: timedelta = 20 * SECOND, asked_by: str = "policy", **answer: Any) -> Drain:
    said = (
        Answer(answer.get("said_to", token), NOW - answer["ago"], answer.get("busy", ())) if "ago" in answer else None
    )
    return Drain(token, NOW - since, "Idle for 5 min.", asked_by, said)


def test_a_stopped_machine_is_started_for_the_first_queued_task() -> None:
    found = only(decide(pool(off(), queued=1), FIXED, NOW))
    assert (found.action, found.code, found.instance) == (Action.START, "queued", "i-1")
    assert found.reason == "1 task of this pool is waiting."


def test_as_many_are_started_as_there_are_slots_wanted() -> None:
    three = (off("i-1"), off("i-2"), off("i-3"))
    assert Counter(one.action for one in decide(pool(*three, queued=2), FIXED, NOW))[Action.START] == 2
    wide = tuple(replace(machine, slots=4) for machine in three)
    assert Counter(one.action for one in decide(pool(*wide, queued=5), FIXED, NOW))[Action.START] == 2


def test_a_booting_machine_and_a_free_slot_count() -> None:
    booting = off("i-2", MachineState.PENDING, started_at=NOW - 30 * SECOND)
    assert told(decide(pool(off(), booting, queued=1), FIXED, NOW))[0] == (Action.NOTHING, "stopped", "i-1")
    assert told(decide(pool(off(), on("i-2", idle=MINUTE), queued=1), FIXED, NOW))[0][0] is Action.NOTHING
    full = on("i-2", leases=1)
    assert told(decide(pool(off(), full, queued=1), FIXED, NOW))[0][0] is Action.START


def test_a_running_machine_that_is_silent_or_taken_by_the_cloud_is_no_slot() -> None:
    silent = on("i-2", seen_at=NOW - 10 * MINUTE)
    assert told(decide(pool(off(), silent, queued=1), FIXED, NOW))[0][0] is Action.START
    taken = on("i-2", notice=Notice("spot", NOW + 2 * MINUTE, "a spot interruption"))
    assert told(decide(pool(off(), taken, queued=1), FIXED, NOW))[0][0] is Action.START


def test_a_machine_that_the_cloud_takes_soon_is_replaced_and_does_not_count() -> None:
    soon = Notice("spot-stop", NOW + 2 * MINUTE, "EC2 takes this spot instance back (stop).")
    policy = replace(FIXED, max_running=1, min_running=1)
    found = decide(pool(off("i-1"), on("i-2", leases=1, notice=soon), queued=1), policy, NOW)
    assert told(found) == [(Action.START, "queued", "i-1"), (Action.NOTHING, "works", "i-2")]
    idle = decide(pool(off("i-1"), on("i-2", idle=SECOND, notice=soon)), policy, NOW)
    assert told(idle) == [(Action.START, "min_running", "i-1"), (Action.DRAIN, "idle", "i-2")]
    assert idle[1].reason == "Idle for 1 s. The cloud takes it soon: EC2 takes this spot instance back (stop)."
    later = Notice("instance-retirement", NOW + timedelta(days=3), "")
    assert only(decide(pool(on(idle=SECOND, notice=later)), FIXED, NOW)).code == "idle_time"


def test_a_machine_whose_slots_take_no_work_is_no_help() -> None:
    full = replace(on("i-2", idle=MINUTE), slots=0)  # such as one whose disk is full
    assert told(decide(pool(off("i-1"), full, queued=1), FIXED, NOW))[0] == (Action.START, "queued", "i-1")


def test_work_that_is_due_within_the_boot_time_starts_a_machine_and_keeps_one() -> None:
    soon, later = NOW + 50 * SECOND, NOW + 70 * SECOND
    assert only(decide(pool(off(), due=(soon,)), FIXED, NOW)).code == "due"
    assert only(decide(pool(off(), due=(later,)), FIXED, NOW)).action is Action.NOTHING
    assert only(decide(pool(on(idle=10 * MINUTE), due=(soon,)), FIXED, NOW)).code == "due"


def test_an_opened_form_starts_one_machine_and_keeps_one_for_its_time() -> None:
    opened = (NOW - 10 * SECOND,)
    found = decide(pool(off("i-1"), off("i-2"), forms=opened), FIXED, NOW)
    assert told(found) == [(Action.START, "form", "i-1"), (Action.NOTHING, "stopped", "i-2")]
    kept = only(decide(pool(on(idle=10 * MINUTE), forms=opened), FIXED, NOW))
    assert (kept.code, kept.until) == ("form", opened[0] + 90 * SECOND)
    late = NOW + 80 * SECOND
    assert only(decide(pool(on(idle=10 * MINUTE, now=late), forms=opened), FIXED, late)).action is Action.DRAIN
    without = replace(FIXED, prewarm=timedelta(0))
    assert only(decide(pool(off(), forms=opened), without, NOW)).action is Action.NOTHING


def test_a_machine_that_boots_for_long_is_not_stopped_before_the_form_is_filled_in() -> None:
    policy = replace(FIXED, idle=Idle(IdleKind.FIXED, timedelta(0)), boot=5 * MINUTE)
    booted = on(started_at=NOW - 5 * MINUTE, registered_at=NOW, idle=timedelta(0))
    found = only(decide(pool(booted, forms=(NOW - 5 * MINUTE,)), policy, NOW))
    assert (found.code, found.until) == ("form", NOW + 30 * SECOND)


def test_a_form_cancels_what_the_policy_began_and_nothing_that_people_asked_for() -> None:
    for by, action in (("policy", Action.CANCEL_DRAIN), ("ada", Action.NOTHING)):
        found = decide(pool(on(idle=MINUTE, drain=draining(asked_by=by)), forms=(NOW,)), FIXED, NOW)
        assert found[0].action is action
    assert all(one.action is not Action.START for one in found)


@pytest.mark.parametrize(
    ("idle", "action", "until"),
    [
        (timedelta(0), Action.NOTHING, 5 * MINUTE),
        (4 * MINUTE, Action.NOTHING, MINUTE),
        (5 * MINUTE, Action.DRAIN, None),
    ],
)
def test_an_idle_machine_is_drained_when_its_time_is_over(
    idle: timedelta, action: Action, until: timedelta | None
) -> None:
    found = only(decide(pool(on(idle=idle)), FIXED, NOW))
    assert (found.action, found.until) == (action, None if until is None else NOW + until)


def test_zero_is_at_once_and_none_is_never() -> None:
    at_once = Policy(idle=Idle(IdleKind.FIXED, timedelta(0)))
    assert only(decide(pool(on(idle=timedelta(0))), at_once, NOW)).action is Action.DRAIN
    assert only(decide(pool(on(idle=timedelta(days=30))), NEVER, NOW)).code == "never"


def test_the_time_of_a_boot_is_not_idle() -> None:
    fresh = on(started_at=NOW - 2 * MINUTE, registered_at=NOW - MINUTE, idle=60 * MINUTE)
    assert only(decide(pool(fresh), FIXED, NOW)).until == NOW + 4 * MINUTE


def test_a_machine_runs_for_its_least_time() -> None:
    policy = replace(FIXED, minimum_run=90 * MINUTE)
    found = only(decide(pool(on(idle=10 * MINUTE)), policy, NOW))
    assert (found.code, found.until) == ("minimum_run", NOW + 30 * MINUTE)


def test_a_hold_keeps_a_machine_that_would_be_stopped() -> None:
    hold = Hold(1, "p", None, NOW + 60 * MINUTE, "a demo", "ada", NOW)
    found = only(decide(pool(on(idle=10 * MINUTE), holds=(hold,)), FIXED, NOW))
    assert (found.action, found.until, found.reason) == (Action.HOLD, hold.until, "ada keeps it awake: a demo")
    over = replace(hold, until=NOW)
    assert only(decide(pool(on(idle=10 * MINUTE), holds=(over,)), FIXED, NOW)).action is Action.DRAIN
    other = replace(hold, instance="i-9")
    assert only(decide(pool(on(idle=10 * MINUTE), holds=(other,)), FIXED, NOW)).action is Action.DRAIN
    asked = on(idle=MINUTE, drain=draining(asked_by="bob"))
    assert only(decide(pool(asked, holds=(hold,)), FIXED, NOW)).action is Action.CANCEL_DRAIN


def test_the_least_number_stays_on_and_is_started() -> None:
    policy = replace(FIXED, min_running=1)
    longest, other = on("i-1", idle=20 * MINUTE), on("i-2", idle=10 * MINUTE)
    assert told(decide(pool(longest, other), policy, NOW)) == [
        (Action.DRAIN, "idle", "i-1"),
        (Action.NOTHING, "min_running", "i-2"),
    ]
    assert only(decide(pool(off()), policy, NOW)).code == "min_running"
    cancelled = only(decide(pool(on(idle=MINUTE, drain=draining(asked_by="ada"))), policy, NOW))
    assert (cancelled.action, cancelled.reason) == (
        Action.CANCEL_DRAIN,
        "The pool keeps at least 1 machine running.",
    )


def test_the_largest_number_is_never_passed() -> None:
    policy = replace(FIXED, max_running=1)
    found = decide(pool(off("i-1"), on("i-2", leases=1), queued=3), policy, NOW)
    assert told(found)[0] == (Action.NOTHING, "stopped", "i-1")
    assert told(found)[-1] == (Action.NOTHING, "max_running", None)
    two = decide(pool(on("i-1", idle=MINUTE), on("i-2", leases=1)), policy, NOW)
    assert told(two)[0] == (Action.DRAIN, "max_running", "i-1")


def test_hours_of_a_schedule_start_ahead_and_keep() -> None:
    hours = Schedule((Window.parse("mon-fri 09:30-18:00", running=2),))
    policy = replace(FIXED, schedule=hours)
    ahead = NOW + 29 * MINUTE
    assert [one.action for one in decide(pool(off("i-1"), off("i-2")), policy, ahead)] == [Action.START] * 2
    assert [one.action for one in decide(pool(off("i-1"), off("i-2")), policy, NOW)] == [Action.NOTHING] * 2
    noon = NOW + 3 * 60 * MINUTE
    kept = only(decide(pool(on(idle=20 * MINUTE, now=noon)), replace(policy, max_running=1), noon)[:1])
    assert (kept.code, kept.until) == ("schedule", NOW.replace(hour=18))


def test_off_hours_stop_what_is_idle_and_start_nothing_ahead_but_do_the_work() -> None:
    policy = replace(NEVER, schedule=Schedule((Window.parse("daily 08:00-10:00", running=0),)), prewarm=MINUTE)
    assert only(decide(pool(on(idle=timedelta(0)), forms=(NOW,)), policy, NOW)).action is Action.DRAIN
    assert only(decide(pool(off(), forms=(NOW,)), policy, NOW)).action is Action.NOTHING
    assert only(decide(pool(off(), queued=1), policy, NOW)).action is Action.START


def test_the_stop_protocol_waits_two_leases_asks_and_stops() -> None:
    def step(drain: Drain) -> Decision:
        return only(decide(pool(on(idle=10 * MINUTE, drain=drain)), FIXED, NOW))

    assert step(draining(since=9 * SECOND)).code == "draining"
    assert step(draining(since=20 * SECOND)).code == "draining"
    assert step(draining(since=20 * SECOND, ago=15 * SECOND)).code == "draining"  # said before two leases were over
    assert step(draining(since=20 * SECOND, ago=SECOND)).action is Action.STOP
    assert step(draining(since=20 * SECOND, ago=SECOND, said_to="older")).code == "draining"
    busy = step(draining(since=20 * SECOND, ago=SECOND, busy=("a debug shell of run 7",)))
    assert (busy.action, busy.code) == (Action.CANCEL_DRAIN, "answered_busy")
    assert busy.reason == "It is in use: a debug shell of run 7."
    silent = step(draining(since=2 * MINUTE))
    assert (silent.action, silent.code) == (Action.CANCEL_DRAIN, "no_answer")


@pytest.mark.parametrize("asked_by", ["policy", "ada"])
def test_a_task_that_arrives_cancels_a_drain(asked_by: str) -> None:
    machine = on(idle=10 * MINUTE, drain=draining(ago=SECOND, asked_by=asked_by))
    found = only(decide(pool(machine, queued=1), FIXED, NOW))
    assert (found.action, found.code) == (Action.CANCEL_DRAIN, "queued")
    working = on(leases=1, drain=draining(ago=SECOND, asked_by=asked_by))
    assert only(decide(pool(working), FIXED, NOW)).code == "works"


def test_a_machine_that_was_busy_when_asked_is_left_for_a_while() -> None:
    kept = on(idle=60 * MINUTE, kept_at=NOW - MINUTE)
    found = only(decide(pool(kept), FIXED, NOW))
    assert (found.code, found.until) == ("asked", NOW + 4 * MINUTE)


def test_new_work_waits_for_a_machine_that_is_stopping() -> None:
    found = decide(pool(off("i-1", MachineState.STOPPING), queued=1), replace(FIXED, grow=True), NOW)
    assert told(found) == [(Action.NOTHING, "stopping", "i-1"), (Action.NOTHING, "stopping", None)]


def test_where_there_is_no_capacity_another_machine_or_type_is_taken() -> None:
    short = {"c7i.4xlarge": NOW + MINUTE}
    two = (off("i-1", kind="c7i.4xlarge"), off("i-2", kind="m7i.4xlarge"))
    assert told(decide(pool(*two, queued=1, short=short), FIXED, NOW))[1] == (Action.START, "queued", "i-2")
    found = decide(pool(two[0], queued=1, short=short), FIXED, NOW)
    assert found[-1].code == "no_capacity"
    assert "c7i.4xlarge" in found[-1].reason
    assert found[-1].until == NOW + MINUTE
    assert only(decide(pool(two[0], queued=1, short={"i-1": NOW}), FIXED, NOW)).action is Action.START


def test_a_pool_grows_up_to_its_largest_number() -> None:
    grow = replace(FIXED, grow=True, max_running=2, grow_kinds=("a", "b"))
    full = on("i-1", leases=1)
    assert told(decide(pool(full, queued=1), grow, NOW))[-1] == (Action.GROW, "queued", None)
    assert decide(pool(full, on("i-2", leases=1), queued=1), grow, NOW)[-1].code == "max_running"
    assert grow_kind(grow, pool(short={"a": NOW + MINUTE}), NOW) == "b"
    assert grow_kind(grow, pool(short={"a": NOW + MINUTE, "b": NOW + MINUTE}), NOW) is None
    assert grow_kind(replace(grow, grow_kinds=()), pool(), NOW) == ""
    assert grow_kind(FIXED, pool(), NOW) is None


def test_zombies_raise_an_alarm_and_are_left_alone() -> None:
    hour_ago = NOW - 60 * MINUTE
    never = MachineNow(Machine("i-1", "p", MachineState.RUNNING, hour_ago, started_at=hour_ago))
    assert told(decide(pool(never), FIXED, NOW)) == [
        (Action.NOTHING, "booting", "i-1"),
        (Action.ALARM, "never_registered", "i-1"),
    ]
    silent = on(seen_at=NOW - 10 * MINUTE, idle=30 * MINUTE)
    assert told(decide(pool(silent), FIXED, NOW)) == [
        (Action.NOTHING, "silent", "i-1"),
        (Action.ALARM, "silent", "i-1"),
    ]
    long = on(started_at=NOW - timedelta(days=2), leases=1)
    assert told(decide(pool(long), FIXED, NOW))[-1] == (Action.ALARM, "maximum_run", "i-1")


def test_a_machine_that_was_started_again_counts_as_booting_until_it_is_heard_of() -> None:
    again = on(started_at=NOW - 30 * SECOND, seen_at=NOW - 50 * SECOND, idle=10 * MINUTE)
    assert only(decide(pool(again), FIXED, NOW)).code == "booting"


# What never happens

SOON = Notice("spot", NOW, "a spot interruption")
LATER = Notice("instance-retirement", NOW + timedelta(days=3), "")


def leaves(machine: Machine) -> bool:
    return machine.notice == SOON


moments = st.integers(-3600, 200_000).map(lambda s: NOW - s * SECOND)
ages = st.none() | moments
answers = st.builds(Answer, st.sampled_from("ab"), moments, st.sampled_from([(), ("a shell",)]))
drains = st.builds(
    Drain,
    st.sampled_from("ab"),
    moments,
    st.just("Idle."),
    st.sampled_from(["policy", "ada"]),
    st.none() | answers,
)
states = st.sampled_from([*MachineState, MachineState.RUNNING, MachineState.RUNNING, MachineState.STOPPED])


@st.composite
def machines(draw: st.DrawFn, number: int) -> MachineNow:
    up = draw(st.booleans())
    machine = Machine(
        f"i-{number}",
        "p",
        draw(states),
        NOW - 60 * MINUTE,
        kind=draw(st.sampled_from(["a", "b"])),
        host=f"host-{number}" if up else draw(st.none() | st.just("h")),
        registered_at=draw(ages),
        seen_at=NOW if up else draw(ages),
        started_at=NOW - 30 * MINUTE if up else draw(ages),
        drain=draw(st.none() | drains),
        notice=draw(st.sampled_from([None, None, SOON, LATER])),
        refused=draw(st.sampled_from([None, None, None, "It has a production tag."])),
    )
    busy = draw(st.sampled_from([(), (), ("a shell",)]))
    return MachineNow(
        machine, draw(st.integers(0, 2)), draw(st.integers(0, 3)), busy, draw(ages), draw(st.none() | ages)
    )


@st.composite
def pools(draw: st.DrawFn) -> PoolNow:
    count = draw(st.integers(0, 6))
    holds = st.builds(
        Hold,
        st.just(1),
        st.just("p"),
        st.sampled_from([None, "i-0", "i-1"]),
        st.sampled_from([NOW - MINUTE, NOW + MINUTE]),
        st.just(""),
        st.just("ada"),
        st.just(NOW - 60 * MINUTE),
        st.sampled_from([None, NOW]),
    )
    times = st.lists(moments, max_size=2).map(lambda found: tuple(sorted(found)))
    return PoolNow(
        "p",
        tuple(draw(machines(number)) for number in range(count)),
        draw(st.sampled_from([0, 0, 0, 1, 9])),
        None,
        draw(times),
        tuple(draw(st.lists(holds, max_size=2))),
        draw(times),
        (),
        draw(st.dictionaries(st.sampled_from(["a", "b", "i-1"]), st.sampled_from([NOW, NOW + MINUTE]))),
        tuple(draw(st.lists(st.floats(0, 100_000), max_size=40))),
    )


spans = st.sampled_from([timedelta(0), 30 * SECOND, 30 * MINUTE])
policies = st.builds(
    Policy,
    min_running=st.integers(0, 3),
    max_running=st.none() | st.integers(0, 4),
    idle=st.builds(Idle, st.sampled_from(IdleKind), st.none() | spans),
    minimum_run=spans,
    boot=st.just(MINUTE),
    prewarm=spans,
    schedule=st.sampled_from(
        [Schedule(), Schedule((Window.parse("mon 08:00-10:00", 0),)), Schedule((Window.parse("mon 08:00-10:00", 2),))]
    ),
    grow=st.booleans(),
)


@given(pools(), policies)
def test_no_machine_is_stopped_that_may_be_busy(now: PoolNow, policy: Policy) -> None:
    by_name = {m.machine.instance: m for m in now.machines}
    for decision in decide(now, policy, NOW):
        if decision.action not in (Action.DRAIN, Action.STOP):
            continue
        assert decision.instance is not None
        m = by_name[decision.instance]
        assert m.machine.state is MachineState.RUNNING
        assert m.machine.refused is None
        assert m.machine.host is not None
        assert m.machine.seen_at is not None
        assert NOW - m.machine.seen_at <= policy.silent
        assert m.machine.started_at is None or m.machine.seen_at >= m.machine.started_at
        assert not m.leases
        assert not m.busy
        assert not now.queued
        assert all(due > NOW + policy.boot for due in now.due)
        assert not any(hold.holds(decision.instance, NOW) for hold in now.holds)
        if decision.action is Action.STOP:
            drain = m.machine.drain
            assert drain is not None
            assert drain.answer is not None
            assert drain.answer.token == drain.token
            assert not drain.answer.busy
            assert drain.answer.at >= drain.since + 2 * policy.lease
            assert drain.since + 2 * policy.lease <= NOW
        else:
            assert m.machine.drain is None


@given(pools(), policies)
def test_each_machine_is_decided_on_once_with_words(now: PoolNow, policy: Policy) -> None:
    found = decide(now, policy, NOW)
    once = [one.instance for one in found if one.instance is not None and one.action is not Action.ALARM]
    assert once == [m.machine.instance for m in now.machines]
    assert all(one.reason.endswith(".") and one.code for one in found)
    assert decide(now, policy, NOW) == found


@given(pools(), policies)
def test_only_what_is_stopped_and_ours_is_started_and_never_too_many(now: PoolNow, policy: Policy) -> None:
    found = decide(now, policy, NOW)
    by_name = {m.machine.instance: m.machine for m in now.machines}
    started = [by_name[one.instance] for one in found if one.action is Action.START and one.instance]
    assert all(one.state is MachineState.STOPPED and one.refused is None for one in started)
    more = len(started) + sum(1 for one in found if one.action is Action.GROW)
    running = sum(1 for one in by_name.values() if one.refused is None and one.state.billed and not leaves(one))
    assert policy.max_running is None or not more or running + more <= policy.max_running


@given(pools(), policies)
def test_so_many_stay_on_as_the_pool_keeps(now: PoolNow, policy: Policy) -> None:
    found = decide(now, policy, NOW)
    drained = {one.instance for one in found if one.action is Action.DRAIN}
    staying = [
        m.machine.instance
        for m in now.machines
        if m.machine.state.billed and m.machine.refused is None and m.machine.drain is None and not leaves(m.machine)
    ]
    if drained & set(staying) and policy.max_running is None:
        assert len(set(staying) - drained) >= policy.min_running


@given(pools(), policies)
def test_work_that_waits_is_never_left_without_a_word(now: PoolNow, policy: Policy) -> None:
    """A machine starts, boots or is free, or it is said why not."""
    if not now.queued:
        return
    found = decide(now, policy, NOW)
    acts = any(one.action in (Action.START, Action.GROW, Action.CANCEL_DRAIN) for one in found)
    said = any(one.instance is None and one.action is Action.NOTHING for one in found)
    on_already = any(one.code in ("booting", "queued", "works", "busy") for one in found)
    assert acts or said or on_already


@given(pools(), policies)
def test_until_is_in_the_future(now: PoolNow, policy: Policy) -> None:
    for decision in decide(now, policy, NOW):
        if decision.until is not None and decision.action in (Action.NOTHING, Action.HOLD) and decision.code != "due":
            assert decision.until > NOW
