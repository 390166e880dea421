"""What the JSON API gives; with web.queries, what it takes, the OpenAPI document is generated from these models."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, StringConstraints

# What an SQL integer holds: a larger number names nothing.
MAX_ID = 2**63 - 1


def rfc3339(at: datetime) -> str:
    """Write a time as RFC 3339 in UTC with milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def printable(text: str) -> str:
    """Refuse a NUL, which no store can hold."""
    if "\x00" in text:
        raise ValueError("a NUL character is not allowed")
    return text


Time = Annotated[datetime, PlainSerializer(rfc3339, return_type=str, when_used="json")]
Text = Annotated[str, AfterValidator(printable)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=300), AfterValidator(printable)]
Id = Annotated[int, Field(ge=1, le=MAX_ID)]
UnitClassName = Literal[
    "same", "equivalent", "different", "baseline_failed", "candidate_failed", "both_failed", "missing", "new"
]
ChangeName = Literal["value", "type", "null", "format", "removed", "added"]
RunStateName = Literal["queued", "running", "interrupted", "done", "failed", "errored", "cancelled"]
UnitStateName = Literal["todo", "done", "failed"]


class Shape(BaseModel):
    """What the API answers with."""

    model_config = ConfigDict(frozen=True, serialize_by_alias=True)


class ReasonOut(Shape):
    code: str
    text: str


class RefCommit(Shape):
    ref: str
    commit: str


class CountsOut(Shape):
    total: int | None
    done: int
    failed: int


class ReusedOut(Shape):
    """The earlier leg of the same commit that was looked at.

    `units` were taken over from it, which took `seconds_saved` there; `proof`: what is the same. When `differs` names
    something (specification, image, data, migrations, units), nothing was.
    """

    run: int
    leg: str
    units: int
    seconds_saved: float
    differs: list[str]
    proof: dict[str, str | None] | None


class LegOut(Shape):
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
    reused: ReusedOut | None = Field(description="What was taken over from an earlier run; null: none was looked for.")
    database: str | None = Field(description="The source of its data.")
    snapshot: str | None = Field(description="The snapshot of its source that it was made from, by name.")


class LinksOut(Shape):
    self: str
    page: str
    log: str
    stream: str
    units: str
    diffs: str | None
    outputs: str


class RemovedOut(Shape):
    """When outputs and log were removed, and in words by which rule."""

    at: Time
    text: str


class RunOut(Shape):
    """A run."""

    id: int
    project: str
    ref: str
    commit: str
    baseline: RefCommit | None
    state: RunStateName
    verdict: Literal["passed", "different"] | None
    reason: ReasonOut | None
    units: CountsOut
    different: int = Field(description="Units of a compare run that are not the same, equivalent, new or noisy.")
    accepted: int = Field(description="Of these, the units whose causes are all accepted: they count no more.")
    accepted_groups: int = Field(description="Groups of differences that are accepted in this run.")
    attempts: int
    created_at: Time
    started_at: Time | None
    finished_at: Time | None
    legs: list[LegOut]
    user: str
    note: str
    priority: int
    database: str | None
    units_filter: str | None
    pool: str
    cancel_requested: bool
    parent: int | None
    options: dict[str, Any]
    outputs_removed: RemovedOut | None
    links: LinksOut


class EstimateOut(Shape):
    seconds_left: float | None
    units_per_minute: float | None
    basis: str


class StepOut(Shape):
    task: int
    attempt: int
    name: str
    state: str
    started_at: Time
    seconds: float | None
    detail: str


class TaskOut(Shape):
    id: int
    leg: str
    kind: Literal["prepare", "verify"]
    batch: int
    state: RunStateName
    attempt: int
    host: str | None
    worker: str | None
    reason: ReasonOut | None
    units: CountsOut
    log_size: int
    created_at: Time
    started_at: Time | None
    finished_at: Time | None


class WaitingOut(Shape):
    """Why nothing of a run runs. `until`: when that is over at the latest, where it is known."""

    code: str
    text: str
    until: Time | None


class RunDetail(RunOut):
    """A run with its tasks and steps, an estimate while it goes on, and what it waits for while nothing of it runs."""

    waiting: WaitingOut | None
    estimate: EstimateOut | None
    tasks: list[TaskOut]
    steps: list[StepOut]


class RunsOut(Shape):
    runs: list[RunOut]
    next: str | None
    previous: str | None


class OutputOut(Shape):
    name: str
    digest: str
    size: int
    tree: bool
    href: str


class UnitOut(Shape):
    leg: str
    unit: str
    position: int
    task: int | None
    state: UnitStateName
    text: str
    output: OutputOut | None
    seconds: float | None
    attempt: int | None


class UnitsOut(Shape):
    units: list[UnitOut]
    counts: dict[str, CountsOut]
    next: str | None


class WorkOut(Shape):
    """What an attempt did with its task's units.

    `kept`: finished before, not run again. `finished`: by this attempt; `failed` of these failed. `void`: finished
    before, and taken back to be run again. `adopted`: it went on with a container that ran on without a worker.
    `begun_again`: what was in flight when the attempt before was cut off had to begin again. `text`: all of it in words.
    """

    kept: int
    finished: int
    failed: int
    void: int
    adopted: bool
    begun_again: bool
    text: str


class AttemptOut(Shape):
    task: int
    attempt: int
    worker: str
    host: str
    started_at: Time
    ended_at: Time | None
    outcome: str | None
    reason: ReasonOut | None
    log_offset: int
    work: WorkOut


class AttemptsOut(Shape):
    attempts: list[AttemptOut]


class EventOut(Shape):
    id: int
    task: int | None
    attempt: int | None
    at: Time
    kind: str
    data: dict[str, Any]


class EventsOut(Shape):
    events: list[EventOut]
    next: str | None


class LineOut(Shape):
    """A line: its number from 1, the byte at which it begins, and its text (non-UTF-8 bytes replaced).

    `cut` is how many bytes of a very long line are not shown.
    """

    n: int
    offset: int
    text: str
    cut: int


class LinesOut(Shape):
    """A window of a log. `next_offset` is the byte after the last one shown; `open` tells that it ends no line."""

    task: int
    lines: list[LineOut]
    total: int
    size: int
    next_offset: int
    open: bool


class HitsOut(Shape):
    task: int
    hits: list[LineOut]
    next: int | None = Field(description="The line from which to go on; null when the end was reached.")
    total: int


class ProjectOut(Shape):
    name: str
    repository: str
    default_baseline: str | None
    pool: str
    database: str | None


class ProjectsOut(Shape):
    projects: list[ProjectOut]


class RefOut(Shape):
    name: str
    kind: Literal["branch", "tag", "pull", "commit"]
    commit: str


class RefsOut(Shape):
    refs: list[RefOut]


class KnownUnitsOut(Shape):
    """The units that the last run listed, and how many of them a filter chooses. `run` is null before the first run."""

    run: int | None
    ref: str | None
    total: int | None
    matching: int | None
    first: list[str]


class CommitOut(Shape):
    sha: str
    subject: str
    author: str
    at: Time


class PreviewOut(Shape):
    ref: RefOut
    commit: CommitOut
    spec_source: str
    spec: dict[str, Any]


class WorkerOut(Shape):
    name: str
    host: str
    pid: int
    started_at: Time
    seen_at: Time
    task: int | None
    draining: bool
    shortage: str | None


class HealthOut(Shape):
    healthy: bool
    problems: list[str]


class ProblemItem(Shape):
    key: str
    message: str
    value: str | None = None
    line: int | None = None
    column: int | None = None
    remedy: str | None = None


class ProblemOut(Shape):
    """An RFC 9457 problem document."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[ProblemItem] = Field(default_factory=list)
