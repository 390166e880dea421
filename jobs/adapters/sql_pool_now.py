"""A pool of machines in SQL, as it is at a time. Looked at once a second, so each statement is put together once."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BindParameter, Connection, and_, bindparam, case, func, or_, select

from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_machine_rows import hold_of, machine_of
from jobs.adapters.sql_moves import is_due
from jobs.adapters.sql_rows import at, moment
from jobs.adapters.sql_schema import attempts, holds, machines, runs, shortages, tasks, wishes, workers
from jobs.gaps import gaps_of
from jobs.machines import MachineNow, PoolNow, WishKind
from jobs.run import TaskState

ALIVE_SECONDS = 60.0  # a slot shows its presence every few seconds
FORMS_SECONDS = 3_600.0
REMEMBERED = 400  # runs and forms of the past

_POOL: BindParameter[str] = bindparam("pool_")
_NOW: BindParameter[float] = bindparam("now_")
_QUEUED, _INTERRUPTED = TaskState.QUEUED.value, TaskState.INTERRUPTED.value

_READY = select(func.count(), func.min(tasks.c.created_at)).where(
    tasks.c.state == _QUEUED, tasks.c.pool == _POOL, is_due(_NOW)
)
_LATER = select(tasks.c.due_at).where(tasks.c.state.in_([_QUEUED, _INTERRUPTED]), tasks.c.pool == _POOL, ~is_due(_NOW))
# An interrupted one whose time has come is queued by the sweeper any moment.
_OVERDUE = select(tasks.c.due_at).where(tasks.c.state == _INTERRUPTED, tasks.c.pool == _POOL, is_due(_NOW))
_HELD = (
    select(holds).where(holds.c.pool == _POOL, holds.c.until > _NOW, holds.c.released_at.is_(None)).order_by(holds.c.id)
)
_SHORT = select(shortages.c.name, shortages.c.until).where(shortages.c.pool == _POOL, shortages.c.until > _NOW)
_MACHINES = select(machines).where(machines.c.pool == _POOL).order_by(machines.c.instance)
_LEASES = (
    select(tasks.c.host, func.count().label("n")).where(tasks.c.state == TaskState.RUNNING.value).group_by(tasks.c.host)
)
# Slots that take no new work count as long as they have a task: no other one will be done by them.
_TAKES = or_(workers.c.task.is_not(None), and_(workers.c.shortage.is_(None), workers.c.draining.is_(False)))
_ALIVE = (
    select(workers.c.host, func.sum(case((_TAKES, 1), else_=0)).label("n"))
    .where(workers.c.seen_at >= bindparam("since_"), workers.c.pool == _POOL)
    .group_by(workers.c.host)
)
_ENDED = (
    select(attempts.c.host, func.max(attempts.c.ended_at).label("at"))
    .where(attempts.c.host.in_(bindparam("hosts_", expanding=True)))
    .group_by(attempts.c.host)
)
_NEWEST = (
    select(runs.c.created_at, runs.c.finished_at)
    .where(runs.c.pool == _POOL)
    .order_by(runs.c.id.desc())
    .limit(REMEMBERED)
)
_OPENED = (
    select(wishes.c.made_at)
    .where(wishes.c.pool == _POOL, wishes.c.kind == WishKind.FORM.value)
    .order_by(wishes.c.made_at.desc())
    .limit(REMEMBERED)
)


class SqlPoolNow:
    """Read all that is decided by."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def now(self, pool: str, *, slots: int = 1) -> PoolNow:
        """Give all that is known of a pool, in one consistent view; `slots`: of a machine whose worker is not there."""
        with self._db.read() as connection:
            now = self._db.now(connection)
            this, then = {"pool_": pool}, {"pool_": pool, "now_": now}
            queued, oldest = connection.execute(_READY, then).one()
            overdue = [min(one, now) for one in connection.scalars(_OVERDUE, then)]
            due = sorted([*connection.scalars(_LATER, then), *overdue])
            newest = connection.execute(_NEWEST, this).all()[::-1]
            forms = list(connection.scalars(_OPENED, this))[::-1]
            return PoolNow(
                pool=pool,
                machines=tuple(_machines(connection, pool, now, slots)),
                queued=queued,
                oldest_queued=moment(oldest),
                due=tuple(map(at, due)),
                holds=tuple(map(hold_of, connection.execute(_HELD, then))),
                forms=tuple(at(form) for form in forms if form > now - FORMS_SECONDS),
                arrivals=tuple(at(row.created_at) for row in newest),
                short={row.name: at(row.until) for row in connection.execute(_SHORT, then)},
                gaps=gaps_of([(row.created_at, row.finished_at) for row in newest], forms),
            )


def _machines(connection: Connection, pool: str, now: float, slots: int) -> list[MachineNow]:
    rows = connection.execute(_MACHINES, {"pool_": pool}).all()
    hosts = [row.host for row in rows if row.host is not None]
    if not hosts:
        return [MachineNow(machine_of(row), slots=slots, busy=tuple(row.busy)) for row in rows]
    leases = {row.host: row.n for row in connection.execute(_LEASES)}
    alive = connection.execute(_ALIVE, {"pool_": pool, "since_": now - ALIVE_SECONDS})
    found = {row.host: row.n for row in alive}
    ended = {row.host: row.at for row in connection.execute(_ENDED, {"hosts_": hosts})}
    return [
        MachineNow(
            machine=machine_of(row),
            leases=leases.get(row.host, 0),
            slots=found.get(row.host, slots),
            busy=tuple(row.busy),
            idle_since=_idle_since(row, leases.get(row.host, 0), ended.get(row.host)),
            kept_at=moment(row.kept_at),
        )
        for row in rows
    ]


def _idle_since(row: Any, leases: int, ended: float | None) -> datetime | None:
    if leases or row.host is None:
        return None
    return moment(max((one for one in (ended, row.registered_at) if one is not None), default=None))
