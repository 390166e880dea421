"""When sweeper and comparer were last heard of, in SQL."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import delete, insert, select, update

from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_rows import at
from jobs.adapters.sql_schema import heartbeats
from jobs.heartbeats import Signs


class SqlHeartbeats:
    """Note signs of life, and tell them. Where two processes have one name, either one's sign counts."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def beat(self, name: str, put_off: Mapping[int, str] | None = None) -> None:
        """Note that a process lives. `put_off`: why it cannot go on with a run for the moment."""
        with self._db.write() as connection:
            said = {str(run): why for run, why in (put_off or {}).items()}
            values = {"seen_at": self._db.now(connection), "put_off": said}
            if not connection.execute(update(heartbeats).where(heartbeats.c.name == name).values(**values)).rowcount:
                self._db.alone(connection, f"heartbeat {name}")
                connection.execute(delete(heartbeats).where(heartbeats.c.name == name))
                connection.execute(insert(heartbeats).values(name=name, **values))

    def signs(self) -> Signs:
        """Tell what was heard, and the store's time."""
        with self._db.read() as connection:
            rows = connection.execute(select(heartbeats)).all()
            now = at(self._db.now(connection))
        put_off = {int(run): str(why) for row in rows for run, why in row.put_off.items()}
        return Signs(now, {row.name: at(row.seen_at) for row in rows}, put_off)
