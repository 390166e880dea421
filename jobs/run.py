"""Records of a run, the one state machine, and what a run's state is, derived from its tasks. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Any

from runner.errors import (
    DatabaseUnavailable,
    DiskFull,
    EngineUnavailable,
    ImageGone,
    RegistryUnavailable,
    RepositoryUnavailable,
    StoreUnavailable,
)
from runner.model import Output, Reason, TaskKind, UnitState
from runner.quota import Used


class TaskState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    DONE = "done"
    FAILED = "failed"
    ERRORED = "errored"
    CANCELLED = "cancelled"


class RunState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    DONE = "done"
    FAILED = "failed"
    ERRORED = "errored"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (RunState.DONE, RunState.FAILED, RunState.ERRORED, RunState.CANCELLED)


class Verdict(StrEnum):
    PASSED = "passed"
    DIFFERENT = "different"


_S = TaskState

TRANSITIONS: frozenset[tuple[TaskState, TaskState]] = frozenset(
    {
        (_S.QUEUED, _S.RUNNING),  # claim, the only door to running: raises the attempt, sets the lease
        (_S.QUEUED, _S.CANCELLED),
        (_S.QUEUED, _S.ERRORED),
        (_S.RUNNING, _S.DONE),
        (_S.RUNNING, _S.FAILED),
        (_S.RUNNING, _S.CANCELLED),
        (_S.RUNNING, _S.ERRORED),
        (_S.RUNNING, _S.INTERRUPTED),
        (_S.INTERRUPTED, _S.QUEUED),
        (_S.INTERRUPTED, _S.CANCELLED),
        (_S.INTERRUPTED, _S.ERRORED),
        (_S.FAILED, _S.QUEUED),  # these three by an explicit resume only
        (_S.ERRORED, _S.QUEUED),
        (_S.CANCELLED, _S.QUEUED),
    }
)

FINAL_TASK_STATES = frozenset({_S.DONE, _S.FAILED, _S.ERRORED, _S.CANCELLED})

# Three interruptions in a row without a finished unit: somebody has to look.
BUDGET_WITHOUT_PROGRESS = 3
# Who has lost two workers within seconds waits for the last try until what befalls the host is over: a run is taken for
# the cause of the third loss, not for the victim of a bad minute.
LAST_TRY_SECONDS = 30.0

# What a task needs is away, and says so: that is no mark against the task. It is tried again, ever more rarely, for as
# long as a failover, a reconnecting tunnel or a night's maintenance may take.
OUTAGES = frozenset(
    error.code
    for error in (
        DatabaseUnavailable,
        DiskFull,
        EngineUnavailable,
        ImageGone,
        RegistryUnavailable,
        RepositoryUnavailable,
        StoreUnavailable,
    )
)
OUTAGE_SECONDS = 6 * 3600.0
# A try is at most a minute after the one before, and takes some minutes when what it asks does not answer. Between two
# that are further apart nobody tried (the machine was off, all slots were busy), or the task worked: only so much counts.
OUTAGE_STEP_SECONDS = 600.0
# No task waits for longer than a minute by itself, or for a clean-up. What is due later than this was written before the
# clock was set back (a machine whose hardware clock is wrong until it asks the network), and is due now.
FAR_SECONDS = 600.0
# The process or the host that had the task is gone, or silent for longer than its lease.
WORKER_LOST = "worker_lost"
# Why a compare run ends itself: as many units differ as somebody wants to see; one leg cannot be prepared.
FAIL_FAST = "fail_fast"
LEG_FAILED = "leg_failed"
# How the shortage of a slot begins that could start no container, and of one whose host takes no work at all; what it
# lacks otherwise is room on a disk.
NO_ENGINE = "its Docker engine is not ready"
CLOSED = "it is about to go"
# And of one that has room, but less than what is queued is expected to take.
NO_FIT = "too little room for what is next"


class IllegalTransition(Exception):
    """The state machine has no such step."""


def check_transition(old: TaskState, new: TaskState) -> None:
    """Raise IllegalTransition when the state machine has no step from `old` to `new`."""
    if (old, new) not in TRANSITIONS:
        raise IllegalTransition(f"{old} → {new}")


def backoff(interruptions_without_progress: int) -> float:
    """Give the seconds to wait before the next try: 1, 2, 4 … 60."""
    return float(min(60, 2 ** max(0, interruptions_without_progress - 1)))


def is_due(due_at: datetime, now: datetime) -> bool:
    """Tell whether the time of a task has come."""
    return not now < due_at <= now + timedelta(seconds=FAR_SECONDS)


@dataclass(frozen=True)
class Interruption:
    """What an interruption comes to: errored, or another try after `delay` seconds."""

    errored: bool
    delay: float
    fruitless: int
    why: str = ""


def interruption(
    code: str, *, progress: bool, fruitless: int, free: bool, outages: Sequence[float], now: float
) -> Interruption:
    """Decide on an interruption.

    `fruitless`: interruptions in a row before this one that ended no unit and were no outage. `free`: a drain, which
    never costs. `outages`: when the outages that directly precede this interruption ended their attempts, in seconds.
    """
    if code in OUTAGES and progress:
        return Interruption(False, backoff(1), 0)
    if code in OUTAGES:
        if _tried([*outages, now]) > OUTAGE_SECONDS:
            why = f"what it needs has been away through {OUTAGE_SECONDS / 3600:.0f} hours of tries"
            return Interruption(True, 0.0, fruitless, why)
        return Interruption(False, backoff(len(outages) + 1), fruitless)
    if progress:
        return Interruption(False, 0.0 if free or code == WORKER_LOST else backoff(0), 0)
    if free:
        return Interruption(False, 0.0, fruitless)
    fruitless += 1
    if fruitless >= BUDGET_WITHOUT_PROGRESS:
        return Interruption(True, 0.0, fruitless, f"interrupted {fruitless} times in a row without progress")
    if code == WORKER_LOST and fruitless == 1:
        return Interruption(False, 0.0, fruitless)  # its container goes on: somebody else follows it at once
    if code == WORKER_LOST:
        return Interruption(False, LAST_TRY_SECONDS, fruitless)
    return Interruption(False, backoff(fruitless), fruitless)


def _tried(ends: Sequence[float]) -> float:
    """Give for how many seconds attempts that ended at these times tried one after the other."""
    return sum(min(after - before, OUTAGE_STEP_SECONDS) for before, after in pairwise(sorted(ends)))


@dataclass(frozen=True)
class UnitCounts:
    """How many units there are, and how they stand; `total` is None until the list is known."""

    total: int | None = None
    done: int = 0
    failed: int = 0


@dataclass(frozen=True)
class TaskFacts:
    """What deriving a run needs to know of a task."""

    kind: TaskKind
    state: TaskState
    attempt: int
    reason: Reason | None


@dataclass(frozen=True)
class Derived:
    """A run's (or a leg's) state, its verdict when it is done, and why."""

    state: RunState
    verdict: Verdict | None
    reason: Reason | None


@dataclass(frozen=True)
class Comparison:
    """How far the units of a compare run are compared. `left`: some have no class yet; `different`: how many differ.

    `accepted`: so many of these are wholly explained by what was accepted.
    `cancelled`: nobody wants to know any more, and who said so. `stopped`: why it ended itself before all was compared.
    """

    left: bool = False
    different: int = 0
    cancelled: Reason | None = None
    stopped: Reason | None = None
    accepted: int = 0


def verdict_of(comparison: Comparison) -> Verdict:
    """Give what a comparison comes to: different when a unit is that nobody accepted.

    One that was stopped because units differed stays so: what it did not compare cannot have been accepted.
    """
    if comparison.different > (0 if comparison.stopped is not None else comparison.accepted):
        return Verdict.DIFFERENT
    return Verdict.PASSED


def derive(tasks: Iterable[TaskFacts], *, comparison: Comparison | None = None) -> Derived:
    """Derive a run's state from its tasks. `comparison` is None when nothing is compared.

    Work that goes on comes first, then the gravest end: errored, cancelled, failed, done. A failing batch of a
    compare run is a class of its units, so there only a failed preparation fails the run; and it goes on until all
    its units are compared. What was cancelled because the run was stopped does not count.
    """
    facts = list(tasks)
    states = [fact.state for fact in facts]

    def first_reason(state: TaskState) -> Reason | None:
        return next((fact.reason for fact in facts if fact.state is state and fact.reason), None)

    if _S.RUNNING in states:
        return Derived(RunState.RUNNING, None, None)
    if _S.INTERRUPTED in states:
        return Derived(RunState.INTERRUPTED, None, first_reason(_S.INTERRUPTED))
    if _S.QUEUED in states:
        started = any(fact.attempt > 0 for fact in facts)
        return Derived(RunState.RUNNING if started else RunState.QUEUED, None, None)
    if _S.ERRORED in states:
        return Derived(RunState.ERRORED, None, first_reason(_S.ERRORED))
    stopped = comparison.stopped if comparison is not None and not comparison.cancelled else None
    if _S.CANCELLED in states and stopped is None:
        return Derived(RunState.CANCELLED, None, first_reason(_S.CANCELLED))
    failed = [fact for fact in facts if fact.state is _S.FAILED]
    if any(fact.kind is TaskKind.PREPARE or comparison is None for fact in failed):
        return Derived(RunState.FAILED, None, first_reason(_S.FAILED))
    if comparison is not None and comparison.left:
        if comparison.cancelled:
            return Derived(RunState.CANCELLED, None, comparison.cancelled)
        return Derived(RunState.RUNNING, None, None)
    return Derived(RunState.DONE, Verdict.PASSED if comparison is None else verdict_of(comparison), stopped)


# ---- records, as the store gives them ----------------------------------------------------------------------


@dataclass(frozen=True)
class Leg:
    """One commit on one base of data. `reused`: what became of the search for an earlier leg (jobs.reusing).

    `database`: the source of its data; `snapshot`: the name of the one that it was made from, once it was.
    """

    name: str
    ref: str
    commit: str
    subject: str
    author: str
    spec_source: str
    spec_digest: str
    image: str | None
    image_digest: str | None
    data_id: str | None
    prepared: bool
    reused: Mapping[str, Any] | None = None
    database: str | None = None
    snapshot: str | None = None


@dataclass(frozen=True)
class Removed:
    """When outputs and log of a run were removed, and by which rule."""

    at: datetime
    why: str

    @property
    def text(self) -> str:
        return f"Outputs and log were removed on {self.at:%Y-%m-%d}, {self.why}."


@dataclass(frozen=True)
class Run:
    """One submission."""

    id: int
    project: str
    legs: tuple[Leg, ...]
    state: RunState
    verdict: Verdict | None
    reason: Reason | None
    units: UnitCounts
    attempts: int
    user: str
    note: str
    priority: int
    units_filter: str | None
    database: str | None
    pool: str
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    parent: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    removed: Removed | None = None
    units_different: int = 0
    units_accepted: int = 0
    groups_accepted: int = 0

    @property
    def candidate(self) -> Leg:
        return next(leg for leg in self.legs if leg.name == "candidate")

    @property
    def baseline(self) -> Leg | None:
        return next((leg for leg in self.legs if leg.name == "baseline"), None)

    @property
    def two_databases(self) -> bool:
        """Tell whether the legs take their data from two sources."""
        return len({leg.database for leg in self.legs if leg.database is not None}) > 1


@dataclass(frozen=True)
class Task:
    """What a worker claims: a leg's `prepare`, or one batch (`verify`).

    `need`: what its workspace is expected to take of a disk, by what an earlier run took; None when none can tell.
    """

    id: int
    run: int
    leg: str
    kind: TaskKind
    batch: int
    state: TaskState
    attempt: int
    execution: int
    pool: str
    host: str | None
    worker: str | None
    reason: Reason | None
    priority: int
    units_total: int
    units_done: int
    units_failed: int
    log_size: int
    created_at: datetime
    due_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    need: Used | None = None


def unlisted(run: Run, tasks: Iterable[Task]) -> list[str]:
    """Name the legs that have yet to list their units: nothing was taken over for them, and they have no batch."""
    known = {task.leg for task in tasks if task.kind is TaskKind.VERIFY}
    known |= {leg.name for leg in run.legs if leg.prepared or (leg.reused or {}).get("units")}
    return [leg.name for leg in run.legs if leg.name not in known]


@dataclass(frozen=True)
class Attempt:
    """One claim of a task, how it ended and how many units it finished or had to repeat."""

    task: int
    attempt: int
    worker: str
    host: str
    started_at: datetime
    ended_at: datetime | None
    outcome: str | None
    reason: Reason | None
    log_offset: int


@dataclass(frozen=True)
class StepRecord:
    """A step of a task with its duration in seconds."""

    task: int
    attempt: int
    name: str
    state: str
    started_at: datetime
    seconds: float | None
    detail: str


@dataclass(frozen=True)
class Unit:
    """A unit of a leg. `seconds` is how long it took, `text` why it failed."""

    leg: str
    unit: str
    position: int
    task: int | None
    state: UnitState
    text: str
    output: Output | None
    seconds: float | None
    attempt: int | None


@dataclass(frozen=True)
class Event:
    """Something that happened to a run: every transition is one, and so is all that the sweeper does to what is the run's.

    What it does to things that are no run's is told by SqlKeeping.notes.
    """

    id: int
    run: int
    task: int | None
    attempt: int | None
    at: datetime
    kind: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Worker:
    """A slot of a pool, alive while `seen_at` is recent. `shortage`: why it takes no new work."""

    name: str
    host: str
    pool: str
    pid: int
    started_at: datetime
    seen_at: datetime
    task: int | None
    draining: bool
    shortage: str | None = None


@dataclass(frozen=True)
class Page:
    """Some runs of a long list, newest first; `next` is the id to give as `before` for the next page."""

    runs: tuple[Run, ...]
    next: int | None
    previous: int | None = None


@dataclass(frozen=True)
class RunFilter:
    """What a list of runs is narrowed to; `text` searches ref, commit, note and user."""

    project: str | None = None
    state: RunState | None = None
    user: str | None = None
    ref: str | None = None
    text: str | None = None
    verdict: Verdict | None = None
