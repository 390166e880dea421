"""The life of a task in SQL: claim, renew, end, interrupt, and what sweeper and supervisor do."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, or_, select, update

from jobs.adapters.sql_best import best_task, unfit
from jobs.adapters.sql_drains import gate
from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_ledger import has_new_token
from jobs.adapters.sql_moves import ending, fence, is_due, move, stop
from jobs.adapters.sql_plan import settled_data
from jobs.adapters.sql_rows import append_event, lock_run, refresh_run, task_of
from jobs.adapters.sql_schema import attempts, counts, events, executions, legs, runs, tasks, units, workers
from jobs.run import LEG_FAILED, OUTAGES, WORKER_LOST, Task, TaskState, interruption
from jobs.snapshots import wanted_snapshot
from runner.errors import Drained, Fenced, Incomplete, StoreUnavailable, UnitsFailed
from runner.model import Output, Reason, TaskKind, Template, UnitState
from runner.quota import Used

S = TaskState

_DUE = (  # asked every second
    select(tasks)
    .where(tasks.c.state == S.INTERRUPTED.value, is_due(bindparam("now_")))
    .order_by(tasks.c.run, tasks.c.id)
    .with_for_update(skip_locked=True)
)
# Locked when their run was cancelled or stopped, by a claim or a ring that came to nothing, so that they wait still.
_OVER = (
    select(tasks)
    .join(runs, runs.c.id == tasks.c.run)
    .where(tasks.c.state.in_([S.QUEUED.value, S.INTERRUPTED.value]))
    .where(or_(runs.c.cancel_requested, runs.c.stop_code.is_not(None)))
    .order_by(tasks.c.run, tasks.c.id)
    .with_for_update(of=tasks, skip_locked=True)
)
REFUSED = "refused"  # the count of refused writes
LONG_WAIT = 0.5
# A worker is started again within some seconds, a whole server too; then its host goes on with what stands there. Another
# one would have to begin anew, and waits so long.
RETURN_SECONDS = 20.0
COMING_BACK = frozenset({Drained.code, StoreUnavailable.code})
SILENT_WORKER_SECONDS = 60.0  # a slot shows its presence every few seconds


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


class SqlTasks:
    """Claim, renew, finish, interrupt and give back tasks."""

    def __init__(self, database: Database) -> None:
        self._db = database

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

    def interrupt(self, task: int, attempt: int, reason: Reason, *, free: bool = False) -> TaskState:
        """End the attempt because of the world; gives `interrupted`, or `errored` when the budget is spent.

        `free`: a drain, which never costs.
        """
        with self._db.write() as connection:
            row = fence(connection, task, attempt)
            return self._interrupt(connection, row, reason, free=free, back=reason.code in COMING_BACK)

    def _interrupt(
        self, connection: Connection, row: Row[Any], reason: Reason, *, free: bool = False, back: bool = False
    ) -> TaskState:
        """Interrupt; `back`: its host says so itself, and a worker there is about to go on with the container."""
        lock_run(connection, row.run)
        now = self._db.now(connection)
        progress = row.progress or has_new_token(connection, row)
        outages = _outages_before(connection, row) if reason.code in OUTAGES else []
        decided = interruption(
            reason.code, progress=progress, fruitless=row.fruitless, free=free, outages=outages, now=now
        )
        if (why := ending(connection, row.run)) is not None:
            move(connection, row, S.CANCELLED, now, reason=why)
            new = S.CANCELLED
        elif decided.errored:
            text = f"Needs attention: {decided.why}. Last: {reason.text}"
            end = Reason("needs_attention", text)
            move(connection, row, S.ERRORED, now, reason=end, fruitless=decided.fruitless)
            new = S.ERRORED
        else:
            due = now + decided.delay
            told = {"progress": True} if progress else {}
            move(connection, row, S.INTERRUPTED, now, reason=reason, told=told, fruitless=decided.fruitless, due_at=due)
            standing = (executions.c.task == row.id, executions.c.state == "running", executions.c.host == row.host)
            kept = due + RETURN_SECONDS if back else None
            connection.execute(update(executions).where(*standing).values(kept_until=kept))
            new = S.INTERRUPTED
        refresh_run(connection, row.run, now)
        return new

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

    # ---- what the sweeper and the supervisor do ---------------------------------------------------------

    def revoke(self, worker: str, reason: Reason) -> list[int]:
        """Take back what a worker process that is known to be dead held; gives the tasks."""
        with self._db.write() as connection:
            rows = connection.execute(
                select(tasks)
                .where(tasks.c.state == S.RUNNING.value, tasks.c.worker == worker)
                .order_by(tasks.c.run, tasks.c.id)
                .with_for_update()
            ).all()
            for row in rows:
                self._interrupt(connection, row, reason, back=True)
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
        """Interrupt a running task whose lease ran out; False when it was renewed meanwhile, or could not be.

        Who waited for the store to be writable, as this did, was not silent: it is given another chance. One that is
        locked is being written; nobody waits for it here, since all the others are to be judged too.
        """
        asked = time.monotonic()
        with self._db.write() as connection:
            if time.monotonic() - asked > LONG_WAIT:
                return False
            query = select(tasks).where(tasks.c.id == task).with_for_update(skip_locked=True)
            row = connection.execute(query).one_or_none()
            if row is None or (row.state, row.attempt, row.renewals) != (S.RUNNING.value, attempt, renewals):
                return False
            if not self._db.is_sqlite and row.lease_until > self._db.now(connection):
                return False  # its holder's lease is longer than that of the sweeper that asks
            if not _lock_free_runs(connection, [row.run]):
                return False
            text = f"The worker {row.worker} on {row.host} fell silent."
            self._interrupt(connection, row, Reason(WORKER_LOST, text))
            return True

    def requeue_due(self) -> list[int]:
        """Queue the interrupted tasks whose time has come, and end those whose run is over; gives the queued ones.

        Those of a run that is locked follow a pass later.
        """
        with self._db.write() as connection:
            now = self._db.now(connection)
            over = connection.execute(_OVER).all()
            ended = {row.id for row in over}
            due = [row for row in connection.execute(_DUE, {"now_": now}) if row.id not in ended]
            free = _lock_free_runs(connection, [row.run for row in (*over, *due)])
            for row in over:
                if row.run in free and (why := ending(connection, row.run)) is not None:
                    move(connection, row, S.CANCELLED, now, reason=why)
            rows = [row for row in due if row.run in free]
            for row in rows:
                move(connection, row, S.QUEUED, now, told={"text": _pause_is_over(connection, row)})
            for run in sorted(free):
                refresh_run(connection, run, now)
            return [row.id for row in rows]

    def to_ring(self, *, every: float, limit: int = 100) -> list[tuple[int, str]]:
        """Give (task, pool) of claimable tasks not rung for in the last `every` seconds, and note the ring.

        At most one for each slot that is idle: a busy one looks for itself when it ends.
        """
        with self._db.read() as connection:
            if not self._silent(connection, every, limit):
                return []
        with self._db.write() as connection:
            found = self._silent(connection, every, limit)
            now = self._db.now(connection)
            # One that is locked is being claimed, or was cancelled.
            wanted = tasks.c.id.in_([task for task, _ in found])
            free = set(connection.scalars(select(tasks.c.id).where(wanted).with_for_update(skip_locked=True)))
            if free:
                again = connection.execute(
                    select(tasks.c.id, tasks.c.run, tasks.c.attempt)
                    .where(tasks.c.id.in_(free), tasks.c.rung_at.is_not(None))
                    .order_by(tasks.c.run, tasks.c.id)
                ).all()
                connection.execute(update(tasks).where(tasks.c.id.in_(free)).values(rung_at=now))
                _note_rings(connection, again, every, now)
            return [(task, pool) for task, pool in found if task in free]

    def _silent(self, connection: Connection, every: float, limit: int) -> list[tuple[int, str]]:
        now = self._db.now(connection)
        idle = connection.execute(
            select(workers.c.pool, func.count().label("n"))
            .where(workers.c.task.is_(None), workers.c.seen_at >= now - SILENT_WORKER_SECONDS)
            .group_by(workers.c.pool)
        ).all()
        found: list[tuple[int, str]] = []
        for pool in idle:
            query = (
                select(tasks.c.id, tasks.c.pool)
                .where(tasks.c.state == S.QUEUED.value, tasks.c.pool == pool.pool, is_due(now))
                .where(or_(tasks.c.rung_at.is_(None), tasks.c.rung_at < now - every))
                .order_by(tasks.c.id)
                .limit(min(limit, pool.n))
            )
            found += [(row.id, row.pool) for row in connection.execute(query)]
        return found


def _lock_free_runs(connection: Connection, wanted: Iterable[int]) -> set[int]:
    """Lock those of the runs that nobody else has locked, and give them."""
    query = select(runs.c.id).where(runs.c.id.in_(set(wanted))).order_by(runs.c.id)
    return set(connection.scalars(query.with_for_update(skip_locked=True)))


def _pause_is_over(connection: Connection, row: Row[Any]) -> str:
    """Say why a task is queued whose time has come."""
    query = select(attempts.c.ended_at).where(attempts.c.task == row.id, attempts.c.attempt == row.attempt)
    ended = connection.execute(query).scalar_one_or_none()
    pause = 0.0 if ended is None else max(0.0, row.due_at - ended)
    return f"Its pause of {pause:.0f} s is over." if pause >= 1 else "It is tried again at once."


def _note_rings(connection: Connection, rows: Sequence[Row[int, int, int]], every: float, now: float) -> None:
    """Append an event for each task that is rung for again: one for each time that it was queued, however often it rings."""
    free = _lock_free_runs(connection, [row.run for row in rows])
    for row in rows:
        if row.run not in free:
            continue
        query = select(events.c.kind).where(events.c.run == row.run, events.c.task == row.id)
        query = query.where(events.c.kind.in_(["task", "ring"])).order_by(events.c.id.desc()).limit(1)
        if connection.execute(query).scalar_one_or_none() != "ring":
            text = f"No slot has taken it: it is rung for again, every {every:.0f} s until one does."
            append_event(connection, row.run, "ring", now, task=row.id, attempt=row.attempt, data={"text": text})


def _outages_before(connection: Connection, row: Row[Any]) -> list[float]:
    """Give when the attempts directly before this one ended, for as far back as they ended in an outage.

    A resume by hand ends this, and so does the last attempt that made progress: by its end, the outage began.
    """
    here = (events.c.run == row.run, events.c.kind == "task", events.c.task == row.id)
    worked = select(func.max(events.c.attempt)).where(*here, events.c.data["progress"].as_boolean().is_(True))
    resumed = select(func.max(events.c.at)).where(events.c.run == row.run, events.c.kind == "resume")
    query = (
        select(attempts.c.reason_code, attempts.c.ended_at)
        .where(attempts.c.task == row.id, attempts.c.attempt < row.attempt)
        .where(attempts.c.attempt >= func.coalesce(worked.scalar_subquery(), 0))
        .where(attempts.c.ended_at > func.coalesce(resumed.scalar_subquery(), 0.0))
        .order_by(attempts.c.attempt.desc())
        .limit(1_000)
    )
    rows = connection.execute(query)
    return [one.ended_at for one in takewhile(lambda one: one.reason_code in OUTAGES, rows)]


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
