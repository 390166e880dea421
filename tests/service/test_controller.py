"""The controller against a cloud in memory: starts, the stop protocol, and all that comes between."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from capacity_world import ACCOUNT, BOOT, IDLE, LEASE, ONE, POOL, TWO, World

from jobs.cloud import CloudRefused, CloudThrottled, CloudUnavailable, Expected, Seen, refusal
from jobs.machines import Action, WishKind
from jobs.machines import MachineState as M
from jobs.zombies import registered


@pytest.fixture
def world() -> World:
    return World()


def test_work_starts_a_machine_and_an_idle_one_is_stopped(world: World) -> None:
    world.add()
    world.tick(3)
    assert world.cloud.done("StartInstances") == []
    run = world.submit()
    assert world.until(lambda: bool(world.cloud.done("StartInstances"))) <= 1
    world.until(lambda: world.over(run))
    ended = world.seconds
    took = world.until(lambda: bool(world.cloud.done("StopInstances")))
    assert IDLE <= took <= IDLE + 15, f"{took} s after {ended}"
    world.until(lambda: world.is_at(M.STOPPED))
    assert [one.action for one in reversed(world.history()) if one.action is not Action.NOTHING] == [
        Action.START, Action.DRAIN, Action.STOP,
    ]  # fmt: skip
    assert world.killed == []
    [interval] = world.store.machines.intervals(POOL)
    assert interval.ended_at is not None
    assert world.cloud.done("StopInstances?") == [ONE]


def test_the_order_of_the_protocol(world: World) -> None:
    world.add(state=M.RUNNING)
    world.until(lambda: world.machine().drain is not None)
    drained = world.seconds
    before = len(world.cloud.calls)
    world.until(lambda: bool(world.cloud.done("StopInstances")))
    assert world.seconds - drained >= 2 * LEASE
    assert world.cloud.calls[before:][-3:] == [
        ("DescribeInstances", ""),
        ("StopInstances?", ONE),
        ("StopInstances", ONE),
    ]


def test_work_that_arrives_while_it_stops_is_done_after_a_new_start(world: World) -> None:
    world.add(state=M.RUNNING)
    world.until(lambda: bool(world.cloud.done("StopInstances")))
    run = world.submit()
    world.tick(3)
    assert world.cloud.state(ONE) is M.STOPPING
    assert world.cloud.done("StartInstances") == []
    world.until(lambda: world.over(run))
    assert world.cloud.done("StartInstances") == [ONE]
    world.until(lambda: world.is_at(M.STOPPED))
    assert world.killed == []


def test_c1_a_machine_that_does_not_answer_or_is_busy_stays_on(world: World) -> None:
    worker = world.add(state=M.RUNNING)
    worker.deaf = True
    world.until(lambda: bool(world.history(Action.CANCEL_DRAIN)))
    assert world.history(Action.CANCEL_DRAIN)[0].code == "no_answer"
    worker.deaf, worker.busy = False, ("a debug shell of mio",)
    world.tick(400)
    assert world.cloud.done("StopInstances?") == []
    worker.busy = ()
    world.until(lambda: world.is_at(M.STOPPED))


@pytest.mark.parametrize("call", ["DescribeInstances", "StopInstances?", "StopInstances"])
def test_a_call_that_fails_is_made_again_and_told_once(world: World, call: str) -> None:
    world.add(state=M.RUNNING)
    world.until(lambda: world.machine().drain is not None)
    errors = [CloudThrottled(), CloudUnavailable(), CloudThrottled(), CloudUnavailable()]
    world.cloud.fault = lambda name, instance: errors.pop() if name == call and errors else None
    world.until(lambda: world.is_at(M.STOPPED))
    assert errors == []
    assert len(world.history(Action.STOP)) == 1


def test_a_stop_whose_answer_is_lost_happens_once(world: World) -> None:
    world.add(state=M.RUNNING)
    lost = [CloudUnavailable("the answer is lost")]
    world.lost = lambda name, instance: lost.pop() if name == "StopInstances" and lost else None
    world.until(lambda: world.is_at(M.STOPPED))
    assert world.cloud.done("StopInstances") == [ONE]
    assert len(world.history(Action.STOP)) == 1


def test_a_stop_that_cannot_be_sent_is_given_up_when_work_waits(world: World) -> None:
    world.add(state=M.RUNNING)
    world.cloud.fault = lambda name, instance: CloudThrottled() if name == "StopInstances" else None
    world.until(lambda: bool(world.cloud.done("StopInstances")))
    run = world.submit()
    world.until(lambda: world.over(run), within=120)
    assert world.cloud.state(ONE) is M.RUNNING
    assert [one.code for one in world.history(Action.CANCEL_DRAIN)] == ["queued"]


def test_a_stop_that_is_refused_raises_an_alarm_and_is_not_tried_at_once_again(world: World) -> None:
    world.add(state=M.RUNNING)
    world.cloud.fault = lambda name, instance: CloudRefused("no right") if name == "StopInstances?" else None
    world.until(lambda: bool(world.history(Action.ALARM)))
    world.tick(240)
    assert len(world.cloud.done("StopInstances?")) == 1
    assert world.machine().drain is None
    run = world.submit()
    world.until(lambda: world.over(run))


def test_a_controller_that_was_held_up_stops_nothing(world: World) -> None:
    """It freezes between its last look and its call, until the machine works again."""
    world.add(state=M.RUNNING)
    other = world.controller()
    frozen: list[int] = []

    def freeze(name: str, instance: str) -> None:
        if name == "StopInstances?" and not frozen:
            frozen.append(world.submit())
            world.controllers = [other]
            world.until(lambda: world.workers[ONE].claim is not None)

    world.cloud.hook = freeze
    world.until(lambda: bool(frozen))
    world.until(lambda: world.over(frozen[0]))
    assert world.killed == []


def test_a_killed_controller_is_gone_on_with(world: World) -> None:
    world.add(state=M.RUNNING)

    class Killed(BaseException):
        pass

    def kill(name: str, instance: str) -> None:
        if name == "StopInstances":
            world.cloud.hook = lambda name, instance: None
            raise Killed

    world.cloud.hook = kill
    with pytest.raises(Killed):
        world.tick(300)
    assert world.machine().state is M.STOPPING
    assert world.cloud.state(ONE) is M.RUNNING
    world.restart()
    world.until(lambda: world.is_at(M.STOPPED))
    assert len(world.history(Action.STOP)) == 1


def test_a_type_without_capacity_is_passed_over(world: World) -> None:
    world.add(ONE, kind="m6i.large")
    world.add(TWO, kind="c6i.large")
    world.cloud.scarce = {"m6i.large"}
    world.tick(2)
    run = world.submit()
    world.tick()
    assert world.cloud.done("StartInstances") == [ONE, TWO]
    assert ONE in world.store.machines.shortages(POOL)
    world.until(lambda: world.over(run))
    assert world.machine(ONE).state is M.STOPPED


def test_a_pool_grows_by_its_template_once_for_each_need_and_never_past_its_maximum() -> None:
    world = World(more={"template": "workers"})
    world.cloud.templates["workers"] = "m6i.large"
    world.cloud.scarce = {"m7i.large"}
    world.restart(grow=True, grow_kinds=("m7i.large", "m6i.large"), max_running=2)
    world.controllers.append(world.controller())
    world.tick(2)
    runs = [world.submit() for _ in range(5)]
    lost = [CloudUnavailable("the answer is lost")]
    world.lost = lambda name, instance: lost.pop() if name == "RunInstances" and lost else None
    world.until(lambda: all(map(world.over, runs)))
    made = {seen.instance for seen in world.cloud.machines(POOL)}
    assert len(made) == 2
    assert {one.kind for one in world.store.machines.machines(POOL)} == {"m6i.large"}
    world.until(lambda: all(world.is_at(M.STOPPED, instance) for instance in made))
    assert world.killed == []


def test_a_machine_whose_stop_was_asked_for_lately_is_not_started_yet(world: World) -> None:
    world.moves = 1.0
    world.add(state=M.RUNNING)
    world.until(lambda: world.is_at(M.STOPPED))
    asked = world.store.machines.notes(ONE)["stop"]["at"]
    world.submit()
    world.until(lambda: bool(world.cloud.done("StartInstances")))
    assert world.seconds - asked >= world.times.apart


def test_what_ec2_does_not_show_is_taken_for_busy_and_after_an_hour_for_gone(world: World) -> None:
    world.add(state=M.RUNNING)
    world.tick(2)
    world.cloud.hidden = {ONE}
    world.tick(70)
    assert world.machine().state is M.UNKNOWN
    world.tick(200)
    assert "StopInstances?" not in {name for name, _ in world.cloud.calls}
    assert [one.code for one in world.history(Action.ALARM)] == ["not_shown"]
    world.cloud.hidden = set()
    world.until(lambda: world.is_at(M.STOPPED))
    world.cloud.hidden = {ONE}
    world.until(lambda: world.machine().state is M.UNKNOWN)
    world.seconds += 3_590
    world.tick()
    assert world.machine().state is M.UNKNOWN
    world.until(lambda: world.machine().state is M.GONE)


def test_a_machine_that_was_ended_by_somebody_is_gone(world: World) -> None:
    world.add(state=M.RUNNING)
    world.tick(2)
    world.cloud.put(ONE, M.GONE)
    world.tick(61)
    assert world.machine().state is M.GONE
    assert world.store.machines.intervals(POOL)[0].ended_at is not None


def test_what_is_billed_ends_when_the_stop_was_whoever_asked_for_it(world: World) -> None:
    world.add(state=M.RUNNING)
    world.workers[ONE].busy = ("a debug shell of mio",)
    world.tick(20)
    world.cloud.put(ONE, M.STOPPING)
    stopped = world.seconds
    world.tick(61)
    assert world.machine().state is M.STOPPED
    [interval] = world.store.machines.intervals(POOL)
    assert interval.ended_at is not None
    assert interval.ended_at.timestamp() == stopped


def test_zombies_raise_an_alarm_and_are_left_alone(world: World) -> None:
    never = world.add(ONE, M.RUNNING, worker=False)
    silent = world.add(TWO, M.RUNNING)
    world.tick(5)
    silent.silent = True
    world.tick(700)
    assert {(one.instance, one.code) for one in world.history(Action.ALARM)} == {
        (never.instance, "never_registered"), (silent.instance, "silent"),
    }  # fmt: skip
    assert world.cloud.done("StopInstances?") == []


# ---- wishes ----


def wish(world: World, kind: WishKind, instance: str | None = ONE) -> int:
    return world.store.machines.wish(POOL, kind, made_by="mio", instance=instance).id


def outcome(world: World, number: int) -> str | None:
    return next(one.outcome for one in world.store.machines.wishes(POOL) if one.id == number)


def test_a_start_and_a_stop_by_hand_take_the_same_ways(world: World) -> None:
    world.add()
    world.tick()
    number = wish(world, WishKind.START)
    world.until(lambda: world.is_at(M.RUNNING))
    assert outcome(world, number) == "It is starting, and is kept awake for 2 h."
    assert world.history(Action.START)[0].made_by == "mio"
    world.until(lambda: registered(world.machine()))
    world.tick(120)
    assert world.is_at(M.RUNNING)
    [hold] = world.store.machines.holds(POOL)
    assert hold.made_by == "mio"
    world.store.machines.release(hold.id, by="mio")
    number = wish(world, WishKind.STOP)
    took = world.until(lambda: bool(world.cloud.done("StopInstances")))
    assert 2 * LEASE <= took <= 2 * LEASE + 5
    world.until(lambda: world.is_at(M.STOPPED))
    assert outcome(world, number) == "It is being stopped."
    assert world.history(Action.STOP)[0].made_by == "mio"


def test_a_stop_by_hand_of_a_busy_machine_says_why_not(world: World) -> None:
    world.add(state=M.RUNNING)
    world.work = 100
    run = world.submit()
    world.tick(2)
    number = wish(world, WishKind.STOP)
    world.tick()
    assert "1 task" in (outcome(world, number) or "")
    world.until(lambda: world.over(run))


def test_a_stop_by_hand_that_work_overtakes_says_so(world: World) -> None:
    world.add(state=M.RUNNING)
    world.tick(2)
    number = wish(world, WishKind.STOP)
    world.until(lambda: world.machine().drain is not None)
    run = world.submit()
    world.tick(2)
    assert (outcome(world, number) or "").startswith("Not stopped.")
    world.until(lambda: world.over(run))


def test_a_wish_for_any_machine_takes_one_that_can_be_had(world: World) -> None:
    world.add(ONE, kind="m6i.large")
    world.add(TWO, kind="c6i.large")
    world.cloud.scarce = {"m6i.large"}
    world.tick()
    wish(world, WishKind.START, None)
    world.until(lambda: world.is_at(M.RUNNING, TWO))
    assert wish(world, WishKind.STOP, "i-none") > 0
    world.tick()
    assert world.store.machines.open_wishes(POOL) == []


@pytest.mark.parametrize("load", [None, 60.0])
def test_a_silent_machine_is_stopped_only_on_all_signs(world: World, load: float | None) -> None:
    worker = world.add(state=M.RUNNING)
    world.tick(5)
    worker.silent = True
    world.tick(150)
    first = wish(world, WishKind.STOP)
    world.tick()
    assert "stop_silent" in (outcome(world, first) or "")
    world.more = {"stop_silent": True}
    world.restart()
    if load is not None:
        world.cloud.loads[ONE] = load
    second = wish(world, WishKind.STOP)
    world.tick()
    assert "busy" in (outcome(world, second) or "")
    world.cloud.loads[ONE] = 1.5
    third = wish(world, WishKind.STOP)
    world.until(lambda: world.is_at(M.STOPPED))
    assert outcome(world, third) == "It is being stopped."
    assert world.history(Action.STOP)[0].made_by == "mio"


def test_a_silent_machine_that_is_heard_of_again_stays_on() -> None:
    world = World(more={"stop_silent": True})
    worker = world.add(state=M.RUNNING)
    world.tick(5)
    worker.silent = True
    world.tick(150)
    world.cloud.loads[ONE] = 1.5
    number = wish(world, WishKind.STOP)
    world.until(lambda: world.machine().drain is not None)
    worker.silent = False
    worker.deaf = True
    world.tick(2)
    assert world.cloud.state(ONE) is M.RUNNING
    assert outcome(world, number) == "Not stopped. Its worker is heard of again."


# ---- identity ----

EXPECTED = Expected(POOL, ACCOUNT, "us-east-1", ("team=finance",))
GOOD = Seen(ONE, M.RUNNING, ACCOUNT, "us-east-1", tags={"seatrial:pool": POOL, "stage": "test"})


@pytest.mark.parametrize(
    ("account", "changed", "word"),
    [
        ("000000000000", {}, "credentials"),
        (ACCOUNT, {"account": "000000000000"}, "belongs to account"),
        (ACCOUNT, {"region": "eu-west-1"}, "is in eu-west-1"),
        (ACCOUNT, {"tags": {}}, "does not carry"),
        (ACCOUNT, {"tags": {"seatrial:pool": "other"}}, "says other"),
        (ACCOUNT, {"tags": {"seatrial:pool": POOL, "Environment": " PROD "}}, "Environment"),
        (ACCOUNT, {"tags": {"seatrial:pool": POOL, "stage": "production"}}, "stage"),
        (ACCOUNT, {"tags": {"seatrial:pool": POOL, "Team": "Finance"}}, "Team"),
    ],
)
def test_a_machine_shows_that_it_is_ours_or_is_left_alone(account: str, changed: dict[str, object], word: str) -> None:
    assert refusal(GOOD, EXPECTED, account=ACCOUNT) is None
    why = refusal(replace(GOOD, **changed), EXPECTED, account=account)  # type: ignore[arg-type]
    assert word in (why or "")


def test_a_pool_is_prewarmed_by_a_form_and_a_boot_is_waited_for(world: World) -> None:
    world.restart(prewarm=timedelta(seconds=90))
    world.add()
    world.tick(2)
    world.store.machines.form_opened(POOL, made_by="mio")
    world.tick()
    assert world.cloud.done("StartInstances") == [ONE]
    world.tick(int(BOOT))
    assert world.is_at(M.RUNNING)
    assert len(world.cloud.done("StartInstances")) == 1
