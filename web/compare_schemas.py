"""What the JSON API gives of compare runs; the rest is in web.schemas."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from web.schemas import Shape, Time, UnitClassName


class DiffOut(Shape):
    """What became of a unit of a compare run.

    `rows` counts those that changed, were added, were removed, and are the same; null where no table was read.
    `largest` is the size of the largest difference of two numbers, `rule` the pattern of the rule that held,
    `leniencies` what had to be overlooked, `notes` what a reader should know.
    """

    unit: str
    position: int
    kind: UnitClassName = Field(alias="class")
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
    next: str | None


class PartOut(Shape):
    """The units of a tenant or a report by class; `differing` are those that speak against the candidate."""

    name: str
    counts: dict[str, int]
    differing: int
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

    `columns` sums up the first `columns_of` differing units.
    """

    counts: dict[str, int]
    left: int
    differing: int
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
    that both legs finished, in `baseline` and `candidate` seconds altogether; `count`: those that are slower, of which
    `slower` lists the costliest. `cautions` say why not to trust it blindly.
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
