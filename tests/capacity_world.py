"""A small world for the controller: records in memory, a cloud in memory, machines with a worker, and one clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hands import Hands
from sqlalchemy import Connection

from jobs.adapters.ec2_memory import MemoryCloud
from jobs.adapters.sql_store import Store
from jobs.adapters.sql_tasks import Claim
from jobs.capacity import Policy
from jobs.cloud import Expected
from jobs.controlled import Controlled, Times
from jobs.controller import Controller
from jobs.idle_policy import Idle, IdleKind
from jobs.machines import Action, Machine, Recorded
from jobs.machines import MachineState as M
from runner.model import TaskKind

POOL = "cloud"
ACCOUNT, REGION = "123456789012", "us-east-1"
ONE, TWO = "i-00000000000000001", "i-00000000000000002"
IDLE, LEASE, BOOT = 60.0, 5.0, 40.0
BEGAN = 1_800_000_000.0


@dataclass
class Worker:
    """What runs on a machine while the machine runs: it shows its presence, answers, and does one task at a time."""

    world: World
    instance: str
    work: float = 10.0
    busy: tuple[str, ...] = ()
    silent: bool = False
    deaf: bool = False  # answers no question
    claim: Claim | None = None
    until: float = 0.0

    @property
    def host(self) -> str:
        return f"host-{self.instance}"

    def register(self) -> None:
        self.world.store.machines.register(self.instance, host=self.host, pool=POOL, region=REGION, account=ACCOUNT)

    def live(self) -> None:
        """Do what a worker does in a moment."""
        if self.silent:
            return
        machine = self.world.store.machines.seen(self.instance, busy=self.busy)
        if machine is not None and machine.drain is not None and not self.deaf:
            busy = ("task",) if self.claim is not None else ()
            self.world.store.machines.answer(self.instance, machine.drain.token, (*self.busy, *busy))
        if self.claim is not None and self.world.seconds >= self.until:
            self.end(self.claim)
        if self.claim is None:
            self.claim = self.world.hands.claim(f"{self.host}-1", host=self.host, pool=POOL)
            self.until = self.world.seconds + self.work

    def end(self, claim: Claim) -> None:
        if claim.task.kind is TaskKind.PREPARE:
            self.world.hands.prepared(claim, ("a",), batches=1)
        else:
            self.world.hands.mark(claim, *claim.units)
            self.world.hands.end(claim)
        self.claim = None


@dataclass
class World:
    """All of it. `tick` lets time pass; whatever happens meanwhile is in `cloud.calls`, `killed` and the history."""

    seconds: float = BEGAN
    store: Store = field(default_factory=Store.in_memory)
    policy: Policy = field(
        default_factory=lambda: Policy(
            idle=Idle(IdleKind.FIXED, timedelta(seconds=IDLE)),
            lease=timedelta(seconds=LEASE),
            boot=timedelta(seconds=BOOT),
        )
    )
    times: Times = field(default_factory=Times)
    more: dict[str, Any] = field(default_factory=dict)
    killed: list[str] = field(default_factory=list)
    pending: dict[str, float] = field(default_factory=dict)
    workers: dict[str, Worker] = field(default_factory=dict)
    moves: float = 20.0  # a boot, and a stop, take so long
    work: float = 10.0

    def __post_init__(self) -> None:
        self.store.database.now = self._now  # type: ignore[method-assign]
        self.hands = Hands(self.store)
        self.cloud = MemoryCloud(REGION, ACCOUNT)
        self.cloud.clock = self.uptime
        self.cloud.now = lambda: datetime.fromtimestamp(self.seconds, UTC)
        self.cloud.after = self._happened
        self.lost: Callable[[str, str], Exception | None] = lambda name, instance: None
        self.controllers = [self.controller()]

    def _now(self, _connection: Connection) -> float:
        return self.seconds

    def uptime(self) -> float:
        return self.seconds - BEGAN

    def controller(self) -> Controller:
        """Make one more controller."""
        expected = Expected(POOL, ACCOUNT, REGION)
        return Controller(
            self.store,
            self.cloud,
            Controlled(expected, self.policy, **self.more),
            times=self.times,
            clock=self.uptime,
        )

    def restart(self, **policy: Any) -> None:
        """Begin anew with the controllers, as after a kill, and maybe with another policy."""
        self.policy = replace(self.policy, **policy)
        self.controllers = [self.controller() for _ in self.controllers]

    def add(self, instance: str = ONE, state: M = M.STOPPED, *, worker: bool = True, **more: Any) -> Worker:
        """Have a machine; with a worker on it when it runs."""
        self.cloud.add(instance, more.pop("pool", POOL), state, **more)
        one = Worker(self, instance, self.work)
        if worker:
            self.workers[instance] = one
            if state is M.RUNNING:
                one.register()
        return one

    # ---- time -----------------------------------------------------------------------------------------------

    def _happened(self, name: str, instance: str) -> Exception | None:
        if name == "StopInstances":
            one = self.workers.get(instance)
            if one is not None and one.claim is not None:
                self.killed.append(instance)
                one.claim = None
        return self.lost(name, instance)

    def tick(self, seconds: int = 1) -> None:
        """Let so many seconds pass."""
        for _ in range(seconds):
            self.seconds += 1.0
            self._move()
            for instance, worker in self.workers.items():
                if self.cloud.state(instance) is M.RUNNING:
                    worker.live()
            self.store.tasks.requeue_due()
            for controller in list(self.controllers):
                controller.look_after()

    def _move(self) -> None:
        for instance, seen in list(self.cloud._seen.items()):
            if seen.state in (M.PENDING, M.STOPPING):
                since = self.pending.setdefault(instance, self.seconds)
                if self.seconds - since >= self.moves:
                    del self.pending[instance]
                    arrived = M.RUNNING if seen.state is M.PENDING else M.STOPPED
                    self.cloud.put(instance, arrived)
                    if arrived is M.RUNNING and instance not in self.workers and seen.tags.get("worker") != "none":
                        self.workers[instance] = Worker(self, instance, self.work)
                    if arrived is M.RUNNING and instance in self.workers:
                        self.workers[instance].claim = None
                        self.workers[instance].register()
            else:
                self.pending.pop(instance, None)

    def until(self, look: Callable[[], bool], *, within: int = 600) -> int:
        """Let time pass until something is so; gives the seconds that it took."""
        for second in range(within):
            if look():
                return second
            self.tick()
        told = "\n".join(str(one) for one in reversed(self.history()))
        raise AssertionError(f"not within {within} s; calls {self.cloud.calls[-20:]}; history:\n{told}")

    # ---- what is so -------------------------------------------------------------------------------------------

    def submit(self) -> int:
        return self.hands.submit(pool=POOL)

    def over(self, run: int) -> bool:
        return self.hands.run(run).state.final

    def machine(self, instance: str = ONE) -> Machine:
        found = self.store.machines.machine(instance)
        assert found is not None
        return found

    def is_at(self, state: M, instance: str = ONE) -> bool:
        """Tell whether cloud and records both say so."""
        found = self.store.machines.machine(instance)
        return found is not None and found.state is state is self.cloud.state(instance)

    def history(self, action: Action | None = None, instance: str | None = None) -> list[Recorded]:
        found = self.store.machines.decisions(POOL, instance=instance, limit=1_000)
        return [one for one in found if action in (None, one.action)]
