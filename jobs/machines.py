"""What capacity is about: machines of a pool, what holds them, what was decided, what it cost. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any


class MachineState(StrEnum):
    """What EC2 says of a machine; UNKNOWN: it was not asked yet, or did not answer (and is taken for busy)."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    GONE = "gone"  # shutting-down or terminated: never by us
    UNKNOWN = "unknown"

    @property
    def billed(self) -> bool:
        return self in (MachineState.PENDING, MachineState.RUNNING)


class Action(StrEnum):
    """What a decision does to a machine, or to nobody (NOTHING, ALARM)."""

    START = "start"
    DRAIN = "drain"  # the first step of the stop protocol
    CANCEL_DRAIN = "cancel_drain"
    STOP = "stop"  # the last one: StopInstances was asked for
    HOLD = "hold"  # it would be stopped, and somebody keeps it awake
    GROW = "grow"  # one more machine from the launch template
    NOTHING = "nothing"
    ALARM = "alarm"
    REFUSED = "refused"  # an identity check said no


@dataclass(frozen=True)
class Drain:
    """A machine takes no new work, so that it may be stopped. `token` changes with every drain.

    `asked_by` is `policy` or a user. `answer`: what the machine itself said to this token, None as long as it is silent.
    """

    token: str
    since: datetime
    reason: str
    asked_by: str = "policy"
    answer: Answer | None = None


@dataclass(frozen=True)
class Answer:
    """What a machine says of itself when it is asked whether it may be stopped: `busy` names what it does."""

    token: str
    at: datetime
    busy: tuple[str, ...]


@dataclass(frozen=True)
class Disk:
    """The room of a machine's data file system, in bytes and inodes, and whether its volume may be grown."""

    free: int
    total: int
    inodes_free: int
    inodes_total: int
    path: str = ""
    volume: str | None = None


@dataclass(frozen=True)
class Notice:
    """What the cloud announced: a spot interruption, or a scheduled event, and when it will happen."""

    kind: str
    at: datetime
    text: str


@dataclass(frozen=True)
class Machine:
    """A machine of a pool as the records know it.

    `host`: the name under which its worker registered, None until it did. `started_at`: when it was asked to start, or
    was seen running first. `refused`: why it is none that Seatrial may start or stop. `price`: an hour, in the pool's currency.
    """

    instance: str
    pool: str
    state: MachineState
    state_since: datetime
    region: str = ""
    account: str = ""
    kind: str = ""  # the instance type
    host: str | None = None
    registered_at: datetime | None = None
    seen_at: datetime | None = None
    started_at: datetime | None = None
    why_on: str = ""
    drain: Drain | None = None
    disk: Disk | None = None
    notice: Notice | None = None
    refused: str | None = None
    price: Decimal | None = None


@dataclass(frozen=True)
class Hold:
    """Somebody keeps a pool, or one machine of it, awake until a time."""

    id: int
    pool: str
    instance: str | None
    until: datetime
    reason: str
    made_by: str
    made_at: datetime
    released_at: datetime | None = None
    released_by: str | None = None

    def holds(self, instance: str, now: datetime) -> bool:
        """Tell whether it keeps a machine awake at a time."""
        return self.released_at is None and now < self.until and self.instance in (None, instance)


@dataclass(frozen=True)
class MachineNow:
    """A machine and what is done on it now.

    `leases`: tasks that run on its host. `slots`: those of its worker that take work, or do a task. `busy`: what else it is
    known to do (a debug shell). `idle_since`: when its last task ended, or it registered; None while it works or was never
    heard of. `kept_at`: when a drain of it was last given up, since the machine said that it is busy, or said nothing.
    """

    machine: Machine
    leases: int = 0
    slots: int = 0
    busy: tuple[str, ...] = ()
    idle_since: datetime | None = None
    kept_at: datetime | None = None


@dataclass(frozen=True)
class PoolNow:
    """All that is known of a pool when it is decided on.

    `queued`: tasks that wait for a slot now; `oldest_queued`: since when the first of them waits. `due`: when interrupted
    and scheduled ones will be queued. `forms`: when somebody opened the new-run form lately, newest last. `arrivals`: when
    runs of this pool came in lately, newest last. `short`: until when an instance or type was found without capacity.
    `gaps`: for how many seconds the pool was idle before work came, or a form was opened, newest last.
    """

    pool: str
    machines: tuple[MachineNow, ...] = ()
    queued: int = 0
    oldest_queued: datetime | None = None
    due: tuple[datetime, ...] = ()
    holds: tuple[Hold, ...] = ()
    forms: tuple[datetime, ...] = ()
    arrivals: tuple[datetime, ...] = ()
    short: Mapping[str, datetime] = field(default_factory=dict)
    gaps: tuple[float, ...] = ()


@dataclass(frozen=True)
class Arrival:
    """When a run of a pool came in, first started to work, and ended; None: not yet."""

    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True)
class Arrivals:
    """What came to a pool, oldest first: its runs, and when forms for new ones were opened."""

    runs: tuple[Arrival, ...]
    forms: tuple[datetime, ...]


@dataclass(frozen=True)
class Decision:
    """What to do with a machine and why, in words: `code` is stable, `until` tells when it would be decided otherwise."""

    action: Action
    code: str
    reason: str
    instance: str | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class Recorded:
    """A decision in the history: who or what made it, and what came of it."""

    id: int
    at: datetime
    pool: str
    action: Action
    instance: str | None
    code: str
    reason: str
    made_by: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Interval:
    """A time for which a machine was billed; `ended_at` is None while it runs. `price`: an hour of it."""

    instance: str
    pool: str
    started_at: datetime
    ended_at: datetime | None
    price: Decimal | None
    cause: str = ""


class WishKind(StrEnum):
    """What people ask for; FORM tells that somebody opened the form for a new run."""

    START = "start"
    STOP = "stop"
    FORM = "form"


@dataclass(frozen=True)
class Wish:
    """Something that a person asked for; the controller carries it out and says what came of it.

    `instance` is None for any machine of the pool.
    """

    id: int
    pool: str
    instance: str | None
    kind: WishKind
    reason: str
    made_by: str
    made_at: datetime
    done_at: datetime | None = None
    outcome: str | None = None


@dataclass(frozen=True)
class Watch:
    """When a pool was last looked after, when EC2 last answered, and what is wrong with that."""

    pool: str
    seen_at: datetime
    asked_at: datetime | None = None
    problem: str | None = None
