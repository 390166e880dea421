"""Machines in SQL: what EC2 says of them, and what they say of themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, insert, select, update

from jobs.adapters.sql_arrivals import SqlArrivals
from jobs.adapters.sql_books import SqlBooks, bill, price_text
from jobs.adapters.sql_drains import SqlDrains
from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_machine_rows import lock_machine, machine_of, seconds
from jobs.adapters.sql_pool_now import SqlPoolNow
from jobs.adapters.sql_rows import at
from jobs.adapters.sql_schema import machines
from jobs.adapters.sql_wishes import SqlWishes
from jobs.machines import Disk, Machine, MachineState, Notice

AFTER_A_STOP = (MachineState.STOPPING, MachineState.STOPPED, MachineState.GONE)
_OVER: dict[str, Any] = {
    "drain_token": None,
    "drain_since": None,
    "drain_reason": None,
    "drain_by": None,
    "answer": None,
    "busy": [],
    "notice": None,
    "kept_at": None,
}


class SqlMachines(SqlDrains, SqlWishes, SqlArrivals, SqlBooks, SqlPoolNow):
    """Machines with their drains, holds, wishes, decisions and intervals. Times are the store's."""

    def __init__(self, database: Database) -> None:
        SqlDrains.__init__(self, database)
        SqlWishes.__init__(self, database)
        SqlArrivals.__init__(self, database)
        SqlBooks.__init__(self, database)
        SqlPoolNow.__init__(self, database)

    def time(self) -> datetime:
        """Give the store's time."""
        with self._db.read() as connection:
            return at(self._db.now(connection))

    # ---- what EC2 says --------------------------------------------------------------------------------------

    def upsert(
        self,
        instance: str,
        *,
        pool: str,
        state: MachineState,
        region: str = "",
        account: str = "",
        kind: str = "",
        started_at: datetime | None = None,
        stopped_at: datetime | None = None,
        price: Decimal | None = None,
        refused: str | None = None,
        why_on: str | None = None,
        before: Machine | None = None,
    ) -> Machine:
        """Record what EC2 says of a machine, and open or close the interval for which it is billed.

        `started_at`, `stopped_at`: when EC2 says that it was started, or stopped, last. A confirmed stop (`stopping`)
        stays until EC2 says that it has stopped or was started since, or stop_failed does. A machine that has stopped
        drains no more. `before`: how it was known when EC2 was asked; whose state changed since keeps it, as the answer
        may be older than that.
        """
        with self._db.write() as connection:
            now = self._db.now(connection)
            self._db.alone(connection, f"machine {instance}")
            row: Any = lock_machine(connection, instance)
            if row is None:
                values = {"instance": instance, "pool": pool, "state": MachineState.UNKNOWN.value, "state_since": now}
                connection.execute(insert(machines).values(**values, region=region, account=account, kind=kind))
                row = lock_machine(connection, instance)
            elif before is not None and machine_of(row).state_since != before.state_since:
                return machine_of(row)
            told = {"region": region, "account": account, "kind": kind, "price": price_text(price), "why_on": why_on}
            changed: dict[str, Any] = {key: value for key, value in told.items() if value}
            changed |= {"pool": pool, "refused": refused}
            started = seconds(started_at)
            if not _confirmed(row, started) or state in AFTER_A_STOP:
                changed |= _state(row, state, now, started)
            connection.execute(update(machines).where(machines.c.instance == instance).values(**changed))
            row = lock_machine(connection, instance)
            if state is not MachineState.UNKNOWN:
                stopped, cause = seconds(stopped_at), row.why_on
                bill(connection, row, now, billed=state.billed, started=started, stopped=stopped, cause=cause)
            return machine_of(row)

    # ---- what it says of itself -----------------------------------------------------------------------------

    def register(
        self, instance: str, *, host: str, pool: str, region: str = "", account: str = "", kind: str = ""
    ) -> Machine:
        """Note that a worker of this host name runs on a machine; no other machine has this name from now on."""
        with self._db.write() as connection:
            now = self._db.now(connection)
            self._db.alone(connection, f"machine {instance}")
            others = (machines.c.host == host, machines.c.instance != instance)
            connection.execute(update(machines).where(*others).values(host=None))
            told = {"region": region, "account": account, "kind": kind}
            values: dict[str, Any] = {key: value for key, value in told.items() if value}
            values |= {"pool": pool, "host": host, "registered_at": now, "seen_at": now, "busy": []}
            if lock_machine(connection, instance) is None:
                unknown = {"state": MachineState.UNKNOWN.value, "state_since": now}
                connection.execute(insert(machines).values(instance=instance, **unknown, **values))
            else:
                connection.execute(update(machines).where(machines.c.instance == instance).values(**values))
            return self._one(connection, instance)

    def seen(self, instance: str, *, busy: Sequence[str] = (), disk: Disk | None = None) -> Machine | None:
        """Note a machine's sign of life, what it does beside tasks, and its disk; gives it with its drain.

        None when it is not known (any more): it has to register.
        """
        with self._db.write() as connection:
            values: dict[str, Any] = {"seen_at": self._db.now(connection), "busy": list(busy)}
            if disk is not None:
                values["disk"] = asdict(disk)
            changed = connection.execute(update(machines).where(machines.c.instance == instance).values(**values))
            return self._one(connection, instance) if changed.rowcount else None

    def notice(self, instance: str, notice: Notice | None) -> bool:
        """Note what the cloud announced for a machine, or that it is off; False when it is not known."""
        data = None if notice is None else {"kind": notice.kind, "at": notice.at.timestamp(), "text": notice.text}
        with self._db.write() as connection:
            changed = update(machines).where(machines.c.instance == instance).values(notice=data)
            return bool(connection.execute(changed).rowcount)

    # ---- read -----------------------------------------------------------------------------------------------

    def machine(self, instance: str) -> Machine | None:
        """Give a machine, None when it is not known."""
        with self._db.read() as connection:
            row = connection.execute(select(machines).where(machines.c.instance == instance)).one_or_none()
            return None if row is None else machine_of(row)

    def machine_of_host(self, host: str) -> Machine | None:
        """Give the machine whose worker has this host name."""
        with self._db.read() as connection:
            query = select(machines).where(machines.c.host == host).order_by(machines.c.instance).limit(1)
            row = connection.execute(query).one_or_none()
            return None if row is None else machine_of(row)

    def machines(self, pool: str | None = None) -> list[Machine]:
        """List the machines of a pool, or all."""
        with self._db.read() as connection:
            query = select(machines).order_by(machines.c.pool, machines.c.instance)
            if pool is not None:
                query = query.where(machines.c.pool == pool)
            return [machine_of(row) for row in connection.execute(query)]

    def _one(self, connection: Connection, instance: str) -> Machine:
        return machine_of(connection.execute(select(machines).where(machines.c.instance == instance)).one())

    # ---- what the controller keeps for itself ---------------------------------------------------------------

    def note(self, instance: str, **values: Any) -> None:
        """Keep something for the next pass, in JSON's types; None forgets it."""
        with self._db.write() as connection:
            row = lock_machine(connection, instance)
            if row is not None:
                notes = {key: value for key, value in {**row.notes, **values}.items() if value is not None}
                connection.execute(update(machines).where(machines.c.instance == instance).values(notes=notes))

    def notes(self, instance: str) -> Mapping[str, Any]:
        """Give what was kept."""
        with self._db.read() as connection:
            query = select(machines.c.notes).where(machines.c.instance == instance)
            return connection.execute(query).scalar() or {}


def _confirmed(row: Any, started: float | None) -> bool:
    """Tell whether a stop was confirmed, and the machine was not started since."""
    confirmed = row.state == MachineState.STOPPING.value and row.drain_token is not None
    return confirmed and not (started is not None and started > row.state_since)


def _state(row: Any, state: MachineState, now: float, started: float | None) -> dict[str, Any]:
    """Give what changes of a row when EC2 says that the machine is in a state."""
    changed: dict[str, Any] = {}
    if row.state != state.value:
        changed |= {"state": state.value, "state_since": now}
    if state in (MachineState.STOPPED, MachineState.GONE):
        changed |= _OVER | {"started_at": None, "why_on": ""}
    elif state.billed:
        if row.state == MachineState.STOPPING.value:
            changed |= _OVER
        if row.started_at is None or (started is not None and started > row.started_at):
            changed["started_at"] = now if started is None else min(started, now)
    return changed
