"""A pool under test: records in a file, EC2 over HTTP by a road that meddles, machines as processes, controllers here."""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from capacity_machine import ACCOUNT, REGION, Nursery, Order
from fixtures_ec2 import Road, Yard
from fixtures_server import until
from hands import Hands

from jobs.adapters.ec2 import Ec2
from jobs.adapters.sql_store import Store
from jobs.capacity import Policy
from jobs.cloud import Expected
from jobs.controlled import Controlled, Times
from jobs.controller import Controller
from jobs.idle_policy import Idle, IdleKind
from jobs.machines import Action, MachineState, Recorded

IDLE, LEASE, WORK = 0.4, 0.5, 0.2
POLICY = Policy(
    idle=Idle(IdleKind.FIXED, timedelta(seconds=IDLE)),
    lease=timedelta(seconds=LEASE),
    boot=timedelta(seconds=0.5),
    answer=timedelta(seconds=5),
    ask_again=timedelta(seconds=1),
)
# The product's times, a tenth of them and less: what is waited for is what is waited for there.
TIMES = Times(
    look=1.0, look_soon=0.1, stale=3.0, send=1.0, apart=1.2, doubt=3.0, short=1.0, seen=0.2, back_off=0.05,
    back_off_most=0.4,
)  # fmt: skip


class Killed(BaseException):
    """The sweeper is killed here."""


class Hook:
    """The store's machines with something that happens before or after one of their methods."""

    def __init__(self, machines: Any) -> None:
        self._machines = machines
        self.before: dict[str, Callable[[], None]] = {}
        self.after: dict[str, Callable[[], None]] = {}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._machines, name)
        if name not in self.before and name not in self.after:
            return found

        def call(*args: Any, **more: Any) -> Any:
            self.before.get(name, lambda: None)()
            result = found(*args, **more)
            if result:
                self.after.get(name, lambda: None)()
            return result

        return call


@dataclass
class Trial:
    """A pool of its own with what happens there."""

    url: str
    road: Road
    yard: Yard
    nursery: Nursery
    seed: int = 0
    policy: Policy = POLICY
    times: Times = TIMES
    expected: dict[str, Any] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.pool = f"c{secrets.token_hex(4)}"
        self.store = Store.open(self.url)
        self.hands = Hands(self.store)
        self.killed: list[str] = []
        self.restarts = 0
        self.runs: list[int] = []
        self.busy: tuple[str, ...] = ()
        self._pids: dict[str, int] = {}
        self._here: set[str] = set()
        self._lock = threading.Lock()
        self.road.stopped, self.road.started = self._stopped, self._started
        self.road.stopping = self.random.uniform(0.05, 0.5)
        self.road.pending = self.random.uniform(0.05, 0.3)
        self.hook = Hook(self.store.machines)
        self.controller = self.new_controller()

    def new_controller(self, store: Store | None = None) -> Controller:
        """Make a controller with a client of its own, as a sweeper that starts."""
        words = {"pool": self.pool, "account": ACCOUNT, "region": REGION} | self.expected
        seen = Store(self.store.database) if store is None else store
        if store is None:
            seen.machines = self.hook  # type: ignore[assignment]
        return Controller(seen, Ec2(REGION), Controlled(Expected(**words), self.policy, **self.more), times=self.times)

    # ---- machines -----------------------------------------------------------------------------------------------

    def machine(self, *, running: bool = True, **more: Any) -> str:
        """Have a machine, with a worker on it if it runs."""
        words = {"pool": self.pool} | more
        instance = self.yard.machine(words.pop("pool"), state="running" if running else "stopped", **words)
        self._here.add(instance)
        if running:
            self._started(instance)
            until(lambda: self.store.machines.machine(instance) is not None, "its worker has registered", every=0.02)
        return instance

    def _started(self, instance: str) -> None:
        order = Order(self.url, instance, self.pool, self.random.uniform(0.5, 2.0) * WORK, LEASE, self.busy)
        with self._lock:
            if instance not in self._pids:
                self._pids[instance] = self.nursery.boot(order)

    def _stopped(self, instance: str) -> None:
        if self.store.workers.doing(host=f"host-{instance}"):
            self.killed.append(instance)
        with self._lock:
            pid = self._pids.pop(instance, None)
        if pid is not None:
            self.nursery.end(pid)

    # ---- what happens -------------------------------------------------------------------------------------------

    def submit(self) -> int:
        self.runs.append(self.hands.submit(pool=self.pool))
        return self.runs[-1]

    def look_after(self, controller: Controller | None = None) -> None:
        """Do one pass; who is killed in it is started anew."""
        self.store.tasks.requeue_due()
        try:
            (controller or self.controller).look_after()
        except Killed:
            self.restarts += 1
            self.controller = self.new_controller()

    def until(self, look: Callable[[], object], what: str, *, timeout: float = 60.0) -> None:
        """Let passes follow each other until something is so."""

        def turn() -> object:
            assert self.killed == [], "a busy machine was stopped"
            assert self.road.forbidden() == []
            if look():
                return True
            self.look_after()
            return False

        history = lambda: "\n".join(  # noqa: E731
            [what, *(str(one) for one in (*self.store.machines.machines(self.pool), *reversed(self.history())))]
        )
        until(turn, history, timeout=timeout, every=0.02)

    def all_over(self) -> bool:
        return all(self.hands.run(run).state.final for run in self.runs)

    def is_at(self, instance: str, state: MachineState) -> bool:
        found = self.store.machines.machine(instance)
        return found is not None and found.state is state

    def all_stopped(self) -> bool:
        return all(self.yard.state(instance) == "stopped" for instance in self._here)

    def ends_well(self) -> None:
        """Every run is done without an interruption, and every machine is stopped in the end."""
        self.until(lambda: self.all_over() and self.all_stopped(), "runs done, machines stopped")
        assert self.killed == []
        for run in self.runs:
            assert self.hands.run(run).state.value == "done"
            assert {one.outcome for one in self.store.inside.attempts(run)} == {"done"}
        assert self.road.forbidden() == []

    def history(self, action: Action | None = None) -> list[Recorded]:
        found = self.store.machines.decisions(self.pool, limit=1_000)
        return [one for one in found if action in (None, one.action)]

    def close(self) -> None:
        self.road.stopped = self.road.started = lambda instance: None
        for pid in self._pids.values():
            self.nursery.end(pid)
        for instance in self._here:
            self.yard.client.stop_instances(InstanceIds=[instance])
        self.store.close()


# ---- C1: the nine points of the stop protocol ---------------------------------------------------------------------


def at_decided(trial: Trial, act: Callable[[], None]) -> None:
    trial.hook.before["begin_drain"] = act


def at_drained(trial: Trial, act: Callable[[], None]) -> None:
    trial.hook.after["begin_drain"] = act


def at_waiting(trial: Trial, act: Callable[[], None]) -> None:
    """Some time in the two leases."""
    delay = trial.random.uniform(0.0, 2 * LEASE)
    trial.hook.after["begin_drain"] = lambda: threading.Timer(delay, act).start()


def at_asked(trial: Trial, act: Callable[[], None]) -> None:
    """When the machine is about to answer for good: the leases are over."""
    delay = 2 * LEASE + trial.random.uniform(0.0, 0.15)
    trial.hook.after["begin_drain"] = lambda: threading.Timer(delay, act).start()


def at_answered(trial: Trial, act: Callable[[], None]) -> None:
    """Before EC2 is asked who the machine is."""
    trial.road.before = lambda call: act() if call.action == "DescribeInstances" and answered(trial) else None


def at_identified(trial: Trial, act: Callable[[], None]) -> None:
    """Before the dry run arrives."""
    trial.road.before = lambda call: act() if call.action == "StopInstances" and call.dry else None


def at_tried(trial: Trial, act: Callable[[], None]) -> None:
    """After the dry run, before the last look."""
    trial.hook.before["confirm_stop"] = act


def at_confirmed(trial: Trial, act: Callable[[], None]) -> None:
    """After the last look, before StopInstances."""
    trial.hook.after["confirm_stop"] = act


def at_sent(trial: Trial, act: Callable[[], None]) -> None:
    """While StopInstances is on its way, or the machine is stopping."""
    delay = trial.random.choice([0.0, trial.random.uniform(0.0, 0.6)])
    later = act if not delay else lambda: threading.Timer(delay, act).start()
    trial.road.before = lambda call: later() if call.action == "StopInstances" and not call.dry else None


def answered(trial: Trial) -> bool:
    found = trial.store.machines.machines(trial.pool)
    return any(one.drain is not None and one.drain.answer is not None for one in found)


POINTS: dict[str, Callable[[Trial, Callable[[], None]], None]] = {
    "decided": at_decided,
    "drained": at_drained,
    "waiting": at_waiting,
    "asked": at_asked,
    "answered": at_answered,
    "identified": at_identified,
    "tried": at_tried,
    "confirmed": at_confirmed,
    "sent": at_sent,
}
# Where the sweeper itself is at work, and so can be killed.
IN_SWEEPER = {"decided", "drained", "tried", "confirmed"}


def arrive_at(trial: Trial, point: str) -> None:
    """Have a run arrive at a point, once; by the seed the sweeper is killed there too."""
    once = threading.Lock()
    kill = point in IN_SWEEPER and trial.random.random() < 0.5
    wait = trial.random.choice([0.0, trial.random.uniform(0.0, 0.2)])

    def act() -> None:
        if once.acquire(blocking=False):
            trial.submit()
            time.sleep(wait)  # by chance it is claimed before the next step, or not
            if kill:
                raise Killed

    POINTS[point](trial, act)
