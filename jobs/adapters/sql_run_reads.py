"""Runs in SQL, as they are read: one, or a page of the list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import Connection, Select, bindparam, select

from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_rows import at, legs_of, no_run, run_of
from jobs.adapters.sql_schema import legs, removals, runs
from jobs.new_run import NewLeg
from jobs.run import Page, Run, RunFilter
from runner.errors import Gone
from runner.model import BASELINE_AGAIN

_RUN = select(runs).where(runs.c.id == bindparam("run_"))  # every look at a run asks it: put together once


class SqlRunReads:
    """Read runs and the list of them."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def get(self, run: int) -> Run:
        """Raises NotFound."""
        with self._db.read() as connection:
            return self._one(connection, run)

    def spec_of(self, run: int, leg: str) -> tuple[str, str]:
        """Give the text of a leg's seatrial.yml, and where it is from."""
        with self._db.read() as connection:
            query = select(legs.c.spec_text, legs.c.spec_source).where(legs.c.run == run, legs.c.name == leg)
            text, source = connection.execute(query).one()
            return text, source

    def new_legs(self, run: int) -> tuple[NewLeg, ...]:
        """Give a run's legs as they were submitted, to submit them again."""
        with self._db.read() as connection:
            names = [field.name for field in fields(NewLeg)]
            query = select(*(legs.c[name] for name in names)).where(legs.c.run == run)
            # A second run of the baseline is prepared last, as when it was submitted.
            query = query.order_by(legs.c.name == BASELINE_AGAIN, legs.c.name)
            return tuple(NewLeg(**row) for row in connection.execute(query).mappings())

    def _some(self, connection: Connection, wanted: Sequence[int]) -> dict[int, Run]:
        rows = connection.execute(select(runs).where(runs.c.id.in_(wanted))).all()
        with_legs = legs_of(connection, list(wanted))
        return {row.id: run_of(row, with_legs[row.id]) for row in rows}

    def _one(self, connection: Connection, run: int) -> Run:
        row = connection.execute(_RUN, {"run_": run}).one_or_none()
        if row is None:
            raise _gone(connection, run) or no_run(run)
        return run_of(row, legs_of(connection, [run])[run])

    def page(self, wanted: RunFilter, *, before: int | None, after: int | None, limit: int) -> Page:
        """Give a page, newest first: the runs older than `before`, or those just newer than `after`."""
        with self._db.read() as connection:
            query = _narrow(select(runs), wanted)
            if after is not None:
                rows = list(connection.execute(query.where(runs.c.id > after).order_by(runs.c.id).limit(limit + 1)))
                more, rows = len(rows) > limit, list(reversed(rows[:limit]))
                older = rows[-1].id if rows else None
                return self._page(connection, rows, older, rows[0].id if rows and more else None)
            if before is not None:
                query = query.where(runs.c.id < before)
            rows = list(connection.execute(query.order_by(runs.c.id.desc()).limit(limit + 1)))
            more, rows = len(rows) > limit, rows[:limit]
            newer = rows[0].id if rows and before is not None else None
            return self._page(connection, rows, rows[-1].id if more else None, newer)

    def _page(self, connection: Connection, rows: Sequence[Any], older: int | None, newer: int | None) -> Page:
        with_legs = legs_of(connection, [row.id for row in rows])
        return Page(tuple(run_of(row, with_legs[row.id]) for row in rows), older, newer)

    def count_newer(self, wanted: RunFilter, after: int) -> int:
        """Count the runs newer than one that a list shows already, up to 100."""
        with self._db.read() as connection:
            query = _narrow(select(runs.c.id), wanted).where(runs.c.id > after).limit(100)
            return len(connection.execute(query).all())

    def last_planned(self, project: str, ref: str | None) -> tuple[int, str, int] | None:
        """Give (run, ref, units) of the newest run of a project, of that ref if one is named, that lists all units."""
        with self._db.read() as connection:
            query = select(runs.c.id, runs.c.ref, runs.c.units_total).where(
                runs.c.project == project,
                runs.c.units_total.is_not(None),
                runs.c.units_filter.is_(None),
                runs.c.options["only_of"].as_integer().is_(None),
            )
            if ref is not None:
                query = query.where(runs.c.ref == ref)
            row = connection.execute(query.order_by(runs.c.id.desc()).limit(1)).one_or_none()
            return None if row is None else (int(row.id), str(row.ref), int(row.units_total))


def _gone(connection: Connection, run: int) -> Gone | None:
    """Give the error for a run that was removed; None when there never was one."""
    row = connection.execute(select(removals).where(removals.c.run == run, removals.c.what == "run")).one_or_none()
    if row is None:
        return None
    return Gone(
        f"Run {run} was removed on {at(row.at):%Y-%m-%d}, {row.why}.",
        field="run",
        value=str(run),
        remedy="Submit its branch or commit again.",
    )


def _narrow(query: Select[Any], wanted: RunFilter) -> Select[Any]:
    columns = {
        runs.c.project: wanted.project,
        runs.c.state: wanted.state.value if wanted.state else None,
        runs.c.verdict: wanted.verdict.value if wanted.verdict else None,
        runs.c.user: wanted.user,
        runs.c.ref: wanted.ref,
    }
    for column, value in columns.items():
        if value is not None:
            query = query.where(column == value)
    if wanted.text:
        query = query.where(runs.c.search.contains(wanted.text.lower(), autoescape=True))
    return query
