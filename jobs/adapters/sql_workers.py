"""The slots that are known, in SQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, insert, select, update

from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_rows import worker_of
from jobs.adapters.sql_schema import executions, tasks, workers
from jobs.run import Worker


class SqlWorkers:
    """Register slots, note that they live, and list them and what they left."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def register(self, *, name: str, host: str, pool: str, pid: int) -> None:
        """Make a slot known."""
        with self._db.write() as connection:
            now = self._db.now(connection)
            connection.execute(delete(workers).where(workers.c.name == name))
            connection.execute(
                insert(workers).values(name=name, host=host, pool=pool, pid=pid, started_at=now, seen_at=now)
            )

    def seen(self, name: str, *, draining: bool = False, idle: bool = False) -> None:
        """Note that a slot lives."""
        with self._db.write() as connection:
            values: dict[str, Any] = {"seen_at": self._db.now(connection), "draining": draining}
            if idle:
                values["task"] = None
            connection.execute(update(workers).where(workers.c.name == name).values(**values))

    def unregister(self, name: str) -> None:
        """Forget a slot that ended."""
        with self._db.write() as connection:
            connection.execute(delete(workers).where(workers.c.name == name))

    def workers(self, *, silent_after: float = 60.0) -> list[Worker]:
        """List the slots that were seen lately."""
        with self._db.read() as connection:
            now = self._db.now(connection)
            query = select(workers).where(workers.c.seen_at >= now - silent_after).order_by(workers.c.name)
            return [worker_of(row) for row in connection.execute(query)]

    def executions(self, *, host: str) -> list[tuple[int, int, str, str]]:
        """List (run, task, container, task state) of this host's executions that were not recorded as removed."""
        with self._db.read() as connection:
            query = (
                select(executions.c.run, executions.c.task, executions.c.container, tasks.c.state)
                .join(tasks, tasks.c.id == executions.c.task)
                .where(executions.c.host == host, executions.c.state != "removed")
            )
            return [(r.run, r.task, r.container, r.state) for r in connection.execute(query)]
