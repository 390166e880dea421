"""C1 in memory: a run arrives at a step of the stop, by the seed sooner or later, beside failures and a killed sweeper."""

from __future__ import annotations

import random
from collections.abc import Callable

from capacity_world import ONE, POOL, World

from jobs.cloud import CloudThrottled, CloudUnavailable
from jobs.machines import Action
from jobs.machines import MachineState as M

STEPS = ("decided", "drained", "waiting", "asked", "answered", "identified", "tried", "confirmed", "sent")


class Killed(BaseException):
    """The sweeper is killed here."""


def one_life(step: str, seed: int) -> None:
    """Have a machine work, be idle, and be about to stop when a run arrives; all must end well."""
    chance = random.Random(f"{step} {seed}")
    world = World(moves=chance.choice([1.0, 5.0, 20.0]), work=chance.choice([1.0, 6.0, 30.0]))
    if chance.random() < 0.3:
        world.controllers.append(world.controller())
    world.add(state=M.RUNNING)
    errors: list[Exception] = [
        chance.choice([CloudThrottled(), CloudUnavailable()]) for _ in range(chance.choice([0, 0, 1, 3]))
    ]
    lost = chance.random() < 0.2
    arrived: list[int] = []
    kill = chance.random() < 0.3

    def act() -> None:
        if not arrived:
            arrived.append(world.submit())
            if chance.random() < 0.5:  # its worker is quick
                world.workers[ONE].live()
            if kill:
                raise Killed

    def fault(name: str, instance: str) -> Exception | None:
        return errors.pop() if errors and name.startswith("StopInstances") else None

    def after(name: str, instance: str) -> Exception | None:
        nonlocal lost
        if lost and name == "StopInstances":
            lost = False
            return CloudUnavailable("the answer is lost")
        return None

    world.cloud.fault, world.lost = fault, after
    install(world, step, act, chance)
    live(world, lambda: bool(arrived))
    world.cloud.hook = lambda name, instance: None
    live(world, lambda: world.over(arrived[0]) and world.is_at(M.STOPPED))
    assert world.killed == []
    tokens = [one.data["token"] for one in world.history(Action.STOP)]
    assert len(set(tokens)) == len(tokens)
    assert {one.outcome for one in world.store.inside.attempts(arrived[0])} == {"done"}
    assert not [name for name, _ in world.cloud.calls if name.startswith(("Terminate", "Delete", "Modify"))]
    world.store.close()


def live(world: World, look: Callable[[], bool]) -> None:
    for _ in range(900):
        assert world.killed == [], "a busy machine was stopped"
        if look():
            return
        try:
            world.tick()
        except Killed:
            world.restart()
    raise AssertionError("\n".join(str(one) for one in reversed(world.history())))


def install(world: World, step: str, act: Callable[[], None], chance: random.Random) -> None:
    """Have `act` happen at a step."""
    machines = world.store.machines

    def around(name: str, *, before: bool) -> None:
        real = getattr(machines, name)

        def call(*args: object, **more: object) -> object:
            if before:
                act()
            result = real(*args, **more)
            if result and not before:
                act()
            return result

        setattr(machines, name, call)

    def at_call(wanted: str) -> None:
        def hook(name: str, instance: str) -> None:
            found = machines.machine(ONE)
            draining = found is not None and found.drain is not None
            if name == wanted and draining:
                act()

        world.cloud.hook = hook

    if step in ("decided", "drained"):
        around("begin_drain", before=step == "decided")
    elif step == "waiting":
        later(world, act, chance.randint(1, 9))
    elif step == "asked":
        later(world, act, chance.randint(9, 12))
    elif step == "answered":
        at_call("DescribeInstances")
    elif step == "identified":
        at_call("StopInstances?")
    elif step in ("tried", "confirmed"):
        around("confirm_stop", before=step == "tried")
    else:
        at_call("StopInstances")


def later(world: World, act: Callable[[], None], seconds: int) -> None:
    """Have it happen so many seconds after the drain began, by whoever asks for the pool's facts then."""
    real, began = world.store.machines.now, []

    def now(*args: object, **more: object) -> object:
        found = real(POOL, **more)  # type: ignore[arg-type]
        if any(one.machine.drain is not None for one in found.machines):
            began.append(world.seconds)
            if world.seconds - began[0] >= seconds:
                act()
        return found

    world.store.machines.now = now  # type: ignore[method-assign,assignment]
