"""The life of a task in SQL: every state change is a compare-and-set that appends an event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, case, delete, func, insert, or_, select, update

from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_rows import append_event, refresh_run, task_of
from jobs.adapters.sql_schema import attempts, legs, runs, steps, tasks, units, workers
from jobs.run import BUDGET_WITHOUT_PROGRESS, Task, TaskState, backoff, check_transition
from runner.errors import Fenced
from runner.model import Output, Reason, TaskKind, Template, UnitState

S = TaskState


@dataclass(frozen=True)
class Claim:
    """A task that is ours now, and all that was recorded for it. `lease` is in seconds."""

    task: Task
    project: str
    commit: str
    spec_text: str
    spec_source: str
    image: str | None
    template: Template | None
    database: str | None
    units_filter: str | None
    migrate: bool
    units: tuple[str, ...]
    resume_from: str | None
    resume_output: Output | None
    lease: float


def fence(connection: Connection, task: int, attempt: int) -> Row[Any]:
    """Lock the task's row and give it; raise Fenced unless this attempt runs it now."""
    row = connection.execute(select(tasks).where(tasks.c.id == task).with_for_update()).one_or_none()
    if row is None or row.attempt != attempt or row.state != S.RUNNING:
        raise Fenced(f"task {task}: attempt {attempt} is not the current one")
    return row


def move(
    connection: Connection,
    row: Row[Any],
    new: TaskState,
    now: float,
    *,
    reason: Reason | None = None,
    **values: Any,
) -> None:
    """Take one step of the state machine: compare (state, attempt), set, append the event."""
    check_transition(S(row.state), new)
    values |= {
        "state": new.value,
        "reason_code": reason.code if reason else None,
        "reason_text": reason.text if reason else None,
    }
    if new is not S.RUNNING:
        values |= {"lease_until": None, "worker": None}
    if new in (S.DONE, S.FAILED, S.CANCELLED, S.ERRORED):
        values["finished_at"] = now
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
    append_event(connection, row.run, "task", now, task=row.id, attempt=row.attempt, data=data)


class SqlTasks:
    """Claim, renew, finish, interrupt and give back tasks."""

    def __init__(self, database: Database) -> None:
        self._db = database

    # ---- claim and renew ------------------------------------------------------------------------------

    def claim(self, *, pool: str, host: str, worker: str, lease: float) -> Claim | None:
        """Take the best task of the pool: one to adopt on this host, then priority, fair share, age."""
        with self._db.write() as connection:
            now = self._db.now(connection)
            busy = (
                select(tasks.c.user, func.count().label("n"))
                .where(tasks.c.state == S.RUNNING.value)
                .group_by(tasks.c.user)
                .subquery()
            )
            query = (
                select(tasks)
                .join(legs, and_(legs.c.run == tasks.c.run, legs.c.name == tasks.c.leg))
                .outerjoin(busy, busy.c.user == tasks.c.user)
                .where(tasks.c.state == S.QUEUED.value, tasks.c.pool == pool, tasks.c.due_at <= now)
                .where(or_(tasks.c.kind == TaskKind.PREPARE.value, legs.c.prepared))
                .order_by(
                    case((tasks.c.host == host, 0), else_=1),
                    tasks.c.priority.desc(),
                    func.coalesce(busy.c.n, 0),
                    tasks.c.run,
                    tasks.c.batch,
                    tasks.c.id,
                )
                .limit(1)
            )
            row = connection.execute(query.with_for_update(of=tasks, skip_locked=True)).one_or_none()
            if row is None:
                return None
            attempt = row.attempt + 1
            move(
                connection,
                row,
                S.RUNNING,
                now,
                attempt=attempt,
                host=host,
                worker=worker,
                lease_until=now + lease,
                renewals=0,
                progress=False,
                started_at=row.started_at or now,
                finished_at=None,
            )
            values = {
                "task": row.id,
                "attempt": attempt,
                "run": row.run,
                "worker": worker,
                "host": host,
                "started_at": now,
                "log_offset": row.log_size,
            }
            connection.execute(insert(attempts).values(**values))
            connection.execute(update(workers).where(workers.c.name == worker).values(task=row.id))
            append_event(
                connection,
                row.run,
                "claim",
                now,
                task=row.id,
                attempt=attempt,
                data={"worker": worker, "host": host},
            )
            refresh_run(connection, row.run, now)
            return self._read_claim(connection, row.id, lease)

    def _read_claim(self, connection: Connection, task: int, lease: float) -> Claim:
        row = connection.execute(select(tasks).where(tasks.c.id == task)).one()
        run = connection.execute(select(runs).where(runs.c.id == row.run)).one()
        leg = connection.execute(select(legs).where(legs.c.run == row.run, legs.c.name == row.leg)).one()
        todo = connection.scalars(
            select(units.c.unit)
            .where(units.c.task == task, units.c.state == UnitState.TODO.value)
            .order_by(units.c.position)
        ).all()
        return Claim(
            task=task_of(row),
            project=run.project,
            commit=leg.commit,
            spec_text=leg.spec_text,
            spec_source=leg.spec_source,
            image=leg.image,
            template=Template(**leg.template) if leg.template else None,
            database=run.database,
            units_filter=run.units_filter,
            migrate=leg.name == "candidate",
            units=tuple(todo),
            resume_from=row.resume_token,
            resume_output=Output(**row.resume_output) if row.resume_output else None,
            lease=lease,
        )

    def renew(self, task: int, attempt: int, lease: float) -> bool:
        """Extend the lease; tell whether the run's cancellation was asked for. Raises Fenced."""
        with self._db.write() as connection:
            now = self._db.now(connection)
            changed = connection.execute(
                update(tasks)
                .where(tasks.c.id == task, tasks.c.attempt == attempt, tasks.c.state == S.RUNNING.value)
                .values(lease_until=now + lease, renewals=tasks.c.renewals + 1)
            )
            if changed.rowcount != 1:
                raise Fenced(f"task {task}: attempt {attempt} lost its lease")
            query = select(runs.c.cancel_requested).join(tasks, tasks.c.run == runs.c.id).where(tasks.c.id == task)
            return bool(connection.execute(query).scalar_one())

    # ---- ends -----------------------------------------------------------------------------------------

    def end(self, task: int, attempt: int, state: TaskState, reason: Reason | None) -> None:
        """End the attempt: done, failed, cancelled or errored."""
        with self._db.write() as connection:
            now = self._db.now(connection)
            row = fence(connection, task, attempt)
            move(connection, row, state, now, reason=reason, fruitless=0 if state is S.DONE else row.fruitless)
            refresh_run(connection, row.run, now)

    def interrupt(self, task: int, attempt: int, reason: Reason, *, free: bool = False) -> TaskState:
        """End the attempt because of the world; gives `interrupted`, or `errored` when the budget is spent.

        `free`: a drain, which never costs.
        """
        with self._db.write() as connection:
            row = fence(connection, task, attempt)
            return self._interrupt(connection, row, reason, free=free)

    def _interrupt(self, connection: Connection, row: Row[Any], reason: Reason, *, free: bool = False) -> TaskState:
        now = self._db.now(connection)
        cancelled = connection.execute(select(runs.c.cancel_requested).where(runs.c.id == row.run)).scalar_one()
        fruitless = row.fruitless if free else (0 if row.progress else row.fruitless + 1)
        if cancelled:
            move(connection, row, S.CANCELLED, now, reason=Reason("cancelled", "The run was cancelled."))
            new = S.CANCELLED
        elif fruitless >= BUDGET_WITHOUT_PROGRESS:
            text = f"Needs attention: interrupted {fruitless} times in a row without progress. Last: {reason.text}"
            move(connection, row, S.ERRORED, now, reason=Reason("needs_attention", text), fruitless=fruitless)
            new = S.ERRORED
        else:
            delay = 0.0 if free else backoff(fruitless)
            move(connection, row, S.INTERRUPTED, now, reason=reason, fruitless=fruitless, due_at=now + delay)
            new = S.INTERRUPTED
        refresh_run(connection, row.run, now)
        return new

    def note_refusal(self, task: int, attempt: int) -> None:
        """Record that a stale attempt tried to write and was refused."""
        with self._db.write() as connection:
            run = connection.execute(select(tasks.c.run).where(tasks.c.id == task)).scalar_one()
            append_event(connection, run, "refused", self._db.now(connection), task=task, attempt=attempt)

    # ---- what the sweeper and the supervisor do ---------------------------------------------------------

    def revoke(self, worker: str, reason: Reason) -> list[int]:
        """Take back what a worker process that is known to be dead held; gives the tasks."""
        with self._db.write() as connection:
            rows = connection.execute(
                select(tasks).where(tasks.c.state == S.RUNNING.value, tasks.c.worker == worker).with_for_update()
            ).all()
            for row in rows:
                self._interrupt(connection, row, reason)
            connection.execute(delete(workers).where(workers.c.name == worker))
            return [row.id for row in rows]

    def running(self) -> list[tuple[int, int, int, float, str]]:
        """List (task, attempt, renewals, lease_until, worker) of all running tasks."""
        with self._db.read() as connection:
            query = select(tasks.c.id, tasks.c.attempt, tasks.c.renewals, tasks.c.lease_until, tasks.c.worker).where(
                tasks.c.state == S.RUNNING.value
            )
            return [(r.id, r.attempt, r.renewals, r.lease_until, r.worker) for r in connection.execute(query)]

    def expire(self, task: int, attempt: int, renewals: int) -> bool:
        """Interrupt a running task whose lease ran out; False when it was renewed meanwhile."""
        with self._db.write() as connection:
            row = connection.execute(select(tasks).where(tasks.c.id == task).with_for_update()).one_or_none()
            if row is None or (row.state, row.attempt, row.renewals) != (S.RUNNING.value, attempt, renewals):
                return False
            text = f"The worker {row.worker} on {row.host} fell silent."
            self._interrupt(connection, row, Reason("worker_lost", text))
            return True

    def requeue_due(self) -> list[int]:
        """Queue the interrupted tasks whose time has come."""
        with self._db.write() as connection:
            now = self._db.now(connection)
            rows = connection.execute(
                select(tasks)
                .where(tasks.c.state == S.INTERRUPTED.value, tasks.c.due_at <= now)
                .with_for_update(skip_locked=True)
            ).all()
            for row in rows:
                move(connection, row, S.QUEUED, now, rung_at=None)
            for run in {row.run for row in rows}:
                refresh_run(connection, run, now)
            return [row.id for row in rows]

    def to_ring(self, *, every: float, limit: int = 100) -> list[tuple[int, str]]:
        """Give (task, pool) of claimable tasks not rung for in the last `every` seconds, and note the ring."""
        with self._db.read() as connection:
            if not self._silent(connection, every, limit):
                return []
        with self._db.write() as connection:
            found = self._silent(connection, every, limit)
            now = self._db.now(connection)
            if found:
                connection.execute(update(tasks).where(tasks.c.id.in_([t for t, _ in found])).values(rung_at=now))
            return found

    def _silent(self, connection: Connection, every: float, limit: int) -> list[tuple[int, str]]:
        now = self._db.now(connection)
        query = (
            select(tasks.c.id, tasks.c.pool)
            .join(legs, and_(legs.c.run == tasks.c.run, legs.c.name == tasks.c.leg))
            .where(tasks.c.state == S.QUEUED.value, tasks.c.due_at <= now)
            .where(or_(tasks.c.kind == TaskKind.PREPARE.value, legs.c.prepared))
            .where(or_(tasks.c.rung_at.is_(None), tasks.c.rung_at < now - every))
            .order_by(tasks.c.id)
            .limit(limit)
        )
        return [(row.id, row.pool) for row in connection.execute(query)]
