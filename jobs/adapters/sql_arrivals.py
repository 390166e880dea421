"""What came to a pool in the past, in SQL: its runs, and when forms for new ones were opened."""

from __future__ import annotations

from sqlalchemy import select

from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_rows import at, moment
from jobs.adapters.sql_schema import runs, wishes
from jobs.machines import Arrival, Arrivals, WishKind


class SqlArrivals:
    """Read what is tried on policies."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def arrived(self, pool: str, limit: int) -> Arrivals:
        """Give the newest runs of a pool and the newest forms, `limit` of each at most, oldest first."""
        with self._db.read() as connection:
            query = select(runs.c.created_at, runs.c.started_at, runs.c.finished_at).where(runs.c.pool == pool)
            newest = connection.execute(query.order_by(runs.c.id.desc()).limit(limit)).all()[::-1]
            opened = select(wishes.c.made_at).where(wishes.c.pool == pool, wishes.c.kind == WishKind.FORM.value)
            forms = connection.scalars(opened.order_by(wishes.c.id.desc()).limit(limit)).all()[::-1]
            return Arrivals(
                tuple(Arrival(at(row.created_at), moment(row.started_at), moment(row.finished_at)) for row in newest),
                tuple(map(at, forms)),
            )
