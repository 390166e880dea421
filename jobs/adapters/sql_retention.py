"""Remove outputs, logs and whole runs whose time is over, in SQL: one short transaction decides, many short ones delete.

What the first one decided holds from that moment: nobody reads the rest any more, so it can wait, and a process that is
killed leaves rows which the next one takes.
"""

from __future__ import annotations

import secrets
from typing import Any

from sqlalchemy import Column, Connection, Table, and_, delete, exists, false, func, insert, or_, select, update

from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_rows import append_event
from jobs.adapters.sql_schema import (
    accepted,
    archive,
    attempts,
    causes,
    comparisons,
    events,
    executions,
    idempotency,
    legs,
    log_chunks,
    markings,
    noise,
    removals,
    runs,
    steps,
    tasks,
    units,
)
from jobs.retention import BETWEEN_SECONDS, Ended
from jobs.run import RunState
from runner.quota import Used

PIECE = 1_000  # rows in one transaction: about 0.05 s, of log at most 16 MiB
_took_from = legs.c.reused["run"].as_integer()
_LIVING = [RunState.QUEUED.value, RunState.RUNNING.value, RunState.INTERRUPTED.value]


class SqlRetention:
    """Find what ended long ago, and remove it."""

    def __init__(self, database: Database, *, key_seconds: float) -> None:
        """Take the database. `key_seconds`: for how long an Idempotency-Key names its run."""
        self._db, self._key_seconds = database, key_seconds

    def now(self) -> float:
        """Give the store's time."""
        with self._db.read() as connection:
            return self._db.now(connection)

    def archive(self) -> str:
        """Give the name of these records, by which their objects are told from those of others."""
        with self._db.write() as connection:
            self._db.alone(connection, "archive")
            found = connection.execute(select(archive.c.name)).scalar_one_or_none()
            if found is None:
                found = secrets.token_hex(16)
                connection.execute(insert(archive).values(id=1, name=found))
            return str(found)

    def projects(self) -> list[str]:
        """Name the projects that have runs, those that are in no settings any more too."""
        with self._db.read() as connection:
            return list(connection.scalars(select(runs.c.project).distinct().order_by(runs.c.project)))

    def ended(self, project: str, *, before: float, outputs_left: bool, limit: int) -> list[Ended]:
        """List runs that ended before a time and were cleaned up, oldest first.

        `outputs_left`: those whose outputs are there; else those that have none any more and may go themselves.
        """
        with self._db.read() as connection:
            now = self._db.now(connection)
            measure = _measure(project)
            query = select(
                runs.c.id,
                runs.c.project,
                runs.c.finished_at,
                runs.c.outputs_removed_at,
                self._needed(now).label("needed"),
                func.coalesce(runs.c.id == measure, false()).label("measure"),
            ).where(runs.c.project == project, *_over(before))
            if outputs_left:
                query = query.where(runs.c.outputs_removed_at.is_(None))
            else:
                query = query.where(
                    runs.c.outputs_removed_at < now - BETWEEN_SECONDS, func.coalesce(runs.c.id != measure, True)
                )
            rows = connection.execute(query.order_by(runs.c.finished_at, runs.c.id).limit(limit)).all()
        return [
            Ended(row.id, row.project, row.finished_at, row.outputs_removed_at, bool(row.needed), bool(row.measure))
            for row in rows
        ]

    def last_used(self) -> dict[int, float]:
        """Tell when runs were last begun that repeat an earlier one, or took over what it had finished; by its number."""
        took = _took_from.is_not(None) & (legs.c.reused["units"].as_integer() > 0)
        of_legs = select(_took_from.label("run"), runs.c.created_at).join(runs, runs.c.id == legs.c.run).where(took)
        of_runs = select(runs.c.parent.label("run"), runs.c.created_at).where(runs.c.parent.is_not(None))
        each = of_legs.union_all(of_runs).subquery()
        with self._db.read() as connection:
            query = select(each.c.run, func.max(each.c.created_at)).group_by(each.c.run)
            return {int(row[0]): float(row[1]) for row in connection.execute(query)}

    def holds(self, run: int) -> Used:
        """Tell what outputs and log of a run take, as if nothing else had the same."""
        outputs = select(func.coalesce(func.sum(units.c.output_size), 0), func.count(units.c.output_digest))
        log = select(func.coalesce(func.sum(tasks.c.log_size), 0)).where(tasks.c.run == run)
        with self._db.read() as connection:
            size, files = connection.execute(outputs.where(units.c.run == run)).one()
            return Used(int(size) + int(connection.execute(log).scalar_one()), int(files))

    def remove_outputs(self, run: int, *, before: float, why: str) -> bool:
        """Give up outputs and log of a run that ended before a time; False when somebody did, or resumed it, or needs it."""
        with self._db.write() as connection:
            now = self._db.now(connection)
            changed = connection.execute(
                update(runs)
                .where(runs.c.id == run, runs.c.outputs_removed_at.is_(None), *_over(before), ~self._needed(now))
                .values(outputs_removed_at=now, outputs_removed_why=why)
            )
            if not changed.rowcount:
                return False
            connection.execute(insert(removals).values(run=run, what="outputs", at=now, why=why, left=True))
            append_event(connection, run, "outputs_removed", now, data={"why": why})
            return True

    def remove_run(self, run: int, *, before: float, why: str) -> bool:
        """Remove a run that ended before a time and has no outputs any more; False when it may not go (see Ended)."""
        with self._db.write() as connection:
            now = self._db.now(connection)
            project = connection.execute(select(runs.c.project).where(runs.c.id == run)).scalar_one_or_none()
            if project is None:
                return False
            newest = connection.execute(select(_measure(project))).scalar_one_or_none()
            gone = connection.execute(
                delete(runs).where(
                    runs.c.id == run,
                    runs.c.id != (newest or 0),
                    runs.c.outputs_removed_at < now - BETWEEN_SECONDS,
                    *_over(before),
                    ~self._needed(now),
                )
            )
            if not gone.rowcount:
                return False
            connection.execute(delete(legs).where(legs.c.run == run))
            connection.execute(delete(idempotency).where(idempotency.c.run == run))
            values = {"what": "run", "at": now, "why": why, "left": True}
            connection.execute(update(removals).where(removals.c.run == run).values(**values))
            return True

    def shred(self) -> bool:
        """Delete some rows of what was removed; False when nothing is left, or others are at it."""
        with self._db.write() as connection:
            query = select(removals).where(removals.c.left).order_by(removals.c.run).limit(1)
            removal = connection.execute(query.with_for_update(skip_locked=True)).one_or_none()
            if removal is None:
                return False
            if not _shred(connection, removal.run, whole=removal.what == "run"):
                connection.execute(update(removals).where(removals.c.run == removal.run).values(left=False))
            return True

    def _needed(self, now: float) -> Any:
        """Tell whether a living run repeats it or took over from it, or a key names it that a client may still send again."""
        child = runs.alias("child")
        repeats = or_(child.c.parent == runs.c.id, child.c.options["only_of"].as_integer() == runs.c.id)
        repeated = exists().where(repeats, child.c.state.in_(_LIVING))
        user = runs.alias("user")
        taken = exists().where(_took_from == runs.c.id, legs.c.run == user.c.id, user.c.state.in_(_LIVING))
        named = exists().where(idempotency.c.run == runs.c.id, idempotency.c.created_at >= now - self._key_seconds)
        return repeated | taken | named


def _over(before: float) -> tuple[Any, ...]:
    """Tell of a run that ended before a time, and of which nothing stands anywhere."""
    return runs.c.finished_at < before, runs.c.cleaned_at.is_not(None)


def _measure(project: str) -> Any:
    """Find the run from which the next one of a project takes durations and the list of units."""
    last = runs.alias("last")
    return (
        select(func.max(last.c.id))
        .where(
            last.c.project == project,
            last.c.units_done > 1,
            last.c.state.in_([RunState.DONE.value, RunState.FAILED.value]),
            last.c.units_filter.is_(None),
        )
        .scalar_subquery()
    )


def _shred(connection: Connection, run: int, *, whole: bool) -> bool:
    """Delete a piece of what is left of a run; False when there is none."""
    its_tasks = select(tasks.c.id).where(tasks.c.run == run)
    task = connection.execute(select(func.min(log_chunks.c.task)).where(log_chunks.c.task.in_(its_tasks))).scalar_one()
    if task is not None:
        return _cut(connection, log_chunks, log_chunks.c.offset, log_chunks.c.task == task)
    if not whole:
        return False
    return (
        _cut(connection, units, units.c.position, units.c.run == run)
        or _cut(connection, comparisons, comparisons.c.position, comparisons.c.run == run)
        or _cut(connection, causes, causes.c.unit, causes.c.run == run)
        or _cut(connection, accepted, accepted.c.acceptance, accepted.c.run == run)
        or _cut(connection, markings, markings.c.run, markings.c.run == run)
        or _cut(connection, noise, noise.c.position, noise.c.run == run)
        or _cut(connection, events, events.c.id, events.c.run == run)
        or _cut(connection, steps, steps.c.id, steps.c.run == run)
        or _cut(connection, attempts, attempts.c.task, attempts.c.run == run)
        or _cut(connection, executions, executions.c.task, executions.c.task.in_(its_tasks))
        or _cut(connection, tasks, tasks.c.id, tasks.c.run == run)  # the last: the others are found by it
    )


def _cut(connection: Connection, table: Table, order: Column[Any], here: Any) -> bool:
    """Delete the first rows of some; False when there were none."""
    last = connection.execute(select(order).where(here).order_by(order).offset(PIECE - 1).limit(1)).scalar_one_or_none()
    some = here if last is None else and_(here, order <= last)
    return bool(connection.execute(delete(table).where(some)).rowcount)
