"""What tasks take of a host's disk, in SQL: what a new one is expected to, and what those that run have yet to write."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BindParameter, Connection, and_, bindparam, case, func, or_, select

from jobs.adapters.sql_ledger import comparable
from jobs.adapters.sql_schema import executions, legs, runs, tasks
from jobs.run import TaskState
from runner.errors import LimitExceeded
from runner.model import TaskKind
from runner.quota import Used, most_files

NO_LIMIT = Used(1 << 62, 1 << 62)

_HOST: BindParameter[str] = bindparam("host_")
_BYTES: BindParameter[int] = bindparam("bytes_")
_FILES: BindParameter[int] = bindparam("files_")


def _yet(need: Any, peak: Any) -> Any:
    """Sum up what the tasks that run on a host are expected to write beyond what they were seen to have."""
    left = need - func.coalesce(peak, 0)
    return func.coalesce(func.sum(case((left > 0, left), else_=0)), 0)


_going = tasks.alias("going")
YET = (
    select(_yet(_going.c.need_bytes, executions.c.peak_bytes), _yet(_going.c.need_files, executions.c.peak_files))
    .select_from(_going)
    .outerjoin(executions, and_(executions.c.task == _going.c.id, executions.c.execution == _going.c.execution))
    .where(_going.c.state == TaskState.RUNNING.value, _going.c.host == _HOST)
)
_YET_BYTES = YET.with_only_columns(_yet(_going.c.need_bytes, executions.c.peak_bytes)).scalar_subquery()
_YET_FILES = YET.with_only_columns(_yet(_going.c.need_files, executions.c.peak_files)).scalar_subquery()
# A task finds room on a host that may still write so much (see asked).
FITS = or_(
    tasks.c.need_bytes.is_(None),
    and_(tasks.c.need_bytes + _YET_BYTES <= _BYTES, tasks.c.need_files + _YET_FILES <= _FILES),
)


def asked(host: str, spare: Used | None) -> dict[str, Any]:
    """Give the parameters of FITS. `spare`: what may be written before the host is at its floor; None: who knows."""
    known = spare or NO_LIMIT
    return {"host_": host, "bytes_": known.size, "files_": known.files}


def took_before(connection: Connection, project: str, run: int, kind: TaskKind) -> Used | None:
    """Give what the largest execution of a kind took in the last run that this one can be compared with, if it is known."""
    last = comparable(connection, project, run, least=1)
    if last is None:
        return None
    query = (
        select(func.max(executions.c.peak_bytes), func.max(executions.c.peak_files))
        .join(tasks, tasks.c.id == executions.c.task)
        .where(tasks.c.run == last, tasks.c.kind == kind.value)
        # What ran away is no measure.
        .where(executions.c.reason_code.is_distinct_from(LimitExceeded.code))
    )
    size, files = connection.execute(query).one()
    return None if size is None else Used(size, files)


def within(took: Used | None, limit: int | None) -> Used | None:
    """Give what is to be expected of a leg: never more than its own limits.disk allows."""
    if took is None or limit is None:
        return took
    return Used(min(took.size, limit), min(took.files, most_files(limit)))


def need_of(connection: Connection, run: int, leg: str, kind: TaskKind) -> Used | None:
    """Give what a task of a leg is expected to take of a disk; None when there is nothing to compare with."""
    query = select(runs.c.project, legs.c.disk_limit).join(legs, legs.c.run == runs.c.id)
    project, limit = connection.execute(query.where(runs.c.id == run, legs.c.name == leg)).one()
    return within(took_before(connection, project, run, kind), limit)
