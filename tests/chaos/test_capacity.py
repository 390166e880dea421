"""Group C: a busy machine is never stopped, and none is left running. EC2 is moto over HTTP, machines are processes."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
from capacity_machine import Nursery
from capacity_steps import STEPS, one_life
from capacity_trial import LEASE, POINTS, POLICY, TIMES, Trial, arrive_at
from fixtures_ec2 import Call, Road, Yard
from fixtures_server import until

from jobs.adapters.embedded_postgres import EmbeddedPostgres
from jobs.adapters.sql_store import Store
from jobs.controlled import Times
from jobs.flag import Flag
from jobs.idle_policy import Idle, IdleKind
from jobs.machines import Action, MachineState

LONG = bool(os.environ.get("SEATRIAL_CHAOS_LONG"))
SEEDS = range(100 if LONG else 2)  # a hundred of each of the nine points, whatever other trials are asked for
LIVES = range(25 if LONG else 2)  # a second of computing each
PATIENCE = 3.0  # a loaded machine may be so much slower than an idle one
Start = Callable[..., Trial]


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.fixture
def start(road: Road, yard: Yard, nursery: Nursery, migrated: Path, tmp_path: Path) -> Iterator[Start]:
    """Begin a trial with records of its own."""
    made: list[Trial] = []

    def begin(seed: int = 0, *, url: str | None = None, **more: Any) -> Trial:
        path = tmp_path / f"{len(made)}.db"
        path.write_bytes(migrated.read_bytes())
        made.append(Trial(url or f"sqlite:///{path}", road, yard, nursery, seed, **more))
        return made[-1]

    yield begin
    for one in made:
        one.close()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("point", POINTS)
def test_c1_work_arrives_at_every_step_of_the_stop(start: Start, road: Road, point: str, seed: int) -> None:
    trial = start(seed)
    arrive_at(trial, point)
    trial.machine()
    trial.until(lambda: trial.runs, "the run has arrived")
    road.before = lambda call: None
    trial.ends_well()


@pytest.mark.parametrize("way", ["down", "empty", "slow", "throttled", "down at the last moment"])
def test_c2_ec2_is_down_empty_slow_or_throttled(start: Start, road: Road, way: str) -> None:
    last = way == "down at the last moment"  # what it said before is fresh, and it is not asked until the stop
    trial = start(times=replace(TIMES, look=60.0, stale=60.0) if last else TIMES)
    machine = trial.machine()
    trial.until(lambda: trial.is_at(machine, MachineState.RUNNING), "it is known")
    if way == "empty":
        road.empty = True
    elif way == "slow":
        road.slow = lambda call: 0.5
    else:
        road.rule = lambda call: (503, "RequestLimitExceeded") if way == "throttled" else (0, "")
    asked = len(road.calls)
    ends = time.monotonic() + 4.0
    run = trial.submit()
    if last:
        trial.until(lambda: len(road.calls) > asked, "it is about to be stopped")
    while time.monotonic() < ends:
        trial.look_after()
    trial.until(lambda: trial.hands.run(run).state.final, "its worker goes on whatever EC2 says")
    if way != "slow":
        assert {call.action for call in road.calls[asked:]} == {"DescribeInstances"}, "nothing else is even asked for"
    if way == "empty":
        assert trial.is_at(machine, MachineState.UNKNOWN)
    road.rule, road.empty, road.slow = (lambda call: None), False, (lambda call: 0.0)
    trial.submit()
    trial.ends_well()


@pytest.mark.parametrize("way", ["500", "throttled", "answer lost", "cut"])
def test_c3_stop_instances_fails(start: Start, road: Road, way: str) -> None:
    trial = start()
    machine = trial.machine()

    def failing(call: Call) -> bool:
        return call.action == "StopInstances" and not call.dry and len(road.done("StopInstances")) <= 3

    if way == "answer lost":
        road.lose = failing
    else:
        answer = {"500": (500, "InternalError"), "throttled": (503, "RequestLimitExceeded"), "cut": (0, "")}[way]
        road.rule = lambda call: answer if failing(call) else None
    trial.ends_well()
    trial.until(lambda: trial.is_at(machine, MachineState.STOPPED), "EC2 has said that it is stopped")
    assert len(road.stops) == 1
    assert len(trial.history(Action.STOP)) == 1
    assert len(trial.history(Action.DRAIN)) == 1
    tries = [call.at for call in road.done("StopInstances")]
    assert len(tries) == (4 if way != "answer lost" else 1)
    assert all(later - earlier > 0.02 for earlier, later in pairwise(tries))
    trial.submit()
    trial.ends_well()


def test_c4_work_comes_while_the_machine_is_stopping(start: Start, road: Road) -> None:
    trial = start()
    trial.machine()
    trial.until(lambda: road.stops, "it is stopping")
    road.stopping = 2.0
    road._until = {instance: (state, time.monotonic() + 2.0) for instance, (state, _) in road._until.items()}
    trial.submit()
    trial.ends_well()
    assert len(road.starts) == 1
    assert road.done("StartInstances")[0].at >= road.done("StopInstances")[0].at + 1.5


@pytest.mark.parametrize("fault", ["production", "no tag", "other pool", "other account"])
def test_c5_a_machine_that_is_none_of_ours(start: Start, road: Road, yard: Yard, fault: str) -> None:
    tags: dict[str, Any] = {"Environment": "Production"} if fault == "production" else {}
    pool = {"no tag": None, "other pool": "another"}
    expected = {"account": "210987654321"} if fault == "other account" else {}
    trial = start(expected=expected)
    words = {"pool": pool[fault]} if fault in pool else {}
    running = yard.machine(words.get("pool", trial.pool), state="running", **tags)
    stopped = yard.machine(words.get("pool", trial.pool), **tags)
    trial.more = {"instances": (running, stopped)}
    trial.controller = trial.new_controller()
    trial.submit()
    trial.submit()  # more than the running one would be thought to take: the stopped one would be started
    ends = time.monotonic() + 3.0
    while time.monotonic() < ends:
        trial.look_after()
    assert {call.action for call in road.calls} <= {"GetCallerIdentity", "DescribeInstances"}
    assert yard.state(running) == "running"
    assert {one.instance for one in trial.history(Action.REFUSED)} == {running, stopped}
    assert all(one.refused for one in trial.store.machines.machines(trial.pool))
    if fault == "other account":
        return
    ours = trial.machine(running=False)
    trial.until(lambda: trial.all_over() and yard.state(ours) == "stopped", "done by one of ours")
    trial.ends_well()


def test_c6_two_sweepers_at_once(start: Start, road: Road) -> None:
    # Longer than a busy machine takes to carry a start out, as it is in the product.
    trial = start(times=replace(TIMES, apart=5.0))
    for _ in range(4):
        trial.machine()
    stop = threading.Event()
    problems: list[BaseException] = []

    def sweep() -> None:
        controller = trial.new_controller(Store(trial.store.database))
        while not stop.is_set():
            try:
                controller.look_after()
            except BaseException as error:
                problems.append(error)
                raise
            time.sleep(0.01)

    threads = [threading.Thread(target=sweep) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            trial.until(trial.all_stopped, "all are stopped")
            trial.submit()
            trial.submit()
            trial.until(trial.all_over, "the work is done")
        trial.ends_well()
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert problems == []
    drains = trial.history(Action.DRAIN)
    stops = trial.history(Action.STOP)
    assert len({one.data["token"] for one in stops}) == len(stops) == len(road.stops), "one drain token a stop"
    assert len(drains) <= len(stops) + len(trial.history(Action.CANCEL_DRAIN)), "each drain comes to its end"
    # A start that was recorded and, on a busy machine, came too late to be sent is given to whoever decides it next.
    assert len(road.done("StartInstances")) == len(road.starts) <= len(trial.history(Action.START)), "each sent once"


def test_c7_a_hold_and_a_start_by_hand_are_respected_until_released(start: Start, road: Road, yard: Yard) -> None:
    trial = start()
    machine = trial.machine()
    hold = trial.store.machines.hold(trial.pool, seconds=3600, reason="a demo", made_by="mio")
    ends = time.monotonic() + 3.0
    while time.monotonic() < ends:
        trial.look_after()
    assert road.stops == []
    trial.store.machines.release(hold.id, by="mio")
    trial.ends_well()
    trial.until(lambda: trial.is_at(machine, MachineState.STOPPED), "EC2 has said that it is stopped")
    # Somebody starts it in the console.
    yard.client.start_instances(InstanceIds=[machine])
    trial._started(machine)
    trial.until(lambda: trial.store.machines.holds(trial.pool), "it is held for whoever started it")
    stops = len(road.stops)
    ends = time.monotonic() + 3.0
    while time.monotonic() < ends:
        trial.look_after()
    assert len(road.stops) == stops
    [hold] = trial.store.machines.holds(trial.pool)
    assert (hold.instance, hold.reason) == (machine, "it was started by hand")
    trial.store.machines.release(hold.id, by="mio")
    trial.ends_well()


def test_c8_the_whole_life_of_a_pool_takes_no_forbidden_call(start: Start, road: Road, yard: Yard) -> None:
    """Growth, starts, stops, refusals: every call is counted. Each other test of the road ends with the same proof."""
    trial = start(policy=replace(POLICY, grow=True, max_running=2))
    trial.more = {"template": yard.template(f"t-{trial.pool}")}
    trial.controller = trial.new_controller()
    for _ in range(4):
        trial.submit()
    trial.until(lambda: trial.all_over() and len(road.stops) == len(road.starts) > 0, "grown, done and stopped")
    trial.ends_well()
    assert len(road.done("RunInstances")) >= 1
    assert {call.action for call in road.calls} <= {
        "GetCallerIdentity", "DescribeInstances", "RunInstances", "StartInstances", "StopInstances",
    }  # fmt: skip
    assert all(len(call.instances) == 1 for call in road.done("StopInstances"))
    assert road.forbidden() == []


def test_the_figures_from_submit_to_start_and_from_idle_to_stop(start: Start, road: Road) -> None:
    """By the product's own times and passes a second; a loaded machine may take longer, and says so."""
    idle = 3.0
    policy = replace(
        POLICY,
        idle=Idle(IdleKind.FIXED, timedelta(seconds=idle)),
        lease=timedelta(seconds=5.0),
        answer=timedelta(minutes=1),
    )
    trial = start(policy=policy, times=Times())
    trial.machine(running=False)
    flag = Flag()
    thread = threading.Thread(target=trial.controller.work, args=(flag,))
    thread.start()
    try:
        until(lambda: trial.store.machines.machines(trial.pool), "it is known")
        asked = time.monotonic()
        run = trial.submit()
        until(lambda: road.done("StartInstances"), "it is started", every=0.02)
        took = road.done("StartInstances")[0].at - asked
        until(lambda: trial.hands.run(run).state.final, "it is done", every=0.02)
        ended = time.monotonic()
        until(lambda: road.done("StopInstances"), "it is stopped", every=0.02)
        stopped = road.done("StopInstances")[0].at - ended
    finally:
        flag.set()
        thread.join(30)
    print(f"submit to StartInstances {took:.2f} s, end to StopInstances {stopped:.2f} s (policy {idle} s)")  # noqa: T201
    assert took < 2.0 * PATIENCE
    assert idle <= stopped < idle + 15.0 * PATIENCE


@pytest.mark.parametrize("off", [3600, -3600])
def test_b22_the_clock_of_the_sweeper_is_an_hour_off(
    start: Start, postgres18: EmbeddedPostgres, road: Road, monkeypatch: pytest.MonkeyPatch, off: int
) -> None:
    """Nothing is stopped early, or never: times in the records are by their own clock, spans by one that goes on."""
    name = f"seatrial_clock_{secrets.token_hex(3)}"
    with psycopg.connect(postgres18.dsn(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
    trial = start(url=postgres18.dsn(name))
    real = time.time
    monkeypatch.setattr("time.time", lambda: real() + off)
    trial.machine()
    hold = trial.store.machines.hold(trial.pool, seconds=3.0, reason="a demo", made_by="mio")
    trial.submit()
    trial.until(lambda: road.done("StopInstances", dry=True), "it is about to be stopped")
    assert trial.store.machines.time() >= hold.until
    trial.ends_well()
    [stop, *_] = trial.history(Action.STOP)
    [drain, *_] = trial.history(Action.DRAIN)
    assert timedelta(seconds=2 * LEASE) <= stop.at - drain.at < timedelta(seconds=60)


@pytest.mark.parametrize("point", range(len(STEPS)))
def test_c1_every_step_with_many_seeds_in_memory(point: int) -> None:
    """The same nine points in a world whose time is counted."""
    for seed in LIVES:
        print(f"point {STEPS[point]} seed {seed}")  # noqa: T201 - shown when it fails
        one_life(STEPS[point], seed)
