"""Which task a slot takes next, in SQL. Every idle slot asks again and again, so each statement is put together once."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BindParameter, Connection, Row, bindparam, func, select

from jobs.adapters.sql_moves import is_due
from jobs.adapters.sql_schema import executions, machines, tasks
from jobs.run import TaskState

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
    .where(*_CLAIMABLE, ~_KEPT_FOR_ANOTHER)
    .order_by(tasks.c.priority.desc(), func.coalesce(_BUSY.c.n, 0), tasks.c.run, tasks.c.batch, tasks.c.id)
    .limit(1)
    .with_for_update(of=tasks, skip_locked=True)
)
# Of a host that is no machine, which most are, nothing more is asked.
_HERE = select(machines.c.instance).where(machines.c.host == _HOST).limit(1).scalar_subquery()
_WHOLE = select(tasks, _HERE.label("machine")).where(tasks.c.id == bindparam("task_"))


def best_task(connection: Connection, pool: str, host: str, now: float, *, adopt_only: bool) -> Row[Any] | None:
    """Lock and give the best task of a pool for a slot of a host, with the `machine` that the host is; None: there is none.

    One to adopt comes first, then priority, fair share, age. `adopt_only`: nothing but what stands there already.
    """
    asked = {"pool_": pool, "host_": host, "now_": now}
    for query in (_ADOPTABLE,) if adopt_only else (_ADOPTABLE, _FAIR):
        best = connection.execute(query, asked).scalar_one_or_none()
        if best is not None:
            return connection.execute(_WHOLE, {"task_": best, "host_": host}).one()
    return None
