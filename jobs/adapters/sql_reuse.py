"""Find an earlier leg of the same commit, whose finished units a leg can take over."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, case, or_, select

from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_rows import output_of
from jobs.adapters.sql_schema import legs, runs, units
from jobs.reusing import Made, Reuse, differing
from runner.model import Known, Prepared, UnitResult, UnitState

LOOK_AT = 20  # earlier legs of the commit


class SqlReuse:
    """Read what earlier legs have finished."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def whole(self, run: int, *, migrations: bool) -> Known | None:
        """Give the newest earlier leg of the baseline's commit and specification if all its units are finished.

        Only of a run with the same filter, so that its list is the one that is wanted now; and only for a baseline that
        is prepared for the first time.
        """
        with self._db.read() as connection:
            mine = connection.execute(
                select(legs, runs.c.project, runs.c.units_filter)
                .join(runs, runs.c.id == legs.c.run)
                .where(legs.c.run == run, legs.c.name == "baseline")
            ).one()
            if mine.image_digest is not None:
                return None  # it was prepared before, and has batches that need what that left
            earlier = (
                select(legs)
                .join(runs, runs.c.id == legs.c.run)
                .where(
                    *_earlier(run, mine),
                    _same_source(mine),
                    legs.c.spec_digest == mine.spec_digest,
                    runs.c.units_filter.is_not_distinct_from(mine.units_filter),
                    runs.c.options["only_of"].as_integer().is_(None),
                )
                .order_by(runs.c.id.desc(), legs.c.name)
                .limit(LOOK_AT)
            )
            row = next(
                (row for row in connection.execute(earlier).all() if not (migrations and row.name == "candidate")), None
            )
            if row is None:
                return None
            listed = select(units.c.unit, units.c.state).where(units.c.run == row.run, units.c.leg == row.name)
            found = connection.execute(listed.order_by(units.c.position)).all()
            if not found or any(one.state != UnitState.DONE.value for one in found):
                return None
            return Known(row.run, row.name, row.image_digest, row.data_id, tuple(one.unit for one in found))

    def find(self, run: int, leg: str, result: Prepared, *, migrations: bool) -> Reuse | None:
        """Give the newest earlier leg with nothing different, else the newest with what differs; None without any.

        Legs on another source of data are told of when there is none on the same one.
        `migrations`: whether the specification has some; they run on a candidate only. Where an earlier leg spared the
        preparation, only that one is looked at.
        """
        with self._db.read() as connection:
            mine = connection.execute(
                select(legs, runs.c.project)
                .join(runs, runs.c.id == legs.c.run)
                .where(legs.c.run == run, legs.c.name == leg)
            ).one()
            made = made_by(leg, mine.spec_digest, result, migrations=migrations)
            earlier = connection.execute(
                select(legs)
                .join(runs, runs.c.id == legs.c.run)
                # One on another source is only told of; what is older than that legs have sources says nothing of it.
                .where(*_earlier(run, mine), or_(_same_source(mine), legs.c.database.is_not(None)), *_only(result))
                .order_by(case((_same_source(mine), 0), else_=1), runs.c.id.desc(), legs.c.name)
                .limit(LOOK_AT)
            ).all()
            newest = None
            for row in earlier:
                if row.database != mine.database:
                    newest = newest or Reuse(row.run, row.name, ("database",))
                    continue
                migrated = migrations and row.name == "candidate"
                differs = differing(made, Made(row.spec_digest, row.image_digest, row.data_id, migrated))
                found = _done(connection, row.run, row.name, result) if not differs else {}
                if not differs and found is None:
                    differs = ("units",)
                if not differs and found:
                    return Reuse(row.run, row.name, units=found)
                newest = newest or (Reuse(row.run, row.name, differs) if differs else None)
            return newest


def _earlier(run: int, mine: Any) -> tuple[Any, ...]:
    """Tell of prepared legs of the commit, in ended runs of the project that have their outputs."""
    return (
        runs.c.project == mine.project,
        legs.c.commit == mine.commit,
        runs.c.id < run,
        runs.c.finished_at.is_not(None),
        runs.c.outputs_removed_at.is_(None),
        legs.c.image_digest.is_not(None),
    )


def _same_source(mine: Any) -> ColumnElement[bool]:
    return legs.c.database.is_not_distinct_from(mine.database)


def _only(result: Prepared) -> tuple[Any, ...]:
    known = result.known
    return () if known is None else (legs.c.run == known.run, legs.c.name == known.leg)


def made_by(leg: str, spec: str, result: Prepared, *, migrations: bool) -> Made:
    """Give what a leg's outputs come from."""
    data = result.template.data_id if result.template else None
    return Made(spec, result.image_digest, data, migrations and leg == "candidate")


def _done(connection: Connection, run: int, leg: str, result: Prepared) -> dict[str, UnitResult] | None:
    """Give the finished units of a leg; None when it did not list all that are wanted."""
    wanted = set(result.units)
    listed = 0
    found = {}
    for row in connection.execute(select(units).where(units.c.run == run, units.c.leg == leg)):
        if row.unit not in wanted:
            continue
        listed += 1
        if row.state != UnitState.DONE.value:
            continue
        found[row.unit] = UnitResult(row.unit, UnitState.DONE, output_of(row), row.text, row.seconds)
    return found if listed == len(wanted) else None
