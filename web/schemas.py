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


class DiffOut(Shape):
    """What became of a unit of a compare run.

    `rows` counts those that changed, were added, were removed, and are the same; null where no table was read.
    `largest` is the size of the largest difference of two numbers, `rule` the pattern of the rule that held,
    `leniencies` what had to be overlooked, `notes` what a reader should know. `noisy`: it is different, but by nothing
    that does not move between two runs of the baseline too, so that it does no harm.
    """

    unit: str
    position: int
    kind: UnitClassName = Field(alias="class")
    noisy: bool
    rows: dict[str, int] | None
    largest: float | None
    rule: str | None
    leniencies: list[str]
    notes: list[str]
    seconds: float
    links: dict[str, str]


class DiffsOut(Shape):
    """Units of a compare run after a position. `counts`: units by class; `left`: those that are not compared yet."""

    units: list[DiffOut]
    counts: dict[str, int]
    left: int
    next: str | None


class DiffDetail(DiffOut):
    """A unit with all that its comparison found, and some of its stored differences, largest first.

    `result` is what `seatrial diff --format json` prints. `stored` differences of `found` are kept; `truncated` says why
    not all.
    """

    result: dict[str, Any]
    differences: list[dict[str, Any]]
    found: int
    stored: int
    truncated: str | None
    noise: MovesOut | None = Field(description="What moves in it between two runs of the baseline; null: nothing.")
    next: str | None


class MovesOut(Shape):
    """What moves in a unit between two runs of the baseline.

    `columns` have cells that do; `whole` names what else does: rows, shape (columns), bytes, files, other. `changed`: how
    many rows; `examples`: some of the differences between the two.
    """

    columns: list[str]
    whole: list[Literal["rows", "shape", "bytes", "other", "files"]]
    words: str
    changed: int
    examples: list[dict[str, Any]]


class UnstableOut(MovesOut):
    """A unit that moves, and its class; `noisy`: it is different by that alone."""

    unit: str
    kind: UnitClassName = Field(alias="class")
    noisy: bool
    links: dict[str, str]


class NoiseOut(Shape):
    """What two runs of the baseline differ in. `baseline_runs`: 1 when nothing could be learnt.

    `checked` units were made twice and compared, `unstable` of them move, and `noisy` are different by that alone: they
    are left out of the verdict.
    """

    baseline_runs: int
    checked: int
    unstable: int
    noisy: int
    units: list[UnstableOut]
    next: str | None


class PartOut(Shape):
    """The units of a tenant or a report by class; `differing` are those that speak against the candidate."""

    name: str
    counts: dict[str, int]
    differing: int
    noisy: int
    total: int


class ColumnOut(Shape):
    """What differs in a column: units, cells, and the size of the largest delta; `kinds` counts cells."""

    column: str
    units: int
    cells: int
    delta: float | None
    kinds: dict[str, int]


class ComparisonOut(Shape):
    """A compare run from above. `reports`, `tenants`, `columns` and `largest` are the worst ones, not all.

    `columns` sums up the first `columns_of` differing units. `noisy` units are different by noise alone.
    """

    counts: dict[str, int]
    left: int
    differing: int
    noisy: int
    verdict: str
    reports: list[PartOut]
    tenants: list[PartOut]
    columns: list[ColumnOut]
    columns_of: int
    largest: list[DiffOut]


class HeatOut(Shape):
    """Classes by tenant and report: `cells` has a list for each tenant, null where there is no such unit.

    Tenants with the most differing units come first; `differing` have one at all. `whole` tells that all are here.
    """

    tenants: list[PartOut]
    reports: list[str]
    cells: list[list[UnitClassName | None]]
    differing: int
    whole: bool
    more_reports: int


class DurationOut(Shape):
    unit: str
    baseline: float
    candidate: float


class DurationsOut(Shape):
    """Seconds of the units that both legs finished. `slower` are the worst of `slower_count` beyond `ratio` and `floor`."""

    count: int
    baseline: float
    candidate: float
    ratio: float
    floor: float
    slower_count: int
    slower: list[DurationOut]


class LegTimesOut(Shape):
    """Where and when a leg's units ran. `reused_from`: the run in which units were timed that were taken over."""

    name: str
    hosts: list[str]
    started_at: Time | None
    seconds: float
    reused_from: int | None


class SlowerOut(Shape):
    """A unit that became slower, in seconds. `history`: in the project's last runs; `within_noise`: it was as slow there."""

    unit: str
    baseline: float
    candidate: float
    ratio: float | None
    history: list[float]
    within_noise: bool


class LatencyOut(Shape):
    """How long units took on both legs.

    A unit is slower when the candidate takes `ratio` times as long and `floor` seconds more. `units`: those timed on both
    legs; `count`: those that are slower, of which `slower` lists the costliest. `cautions` say why not to trust it blindly.
    """

    ratio: float
    floor: float
    legs: list[LegTimesOut]
    units: int
    count: int
    slower: list[SlowerOut]
    cautions: list[str]


class GroupOut(Shape):
    """A cause of differences that units share.

    `key` is the same in every run. `pattern`: the rule that held, or the last part of the units' names; `what`: the kind
    of change; `sign`: up, down or mixed where numbers changed. `count`: cells or rows. `ratio` and `offset`: the one
    number by which all stored cells were multiplied, or that was added to them; null when there is none. `first`: some
    of the units.
    """

    key: str
    title: str
    pattern: str
    what: str
    column: str | None
    sign: Literal["up", "down", "mixed"] | None
    units: int
    count: int
    ratio: float | None
    offset: float | None
    first: list[str]


class GroupsOut(Shape):
    groups: list[GroupOut]


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

    `kept`: finished before, not run again. `finished`: by this attempt. `void`: finished before, and taken back to be
    run again. `adopted`: it went on with a container that ran on without a worker. `begun_again`: what was in flight
    when the attempt before was cut off had to begin again.
    """

    kept: int
    finished: int
    void: int
    adopted: bool
    begun_again: bool


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


class PoolOut(Shape):
    name: str
    slots: int
    queued: int
    running: int
    workers: list[WorkerOut]


class CapacityOut(Shape):
    pools: list[PoolOut]


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
