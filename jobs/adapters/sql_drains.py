"""The stop protocol in SQL: drain, answer, confirm. Each step looks again, in one transaction, at what keeps a machine on.

A claim of a machine's worker and each of these steps take the same row's lock (see gate), so one of them is first and
the other one sees it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, func, insert, or_, select, update

from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_machine_rows import drain_of, lock_machine
from jobs.adapters.sql_moves import is_due
from jobs.adapters.sql_rows import at
from jobs.adapters.sql_schema import decisions, holds, machines, tasks
from jobs.machines import Action, Drain, MachineState
from jobs.run import TaskState

_NO_DRAIN = {"drain_token": None, "drain_since": None, "drain_reason": None, "drain_by": None, "answer": None}


class SqlDrains:
    """Begin, answer, cancel and confirm drains."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def keeps_on(self, instance: str) -> tuple[str, str] | None:
        """Tell (code, words) what keeps a machine from being drained; None when nothing known does."""
        with self._db.read() as connection:
            row = connection.execute(select(machines).where(machines.c.instance == instance)).one_or_none()
            return _keeps(connection, row, self._db.now(connection))

    def begin_drain(
        self, instance: str, *, reason: str, asked_by: str = "policy", silent: bool = False
    ) -> Drain | None:
        """Let a running machine take no new work; None when something keeps it on, or it drains already.

        Refused while a task runs on its host, one waits for its pool, or somebody holds it. `silent`: also one of which
        no worker is heard, whatever waits for its pool: an operator's decision.
        """
        with self._db.write() as connection:
            row = lock_machine(connection, instance)
            now = self._db.now(connection)
            if row is None or row.drain_token is not None or _keeps(connection, row, now, silent=silent) is not None:
                return None
            drain = Drain(secrets.token_hex(16), at(now), reason, asked_by)
            values = {"drain_token": drain.token, "drain_since": now, "drain_reason": reason, "drain_by": asked_by}
            connection.execute(
                update(machines).where(machines.c.instance == instance).values(**values, answer=None, kept_at=None)
            )
            return drain

    def cancel_drain(self, instance: str, token: str, *, kept: bool = False) -> bool:
        """Let a machine take work again; False when this drain is over, or the stop was confirmed.

        `kept`: since it is busy or silent, so that it is asked again only after a while.
        """
        with self._db.write() as connection:
            row = lock_machine(connection, instance)
            if row is None or row.drain_token != token or row.state == MachineState.STOPPING.value:
                return False
            kept_at = {"kept_at": self._db.now(connection)} if kept else {}
            connection.execute(update(machines).where(machines.c.instance == instance).values(**_NO_DRAIN, **kept_at))
            return True

    def answer(self, instance: str, token: str, busy: Sequence[str]) -> bool:
        """Record what a machine says of itself; False when it was asked something else since."""
        with self._db.write() as connection:
            row = lock_machine(connection, instance)
            if row is None or row.drain_token != token:
                return False
            now = self._db.now(connection)
            said = {"token": token, "at": now, "busy": list(busy)}
            connection.execute(
                update(machines)
                .where(machines.c.instance == instance)
                .values(answer=said, busy=list(busy), seen_at=now)
            )
            return True

    def confirm_stop(self, instance: str, token: str, *, silent: bool = False) -> bool:
        """Take the last look before StopInstances: when True, the machine is `stopping` and no claim of it is granted.

        False when the drain is not this one, the machine has not answered it with "not busy", or anything keeps it on.
        `silent`: no answer is asked for, which is an operator's decision.
        """
        with self._db.write() as connection:
            row = lock_machine(connection, instance)
            now = self._db.now(connection)
            if row is None or row.drain_token != token or _keeps(connection, row, now, silent=silent) is not None:
                return False
            drain = drain_of(row)
            answered = drain is not None and drain.answer is not None and not drain.answer.busy
            if not (answered or silent):
                return False
            connection.execute(
                update(machines)
                .where(machines.c.instance == instance)
                .values(state=MachineState.STOPPING.value, state_since=now)
            )
            return True

    def stop_failed(self, instance: str, token: str) -> bool:
        """Take a confirmed stop back that EC2 did not accept: the machine runs and takes work again."""
        with self._db.write() as connection:
            row = lock_machine(connection, instance)
            if row is None or row.drain_token != token or row.state != MachineState.STOPPING.value:
                return False
            now = self._db.now(connection)
            values: dict[str, Any] = {"state": MachineState.RUNNING.value, "state_since": now, **_NO_DRAIN}
            connection.execute(update(machines).where(machines.c.instance == instance).values(**values))
            return True


def gate(connection: Connection, host: str, task: int, now: float) -> bool:
    """Tell whether a host that is a machine may claim this task now; what it may claim cancels its drain.

    It may not from the confirmation of its stop on, whatever EC2 says, until it was started again.
    """
    query = select(machines).where(machines.c.host == host).order_by(machines.c.instance)
    for row in connection.execute(query.with_for_update()).all():
        if row.state == MachineState.STOPPING.value:
            return False
        if row.drain_token is not None:
            connection.execute(update(machines).where(machines.c.instance == row.instance).values(**_NO_DRAIN))
            record = {"at": now, "pool": row.pool, "instance": row.instance, "action": Action.CANCEL_DRAIN.value}
            said = {"code": "claimed", "reason": f"Task {task} arrived while it was draining."}
            connection.execute(insert(decisions), record | said | {"made_by": "policy", "data": {"task": task}})
    return True


def _keeps(connection: Connection, row: Any, now: float, *, silent: bool = False) -> tuple[str, str] | None:
    if row is None:
        return "unknown", "No such machine is known."
    if row.refused is not None:
        return "refused", f"Seatrial leaves this machine alone: {row.refused}"
    if row.state != MachineState.RUNNING.value:
        return row.state, f"It is {row.state}."
    if row.host is None and not silent:
        return "unregistered", "No worker of it was ever heard of: it is taken for busy."
    running = select(func.count()).where(tasks.c.state == TaskState.RUNNING.value, tasks.c.host == row.host)
    if row.host is not None and (leases := connection.execute(running).scalar_one()):
        return "works", f"It does {leases} task{'s' if leases != 1 else ''}."
    waiting = select(func.count()).where(tasks.c.state == TaskState.QUEUED.value, tasks.c.pool == row.pool, is_due(now))
    if not silent and (queued := connection.execute(waiting).scalar_one()):
        words = "tasks of its pool are" if queued != 1 else "task of its pool is"
        return "queued", f"{queued} {words} waiting."
    held = select(holds).where(
        holds.c.pool == row.pool,
        holds.c.until > now,
        holds.c.released_at.is_(None),
        or_(holds.c.instance.is_(None), holds.c.instance == row.instance),
    )
    if (hold := connection.execute(held.order_by(holds.c.until.desc()).limit(1)).first()) is not None:
        return "held", f"{hold.made_by} keeps it awake until {at(hold.until):%Y-%m-%d %H:%M} UTC."
    return None
