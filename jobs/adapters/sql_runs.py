"""Runs in SQL: submitted and read as in the files beside this one; cleaned up, cancelled, resumed."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, or_, select, update

from jobs.adapters.sql_compare import forget
from jobs.adapters.sql_moves import cancel_waiting, move
from jobs.adapters.sql_plan import add_task, count_units
from jobs.adapters.sql_room import need_of
from jobs.adapters.sql_rows import append_event, lock_run, refresh_run
from jobs.adapters.sql_schema import executions, legs, runs, tasks, units
from jobs.adapters.sql_submissions import SqlSubmissions
from jobs.comparing import FAILED
from jobs.run import Run, RunState, TaskState
from runner.errors import Conflict
from runner.model import Reason, TaskKind, UnitState

_OPEN = {"cancel_requested": False, "stop_code": None, "stop_text": None, "cleaned_at": None, "finished_at": None}
NAMED = 50  # of what was removed of a run, in its event
CLEANING_SECONDS = 60.0  # after this another sweeper may try, and a resumed run waits no longer


class SqlRuns(SqlSubmissions):
    """Write and read runs."""

    # ---- clean up ---------------------------------------------------------------------------------------

    def to_clean(self, limit: int = 1_000) -> list[int]:
        """List final runs whose databases and directories were not cleaned up yet."""
        with self._db.read() as connection:
            query = (
                select(runs.c.id)
                .where(runs.c.cleaned_at.is_(None), runs.c.finished_at.is_not(None))
                .order_by(runs.c.id)
                .limit(limit)
            )
            return list(connection.scalars(query))

    def begin_cleaning(self, run: int) -> str | None:
        """Begin to clean up a final run: a token; None when it is not final any more, or somebody cleans it up now.

        From here on its legs must be prepared anew on resume, and what is resumed meanwhile waits for cleaned(). What still
        stands of it is given up, so that nobody goes on with it: the sweeper of a host that is away now removes it later.
        """
        token = secrets.token_hex(16)
        with self._db.write() as connection:
            now = self._db.now(connection)
            changed = connection.execute(
                update(runs)
                .where(
                    runs.c.id == run,
                    runs.c.finished_at.is_not(None),
                    runs.c.cleaned_at.is_(None),
                    or_(runs.c.cleaning_until.is_(None), runs.c.cleaning_until < now),
                )
                .values(cleaning_until=now + CLEANING_SECONDS, cleaning_token=token)
            )
            if not changed.rowcount:
                return None
            connection.execute(update(legs).where(legs.c.run == run).values(prepared=False))
            its_tasks = select(tasks.c.id).where(tasks.c.run == run)
            standing = (executions.c.task.in_(its_tasks), executions.c.state == "running")
            connection.execute(update(executions).where(*standing).values(state="abandoned"))
            return token

    def still_cleaning(self, run: int, token: str) -> bool:
        """Ask before each removal: True, and the time is one's own anew; False when the run was resumed, or another cleans.

        What is resumed from now on waits for cleaned(), for CLEANING_SECONDS at most: a removal may take so long.
        """
        with self._db.write() as connection:
            now = self._db.now(connection)
            changed = connection.execute(
                update(runs)
                .where(runs.c.id == run, runs.c.cleaning_token == token, runs.c.finished_at.is_not(None))
                .values(cleaning_until=now + CLEANING_SECONDS)
            )
            return bool(changed.rowcount)

    def cleaned(self, run: int, token: str, *, all_of_it: bool = True, removed: Sequence[str] = ()) -> bool:
        """Record the end of a clean-up: nothing of the run is left but its records, or (not `all_of_it`) some is.

        `removed`: the names of what was taken away. What was resumed meanwhile may begin. False, and only that is recorded,
        when another has begun to clean it up since, or it has ended anew.
        """
        with self._db.write() as connection:
            now = self._db.now(connection)
            mine = (runs.c.id == run, runs.c.cleaning_token == token)
            if connection.execute(select(runs.c.id).where(*mine)).one_or_none() is None:
                self._note_cleaning(connection, run, now, removed, whole=False)
                return False
            # Its tasks before the run, as everywhere. While any of them waits, nobody else can begin to clean up.
            waiting = (tasks.c.run == run, tasks.c.state == TaskState.QUEUED.value, tasks.c.due_at > now)
            connection.execute(update(tasks).where(*waiting).values(due_at=now))
            whole = False
            if all_of_it:
                changed = connection.execute(
                    update(runs).where(*mine, runs.c.finished_at.is_not(None)).values(cleaned_at=now)
                )
                whole = bool(changed.rowcount)
                if whole:
                    connection.execute(update(legs).where(legs.c.run == run).values(template=None))
            changed = connection.execute(update(runs).where(*mine).values(cleaning_until=None, cleaning_token=None))
            self._note_cleaning(connection, run, now, removed, whole=whole)
            return bool(changed.rowcount)

    def _note_cleaning(
        self, connection: Connection, run: int, now: float, removed: Sequence[str], *, whole: bool
    ) -> None:
        """Append what a clean-up came to; a try that removed nothing and has to be tried again is none."""
        if whole or removed:
            why = "the run is over" + ("" if whole else "; the rest was left")
            data = {"why": why, "count": len(removed), "removed": list(removed[:NAMED])}
            append_event(connection, run, "cleaned", now, data=data)

    # ---- cancel and resume ------------------------------------------------------------------------------

    def cancel(self, run: int, user: str) -> Run:
        """Ask to cancel: what waits ends at once, what runs is told at its next renewal."""
        with self._db.write() as connection:
            now = self._db.now(connection)
            lock_run(connection, run)
            before = self._one(connection, run)
            if before.state.final:
                raise Conflict(
                    f"Run {run} is {before.state} already.",
                    field="run",
                    value=str(run),
                    remedy="Only a run that has not ended can be cancelled.",
                )
            connection.execute(update(runs).where(runs.c.id == run).values(cancel_requested=True))
            if not before.cancel_requested:
                append_event(connection, run, "cancel", now, data={"user": user})
            cancel_waiting(connection, run, Reason("cancelled", f"Cancelled by {user}."), now)
            refresh_run(connection, run, now)
            return self._one(connection, run)

    def resume(self, run: int, user: str) -> Run:
        """Go on at the first unfinished unit, on the same commit; failed units are tried again."""
        with self._db.write() as connection:
            now = self._db.now(connection)
            query = select(tasks).where(tasks.c.run == run).order_by(tasks.c.id)
            rows = connection.execute(query.with_for_update()).all()
            lock_run(connection, run)
            before = self._one(connection, run)
            if before.removed is not None:
                raise Conflict(
                    f"{before.removed.text} Run {run} cannot go on without them.",
                    field="run",
                    value=str(run),
                    remedy=f"Run the same commit again from its beginning: seatrial rerun {run}",
                )
            if before.state is RunState.INTERRUPTED:
                for row in rows:
                    if row.state == TaskState.INTERRUPTED:
                        move(connection, row, TaskState.QUEUED, now, due_at=now)
            elif before.state in (RunState.FAILED, RunState.ERRORED, RunState.CANCELLED):
                self._reopen(connection, run, rows, now)
            else:
                raise Conflict(
                    f"Run {run} is {before.state}; there is nothing to resume.",
                    field="run",
                    value=str(run),
                    remedy="A failed, errored, cancelled or interrupted run can be resumed.",
                )
            append_event(connection, run, "resume", now, data={"user": user})
            refresh_run(connection, run, now)
            return self._one(connection, run)

    def _reopen(self, connection: Connection, run: int, rows: Sequence[Any], now: float) -> None:
        until = connection.execute(select(runs.c.cleaning_until).where(runs.c.id == run)).scalar_one()
        due = max(now, until or now)
        connection.execute(update(runs).where(runs.c.id == run).values(**_OPEN))
        blank = dict.fromkeys(
            ("seconds", "attempt", "output_name", "output_digest", "output_size", "output_tree"), None
        )
        connection.execute(
            update(units)
            .where(units.c.run == run, units.c.state == UnitState.FAILED.value)
            .values(state=UnitState.TODO.value, text="", **blank)
        )
        told = {"reason_code": None, "reason_text": None}
        connection.execute(update(executions).where(executions.c.run == run).values(**told))
        count_units(connection, run)
        forget(connection, run, kinds=FAILED)
        for leg in connection.execute(select(legs.c.name, legs.c.prepared).where(legs.c.run == run)).all():
            mine = [row for row in rows if row.leg == leg.name]
            unfinished = [row for row in mine if row.state != TaskState.DONE]
            preparing = [row for row in unfinished if row.kind == TaskKind.PREPARE]
            if unfinished and not preparing and not leg.prepared:
                # Its databases were dropped when it ended; the batches go on when they stand again.
                need = need_of(connection, run, leg.name, TaskKind.PREPARE)
                add_task(connection, mine[0], TaskKind.PREPARE, batch=0, now=now, due=due, need=need)
                continue
            for row in preparing or unfinished:
                move(connection, row, TaskState.QUEUED, now, due_at=due, fruitless=0, units_failed=0)
