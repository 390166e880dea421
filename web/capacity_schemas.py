"""What the JSON API gives and takes of pools whose machines are started and stopped."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from web.queries import Strict
from web.schemas import Id, Name, Shape, Text, Time, WorkerOut

Provider = Literal["local", "ec2"]
Amount = Annotated[Decimal, PlainSerializer(lambda amount: format(amount, "f"), return_type=str, when_used="json")]


class DecisionOut(Shape):
    """What would be done, or was: `code` is stable, `reason` is for people, `until` when it is decided otherwise."""

    action: str
    code: str
    reason: str
    until: Time | None = None


class DiskOut(Shape):
    """The room of a machine's data file system, in bytes and inodes."""

    free: int
    total: int
    inodes_free: int
    inodes_total: int
    path: str
    volume: str | None


class NoticeOut(Shape):
    kind: str
    at: Time
    text: str


class DrainOut(Shape):
    """Since when a machine takes no new work, why, and what it says it does; `busy` is null until it has answered."""

    since: Time
    reason: str
    asked_by: str
    busy: list[str] | None


class HoldOut(Shape):
    id: int
    pool: str
    instance: str | None
    until: Time
    reason: str
    made_by: str
    made_at: Time
    released_at: Time | None
    released_by: str | None


class MachineOut(Shape):
    """A machine: its state by EC2, what it does, and in `decision` what is done with it now and why."""

    instance: str
    state: str
    state_since: Time
    kind: str
    host: str | None
    seen_at: Time | None
    started_at: Time | None
    why_on: str
    tasks: int
    slots: int
    busy: list[str]
    idle_since: Time | None
    disk: DiskOut | None
    notice: NoticeOut | None
    drain: DrainOut | None
    hold: HoldOut | None
    refused: str | None
    decision: DecisionOut
    alarms: list[DecisionOut]


class WishOut(Shape):
    """Something that a person asked for; `outcome` is null until the controller has done it."""

    id: int
    pool: str
    instance: str | None
    kind: str
    reason: str
    made_by: str
    made_at: Time
    done_at: Time | None
    outcome: str | None


class PoolMachinesOut(Shape):
    """The machines of a pool. `watched`: a controller looks after them; without one nothing is started or stopped."""

    policy: str
    min_running: int
    max_running: int
    machines: list[MachineOut]
    holds: list[HoldOut]
    wishes: list[WishOut]
    news: list[DecisionOut]
    short: dict[str, Time] = Field(description="What EC2 has no capacity for, and until when it is not asked for it.")
    watched: bool
    asked_at: Time | None
    problem: str | None


class PoolOut(Shape):
    """A pool, its slots and load; `ec2` is null for one whose machines are there anyway."""

    name: str
    provider: Provider
    slots: int
    queued: int
    running: int
    workers: list[WorkerOut]
    ec2: PoolMachinesOut | None


class CapacityOut(Shape):
    pools: list[PoolOut]


class RecordedOut(Shape):
    id: int
    at: Time
    pool: str
    instance: str | None
    action: str
    code: str
    reason: str
    made_by: str


class DecisionsOut(Shape):
    """Decisions, newest first."""

    decisions: list[RecordedOut]
    next: str | None


class ArrivalOut(Shape):
    """When a run came in, first started to work, and ended."""

    created_at: Time
    started_at: Time | None
    finished_at: Time | None


class ArrivalsOut(Shape):
    """What came to a pool, oldest first; `forms`: when somebody opened the form for a new run."""

    runs: list[ArrivalOut]
    forms: list[Time]


class TotalOut(Shape):
    """A sum: billed seconds, their cost, and the billed seconds whose price is not known."""

    name: str | int | None
    seconds: Amount
    cost: Amount
    unpriced: Amount


class CostOut(Shape):
    """What a run cost so far: its part of the billed seconds; null where it ran on machines that are there anyway."""

    currency: str
    seconds: Amount
    cost: Amount
    unpriced: Amount


class RunCostOut(Shape):
    cost: CostOut | None


class SavedOut(Shape):
    """What was paid, and what machines would have cost that are always on, or stop 30 minutes after their last task."""

    paid: Amount
    always_on: Amount
    half_an_hour: Amount


class DayOut(Shape):
    """What a pool cost on a day of its time zone."""

    day: date
    seconds: Amount
    cost: Amount


class MonthOut(Shape):
    """What a pool cost in a month. A run's part of an interval is borne by it; `null` is time in which none ran."""

    pool: str
    since: Time
    until: Time
    currency: str
    total: TotalOut
    saved: SavedOut | None
    projects: list[TotalOut]
    users: list[TotalOut]
    runs: list[TotalOut]
    days: list[DayOut]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class StartBody(_Body):
    """Which machine to start: any one of the pool when none is named."""

    instance: Text | None = None
    reason: Text = ""


class StopBody(_Body):
    """Which machine to stop, by the same steps as one that is idle."""

    instance: Text
    reason: Text = ""


class HoldBody(_Body):
    """What to keep awake, the whole pool when no machine is named, and for how long: 1m to 7d."""

    instance: Text | None = None
    duration: Text = Field(description="2h, 90m; 1m to 7d.")
    reason: Text = ""


class WishAnswer(Shape):
    wish: WishOut


class HoldAnswer(Shape):
    hold: HoldOut


class DecisionsQuery(Strict):
    """Which decisions: of one machine, or older than one that was seen."""

    instance: Name | None = None
    before: Id | None = Field(None, description="Only decisions older than this one.")
    limit: int = Field(50, ge=1, le=500)


class ArrivalsQuery(Strict):
    """How many of the newest runs and forms."""

    limit: int = Field(2_000, ge=1, le=20_000)


class MonthQuery(Strict):
    """Which month: 2026-11, this one when it is left out."""

    month: Name | None = None
