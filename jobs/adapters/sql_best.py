"""Which task a slot takes next, in SQL. Every idle slot asks again and again, so each statement is put together once."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BindParameter, Connection, Row, bindparam, func, select

from jobs.adapters.sql_moves import is_due
from jobs.adapters.sql_room import FITS, YET, asked
from jobs.adapters.sql_schema import executions, machines, tasks
from jobs.run import TaskState
from runner.quota import Used

_POOL: BindParameter[str] = bindparam("pool_")
_HOST: BindParameter[str] = bindparam("host_")
_NOW: BindParameter[float] = bindparam("now_")

_CLAIMABLE = (tasks.c.state == TaskState.QUEUED.value, tasks.c.pool == _POOL, is_due(_NOW))
# What stands on this host already.
_ADOPTABLE = (
    select(tasks.c.id)
    .join(executions, executions.c.task == tasks.c.id)
    .where(*_CLAIMABLE, executions.c.host == _HOST, executions.c.state == "running")
    .order_by(tasks.c.priority.desc(), tasks.c.run, tasks.c.batch, tasks.c.id)
    .limit(1)
    .with_for_update(of=tasks, skip_locked=True)
)
# A container of it stands on another host that is expected to go on with it.
_KEPT_FOR_ANOTHER = (
    select(executions.c.task)
    .where(
        executions.c.task == tasks.c.id,
        executions.c.state == "running",
        executions.c.host != _HOST,
        executions.c.kept_until > _NOW,
    )
    .exists()
)
_BUSY = (
    select(tasks.c.user, func.count().label("n"))
    .where(tasks.c.state == TaskState.RUNNING.value)
    .group_by(tasks.c.user)
    .subquery()
)
_FAIR = (
    select(tasks.c.id)
    .outerjoin(_BUSY, _BUSY.c.user == tasks.c.user)
    .where(*_CLAIMABLE, ~_KEPT_FOR_ANOTHER, FITS)
    .order_by(tasks.c.priority.desc(), func.coalesce(_BUSY.c.n, 0), tasks.c.run, tasks.c.batch, tasks.c.id)
    .limit(1)
    .with_for_update(of=tasks, skip_locked=True)
)
_UNFIT = select(tasks.c.id).where(*_CLAIMABLE, ~_KEPT_FOR_ANOTHER, ~FITS).limit(1)  # left for want of room
# Of a host that is no machine, which most are, nothing more is asked.
_HERE = select(machines.c.instance).where(machines.c.host == _HOST).limit(1).scalar_subquery()
_WHOLE = select(tasks, _HERE.label("machine")).where(tasks.c.id == bindparam("task_"))


def best_task(
    connection: Connection, pool: str, host: str, now: float, *, adopt_only: bool, spare: Used | None
) -> Row[Any] | None:
    """Lock and give the best task of a pool for a slot of a host, with the `machine` that the host is; None: there is none.

    One to adopt comes first, then priority, fair share, age. `adopt_only`: nothing but what stands there already.
    `spare`: what may be written on that host, if it is known; a task that is expected to take more is left to others.
    """
    given = {"pool_": pool, "now_": now} | asked(host, spare)
    for query in (_ADOPTABLE,) if adopt_only else (_ADOPTABLE, _FAIR):
        best = connection.execute(query, given).scalar_one_or_none()
        if best is not None:
            return connection.execute(_WHOLE, {"task_": best, "host_": host}).one()
    return None


def unfit(connection: Connection, pool: str, host: str, now: float, spare: Used) -> Used | None:
    """Give what those that run on a host may write yet, when a task is left to others because of that; else None."""
    if connection.execute(_UNFIT, {"pool_": pool, "now_": now} | asked(host, spare)).first() is None:
        return None
    size, files = connection.execute(YET, {"host_": host}).one()
    return Used(int(size), int(files))
