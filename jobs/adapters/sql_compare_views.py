"""What people read of a compare run, in SQL: each answer is bounded, however many units the run has."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, and_, case, false, func, select

from jobs.adapters.sql_compare import BASELINE, CANDIDATE, compared, counts_of
from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_schema import causes, comparisons, legs, runs, tasks
from jobs.comparing import HARMFUL, HARMLESS, Compared, UnitClass
from jobs.overview import HeatMap, Overview, Part, Wanted, columns_of
from runner.model import BASELINE_AGAIN

PARTS = 12  # tenants and reports of a summary
LARGEST = 8
SUMMARIES = 500  # differing units that are looked at for columns: reading them takes some 15 ms
MAP_REPORTS = 40
MAP_CELLS = 20_000

_HARMFUL = [kind.value for kind in HARMFUL]
_ALL = [kind.value for kind in UnitClass]
NEVER = false()
_C = comparisons.c
_DIFFERENT = _C.kind == UnitClass.DIFFERENT.value  # only those can be noisy


class SqlCompareViews:
    """Read-only views of the comparisons of one run."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def counts(self, run: int) -> tuple[dict[UnitClass, int], int]:
        """Count a run's units by class, and those that have none yet.

        How many there are is known from the batches: to compare both lists would take longer than all the rest. A unit
        that the candidate does not list is counted when it is found to be missing, just before the end.
        """
        with self._db.read() as connection:
            found = counts_of(connection, run)
            row = connection.execute(select(runs.c.verdict, runs.c.reason_code).where(runs.c.id == run)).one()
            if row.verdict is not None and row.reason_code is None:
                return found, 0
            query = select(tasks.c.leg, func.sum(tasks.c.units_total)).where(tasks.c.run == run).group_by(tasks.c.leg)
            listed = {leg: int(count) for leg, count in connection.execute(query)}
        total = listed.get(CANDIDATE) or listed.get(BASELINE) or 0
        total += found.get(UnitClass.MISSING, 0)
        return found, max(0, total - sum(found.values()))

    def noisy(self, run: int) -> int:
        """Count the units that are different by noise alone."""
        with self._db.read() as connection:
            return _count_noisy(connection, run)

    def overview(self, run: int) -> Overview:
        """Sum a run up: its classes, the worst reports, tenants and columns, the largest deltas."""
        counts, left = self.counts(run)
        with self._db.read() as connection:
            noisy = _noisy(connection, run)
            summaries = select(_C.summary).where(_C.run == run, _C.kind == UnitClass.DIFFERENT.value, ~noisy)
            read = list(connection.scalars(summaries.order_by(_C.position).limit(SUMMARIES)))
            ordered = select(comparisons).where(_C.run == run, _C.largest.is_not(None), _C.kind.in_(_HARMFUL), ~noisy)
            ordered = ordered.order_by(_C.largest.desc(), _C.position.desc()).limit(LARGEST)
            return Overview(
                counts=counts,
                left=left,
                reports=_parts(connection, run, _C.report, _worst(connection, run, _C.report, PARTS, noisy), noisy),
                tenants=_parts(connection, run, _C.tenant, _worst(connection, run, _C.tenant, PARTS, noisy), noisy),
                columns=columns_of(read),
                read=len(read),
                largest=tuple(map(compared, connection.execute(ordered))),
                noisy=_count_noisy(connection, run),
            )

    def heat_map(self, run: int, *, first: int, limit: int) -> HeatMap:
        """Give a page of tenants, those with the most differing units first, and the classes of their units.

        Others fill up the first page only.
        """
        with self._db.read() as connection:
            noisy = _noisy(connection, run)
            worst = _worst(connection, run, _C.tenant, None, noisy)
            names = worst[first : first + limit]
            others: set[str] = set()
            if first == 0 and len(names) < limit:
                harmless = [_C.kind == kind.value for kind in sorted(HARMLESS)]
                for which in harmless if noisy is NEVER else (*harmless, and_(_DIFFERENT, noisy)):
                    query = select(_C.tenant).where(_C.run == run, which).distinct()
                    query = query.order_by(_C.tenant).limit(limit + len(worst) + 1)
                    others.update(connection.scalars(query))
            fill = sorted(others.difference(worst))
            more = len(names) + len(fill) > limit or first > 0 or len(worst) > limit
            names = names + fill[: limit - len(names)]
            cells: dict[tuple[str, str], UnitClass] = {}
            counts: dict[str, dict[UnitClass, int]] = {name: {} for name in names}
            weights: dict[str, int] = {}
            moving: dict[str, int] = {}
            at_noise: set[tuple[str, str]] = set()
            query = select(_C.tenant, _C.report, _C.kind, noisy.label("noisy")).where(
                _C.run == run, _C.kind.in_(_ALL), _C.tenant.in_(names)
            )
            for tenant, report, value, moves in connection.execute(query.limit(MAP_CELLS)) if names else ():
                kind = UnitClass(value)
                cells[tenant, report] = kind
                counts[tenant][kind] = counts[tenant].get(kind, 0) + 1
                weights[report] = weights.get(report, 0) + (kind in HARMFUL and not moves)
                moving[tenant] = moving.get(tenant, 0) + moves
                if moves:
                    at_noise.add((tenant, report))
        columns = sorted(weights, key=lambda report: (-weights[report], report))[:MAP_REPORTS]
        return HeatMap(
            tenants=tuple(Part(name, counts[name], moving.get(name, 0)) for name in names),
            reports=tuple(sorted(columns)),
            cells={at: kind for at, kind in cells.items() if at[1] in set(columns)},
            differing=len(worst),
            whole=not more,
            more_reports=len(weights) - len(columns),
            noisy=frozenset(at_noise),
        )

    def by_position(self, run: int, wanted: Wanted, *, after: int, limit: int) -> list[Compared]:
        """List units of some classes in the order of their lists; each class is read from its own part of the index."""
        with self._db.read() as connection:
            parts = []
            for kind in wanted.kinds or UnitClass:
                query = _narrowed(select(comparisons).where(_C.run == run, _C.kind == kind.value), wanted)
                query = query.where(_C.position > after).order_by(_C.position, _C.unit).limit(limit)
                parts.append([compared(row) for row in connection.execute(query)])
        merged = heapq.merge(*parts, key=lambda one: (one.position, one.unit))
        return [one for one, _ in zip(merged, range(limit), strict=False)]

    def by_delta(self, run: int, wanted: Wanted, *, after: tuple[float, int] | None, limit: int) -> list[Compared]:
        """List units with a difference of numbers, the largest first."""
        query = select(comparisons).where(_C.run == run, _C.largest.is_not(None))
        query = _narrowed(query.where(_C.kind.in_([kind.value for kind in wanted.kinds or UnitClass])), wanted)
        if after is not None:
            largest, position = after
            tie = and_(_C.largest == largest, _C.position < position)
            query = query.where((_C.largest < largest) | tie)
        with self._db.read() as connection:
            rows = connection.execute(query.order_by(_C.largest.desc(), _C.position.desc()).limit(limit))
            return [compared(row) for row in rows]

    def count(self, run: int, wanted: Wanted) -> int:
        """Count units of some classes."""
        query = select(func.count()).select_from(comparisons)
        kinds = [kind.value for kind in wanted.kinds or UnitClass]
        query = _narrowed(query.where(_C.run == run, _C.kind.in_(kinds)), wanted)
        with self._db.read() as connection:
            return int(connection.execute(query).scalar_one())

    def beside(
        self, run: int, position: int, kinds: Iterable[UnitClass], *, noisy: bool | None = None
    ) -> tuple[str | None, str | None]:
        """Give the units of some classes before and after a position; `noisy`: only those, or only the others."""
        found = []
        with self._db.read() as connection:
            for here, order in ((_C.position < position, _C.position.desc()), (_C.position > position, _C.position)):
                best = []
                for kind in kinds:
                    query = select(_C.position, _C.unit).where(_C.run == run, _C.kind == kind.value, here)
                    query = _narrowed(query, Wanted(noisy=noisy))
                    best += [tuple(row) for row in connection.execute(query.order_by(order).limit(1))]
                found.append(best)
        before, after = found
        return (max(before)[1] if before else None), (min(after)[1] if after else None)


def _narrowed(query: Any, wanted: Wanted) -> Any:
    if wanted.text:
        query = query.where(func.lower(_C.unit).contains(wanted.text.lower(), autoescape=True))
    for column, value in ((_C.tenant, wanted.tenant), (_C.report, wanted.report)):
        query = query if value is None else query.where(column == value)
    if wanted.group is not None:
        shares = (causes.c.run == _C.run, causes.c.key.in_(wanted.causes or (wanted.group,)), causes.c.unit == _C.unit)
        query = query.where(select(causes.c.unit).where(*shares).exists())
    if wanted.accepted is not None:
        query = query.where(_C.accepted if wanted.accepted else ~_C.accepted)
    return query if wanted.noisy is None else query.where(_C.noisy if wanted.noisy else ~_C.noisy)


def _noisy(connection: Connection, run: int) -> Any:
    """Give what tells of noise: that column, or never, so that a run without any is read from its indexes alone."""
    leg = select(legs.c.run).where(legs.c.run == run, legs.c.name == BASELINE_AGAIN)
    return _C.noisy if connection.execute(leg).first() is not None else NEVER


def _count_noisy(connection: Connection, run: int) -> int:
    noisy = _noisy(connection, run)
    query = select(func.count()).select_from(comparisons).where(_C.run == run, _DIFFERENT, noisy)
    return 0 if noisy is NEVER else int(connection.execute(query).scalar_one())


def _worst(connection: Connection, run: int, column: Any, limit: int | None, noisy: Any) -> list[str]:
    """Name the tenants or reports with the most differing units."""
    query = select(column, func.count().label("n")).where(_C.run == run, _C.kind.in_(_HARMFUL), ~noisy).group_by(column)
    query = query.order_by(func.count().desc(), column).limit(limit)
    return [row[0] for row in connection.execute(query)]


def _parts(connection: Connection, run: int, column: Any, names: Sequence[str], noisy: Any) -> tuple[Part, ...]:
    """Count the units of some tenants or reports by class."""
    found: dict[str, dict[UnitClass, int]] = {name: {} for name in names}
    moving = dict.fromkeys(names, 0)
    if names:
        query = select(column, _C.kind, func.count().label("n"), func.sum(case((noisy, 1), else_=0)))
        query = query.where(_C.run == run, _C.kind.in_(_ALL), column.in_(names)).group_by(column, _C.kind)
        for name, kind, count, moves in connection.execute(query):
            found[name][UnitClass(kind)] = count
            moving[name] += moves
    return tuple(Part(name, found[name], moving[name]) for name in names)
