"""The steps of the state machine in SQL: every one is a compare-and-set that appends an event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Connection, Row, bindparam, or_, select, update

from jobs.adapters.sql_history import note_write
from jobs.adapters.sql_rows import append_event, cancelled_by
from jobs.adapters.sql_schema import attempts, runs, steps, tasks
from jobs.run import FAR_SECONDS, FINAL_TASK_STATES, TaskState, check_transition
from runner.errors import Fenced
from runner.model import Reason

S = TaskState

# Every write of an attempt asks the first one: put together once, it costs half as much.
_TASK_LOCKED = select(tasks).where(tasks.c.id == bindparam("task_")).with_for_update()
_TASK = select(tasks).where(tasks.c.id == bindparam("task_"))
_END = select(runs.c.cancel_requested, runs.c.stop_code, runs.c.stop_text).where(runs.c.id == bindparam("run_"))


def is_due(now: float | BindParameter[float]) -> ColumnElement[bool]:
    """Select tasks whose time has come, as jobs.run.is_due does."""
    return or_(tasks.c.due_at <= now, tasks.c.due_at - FAR_SECONDS > now)


def fence(connection: Connection, task: int, attempt: int, *, lock: bool = True) -> Row[Any]:
    """Lock the task's row and give it; raise Fenced unless this attempt runs it now."""
    row = connection.execute(_TASK_LOCKED if lock else _TASK, {"task_": task}).one_or_none()
    if row is None or row.attempt != attempt or row.state != S.RUNNING:
        note_write(row, task, attempt, accepted=False)
        raise Fenced(f"task {task}: attempt {attempt} is not the current one")
    if lock:
        note_write(row, task, attempt, accepted=True)
    return row


def ending(connection: Connection, run: int) -> Reason | None:
    """Tell why nothing of the run is to be begun any more: somebody cancelled it, or it was stopped; None otherwise."""
    row = connection.execute(_END, {"run_": run}).one()
    if row.cancel_requested:
        return cancelled_by(connection, run)
    return Reason(row.stop_code, row.stop_text) if row.stop_code is not None else None


def stop(connection: Connection, run: int, reason: Reason, now: float) -> None:
    """Let nothing of a run be begun any more: what waits ends at once, what runs is told at its next renewal."""
    values = {"stop_code": reason.code, "stop_text": reason.text}
    connection.execute(update(runs).where(runs.c.id == run).values(**values))
    append_event(connection, run, "stop", now, data={"code": reason.code, "text": reason.text})
    cancel_waiting(connection, run, reason, now)


def cancel_waiting(connection: Connection, run: int, reason: Reason, now: float) -> None:
    """Cancel the tasks that wait. One that is locked is claimed or interrupted now, by somebody who will see why."""
    waiting = connection.execute(
        select(tasks)
        .where(tasks.c.run == run, tasks.c.state.in_([S.QUEUED.value, S.INTERRUPTED.value]))
        .order_by(tasks.c.id)
        .with_for_update(skip_locked=True)
    ).all()
    for row in waiting:
        move(connection, row, S.CANCELLED, now, reason=reason)


def move(
    connection: Connection,
    row: Row[Any],
    new: TaskState,
    now: float,
    *,
    reason: Reason | None = None,
    told: Mapping[str, Any] | None = None,
    **values: Any,
) -> None:
    """Take one step of the state machine: compare (state, attempt), set, append the event; `told`: what more it says."""
    check_transition(S(row.state), new)
    values |= {
        "state": new.value,
        "reason_code": reason.code if reason else None,
        "reason_text": reason.text if reason else None,
    }
    if new is not S.RUNNING:
        values |= {"lease_until": None, "worker": None}
    if new in FINAL_TASK_STATES:
        values["finished_at"] = now
    if new is S.QUEUED:
        values |= {"finished_at": None, "rung_at": None}
    changed = connection.execute(
        update(tasks)
        .where(tasks.c.id == row.id, tasks.c.state == row.state, tasks.c.attempt == row.attempt)
        .values(**values)
    )
    if changed.rowcount != 1:
        raise Fenced(f"task {row.id} is no longer {row.state} in attempt {row.attempt}")
    if S(row.state) is S.RUNNING:
        connection.execute(
            update(attempts)
            .where(attempts.c.task == row.id, attempts.c.attempt == row.attempt)
            .values(
                ended_at=now,
                outcome=new.value,
                reason_code=values["reason_code"],
                reason_text=values["reason_text"],
            )
        )
        connection.execute(
            update(steps)
            .where(steps.c.task == row.id, steps.c.state == "running")
            .values(state="ended", seconds=now - steps.c.started_at)
        )
    data = {"from": row.state, "to": new.value, "code": values["reason_code"], "text": values["reason_text"]}
    append_event(connection, row.run, "task", now, task=row.id, attempt=row.attempt, data=data | dict(told or {}))
