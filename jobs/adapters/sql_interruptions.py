"""What interrupts a task in SQL, and lets it go on: interruptions, leases that ran out, due tasks, rings."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, or_, select, update

from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_ledger import has_new_token
from jobs.adapters.sql_moves import ending, fence, is_due, move
from jobs.adapters.sql_rows import append_event, lock_run, refresh_run
from jobs.adapters.sql_schema import attempts, events, executions, runs, tasks, workers
from jobs.run import OUTAGES, WORKER_LOST, TaskState, interruption
from runner.errors import Drained, StoreUnavailable
from runner.model import Reason

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
LONG_WAIT = 0.5
# A worker is started again within some seconds, a whole server too; then its host goes on with what stands there. Another
# one would have to begin anew, and waits so long.
RETURN_SECONDS = 20.0
COMING_BACK = frozenset({Drained.code, StoreUnavailable.code})
SILENT_WORKER_SECONDS = 60.0  # a slot shows its presence every few seconds


class SqlInterruptions:
    """Interrupt tasks, and let them go on. The sweeper and the supervisor use it, and whoever holds a task."""

    def __init__(self, database: Database) -> None:
        self._db = database

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

    # ---- what the sweeper and the supervisor do ---------------------------------------------------------

    def revoke(self, worker: str, reason: Reason, *, free: bool = False) -> list[int]:
        """Take back what a worker process that is known to be dead held; gives the tasks. `free`: see interrupt."""
        with self._db.write() as connection:
            rows = connection.execute(
                select(tasks)
                .where(tasks.c.state == S.RUNNING.value, tasks.c.worker == worker)
                .order_by(tasks.c.run, tasks.c.id)
                .with_for_update()
            ).all()
            for row in rows:
                self._interrupt(connection, row, reason, free=free, back=True)
            connection.execute(delete(workers).where(workers.c.name == worker))
            return [row.id for row in rows]

    def give_back(self, worker: str, since: float, reason: Reason) -> list[int]:
        """Take back, at no cost, what a slot that does nothing has claimed since it registered; gives the tasks.

        `since`: what `register` gave. Where another slot has registered under the name, all there is that one's.
        """
        with self._db.write() as connection:
            me = (workers.c.name == worker, workers.c.started_at == since)
            if connection.execute(select(workers.c.name).where(*me).with_for_update()).one_or_none() is None:
                return []
            rows = connection.execute(
                select(tasks)
                .join(attempts, (attempts.c.task == tasks.c.id) & (attempts.c.attempt == tasks.c.attempt))
                .where(tasks.c.state == S.RUNNING.value, tasks.c.worker == worker, attempts.c.started_at >= since)
                .order_by(tasks.c.run, tasks.c.id)
                .with_for_update(of=tasks)
            ).all()
            for row in rows:
                self._interrupt(connection, row, reason, free=True, back=True)
            connection.execute(update(workers).where(*me).values(task=None))
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
