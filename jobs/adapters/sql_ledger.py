"""What a running attempt writes: log, steps, marks. Everything is refused when the attempt is not the current one."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, func, insert, or_, select, update

from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_rows import append_event
from jobs.adapters.sql_schema import executions, legs, log_chunks, runs, steps, tasks, units
from jobs.adapters.sql_tasks import fence
from runner.model import Output, UnitResult, UnitState

# Chunks up to this size stand in the row itself; a file each would cost more than it saves.
INLINE_BYTES = 16_384


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
    ) -> int:
        """Append bytes to the task's log and give its new size. `source`: (execution, offset in its file after it)."""
        with self._db.write() as connection:
            row = fence(connection, task, attempt)
            connection.execute(
                insert(log_chunks).values(
                    task=task,
                    offset=row.log_size,
                    size=len(data),
                    data=None if object_digest else data,
                    object=object_digest,
                )
            )
            size = int(row.log_size) + len(data)
            connection.execute(update(tasks).where(tasks.c.id == task).values(log_size=size))
            if source is not None:
                self._advance(connection, task, source[0], log_offset=source[1])
            return size

    def mark(self, task: int, attempt: int, results: Sequence[UnitResult], source: tuple[int, int] | None) -> None:
        """Record finished units and count them into task and run."""
        with self._db.write() as connection:
            row = fence(connection, task, attempt)
            by_state = {UnitState.DONE: 0, UnitState.FAILED: 0}
            for result in results:
                output = result.output
                changed = connection.execute(
                    update(units)
                    .where(
                        units.c.run == row.run,
                        units.c.leg == row.leg,
                        units.c.unit == result.unit,
                        units.c.task == task,
                        units.c.state == UnitState.TODO.value,
                    )
                    .values(
                        state=result.state.value,
                        text=result.text,
                        seconds=result.seconds,
                        attempt=attempt,
                        output_name=output.name if output else None,
                        output_digest=output.digest if output else None,
                        output_size=output.size if output else None,
                        output_tree=output.tree if output else None,
                    )
                )
                by_state[result.state] += changed.rowcount
            done, failed = by_state[UnitState.DONE], by_state[UnitState.FAILED]
            connection.execute(
                update(tasks)
                .where(tasks.c.id == task)
                .values(
                    units_done=tasks.c.units_done + done,
                    units_failed=tasks.c.units_failed + failed,
                    progress=True,
                )
            )
            connection.execute(
                update(runs)
                .where(runs.c.id == row.run)
                .values(units_done=runs.c.units_done + done, units_failed=runs.c.units_failed + failed)
            )
            if source is not None:
                self._advance(connection, task, source[0], mark_offset=source[1])

    def void(self, task: int, attempt: int, unit: str, reason: str) -> None:
        """Take a mark back; the unit is to do again."""
        with self._db.write() as connection:
            now = self._db.now(connection)
            row = fence(connection, task, attempt)
            here = (units.c.run == row.run, units.c.leg == row.leg, units.c.unit == unit)
            before = connection.execute(select(units.c.state).where(*here)).scalar_one_or_none()
            if before is None or before == UnitState.TODO.value:
                return
            connection.execute(
                update(units)
                .where(*here)
                .values(
                    state=UnitState.TODO.value,
                    text="",
                    output_digest=None,
                    output_name=None,
                    output_size=None,
                )
            )
            column = "units_done" if before == UnitState.DONE.value else "units_failed"
            connection.execute(update(tasks).where(tasks.c.id == task).values({column: tasks.c[column] - 1}))
            connection.execute(update(runs).where(runs.c.id == row.run).values({column: runs.c[column] - 1}))
            data = {"unit": unit, "reason": reason}
            append_event(connection, row.run, "void", now, task=task, attempt=attempt, data=data)

    def resume_point(self, task: int, attempt: int, token: str, output: Output) -> None:
        """Record from where the next container goes on: a token, and the output that belongs to it."""
        with self._db.write() as connection:
            fence(connection, task, attempt)
            values = {"resume_token": token, "resume_output": dict(vars(output))}
            connection.execute(update(tasks).where(tasks.c.id == task).values(**values))

    def token(self, task: int, attempt: int, token: str, source: tuple[int, int] | None = None) -> None:
        """Record the last checkpoint token."""
        with self._db.write() as connection:
            now = self._db.now(connection)
            row = fence(connection, task, attempt)
            connection.execute(update(tasks).where(tasks.c.id == task).values(progress=True))
            append_event(connection, row.run, "token", now, task=task, attempt=attempt, data={"token": token[:200]})
            if source is not None:
                self._advance(connection, task, source[0], mark_offset=source[1])

    def step(self, task: int, attempt: int, name: str, *, state: str, seconds: float | None, detail: str) -> None:
        """Begin a step, or end the one that runs under this name."""
        with self._db.write() as connection:
            now = self._db.now(connection)
            row = fence(connection, task, attempt)
            if state != "running":
                ended = connection.execute(
                    update(steps)
                    .where(
                        steps.c.task == task,
                        steps.c.attempt == attempt,
                        steps.c.name == name,
                        steps.c.state == "running",
                    )
                    .values(state=state, seconds=seconds, detail=detail)
                )
                if ended.rowcount:
                    return
            connection.execute(
                insert(steps).values(
                    run=row.run,
                    task=task,
                    attempt=attempt,
                    name=name,
                    state=state,
                    started_at=now - (seconds or 0.0),
                    seconds=seconds,
                    detail=detail,
                )
            )

    def execution(
        self, task: int, attempt: int, execution: int, *, state: str, container: str, exit_code: int | None
    ) -> None:
        """Record that a container was created, or how it ended."""
        with self._db.write() as connection:
            now = self._db.now(connection)
            row = fence(connection, task, attempt)
            here = (executions.c.task == task, executions.c.execution == execution)
            ended = now if state != "running" else None
            changed = connection.execute(
                update(executions).where(*here).values(state=state, exit_code=exit_code, ended_at=ended)
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
                    )
                )

    def next_execution(self, task: int, attempt: int) -> int:
        """Give the number of the task's next container, never used before."""
        with self._db.write() as connection:
            row = fence(connection, task, attempt)
            number = int(row.execution) + 1
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
        """Give the seconds that each unit took in the project's last run that finished units."""
        with self._db.read() as connection:
            last = connection.execute(
                select(func.max(runs.c.id)).where(
                    runs.c.project == project,
                    runs.c.id < before,
                    runs.c.units_done > 1,
                    or_(runs.c.state == "done", runs.c.state == "failed"),
                )
            ).scalar_one_or_none()
            if last is None:
                return {}
            query = (
                select(units.c.unit, units.c.seconds)
                .join(legs, (legs.c.run == units.c.run) & (legs.c.name == units.c.leg))
                .where(units.c.run == last, units.c.leg == leg, units.c.seconds.is_not(None))
            )
            return {row.unit: row.seconds for row in connection.execute(query)}
