"""Which runs use which snapshot of a source."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select

from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_schema import legs, runs
from jobs.snapshots import Uses, wanted_snapshot

NEWEST = 100  # runs of a snapshot that are told of


class SqlSnapshots:
    """Read who uses snapshots."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def uses(self, source: str, data_ids: Sequence[str]) -> Uses:
        """Give the runs that use a source's snapshots, the newest first; of those that have not ended all."""
        of_source = func.coalesce(legs.c.database, runs.c.database) == source
        joined = legs.join(runs, runs.c.id == legs.c.run)
        found: dict[str, list[int]] = {}
        live: dict[str, list[int]] = {}
        wanted: dict[str, list[int]] = {}
        with self._db.read() as connection:
            for data_id in data_ids:
                query = select(legs.c.run).distinct().select_from(joined).where(of_source, legs.c.data_id == data_id)
                newest = query.order_by(legs.c.run.desc())
                found[data_id] = list(connection.scalars(newest.limit(NEWEST)))
                live[data_id] = list(connection.scalars(newest.where(runs.c.finished_at.is_(None))))
            going_on = select(legs.c.run, legs.c.name, runs.c.options).select_from(joined)
            for row in connection.execute(going_on.where(of_source, runs.c.finished_at.is_(None))):
                name = wanted_snapshot(row.options, row.name)
                if name is not None and row.run not in wanted.setdefault(name, []):
                    wanted[name].append(row.run)
        return Uses(found, live, wanted)
