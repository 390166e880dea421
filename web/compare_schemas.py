"""What the JSON API gives of compare runs; the rest is in web.schemas."""

from __future__ import annotations

from datetime import date
from typing import Any, Literal

from pydantic import Field

from web.schemas import RunOut, Shape, Time, UnitClassName


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
    accepted: bool = Field(description="It differs, and all its causes are accepted.")
    links: dict[str, str]


class DiffsOut(Shape):
    """Units of a compare run after a position. `counts`: units by class; `left`: those that are not compared yet."""

    units: list[DiffOut]
    counts: dict[str, int]
    left: int
    next: str | None


class DiffDetail(DiffOut):
    """A unit with all that its comparison found, and some of its stored differences, largest first.

    `causes`: why it counts as different, none when it does not. `result` is what `seatrial diff --format json` prints.
    `stored` differences of `found` are kept; `truncated` says why not all.
    """

    result: dict[str, Any]
    differences: list[dict[str, Any]]
    found: int
    stored: int
    truncated: str | None
    noise: MovesOut | None = Field(description="What moves in it between two runs of the baseline; null: nothing.")
    causes: list[UnitCauseOut]
    next: str | None


class UnitCauseOut(Shape):
    """A cause for which a unit differs: `count` of its cells or rows do. `key`: the group that it is listed in.

    `accepted`: by which that is explained.
    """

    key: str
    title: str
    what: str
    column: str | None
    count: int
    units: int = Field(description="So many units of the run share it.")
    accepted: list[AcceptanceOut]


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

    A unit is slower when the candidate takes more than `ratio` times as long, and `floor` seconds at least. `units`: those
    that both legs finished and whose times are known, in `baseline` and `candidate` seconds altogether; `count`: those that
    are slower, of which `slower` lists the costliest. `cautions` say why not to trust it blindly.
    """

    ratio: float
    floor: float
    legs: list[LegTimesOut]
    units: int
    baseline: float
    candidate: float
    count: int
    slower: list[SlowerOut]
    cautions: list[str]


class AcceptanceOut(Shape):
    """A cause of differences that a project lives with. With `ratio` or `offset`, only where numbers differ by that.

    `run`: in which it was accepted. `standing`: whether it holds for runs that are compared now.
    """

    id: int
    project: str
    key: str
    title: str
    name: str
    reason: str
    run: int
    made_by: str
    made_at: Time
    expires_at: Time
    last_day: date = Field(description="On which it holds, by UTC.")
    ratio: float | None
    offset: float | None
    standing: Literal["live", "expired", "withdrawn"]
    withdrawn_at: Time | None
    withdrawn_by: str | None


class GroupPartOut(Shape):
    """Units of a group whose numbers went one way, or both (mixed); `key` is that of the cause they have."""

    key: str
    sign: Literal["up", "down", "mixed"]
    units: int


class GroupOut(Shape):
    """A cause of differences that units share.

    `key` is the same in every run. `pattern`: the rule that held, or the last part of the units' names; `what`: the kind
    of change; `sign`: up, down or mixed where numbers changed in each unit so, any where units of these are together
    (`parts`). `count`: cells or rows. `ratio` and `offset`: the one
    number by which all stored cells were multiplied, or that was added to them; null when there is none. `first`: some
    of the units.
    """

    key: str
    title: str
    pattern: str
    what: str
    column: str | None
    sign: Literal["up", "down", "mixed", "any"] | None
    units: int
    count: int
    ratio: float | None
    offset: float | None
    first: list[str]
    parts: list[GroupPartOut]
    accepted_units: int = Field(description="So many of its units are accepted: all their causes are.")
    accepted: list[AcceptanceOut] = Field(description="What it is accepted by in this run.")
    offered: list[AcceptanceOut] = Field(description="What the project accepted since this run was compared.")


class GroupsOut(Shape):
    groups: list[GroupOut]


class AcceptedOut(Shape):
    """What was accepted or withdrawn, and how the run stands now."""

    acceptance: AcceptanceOut
    run: RunOut


class AcceptancesOut(Shape):
    """What was accepted in a project, newest first; nothing is ever deleted."""

    acceptances: list[AcceptanceOut]
