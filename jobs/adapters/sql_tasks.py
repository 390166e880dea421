"""The life of a task in SQL for whoever holds it: claim, renew, end; what a stale attempt was refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, insert, or_, select, update

from jobs.adapters.sql_best import best_task, unfit
from jobs.adapters.sql_drains import gate
from jobs.adapters.sql_interruptions import SqlInterruptions
from jobs.adapters.sql_moves import ending, fence, move, stop
from jobs.adapters.sql_plan import settled_data
from jobs.adapters.sql_rows import append_event, lock_run, refresh_run, task_of
from jobs.adapters.sql_schema import attempts, counts, executions, legs, runs, tasks, units, workers
from jobs.run import LEG_FAILED, Task, TaskState
from jobs.snapshots import wanted_snapshot
from runner.errors import Fenced, Incomplete, UnitsFailed
from runner.model import Output, Reason, TaskKind, Template, UnitState
from runner.quota import Used

S = TaskState

REFUSED = "refused"  # the count of refused writes


@dataclass(frozen=True)
class Claim:
    """A task that is ours now, and all that was recorded for it. `lease` is in seconds.

    `image_digest`: the image that a batch's leg was prepared in; a preparation finds its own.
    `data_id`: what a preparation has to start from; else `snapshot`, if one was asked for. `reuse`: whether a baseline
    may take over what an earlier run has finished. `only_of`: the compare run whose differing and failed units alone are wanted.
    """

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
    compares: bool = False
    data_id: str | None = None
    reuse: bool = True
    only_of: int | None = None
    snapshot: str | None = None
    image_digest: str | None = None


class SqlTasks(SqlInterruptions):
    """Claim, renew and finish tasks, interrupt them, and let them go on."""

    # ---- claim and renew ------------------------------------------------------------------------------

    def claim(
        self,
        *,
        pool: str,
        host: str,
        worker: str,
        lease: float,
        adopt_only: bool = False,
        spare: Used | None = None,
    ) -> Claim | None:
        """Take the best task of the pool: one to adopt on this host, then priority, fair share, age.

        One that another host is about to adopt is left to it for a while.

        A batch is queued only while its leg is prepared, so nothing needs to be asked about the leg. `adopt_only`: take
        nothing but what stands on this host already. A host that is a machine about to be stopped takes nothing. `spare`:
        what may be written on this host, if that is known; what is expected to take more is left to others.
        """
        with self._db.write() as connection:
            if spare is not None:  # else two slots of a host would take one and the same room
                self._db.alone(connection, f"room {host}")
            now = self._db.now(connection)
            while row := best_task(connection, pool, host, now, adopt_only=adopt_only, spare=spare):
                if row.machine is not None and not gate(connection, host, row.id, now):
                    return None
                lock_run(connection, row.run)
                # It became claimable while somebody cancelled the run.
                if (why := ending(connection, row.run)) is not None:
                    move(connection, row, S.CANCELLED, now, reason=why)
                    refresh_run(connection, row.run, now)
                    continue
                self._take(connection, row, now, host=host, worker=worker, lease=lease)
                return self._read_claim(connection, row.id, lease)
        return None

    def does_not_fit(self, *, pool: str, host: str, spare: Used) -> Used | None:
        """Tell whether something is left to others for want of room: then what those that run here may write yet."""
        with self._db.read() as connection:
            return unfit(connection, pool, host, self._db.now(connection), spare)

    def _take(self, connection: Connection, row: Row[Any], now: float, *, host: str, worker: str, lease: float) -> None:
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
        connection.execute(update(runs).where(runs.c.id == row.run).values(attempts=runs.c.attempts + 1))
        data = {"worker": worker, "host": host}
        append_event(connection, row.run, "claim", now, task=row.id, attempt=attempt, data=data)
        refresh_run(connection, row.run, now)

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
            database=leg.database or run.database,
            units_filter=run.units_filter,
            migrate=leg.name == "candidate",
            units=tuple(todo),
            resume_from=row.resume_token,
            resume_output=Output(**row.resume_output) if row.resume_output else None,
            lease=lease,
            compares=run.baseline_commit is not None,
            reuse=run.options.get("reuse") is not False,
            only_of=run.options.get("only_of"),
            snapshot=wanted_snapshot(run.options, leg.name),
            data_id=settled_data(connection, row.run, row.leg) if row.kind == TaskKind.PREPARE.value else None,
            image_digest=leg.image_digest if row.kind == TaskKind.VERIFY.value else None,
        )

    def renew(self, task: int, attempt: int, lease: float) -> bool:
        """Extend the lease; tell whether the run was cancelled or stopped. Raises Fenced."""
        with self._db.write() as connection:
            now = self._db.now(connection)
            changed = connection.execute(
                update(tasks)
                .where(tasks.c.id == task, tasks.c.attempt == attempt, tasks.c.state == S.RUNNING.value)
                .values(lease_until=now + lease, renewals=tasks.c.renewals + 1)
            )
            if changed.rowcount != 1:
                raise Fenced(f"task {task}: attempt {attempt} lost its lease")
            over = or_(runs.c.cancel_requested, runs.c.stop_code.is_not(None))
            query = select(over).join(tasks, tasks.c.run == runs.c.id).where(tasks.c.id == task)
            return bool(connection.execute(query).scalar_one())

    # ---- ends -----------------------------------------------------------------------------------------

    def end(self, task: int, attempt: int, state: TaskState, reason: Reason | None) -> TaskState:
        """End the attempt: done, failed, cancelled or errored; gives the state that was recorded. Raises Fenced.

        A batch is done only when each of its units is: the failed ones may be an earlier attempt's. And an attempt that
        was killed before it came here may have left what the branch's fault was.
        """
        with self._db.write() as connection:
            now = self._db.now(connection)
            row = fence(connection, task, attempt)
            if state is S.DONE and row.kind == TaskKind.VERIFY.value:
                reason = _unfinished(connection, row)
                state = S.DONE if reason is None else S.FAILED
            if state is S.CANCELLED:
                reason = ending(connection, row.run) or reason
            move(connection, row, state, now, reason=reason, fruitless=0 if state is S.DONE else row.fruitless)
            if state is S.FAILED and row.kind == TaskKind.PREPARE.value:
                _stop_the_other_leg(connection, row, now)
            refresh_run(connection, row.run, now)
            return state

    def outcome(self, task: int, attempt: int) -> str | None:
        """Tell how an attempt ended; None while it goes on."""
        with self._db.read() as connection:
            query = select(attempts.c.outcome).where(attempts.c.task == task, attempts.c.attempt == attempt)
            return connection.execute(query).scalar_one_or_none()

    def note_refusal(self, task: int, attempt: int, *, worker: str, what: Sequence[str]) -> None:
        """Record what a stale attempt tried to write and was refused; of a run that was removed it is counted alone."""
        writes = len(what)
        with self._db.write() as connection:
            run = connection.execute(select(tasks.c.run).where(tasks.c.id == task)).scalar_one_or_none()
            if run is not None:
                text = f"Another attempt holds the task: {writes} write{'s were' if writes != 1 else ' was'} refused."
                data = {"worker": worker, "what": list(what), "writes": writes, "text": text}
                append_event(
                    connection, run, "refused", self._db.now(connection), task=task, attempt=attempt, data=data
                )
            self._db.alone(connection, REFUSED)
            more = update(counts).where(counts.c.name == REFUSED).values(number=counts.c.number + writes)
            if connection.execute(more).rowcount == 0:
                connection.execute(insert(counts).values(name=REFUSED, number=writes))

    def refused(self) -> int:
        """Count the writes of stale attempts that were refused since the records began."""
        with self._db.read() as connection:
            found = connection.execute(select(counts.c.number).where(counts.c.name == REFUSED)).scalar_one_or_none()
            return found or 0


def _unfinished(connection: Connection, row: Row[Any]) -> Reason | None:
    """Tell why a batch is not done although its script ended well."""
    query = select(units.c.state, func.count().label("n")).where(units.c.task == row.id).group_by(units.c.state)
    counts = {row.state: row.n for row in connection.execute(query)}
    if left := counts.get(UnitState.TODO.value, 0):
        return Reason(Incomplete.code, f"{left:,} units of the batch are not finished.")
    if (fault := _fault(connection, row.id)) is not None:
        return fault
    if failed := counts.get(UnitState.FAILED.value, 0):
        return Reason(UnitsFailed.code, f"{failed:,} unit{'s' if failed != 1 else ''} failed.")
    return None


def _fault(connection: Connection, task: int) -> Reason | None:
    """Give the branch's fault that the newest execution ended with, None when it had none."""
    query = (
        select(executions.c.reason_code, executions.c.reason_text)
        .where(executions.c.task == task)
        .order_by(executions.c.execution.desc())
        .limit(1)
    )
    found = connection.execute(query).one_or_none()
    return None if found is None or found.reason_code is None else Reason(found.reason_code, found.reason_text)


def _stop_the_other_leg(connection: Connection, row: Row[Any], now: float) -> None:
    """Let the other leg of a compare run end too: there is nothing to compare it with."""
    lock_run(connection, row.run)
    compares = connection.execute(select(runs.c.baseline_commit).where(runs.c.id == row.run)).scalar_one()
    if compares is not None and ending(connection, row.run) is None:
        reason = Reason(LEG_FAILED, f"The {row.leg} could not be prepared, so there is nothing to compare with.")
        stop(connection, row.run, reason, now)
