"""Causes of differences in SQL: a row for each unit that has one, read as groups of units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, func, select

from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_schema import causes
from jobs.causes import Cause, Share
from jobs.grouping import Group, together

FIRST_UNITS = 5
GROUPS = 500  # more causes than that are no reading
CAUSES = 5_000  # that are read to put them together


class SqlGroups:
    """Read the causes of a run's differences."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def list(self, run: int) -> list[Group]:
        """List causes, those of most units first."""
        with self._db.read() as connection:
            return groups_of(connection, run)

    def of_unit(self, run: int, unit: str) -> Sequence[Share]:
        """List why a unit differs; empty when it does no harm."""
        with self._db.read() as connection:
            return shares_of(connection, run, unit)

    def one(self, run: int, key: str) -> Group | None:
        """Give one cause; None when the run has none of that key."""
        with self._db.read() as connection:
            return next(iter(groups_of(connection, run, key)), None)


def shares_of(connection: Connection, run: int, unit: str) -> list[Share]:
    """Read why a unit differs, those of most cells first."""
    query = select(causes).where(causes.c.run == run, causes.c.unit == unit)
    found = []
    for row in connection.execute(query.order_by(causes.c.count.desc(), causes.c.key)):
        ratio = None if row.ratio_low is None else (row.ratio_low, row.ratio_high)
        offset = None if row.offset_low is None else (row.offset_low, row.offset_high)
        found.append(Share(Cause(row.pattern, row.what, row.column, row.sign), row._mapping["count"], ratio, offset))
    return found


def groups_of(connection: Connection, run: int, key: str | None = None) -> list[Group]:
    """Read the causes of a run's differences, or one of them, those of most units first.

    `key`: of a cause that units have, or of a group that was put together of several.
    """
    found = []
    if key is not None:
        found = _read(connection, run, key)
    if not found:
        found = [one for one in together(_read(connection, run)) if key in (None, one.key)]
    return [_filled(connection, run, one) for one in found[:GROUPS]]


def _read(connection: Connection, run: int, key: str | None = None) -> list[Group]:
    columns = (causes.c.key, causes.c.pattern, causes.c.what, causes.c.column, causes.c.sign)
    units = func.count().label("units")
    bounds = [
        function(causes.c[f"{name}_{end}"]).label(f"{name}_{end}")
        for name in ("ratio", "offset")
        for end, function in (("low", func.min), ("high", func.max))
    ]
    # A unit without a ratio has none that all could share.
    known = [func.count(causes.c[f"{name}_low"]).label(f"{name}s") for name in ("ratio", "offset")]
    query = (
        select(*columns, units, func.sum(causes.c.count).label("number"), *bounds, *known)
        .where(causes.c.run == run)
        .group_by(*columns)
        .order_by(units.desc(), causes.c.key)
        .limit(CAUSES)
    )
    if key is not None:
        query = query.where(causes.c.key == key)
    found = []
    for row in connection.execute(query):
        cause = Cause(row.pattern, row.what, row.column, row.sign)
        ratios = (row.ratio_low, row.ratio_high) if row.ratios == row.units else None
        offsets = (row.offset_low, row.offset_high) if row.offsets == row.units else None
        found.append(Group(cause, row.units, int(row.number), ratios, offsets))
    return found


def _filled(connection: Connection, run: int, group: Group) -> Group:
    """Add some of its units; where several groups are one, a unit that is in two of them is counted once."""
    here = (causes.c.run == run, causes.c.key.in_(group.keys))
    some = select(causes.c.unit).where(*here).distinct().order_by(causes.c.unit).limit(FIRST_UNITS)
    units = group.units
    if group.parts:
        units = connection.execute(select(func.count(causes.c.unit.distinct())).where(*here)).scalar_one()
    return replace(group, units=units, first=tuple(connection.scalars(some)))


def share_row(run: int, unit: str, share: Share) -> dict[str, Any]:
    """Give the row of what a unit has of a cause."""
    cause = share.cause
    row: dict[str, Any] = {"run": run, "unit": unit, "key": cause.key, "count": share.count} | vars(cause)
    for name, bounds in (("ratio", share.ratio), ("offset", share.offset)):
        row[f"{name}_low"], row[f"{name}_high"] = bounds if bounds is not None else (None, None)
    return row
