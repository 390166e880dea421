"""Read what is inside a run: tasks, attempts, steps, units, events, logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, case, func, select

from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_rows import at, attempt_of, event_of, moment, step_of, task_of, unit_of
from jobs.adapters.sql_schema import attempts, events, executions, legs, log_chunks, runs, steps, tasks, units
from jobs.attempts import Container, Work, works
from jobs.run import Attempt, Event, StepRecord, Task, Unit, UnitCounts
from runner.errors import NotFound
from runner.model import UnitState


@dataclass(frozen=True)
class Stored:
    """A piece of a log as it is stored: in the row itself, or as an object."""

    offset: int
    size: int
    data: bytes | None
    object: str | None


@dataclass(frozen=True)
class Pulse:
    """How far a run has come: it differs when anything of the run does. `logs` are the sizes of its tasks' logs."""

    event: int
    logs: Mapping[int, int]
    rest: tuple[Any, ...]


def _chunks(connection: Connection, task: int, offset: int, limit: int) -> list[Stored]:
    first = (
        select(func.max(log_chunks.c.offset))
        .where(log_chunks.c.task == task, log_chunks.c.offset <= offset)
        .scalar_subquery()
    )
    query = (
        select(log_chunks)
        .where(
            log_chunks.c.task == task,
            log_chunks.c.offset >= first,
            log_chunks.c.offset < offset + limit,
            log_chunks.c.offset + log_chunks.c.size > offset,
        )
        .order_by(log_chunks.c.offset)
        .limit(256)
    )
    return [Stored(row.offset, row.size, row.data, row.object) for row in connection.execute(query)]


MOST_LEGS = 3  # the candidate, the baseline, and the baseline again

# Every look at a run asks them: put together once.
_TASKS = select(tasks).where(tasks.c.run == bindparam("run_")).order_by(tasks.c.leg, tasks.c.batch, tasks.c.id)
_STEPS = select(steps).where(steps.c.run == bindparam("run_")).order_by(steps.c.id)


class SqlInside:
    """Read-only views of one run."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def tasks(self, run: int) -> list[Task]:
        with self._db.read() as connection:
            return [task_of(row) for row in connection.execute(_TASKS, {"run_": run})]

    def task(self, task: int) -> Task:
        with self._db.read() as connection:
            row = connection.execute(select(tasks).where(tasks.c.id == task)).one_or_none()
        if row is None:
            raise NotFound(f"There is no task {task}.", field="task", value=str(task))
        return task_of(row)

    def attempts(self, run: int) -> list[Attempt]:
        with self._db.read() as connection:
            query = select(attempts).where(attempts.c.run == run).order_by(attempts.c.started_at, attempts.c.task)
            return [attempt_of(row) for row in connection.execute(query)]

    def works(self, run: int) -> list[tuple[Attempt, Work]]:
        """List a run's attempts, oldest first, each with what it did with its task's units."""
        with self._db.read() as connection:
            query = select(attempts).where(attempts.c.run == run).order_by(attempts.c.started_at, attempts.c.task)
            claims = [attempt_of(row) for row in connection.execute(query)]
            wrong = func.count(case((units.c.state == UnitState.FAILED.value, 1)))
            marked = select(units.c.task, units.c.attempt, func.count().label("n"), wrong.label("failed"))
            marked = marked.where(units.c.run == run, units.c.attempt.is_not(None)).group_by(
                units.c.task, units.c.attempt
            )
            ended = connection.execute(marked).all()
            taken = select(events.c.task, events.c.attempt, func.count().label("n"))
            taken = taken.where(events.c.run == run, events.c.kind == "void").group_by(events.c.task, events.c.attempt)
            void = {(row.task, row.attempt): row.n for row in connection.execute(taken)}
            made = connection.execute(select(executions).where(executions.c.run == run)).all()
        containers = [
            Container(row.task, row.attempt, moment(row.ended_at), row.exit_code, row.state == "abandoned")
            for row in made
        ]
        finished = {(row.task, row.attempt): row.n for row in ended}
        failed = {(row.task, row.attempt): row.failed for row in ended}
        found = works(claims, finished, failed, void, containers)
        return [(one, found[one.task, one.attempt]) for one in claims]

    def runs_of(self, wanted: Sequence[int]) -> dict[int, int]:
        """Give the run of each of these tasks."""
        with self._db.read() as connection:
            query = select(tasks.c.id, tasks.c.run).where(tasks.c.id.in_(wanted))
            return {row.id: row.run for row in connection.execute(query)}

    def kept(self, run: int) -> dict[int, tuple[str, datetime]]:
        """Tell which tasks of a run are left to the host on which their containers stand, and until when."""
        with self._db.read() as connection:
            query = select(executions.c.task, executions.c.host, executions.c.kept_until).where(
                executions.c.run == run,
                executions.c.state == "running",
                executions.c.kept_until > self._db.now(connection),
            )
            return {row.task: (row.host, at(row.kept_until)) for row in connection.execute(query)}

    def steps(self, run: int) -> list[StepRecord]:
        with self._db.read() as connection:
            return [step_of(row) for row in connection.execute(_STEPS, {"run_": run})]

    def events(self, run: int, *, after: int, limit: int) -> list[Event]:
        with self._db.read() as connection:
            query = select(events).where(events.c.run == run, events.c.id > after).order_by(events.c.id)
            return [event_of(row) for row in connection.execute(query.limit(limit))]

    def units(
        self,
        run: int,
        *,
        leg: str | None,
        state: UnitState | None,
        text: str | None,
        task: int | None,
        after: int | None,
        limit: int,
    ) -> list[Unit]:
        """List units by position, all legs' of a position together: a page may hold a few more than `limit`."""
        with self._db.read() as connection:
            query = select(units).where(units.c.run == run)
            if leg is not None:
                query = query.where(units.c.leg == leg)
            if state is not None:
                query = query.where(units.c.state == state.value)
            if text:
                query = query.where(func.lower(units.c.unit).contains(text.lower(), autoescape=True))
            if task is not None:
                query = query.where(units.c.task == task)
            if after is not None:
                query = query.where(units.c.position > after)
            query = query.order_by(units.c.position, units.c.leg).limit(limit + MOST_LEGS - 1)
            rows = connection.execute(query).all()
            # Never one leg's unit without the others': the next page begins behind all of them.
            whole = [row for at, row in enumerate(rows) if at < limit or row.position == rows[limit - 1].position]
            return [unit_of(row) for row in whole]

    def unit_names(self, run: int, leg: str = "candidate") -> tuple[str, ...]:
        """List the names of all units of a leg, in their order."""
        with self._db.read() as connection:
            query = select(units.c.unit).where(units.c.run == run, units.c.leg == leg).order_by(units.c.position)
            return tuple(connection.scalars(query))

    def unit(self, run: int, leg: str, unit: str) -> Unit:
        with self._db.read() as connection:
            query = select(units).where(units.c.run == run, units.c.leg == leg, units.c.unit == unit)
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFound(f"Run {run} has no unit {unit} in its {leg} leg.", field="unit", value=unit)
        return unit_of(row)

    def unit_counts(self, run: int) -> dict[str, UnitCounts]:
        with self._db.read() as connection:
            query = (
                select(units.c.leg, units.c.state, func.count().label("n"))
                .where(units.c.run == run)
                .group_by(units.c.leg, units.c.state)
            )
            found: dict[str, dict[str, int]] = {}
            for row in connection.execute(query):
                found.setdefault(row.leg, {})[row.state] = row.n
        return {
            leg: UnitCounts(sum(n.values()), n.get(UnitState.DONE.value, 0), n.get(UnitState.FAILED.value, 0))
            for leg, n in found.items()
        }

    def unit_seconds(self, run: int) -> tuple[int, float]:
        """Give how many units have a duration, and their sum in seconds."""
        with self._db.read() as connection:
            query = select(func.count(units.c.seconds), func.sum(units.c.seconds)).where(units.c.run == run)
            count, total = connection.execute(query).one()
            return int(count), float(total or 0.0)

    def log_chunks(self, task: int, offset: int, limit: int) -> list[Stored]:
        """Give the first pieces, 256 at most, that hold bytes [offset, offset + limit)."""
        with self._db.read() as connection:
            return _chunks(connection, task, offset, limit)

    def pulses(self, wanted: Sequence[int]) -> dict[int, Pulse]:
        """Tell of all these runs at once how far they have come, in one consistent view; without those there are not."""
        with self._db.read() as connection:
            shown = connection.execute(
                select(
                    runs.c.id,
                    runs.c.units_done,
                    runs.c.units_failed,
                    runs.c.units_different,
                    runs.c.cancel_requested,
                ).where(runs.c.id.in_(wanted))
            ).all()
            last = select(events.c.run, func.max(events.c.id)).where(events.c.run.in_(wanted)).group_by(events.c.run)
            newest = {row[0]: row[1] for row in connection.execute(last)}
            done = select(steps.c.run, func.max(steps.c.id), func.count(steps.c.seconds))
            done = done.where(steps.c.run.in_(wanted)).group_by(steps.c.run)
            stepped = {row[0]: tuple(row[1:]) for row in connection.execute(done)}
            logs: dict[int, dict[int, int]] = {}
            sizes = select(tasks.c.run, tasks.c.id, tasks.c.log_size).where(tasks.c.run.in_(wanted))
            for run, task, size in connection.execute(sizes.order_by(tasks.c.leg, tasks.c.batch, tasks.c.id)):
                logs.setdefault(run, {})[task] = size
        return {
            row.id: Pulse(newest.get(row.id, 0), logs.get(row.id, {}), (tuple(row), stepped.get(row.id)))
            for row in shown
        }

    def queue(self) -> dict[str, dict[str, int]]:
        """Count the queued and running tasks of each pool."""
        with self._db.read() as connection:
            query = (
                select(tasks.c.pool, tasks.c.state, func.count().label("n"))
                .where(tasks.c.state.in_(["queued", "running", "interrupted"]))
                .group_by(tasks.c.pool, tasks.c.state)
            )
            found: dict[str, dict[str, int]] = {}
            for row in connection.execute(query):
                found.setdefault(row.pool, {})[row.state] = row.n
            return found

    # ---- what clean-up needs to know --------------------------------------------------------------------

    def live_tasks(self) -> set[int]:
        """Give the tasks that may still go on with a container that stands."""
        with self._db.read() as connection:
            states = ["queued", "running", "interrupted"]
            return set(connection.scalars(select(tasks.c.id).where(tasks.c.state.in_(states))))

    def live_orders(self) -> list[tuple[int, str, int, int]]:
        """Give (run, leg, task, execution) of all executions of runs that have not ended or not been cleaned up."""
        with self._db.read() as connection:
            query = (
                select(tasks.c.run, tasks.c.leg, tasks.c.id, tasks.c.execution)
                .join(runs, runs.c.id == tasks.c.run)
                .where(runs.c.cleaned_at.is_(None))
            )
            return [(row.run, row.leg, row.id, row.execution) for row in connection.execute(query)]

    def specs(self, run: int) -> list[tuple[str, str, str | None]]:
        """Give (text, where it is from, database chosen at submit) of the specification of each leg of a run."""
        with self._db.read() as connection:
            query = (
                select(
                    legs.c.spec_text,
                    legs.c.spec_source,
                    func.coalesce(legs.c.database, runs.c.database).label("database"),
                )
                .join(runs, runs.c.id == legs.c.run)
                .where(legs.c.run == run)
            )
            return [(row.spec_text, row.spec_source, row.database) for row in connection.execute(query)]
