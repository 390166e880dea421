"""What a compare run looks like from above: classes by tenant and report, columns, the largest deltas. Pure."""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.comparing import HARMFUL, Compared, UnitClass


@dataclass(frozen=True)
class Part:
    """All units of one tenant or one report, counted by class; `noisy` ones differ by nothing but noise."""

    name: str
    counts: Mapping[UnitClass, int]
    noisy: int = 0

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def harmful(self) -> int:
        return sum(self.counts.get(kind, 0) for kind in HARMFUL) - self.noisy


@dataclass(frozen=True)
class HeatMap:
    """Classes by tenant and report, the tenants with the most differing units first.

    A unit's name is parted at its last slash. `differing` tenants have a unit that differs; `whole` tells that all tenants
    there are stand here; `more_reports` are left out. `noisy` cells differ by noise alone.
    """

    tenants: tuple[Part, ...] = ()
    reports: tuple[str, ...] = ()
    cells: Mapping[tuple[str, str], UnitClass] = field(default_factory=dict)
    differing: int = 0
    whole: bool = True
    more_reports: int = 0
    noisy: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True)
class ColumnShare:
    """What differs in one column: in how many units, how many cells, and the largest delta; `kinds` counts cells."""

    column: str
    units: int
    cells: int
    delta: float | None
    kinds: Mapping[str, int]


@dataclass(frozen=True)
class Overview:
    """A compare run as a whole. `columns` and `reports` are the worst ones; `read` units were looked at for columns.

    `noisy` units differ by nothing but what moves in the baseline too: they are among `counts`, and do no harm.
    """

    counts: Mapping[UnitClass, int]
    left: int
    reports: tuple[Part, ...]
    tenants: tuple[Part, ...]
    columns: tuple[ColumnShare, ...]
    read: int
    largest: tuple[Compared, ...]
    noisy: int = 0

    @property
    def compared(self) -> int:
        return sum(self.counts.values())

    @property
    def total(self) -> int:
        return self.compared + self.left

    def of(self, *kinds: UnitClass) -> int:
        """Count the units of some classes together."""
        return sum(self.counts.get(kind, 0) for kind in kinds)

    @property
    def harmful(self) -> int:
        return self.of(*HARMFUL) - self.noisy


def columns_of(summaries: Iterable[Mapping[str, Any]]) -> tuple[ColumnShare, ...]:
    """Add up what the comparisons of some units found in each column, the most widespread first."""
    units: dict[str, int] = {}
    cells: dict[str, int] = {}
    deltas: dict[str, float] = {}
    kinds: dict[str, dict[str, int]] = {}
    for summary in summaries:
        seen: set[str] = set()
        for file in summary.get("results", [summary]):
            for change in file.get("changes", ()):
                column = change["column"]
                if not change["changed"]:
                    continue
                seen.add(column)
                cells[column] = cells.get(column, 0) + change["changed"]
                if isinstance(change["delta"], int | float):
                    deltas[column] = max(deltas.get(column, 0.0), abs(change["delta"]))
                mine = kinds.setdefault(column, {})
                for kind, count in change["kinds"].items():
                    mine[kind] = mine.get(kind, 0) + count
            for what in ("added", "removed"):
                for column in file.get("columns", {}).get(what, ()):
                    seen.add(column)
                    cells.setdefault(column, 0)
                    mine = kinds.setdefault(column, {})
                    mine[f"column {what}"] = mine.get(f"column {what}", 0) + 1
        for column in seen:
            units[column] = units.get(column, 0) + 1
    order = sorted(units, key=lambda column: (-units[column], -cells[column], column))
    return tuple(ColumnShare(c, units[c], cells[c], deltas.get(c), kinds.get(c, {})) for c in order)


@dataclass(frozen=True)
class Bin:
    """A bar of a distribution: deltas whose size is from `low` (inclusive) to `high`, by their sign."""

    low: float
    high: float
    rises: int
    falls: int


def distribution(differences: Sequence[Mapping[str, Any]]) -> tuple[Bin, ...]:
    """Count the deltas of stored differences by their size.

    Sizes within two powers of ten are parted evenly; others get a bar for each power of ten.
    """
    deltas = [one["delta"] for one in differences if isinstance(one.get("delta"), int | float) and one["delta"]]
    if not deltas:
        return ()
    low, high = min(map(abs, deltas)), max(map(abs, deltas))
    if low == high:
        return (Bin(low, high, sum(delta > 0 for delta in deltas), sum(delta < 0 for delta in deltas)),)
    if high / low <= 100:
        edges = [low + (high - low) * (at / EVEN_BINS) for at in range(EVEN_BINS + 1)]
    else:
        first, last = math.floor(math.log10(low)), math.floor(math.log10(high)) + 1
        edges = [_power_of_ten(power) for power in range(max(first, last - MOST_BINS), last + 1)]
        edges[0] = 0.0 if first < last - MOST_BINS else edges[0]
    sides = [[0, 0] for _ in edges[1:]]
    for delta in deltas:
        at = min(bisect_right(edges, abs(delta)), len(sides)) - 1
        sides[max(0, at)][0 if delta > 0 else 1] += 1
    return tuple(Bin(edges[at], edges[at + 1], *counts) for at, counts in enumerate(sides))


def _power_of_ten(power: int) -> float:
    """Give 10**power, or the largest number there is where that is larger."""
    return 10.0**power if power <= sys.float_info.max_10_exp else sys.float_info.max


MOST_BINS, EVEN_BINS = 14, 12


@dataclass(frozen=True)
class Wanted:
    """Which compared units: of some classes, all when empty, whose names hold `text`, of one tenant or report.

    `group`: those that share a cause, by its key, or one of `causes` where there are any; `accepted`: those that are, or
    are not, wholly explained by what was; `noisy`: only those that differ by noise alone, or (False) only the others.
    """

    kinds: tuple[UnitClass, ...] = ()
    text: str = ""
    tenant: str | None = None
    report: str | None = None
    group: str | None = None
    accepted: bool | None = None
    noisy: bool | None = None
    causes: tuple[str, ...] = ()


EVERY_UNIT = Wanted()
DIFFERING = Wanted(HARMFUL, noisy=False)
