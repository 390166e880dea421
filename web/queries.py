"""What the JSON API takes: bodies and query strings. Unknown keys and bad values are refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from web.schemas import MAX_ID, ChangeName, Id, Name, RunStateName, Text, UnitClassName, UnitStateName, printable

NOTE_LIMIT = 2_000
KEY_LIMIT = 255


class Strict(BaseModel):
    """Refuses what it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RunBody(BaseModel):
    """A submission."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    project: Name
    ref: Name = Field(description="Branch, tag, full or abbreviated commit, or refs/pull/N/head.")
    baseline: Name | None = Field(None, description="The ref to compare with.")
    units: Text | None = Field(None, max_length=2_000, description="Run only the units that match.")
    database: Name | None = Field(None, description="One of the project's databases.")
    priority: int = Field(0, ge=-100, le=100)
    note: Text = Field("", max_length=NOTE_LIMIT, description="What could this change affect?")
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="compare: true compares with the project's default baseline when none is named; merge_base: true "
        "compares with the commit at which the candidate left its baseline; fail_fast: N stops when N units differ, "
        "whatever the branch says (0: never); reuse: false takes nothing over from an earlier run; noise: 2 runs the "
        "baseline twice and leaves out of the verdict what differs between the two (1: never); "
        "baseline_database: the same commit on both legs, the baseline's data from this database; "
        "snapshot, baseline_snapshot: the snapshot that a leg is made from, instead of the newest.",
    )


class RerunBody(BaseModel):
    """What of a run is wanted again."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    only: Literal["different"] | None = Field(None, description="Only units that differ, failed or are missing.")


class AcceptBody(BaseModel):
    """Why a group of differences is accepted; nothing at all takes over what its project accepted already."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: Text = Field("", description="By which others know it; 100 characters at most.")
    reason: Text = Field("", description="Why the difference is right; 2,000 characters at most.")
    expires: Text | int | None = Field(None, description="The last day (2027-02-28), or days (90, 90d); 90 days.")


class RunsQuery(Strict):
    """What a list of runs is narrowed to."""

    project: Name | None = None
    state: RunStateName | None = None
    verdict: Literal["passed", "different"] | None = None
    user: Name | None = None
    ref: Name | None = None
    text: Name | None = Field(None, description="Searches ref, commit, note and user.")
    before: Id | None = Field(None, description="Only runs older than this one.")
    after: Id | None = Field(None, description="Only runs newer than this one.")
    limit: int = Field(50, ge=1, le=200)


class UnitsQuery(Strict):
    """What a run's units are narrowed to."""

    leg: Name | None = None
    state: UnitStateName | None = None
    text: Name | None = None
    task: Id | None = None
    after: int | None = Field(None, ge=-1, le=MAX_ID, description="Only units after this position.")
    limit: int = Field(200, ge=1, le=1_000)


class DiffsQuery(Strict):
    """What a compare run's units are narrowed to."""

    kind: UnitClassName | Literal["differing", "noisy"] | None = Field(
        None,
        alias="class",
        description="differing: the classes that speak against the candidate, without what is noisy; noisy: only that.",
    )
    text: Name | None = None
    tenant: Text | None = Field(None, max_length=300, description="What stands before the last slash of a unit.")
    report: Name | None = Field(None, description="What stands behind it.")
    group: Name | None = Field(None, description="Only units that share this cause, by its key.")
    accepted: bool | None = Field(None, description="Only units that are wholly accepted, or only the others.")
    sort: Literal["position", "delta"] = Field(
        "position", description="delta: the largest first, only units that have one."
    )
    after: int | None = Field(None, ge=-1, le=MAX_ID, description="Only units after this position.")
    delta: float | None = Field(None, allow_inf_nan=False, description="With sort=delta: the last one's `largest`.")
    limit: int = Field(200, ge=1, le=1_000)


class DiffsFileQuery(Strict):
    """What a compare run's units are narrowed to in a file of all of them."""

    kind: UnitClassName | Literal["differing", "noisy"] | None = Field(None, alias="class")
    text: Name | None = None
    tenant: Text | None = Field(None, max_length=300)
    report: Name | None = None
    group: Name | None = None
    accepted: bool | None = None


class HeatQuery(Strict):
    """Which tenants of the map are wanted."""

    first: int = Field(0, ge=0, le=MAX_ID, description="So many tenants are left out before.")
    limit: int = Field(60, ge=1, le=200)


class NoiseQuery(Strict):
    """Which of the units that move are wanted."""

    after: int | None = Field(None, ge=-1, le=MAX_ID, description="Only units after this position.")
    limit: int = Field(200, ge=1, le=1_000)


class LatencyQuery(Strict):
    """How many of the slower units are wanted."""

    limit: int = Field(200, ge=1, le=1_000)


class DiffQuery(Strict):
    """Which of a unit's stored differences are wanted; they come largest first."""

    column: Name | None = None
    change: ChangeName | None = None
    file: Name | None = Field(None, description="Of an output of several files.")
    after: int = Field(0, ge=0, le=MAX_ID)
    limit: int = Field(200, ge=1, le=1_000)


class DiffFileQuery(Strict):
    """Which of a unit's stored differences are wanted in a file."""

    column: Name | None = None
    change: ChangeName | None = None
    file: Name | None = None


class EventsQuery(Strict):
    """From where on events are wanted."""

    after: int = Field(0, ge=0, le=MAX_ID)
    limit: int = Field(500, ge=1, le=1_000)


class OutputQuery(Strict):
    """Which leg's output, and which file of it when there are several."""

    leg: Name = "candidate"
    path: Name | None = None


class OffsetQuery(Strict):
    """From which byte on a log is wanted, and at most how many."""

    offset: int = Field(0, ge=0, le=MAX_ID)
    limit: int | None = Field(None, ge=1, le=MAX_ID, description="At most so many bytes; all there are when absent.")


class LinesQuery(Strict):
    """A window of a log's lines; a negative `start` counts from the end."""

    start: int = Field(1, ge=-5_000, le=MAX_ID)
    count: int = Field(500, ge=1, le=5_000)


class SearchQuery(Strict):
    """A search in a log. `line` is the first line looked at; one answer looks at 64 MiB at most."""

    q: Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(printable)]
    line: int = Field(1, ge=1, le=MAX_ID)
    limit: int = Field(200, ge=1, le=1_000)


class StreamQuery(Strict):
    """What a stream holds and where it goes on."""

    cursor: Text | None = Field(None, max_length=100_000, description="Instead of Last-Event-ID.")
    logs: Annotated[str, StringConstraints(pattern=r"^(all|none|[0-9]{1,18})$")] = Field(
        "all", description="all, none, or the id of the only task whose log is wanted."
    )
    view: Literal["page"] | None = Field(None, description="Add the page's own fragments.")


class RefsQuery(Strict):
    """The beginning of a ref's name."""

    q: Annotated[str, StringConstraints(max_length=300), AfterValidator(printable)] = ""
    limit: int = Field(50, ge=1, le=500)


class KnownUnitsQuery(Strict):
    """A ref, whose own last run is looked at first, and a filter."""

    ref: Name | None = None
    filter: Text | None = Field(None, max_length=2_000, description="Globs with commas between them; all when absent.")


class PreviewQuery(Strict):
    """The ref to look at."""

    ref: Name


class NoQuery(Strict):
    """Nothing."""
