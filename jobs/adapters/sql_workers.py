"""The slots that are known, in SQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, insert, select, update

from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_rows import worker_of
from jobs.adapters.sql_schema import executions, tasks, workers
from jobs.run import TaskState, Worker


class SqlWorkers:
    """Register slots, note that they live, and list them and what they left."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def register(self, *, name: str, host: str, pool: str, pid: int) -> float:
        """Make a slot known; gives since when, by the store's clock, which no other slot of this name has."""
        with self._db.write() as connection:
            now = self._db.now(connection)
            connection.execute(delete(workers).where(workers.c.name == name))
            connection.execute(
                insert(workers).values(name=name, host=host, pool=pool, pid=pid, started_at=now, seen_at=now)
            )
            return now

    def seen(self, name: str, *, draining: bool = False, idle: bool = False, shortage: str | None = None) -> None:
        """Note that a slot lives. `shortage`: why it takes no new work."""
        with self._db.write() as connection:
            values: dict[str, Any] = {"seen_at": self._db.now(connection), "draining": draining, "shortage": shortage}
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

    def doing(self, *, host: str) -> list[int]:
        """List the tasks that run on a host, by their numbers."""
        with self._db.read() as connection:
            query = select(tasks.c.id).where(tasks.c.state == TaskState.RUNNING.value, tasks.c.host == host)
            return list(connection.scalars(query.order_by(tasks.c.id)))

    def abandoned(self, *, host: str) -> list[tuple[int, int, str]]:
        """List (task, execution, container) of what stands on a host and was given up: its task went on in another."""
        with self._db.read() as connection:
            query = select(executions.c.task, executions.c.execution, executions.c.container).where(
                executions.c.host == host, executions.c.state == "abandoned"
            )
            return [(row.task, row.execution, row.container) for row in connection.execute(query)]

    def removed(self, task: int, execution: int) -> None:
        """Note that a host has removed what stood there of an execution that was given up."""
        with self._db.write() as connection:
            here = (executions.c.task == task, executions.c.execution == execution)
            given_up = executions.c.state == "abandoned"
            connection.execute(update(executions).where(*here, given_up).values(state="ended"))
