"""What a running attempt writes: log, steps, marks. Everything is refused when the attempt is not the current one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Connection, Row, bindparam, case, func, insert, or_, select, update

from jobs.adapters.sql_compare import forget
from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_moves import fence
from jobs.adapters.sql_rows import append_event
from jobs.adapters.sql_schema import attempts, events, executions, log_chunks, runs, steps, tasks, units
from jobs.run import FINAL_TASK_STATES, RunState
from runner.model import Output, Reason, UnitResult, UnitState
from runner.quota import Used

# Chunks up to this size stand in the row itself; a file each would cost more than it saves.
INLINE_BYTES = 16_384
TOKEN_CHARACTERS = 200  # of a token stand in its event

_MARK = update(units).where(
    units.c.run == bindparam("run_"),
    units.c.leg == bindparam("leg_"),
    units.c.unit == bindparam("unit_"),
    # Written so that PostgreSQL finds the row by its key: on a list that it has not analysed yet it took the index
    # of (task, state), and read all units of the batch for each mark.
    units.c.task.is_not_distinct_from(bindparam("task_")),
    units.c.state.is_not_distinct_from(UnitState.TODO.value),
)


_STEPS = (
    select(steps)
    .where(steps.c.task == bindparam("task_"), steps.c.attempt == bindparam("attempt_"))
    .order_by(steps.c.id)
)


@dataclass(frozen=True)
class StepChange:
    """A step begins (`state` is `running`) or ended, after `seconds` then; it is told `late` seconds afterwards."""

    name: str
    state: str
    seconds: float | None = None
    detail: str = ""
    late: float = 0.0


class SqlLedger:
    """Append-only writes of one attempt, each in a transaction of its own that checks the fence first."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def append_log(
        self,
        task: int,
        attempt: int,
        data: bytes,
        *,
        object_digest: str | None,
        source: tuple[int, int] | None,
        at: int | None = None,
        changes: Sequence[StepChange] = (),
    ) -> int:
        """Append bytes to the task's log and give its new size. `source`: (execution, offset in its file after it).

        `at`: the size that the log is known to have, so that asking again after a lost answer appends once. `changes`: of
        its steps, in the same breath.
        """
        with self._db.write() as connection:
            row = fence(connection, task, attempt)
            if changes:
                _change_steps(connection, row, changes, self._db.now(connection))
            size = int(row.log_size)
            if at is not None and size == at + len(data):
                return size
            if at is not None and size != at:
                raise ValueError(f"the log of task {task} has {size} bytes, not {at}")
            connection.execute(
                insert(log_chunks).values(
                    task=task,
                    offset=size,
                    size=len(data),
                    data=None if object_digest else data,
                    object=object_digest,
                )
            )
            further = row.progress or (source is not None and _is_taken_over(connection, task, attempt, source[0]))
            values = {"log_size": size + len(data), "progress": further}
            connection.execute(update(tasks).where(tasks.c.id == task).values(**values))
            if source is not None:
                self._advance(connection, task, source[0], log_offset=source[1])
            return size + len(data)

    def mark(self, task: int, attempt: int, results: Sequence[UnitResult], source: tuple[int, int] | None) -> None:
        """Record finished units and count them into task and run; one that is finished already stays as it is."""
        with self._db.write() as connection:
            row = fence(connection, task, attempt)
            done = self._mark(connection, row, [result for result in results if result.state is UnitState.DONE])
            failed = self._mark(connection, row, [result for result in results if result.state is UnitState.FAILED])
            if done or failed:
                counts = {"units_done": tasks.c.units_done + done, "units_failed": tasks.c.units_failed + failed}
                connection.execute(update(tasks).where(tasks.c.id == task).values(progress=True, **counts))
                counts = {"units_done": runs.c.units_done + done, "units_failed": runs.c.units_failed + failed}
                connection.execute(update(runs).where(runs.c.id == row.run).values(**counts))
            if source is not None:
                self._advance(connection, task, source[0], mark_offset=source[1])

    @staticmethod
    def _mark(connection: Connection, row: Row[Any], results: Sequence[UnitResult]) -> int:
        if not results:
            return 0
        fixed = {"run_": row.run, "leg_": row.leg, "task_": row.id, "attempt": row.attempt}
        changed = connection.execute(
            _MARK,
            [
                fixed
                | {
                    "unit_": result.unit,
                    "state": result.state.value,
                    "text": result.text,
                    "seconds": result.seconds,
                    "output_name": result.output.name if result.output else None,
                    "output_digest": result.output.digest if result.output else None,
                    "output_size": result.output.size if result.output else None,
                    "output_tree": result.output.tree if result.output else None,
                }
                for result in results
            ],
        )
        return changed.rowcount

    def void(self, task: int, attempt: int, unit: str, reason: str) -> None:
        """Take a mark of this task back; the unit is to do again."""
        with self._db.write() as connection:
            now = self._db.now(connection)
            row = fence(connection, task, attempt)
            here = (units.c.run == row.run, units.c.leg == row.leg, units.c.unit == unit, units.c.task == task)
            before = connection.execute(select(units.c.state).where(*here)).scalar_one_or_none()
            if before is None or before == UnitState.TODO.value:
                return
            blank = dict.fromkeys(
                ("output_digest", "output_name", "output_size", "output_tree", "seconds", "attempt"), None
            )
            connection.execute(update(units).where(*here).values(state=UnitState.TODO.value, text="", **blank))
            column = "units_done" if before == UnitState.DONE.value else "units_failed"
            connection.execute(update(tasks).where(tasks.c.id == task).values({column: tasks.c[column] - 1}))
            connection.execute(update(runs).where(runs.c.id == row.run).values({column: runs.c[column] - 1}))
            forget(connection, row.run, names=[unit])
            data = {"unit": unit, "reason": reason}
            append_event(connection, row.run, "void", now, task=task, attempt=attempt, data=data)

    def resume_point(self, task: int, attempt: int, token: str, output: Output) -> None:
        """Record from where the next container goes on: a token, and the output that belongs to it.

        More output than there was is progress.
        """
        with self._db.write() as connection:
            row = fence(connection, task, attempt)
            before = row.resume_output["size"] if row.resume_output else 0
            further = row.progress or output.size > before
            values = {"resume_token": token, "resume_output": dict(vars(output)), "progress": further}
            connection.execute(update(tasks).where(tasks.c.id == task).values(**values))

    def token(self, task: int, attempt: int, token: str, source: tuple[int, int] | None = None) -> None:
        """Record the last checkpoint token; whether it is progress is asked when the attempt is interrupted."""
        with self._db.write() as connection:
            now = self._db.now(connection)
            row = fence(connection, task, attempt)
            if len(token) > TOKEN_CHARACTERS:  # two that begin alike are still told apart
                token = f"{token[:TOKEN_CHARACTERS]}… ({hashlib.sha256(token.encode()).hexdigest()[:16]})"
            append_event(connection, row.run, "token", now, task=task, attempt=attempt, data={"token": token})
            if source is not None:
                self._advance(connection, task, source[0], mark_offset=source[1])

    def step(self, task: int, attempt: int, name: str, *, state: str, seconds: float | None, detail: str) -> None:
        """Begin a step, or end the one that runs under this name; asking again changes nothing."""
        self.steps(task, attempt, [StepChange(name, state, seconds, detail)])

    def steps(self, task: int, attempt: int, changes: Sequence[StepChange]) -> None:
        """Begin and end some steps, in their order; asking again changes nothing."""
        with self._db.write() as connection:
            _change_steps(connection, fence(connection, task, attempt), changes, self._db.now(connection))

    def execution(
        self,
        task: int,
        attempt: int,
        execution: int,
        *,
        state: str,
        container: str,
        exit_code: int | None,
        fault: Reason | None = None,
        wrote: Used | None = None,
    ) -> None:
        """Record that a container was created, or how it ended. `fault`: the branch's; once told it stays.

        `wrote`: what its workspace took at most, as far as it was seen; less than what was told before changes nothing.
        """
        with self._db.write() as connection:
            now = self._db.now(connection)
            row = fence(connection, task, attempt)
            here = (executions.c.task == task, executions.c.execution == execution)
            ended = now if state != "running" else None
            told: dict[str, Any] = {} if fault is None else {"reason_code": fault.code, "reason_text": fault.text}
            peak = {} if wrote is None else {"peak_bytes": wrote.size, "peak_files": wrote.files}
            more = {name: _greater(executions.c[name], value) for name, value in peak.items()}
            changed = connection.execute(
                update(executions).where(*here).values(state=state, exit_code=exit_code, ended_at=ended, **told, **more)
            )
            if not changed.rowcount:
                connection.execute(
                    insert(executions).values(
                        task=task,
                        execution=execution,
                        run=row.run,
                        attempt=attempt,
                        host=row.host,
                        container=container,
                        state=state,
                        exit_code=exit_code,
                        created_at=now,
                        **told,
                        **peak,
                    )
                )

    def next_execution(self, task: int, attempt: int) -> int:
        """Give the number of the task's next container, never used before.

        What still stands of earlier ones is given up, so that nobody goes on with it: it is on a host that fell silent.
        """
        with self._db.write() as connection:
            row = fence(connection, task, attempt)
            number = int(row.execution) + 1
            standing = (executions.c.task == task, executions.c.state == "running")
            connection.execute(update(executions).where(*standing).values(state="abandoned"))
            connection.execute(update(tasks).where(tasks.c.id == task).values(execution=number))
            return number

    def live_execution(self, task: int) -> tuple[int, str, str] | None:
        """Give (execution, container, host) of the container that an earlier attempt left running."""
        with self._db.read() as connection:
            query = (
                select(executions.c.execution, executions.c.container, executions.c.host)
                .where(executions.c.task == task, executions.c.state == "running")
                .order_by(executions.c.execution.desc())
                .limit(1)
            )
            row = connection.execute(query).one_or_none()
            return None if row is None else (row.execution, row.container, row.host)

    def standing_elsewhere(self, task: int, *, host: str) -> tuple[int, ...]:
        """Give the executions that may still stand on other hosts."""
        with self._db.read() as connection:
            query = select(executions.c.execution).where(
                executions.c.task == task,
                executions.c.host != host,
                executions.c.state.in_(["running", "abandoned"]),
            )
            return tuple(connection.scalars(query.order_by(executions.c.execution)))

    def offsets(self, task: int, execution: int) -> tuple[int, int]:
        """Give the (log, checkpoint) offsets up to which an execution's files were taken."""
        with self._db.read() as connection:
            query = select(executions.c.log_offset, executions.c.mark_offset).where(
                executions.c.task == task, executions.c.execution == execution
            )
            row = connection.execute(query).one_or_none()
            return (0, 0) if row is None else (row.log_offset, row.mark_offset)

    @staticmethod
    def _advance(connection: Connection, task: int, execution: int, **offsets: int) -> None:
        connection.execute(
            update(executions).where(executions.c.task == task, executions.c.execution == execution).values(**offsets)
        )

    def durations(self, project: str, leg: str, *, before: int) -> dict[str, float]:
        """Give the seconds that each unit took in the last run that this one can be compared with."""
        with self._db.read() as connection:
            last = comparable(connection, project, before)
            query = select(units.c.unit, units.c.seconds).where(
                units.c.run == last, units.c.leg == leg, units.c.seconds.is_not(None)
            )
            return {unit: seconds for unit, seconds in connection.execute(query)}  # noqa: C416 - rows are no pairs

    def last_pace(self, project: str, *, before: int) -> tuple[int, float] | None:
        """Give the last run that this one can be compared with, and how many seconds its units took on average."""
        with self._db.read() as connection:
            last = comparable(connection, project, before)
            mean = connection.execute(select(func.avg(units.c.seconds)).where(units.c.run == last)).scalar_one()
            return None if last is None or mean is None else (last, float(mean))


def _greater(column: Column[Any], value: int) -> Any:
    return case((column > value, column), else_=value)


def _change_steps(connection: Connection, row: Row[Any], changes: Sequence[StepChange], now: float) -> None:
    """Write changes of an attempt's steps; those that stand already, because the answer was lost, are left alone."""
    known = [
        (found.id, found.name, (found.state, found.seconds, found.detail))
        for found in connection.execute(_STEPS, {"task_": row.id, "attempt_": row.attempt})
    ]
    for change in changes:
        asked = (change.state, change.seconds, change.detail)
        mine = [(number, found) for number, name, found in known if name == change.name]
        running = bool(mine) and mine[-1][1][0] == "running"
        if any(found == asked for _, found in (mine if change.state != "running" else mine[-1:])):
            continue
        if running and change.state != "running":
            number = mine[-1][0]
            values = {"state": change.state, "seconds": change.seconds, "detail": change.detail}
            connection.execute(update(steps).where(steps.c.id == number).values(**values))
            known = [(n, name, asked if n == number else found) for n, name, found in known]
            continue
        values = {
            "run": row.run,
            "task": row.id,
            "attempt": row.attempt,
            "name": change.name,
            "state": change.state,
            "started_at": now - change.late - (change.seconds or 0.0),
            "seconds": change.seconds,
            "detail": change.detail,
        }
        made = connection.execute(insert(steps).values(**values)).inserted_primary_key
        assert made is not None
        known.append((made[0], change.name, asked))


def comparable(connection: Connection, project: str, before: int, *, least: int = 2) -> int | None:
    """Find the project's last run, before this one, of at least as many units as this one's.

    `least`: how many of them it has finished.
    """
    chosen = select(runs.c.units_filter).where(runs.c.id == before).scalar_subquery()
    return connection.execute(
        select(runs.c.id)
        .where(
            runs.c.project == project,
            runs.c.id < before,
            runs.c.units_done >= least,
            runs.c.state.in_([RunState.DONE.value, RunState.FAILED.value]),
            or_(runs.c.units_filter.is_(None), runs.c.units_filter == chosen),
            runs.c.options["only_of"].as_integer().is_(None),
        )
        .order_by(runs.c.id.desc())
        .limit(1)
    ).scalar_one_or_none()


def has_new_token(connection: Connection, row: Row[Any]) -> bool:
    """Tell whether a script without units came to a token at which none of the attempts before it ended, or passed by.

    What was before somebody resumed it by hand does not count: image or data may have changed since.
    """
    here = (events.c.run == row.run, events.c.kind == "token", events.c.task == row.id)
    last = connection.execute(
        select(events.c.data).where(*here, events.c.attempt == row.attempt).order_by(events.c.id.desc()).limit(1)
    ).scalar_one_or_none()
    if last is None:
        return False
    final = [state.value for state in FINAL_TASK_STATES]
    since = (
        select(func.coalesce(func.max(attempts.c.attempt), 0))
        .where(attempts.c.task == row.id, attempts.c.outcome.in_(final))
        .scalar_subquery()
    )
    again = select(events.c.id).where(
        *here,
        events.c.attempt < row.attempt,
        events.c.attempt > since,
        events.c.data["token"].as_string() == last["token"],
    )
    return connection.execute(again.limit(1)).first() is None


def _is_taken_over(connection: Connection, task: int, attempt: int, execution: int) -> bool:
    """Tell whether a container that goes on printing was an earlier attempt's: then that one's end was no harm."""
    query = select(executions.c.attempt).where(executions.c.task == task, executions.c.execution == execution)
    began = connection.execute(query).scalar_one_or_none()
    return began is not None and began < attempt
