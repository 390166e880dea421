"""The start of a machine in SQL: who records it first asks EC2 for it, so two controllers start no machine twice."""

from __future__ import annotations

from typing import Any

from sqlalchemy import update

from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_machine_rows import lock_machine
from jobs.adapters.sql_schema import machines
from jobs.machines import MachineState


class SqlStarts:
    """Begin starts, and take back those that EC2 refused."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def begin_start(self, instance: str, *, why: str) -> bool:
        """Record a stopped machine as starting from now on; False when it is not stopped (any more)."""
        with self._db.write() as connection:
            row = lock_machine(connection, instance)
            if row is None or row.state != MachineState.STOPPED.value or row.refused is not None:
                return False
            now = self._db.now(connection)
            values = {"state": MachineState.PENDING.value, "state_since": now, "started_at": now, "why_on": why}
            connection.execute(update(machines).where(machines.c.instance == instance).values(**values))
            return True

    def start_failed(self, instance: str) -> None:
        """Record that a machine was not started after all."""
        with self._db.write() as connection:
            row = lock_machine(connection, instance)
            if row is not None and row.state == MachineState.PENDING.value:
                values: dict[str, Any] = {"state": MachineState.STOPPED.value, "started_at": None, "why_on": ""}
                values["state_since"] = self._db.now(connection)
                connection.execute(update(machines).where(machines.c.instance == instance).values(**values))
