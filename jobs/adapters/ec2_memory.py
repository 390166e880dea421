"""The cloud in memory: the strict twin of EC2 for unit tests, with time of its own and failures on demand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from jobs.cloud import (
    MARKER,
    CloudRefused,
    Launch,
    NoCapacity,
    NoSuchMachine,
    Seen,
    TooLate,
    WrongState,
    uptime,
)
from jobs.machines import MachineState as M

Fault = Callable[[str, str], Exception | None]


class MemoryCloud:
    """Machines that go from state to state when the test says so (`settle`).

    `calls`: every call as (name, instance), dry runs as `StopInstances?`. `fault`: (name, instance) → what to raise
    before it is done; `after`: what to raise when it was. `scarce`: types of which there are none.
    """

    def __init__(self, region: str = "us-east-1", account: str = "123456789012") -> None:
        self.region, self._account = region, account
        self.calls: list[tuple[str, str]] = []
        self.fault: Fault = lambda name, instance: None
        self.after: Fault = lambda name, instance: None
        self.hook: Callable[[str, str], None] = lambda name, instance: None
        self.clock: Callable[[], float] = uptime
        self.now: Callable[[], datetime] = lambda: datetime.now(UTC)
        self.scarce: set[str] = set()
        self.templates: dict[str, str] = {}  # name → type
        self.shutdown: dict[str, str] = {}
        self.loads: dict[str, float] = {}
        self.hidden: set[str] = set()  # what a listing leaves out
        self._seen: dict[str, Seen] = {}
        self._launched: dict[str, str] = {}
        self._numbers = itertools.count(1)

    # ---- for the test ---------------------------------------------------------------------------------------

    def add(
        self, instance: str, pool: str | None, state: M = M.STOPPED, *, tags: Mapping[str, str] | None = None,
        kind: str = "m6i.large", account: str | None = None, region: str | None = None,
    ) -> None:  # fmt: skip
        """Have a machine there."""
        marker = {MARKER: pool} if pool is not None else {}
        self._seen[instance] = Seen(
            instance, state, account or self._account, region or self.region, kind, {**marker, **(tags or {})},
            self.now() if state.billed else None,
        )  # fmt: skip

    def settle(self) -> None:
        """Let what is on its way arrive: pending machines run, stopping ones are stopped."""
        ways = {M.PENDING: M.RUNNING, M.STOPPING: M.STOPPED}
        for instance, seen in self._seen.items():
            self.put(instance, ways.get(seen.state, seen.state))

    def put(self, instance: str, state: M) -> None:
        """Set a machine's state, as somebody would who does it by hand."""
        old = self._seen[instance]
        if state is not old.state:
            started = self.now() if state.billed and not old.state.billed else old.launched_at
            stopped = self.now() if old.state.billed and not state.billed else old.stopped_at
            self._seen[instance] = replace(old, state=state, launched_at=started, stopped_at=stopped)

    def state(self, instance: str) -> M:
        """Tell a machine's state."""
        return self._seen[instance].state

    def done(self, name: str) -> list[str]:
        """List the machines of the calls of a name."""
        return [instance for called, instance in self.calls if called == name]

    # ---- the port -------------------------------------------------------------------------------------------

    def account(self) -> str:
        """Give the account whose credentials these are."""
        if ("GetCallerIdentity", "") not in self.calls:
            self._call("GetCallerIdentity", "")
        return self._account

    def machines(self, pool: str, instances: Sequence[str] = ()) -> list[Seen]:
        """List those that carry the pool's marker, and those with these ids, by their ids."""
        self._call("DescribeInstances", "")
        return [
            seen
            for instance, seen in sorted(self._seen.items())
            if instance not in self.hidden and (seen.tags.get(MARKER) == pool or instance in instances)
        ]

    def may_start(self, instance: str) -> None:
        """Raise what a start would raise."""
        self._call("StartInstances?", instance)
        self._known(instance)

    def may_stop(self, instance: str) -> None:
        """Raise what a stop would raise."""
        self._call("StopInstances?", instance)
        self._known(instance)

    def may_launch(self, launch: Launch) -> None:
        """Raise what a launch would raise."""
        self._call("RunInstances?", launch.kind)
        self._template(launch)

    def start(self, instance: str, *, until: float) -> M:
        """Start one machine."""
        self._call("StartInstances", instance, until)
        seen = self._known(instance)
        if seen.state in (M.STOPPING, M.GONE):
            raise WrongState(f"{instance} is {seen.state}")
        if seen.state is M.STOPPED:
            if seen.kind in self.scarce:
                raise NoCapacity(f"There is no {seen.kind}.")
            self.put(instance, M.PENDING)
        return self._done("StartInstances", instance)

    def stop(self, instance: str, *, until: float) -> M:
        """Stop one machine."""
        self._call("StopInstances", instance, until)
        if self._known(instance).state is M.GONE:
            raise WrongState(f"{instance} is gone")
        if self.state(instance) is not M.STOPPED:
            self.put(instance, M.STOPPING)
        return self._done("StopInstances", instance)

    def launch(self, launch: Launch, *, until: float) -> Seen:
        """Make one machine."""
        self._call("RunInstances", launch.kind, until)
        kind = launch.kind or self._template(launch)
        if kind in self.scarce:
            raise NoCapacity(f"There is no {kind}.")
        if launch.token not in self._launched:
            instance = f"i-{next(self._numbers):017x}"
            self._launched[launch.token] = instance
            self.add(instance, launch.pool, M.PENDING, kind=kind)
        self._done("RunInstances", instance := self._launched[launch.token])
        return self._seen[instance]

    def on_shutdown(self, instance: str) -> str:
        """Tell what becomes of a machine that shuts itself down."""
        self._call("DescribeInstanceAttribute", instance)
        self._known(instance)
        return self.shutdown.get(instance, "stop")

    def load(self, instance: str, seconds: float) -> float | None:
        """Give the highest use of its processors lately."""
        self._call("GetMetricStatistics", instance)
        return self.loads.get(instance)

    def _call(self, name: str, instance: str, until: float | None = None) -> None:
        if until is not None and self.clock() > until:
            raise TooLate(f"{name} was held up and is not sent any more.")
        self.calls.append((name, instance))
        self.hook(name, instance)
        if (error := self.fault(name, instance)) is not None:
            raise error

    def _done(self, name: str, instance: str) -> M:
        if (error := self.after(name, instance)) is not None:
            raise error
        return self.state(instance)

    def _known(self, instance: str) -> Seen:
        if instance not in self._seen:
            raise NoSuchMachine(f"There is no {instance}.")
        return self._seen[instance]

    def _template(self, launch: Launch) -> str:
        if launch.template not in self.templates:
            raise CloudRefused(f"There is no launch template {launch.template}.")
        return self.templates[launch.template]
