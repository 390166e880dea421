"""Runs in SQL: submit, list, cancel, resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, insert, or_, select, update

from jobs.adapters.sql_compare import forget
from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_moves import cancel_waiting, move
from jobs.adapters.sql_plan import add_task, count_units, task_row
from jobs.adapters.sql_rows import append_event, at, legs_of, lock_run, no_run, refresh_run, run_of
from jobs.adapters.sql_schema import events, idempotency, legs, removals, runs, tasks, units
from jobs.adapters.sql_together import Together
from jobs.comparing import FAILED
from jobs.run import Page, Run, RunFilter, RunState, TaskState
from runner.errors import Conflict, Gone, RequestError
from runner.model import BASELINE_AGAIN, Reason, TaskKind, UnitState

IDEMPOTENCY_SECONDS = 24 * 3600.0
_OPEN = {"cancel_requested": False, "stop_code": None, "stop_text": None, "cleaned_at": None, "finished_at": None}
CLEANING_SECONDS = 60.0  # after this another sweeper may try, and a resumed run waits no longer


class IdempotencyMismatch(RequestError):
    """This Idempotency-Key was used with another request."""

    code = "idempotency_mismatch"


@dataclass(frozen=True)
class NewLeg:
    """A leg as it is submitted: pinned, with the text of its seatrial.yml."""

    name: str
    ref: str
    commit: str
    subject: str
    author: str
    spec_source: str
    spec_text: str
    spec_digest: str
    database: str | None = None


@dataclass(frozen=True)
class NewRun:
    """A run as it is submitted."""

    project: str
    pool: str
    user: str
    note: str
    priority: int
    units_filter: str | None
    database: str | None
    options: Mapping[str, Any]
    legs: tuple[NewLeg, ...]
    parent: int | None = None


@dataclass(frozen=True)
class _Wish:
    """A submission on its way into the records."""

    new: NewRun
    key: str | None
    body: str


_RUN = select(runs).where(runs.c.id == bindparam("run_"))  # every look at a run asks it: put together once


class SqlRuns:
    """Write and read submissions."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._together = Together(database, self._add_all)

    # ---- submit -----------------------------------------------------------------------------------------

    def known(self, user: str, key: str, body: str) -> Run | None:
        """Give the run that this idempotency key made, if any; raises IdempotencyMismatch for another body."""
        with self._db.read() as connection:
            now = self._db.now(connection)
            row = connection.execute(
                select(idempotency).where(
                    idempotency.c.user == user,
                    idempotency.c.key == key,
                    idempotency.c.created_at >= now - IDEMPOTENCY_SECONDS,
                )
            ).one_or_none()
            if row is None:
                return None
            if row.body != body:
                raise IdempotencyMismatch(field="Idempotency-Key", value=key, remedy="Use a new key for a new request.")
            return self._one(connection, row.run)

    def add(self, new: NewRun, *, key: str | None, body: str) -> tuple[Run, bool]:
        """Accept a run with its legs and their preparations; the same key gives the run that it made before."""
        return self._together.write(_Wish(new, key, body))

    def _add_all(self, connection: Connection, wishes: Sequence[_Wish]) -> list[tuple[Run, bool] | RequestError]:
        """Accept some runs at once; gives each and whether it is new, or why it is refused."""
        answers: dict[int, tuple[Run, bool] | RequestError] = {}
        left = dict(enumerate(wishes))
        while left:  # twice at most, unless three used one key at the same moment
            keys = [(wish.new.user, wish.key) for wish in left.values()]
            numbers = list(left)
            turn = [
                number
                for place, number in enumerate(numbers)
                if keys[place][1] is None or keys[place] not in keys[:place]
            ]
            answers |= self._add_some(connection, {number: left.pop(number) for number in turn})
        return [answers[number] for number in range(len(wishes))]

    def _add_some(
        self, connection: Connection, wishes: Mapping[int, _Wish]
    ) -> dict[int, tuple[Run, bool] | RequestError]:
        """Accept runs of which no two have one key."""
        now = self._db.now(connection)
        known = {number: self._made_before(connection, wish, now) for number, wish in wishes.items() if wish.key}
        refused = {number: found for number, found in known.items() if isinstance(found, RequestError)}
        made = {number: found for number, found in known.items() if isinstance(found, int)}
        new = [number for number in wishes if number not in refused and number not in made]
        ids = dict(zip(new, insert_runs(connection, [wishes[number].new for number in new], now), strict=True))
        keyed = [
            {"user": wish.new.user, "key": wish.key, "body": wish.body, "run": ids[number], "created_at": now}
            for number, wish in wishes.items()
            if wish.key and number in ids
        ]
        if keyed:
            connection.execute(insert(idempotency), keyed)
        wanted = made | ids
        shown = self._some(connection, list(wanted.values()))
        return refused | {number: (shown[run], number in ids) for number, run in wanted.items()}

    def _made_before(self, connection: Connection, wish: _Wish, now: float) -> int | RequestError | None:
        """Give the run that a key made within its time; a key that is older is forgotten."""
        user, key = wish.new.user, wish.key
        self._db.alone(connection, f"idempotency {user} {key}")
        here = (idempotency.c.user == user, idempotency.c.key == key)
        row = connection.execute(select(idempotency).where(*here)).one_or_none()
        if row is not None and row.created_at >= now - IDEMPOTENCY_SECONDS:
            if row.body == wish.body:
                return int(row.run)
            return IdempotencyMismatch(field="Idempotency-Key", value=key, remedy="Use a new key for a new request.")
        connection.execute(delete(idempotency).where(*here))
        return None

    # ---- read -------------------------------------------------------------------------------------------

    def get(self, run: int) -> Run:
        """Raises NotFound."""
        with self._db.read() as connection:
            return self._one(connection, run)

    def spec_of(self, run: int, leg: str) -> tuple[str, str]:
        """Give the text of a leg's seatrial.yml, and where it is from."""
        with self._db.read() as connection:
            query = select(legs.c.spec_text, legs.c.spec_source).where(legs.c.run == run, legs.c.name == leg)
            text, source = connection.execute(query).one()
            return text, source

    def new_legs(self, run: int) -> tuple[NewLeg, ...]:
        """Give a run's legs as they were submitted, to submit them again."""
        with self._db.read() as connection:
            names = [field.name for field in fields(NewLeg)]
            query = select(*(legs.c[name] for name in names)).where(legs.c.run == run)
            # A second run of the baseline is prepared last, as when it was submitted.
            query = query.order_by(legs.c.name == BASELINE_AGAIN, legs.c.name)
            return tuple(NewLeg(**row) for row in connection.execute(query).mappings())

    def _some(self, connection: Connection, wanted: Sequence[int]) -> dict[int, Run]:
        rows = connection.execute(select(runs).where(runs.c.id.in_(wanted))).all()
        with_legs = legs_of(connection, list(wanted))
        return {row.id: run_of(row, with_legs[row.id]) for row in rows}

    def _one(self, connection: Connection, run: int) -> Run:
        row = connection.execute(_RUN, {"run_": run}).one_or_none()
        if row is None:
            raise _gone(connection, run) or no_run(run)
        return run_of(row, legs_of(connection, [run])[run])

    def page(self, wanted: RunFilter, *, before: int | None, after: int | None, limit: int) -> Page:
        """Give a page, newest first: the runs older than `before`, or those just newer than `after`."""
        with self._db.read() as connection:
            query = _narrow(select(runs), wanted)
            if after is not None:
                rows = list(connection.execute(query.where(runs.c.id > after).order_by(runs.c.id).limit(limit + 1)))
                more, rows = len(rows) > limit, list(reversed(rows[:limit]))
                older = rows[-1].id if rows else None
                return self._page(connection, rows, older, rows[0].id if rows and more else None)
            if before is not None:
                query = query.where(runs.c.id < before)
            rows = list(connection.execute(query.order_by(runs.c.id.desc()).limit(limit + 1)))
            more, rows = len(rows) > limit, rows[:limit]
            newer = rows[0].id if rows and before is not None else None
            return self._page(connection, rows, rows[-1].id if more else None, newer)

    def _page(self, connection: Connection, rows: Sequence[Any], older: int | None, newer: int | None) -> Page:
        with_legs = legs_of(connection, [row.id for row in rows])
        return Page(tuple(run_of(row, with_legs[row.id]) for row in rows), older, newer)

    def count_newer(self, wanted: RunFilter, after: int) -> int:
        """Count the runs newer than one that a list shows already, up to 100."""
        with self._db.read() as connection:
            query = _narrow(select(runs.c.id), wanted).where(runs.c.id > after).limit(100)
            return len(connection.execute(query).all())

    def last_planned(self, project: str, ref: str | None) -> tuple[int, str, int] | None:
        """Give (run, ref, units) of the newest run of a project, of that ref if one is named, that lists all units."""
        with self._db.read() as connection:
            query = select(runs.c.id, runs.c.ref, runs.c.units_total).where(
                runs.c.project == project,
                runs.c.units_total.is_not(None),
                runs.c.units_filter.is_(None),
                runs.c.options["only_of"].as_integer().is_(None),
            )
            if ref is not None:
                query = query.where(runs.c.ref == ref)
            row = connection.execute(query.order_by(runs.c.id.desc()).limit(1)).one_or_none()
            return None if row is None else (int(row.id), str(row.ref), int(row.units_total))

    def forget_keys(self) -> int:
        """Forget the idempotency keys that are too old to count; gives how many."""
        with self._db.write() as connection:
            old = idempotency.c.created_at < self._db.now(connection) - IDEMPOTENCY_SECONDS
            return connection.execute(delete(idempotency).where(old)).rowcount

    # ---- clean up ---------------------------------------------------------------------------------------

    def to_clean(self, limit: int = 50) -> list[int]:
        """List final runs whose databases and directories were not cleaned up yet."""
        with self._db.read() as connection:
            query = (
                select(runs.c.id)
                .where(runs.c.cleaned_at.is_(None), runs.c.finished_at.is_not(None))
                .order_by(runs.c.id)
                .limit(limit)
            )
            return list(connection.scalars(query))

    def begin_cleaning(self, run: int) -> bool:
        """Begin to clean up a final run; False when it is not final any more, or somebody cleans it up now.

        From here on its legs must be prepared anew on resume, and what is resumed meanwhile waits for cleaned().
        """
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
                .values(cleaning_until=now + CLEANING_SECONDS)
            )
            if changed.rowcount:
                connection.execute(update(legs).where(legs.c.run == run).values(prepared=False))
            return bool(changed.rowcount)

    def cleaned(self, run: int, *, all_of_it: bool = True) -> None:
        """Record the end of a clean-up: nothing of the run is left but its records, or (not `all_of_it`) some is."""
        with self._db.write() as connection:
            now = self._db.now(connection)
            waiting = (tasks.c.run == run, tasks.c.state == TaskState.QUEUED.value, tasks.c.due_at > now)
            connection.execute(update(tasks).where(*waiting).values(due_at=now))
            connection.execute(update(runs).where(runs.c.id == run).values(cleaning_until=None))
            if all_of_it:
                changed = connection.execute(
                    update(runs).where(runs.c.id == run, runs.c.finished_at.is_not(None)).values(cleaned_at=now)
                )
                if changed.rowcount:
                    connection.execute(update(legs).where(legs.c.run == run).values(template=None))

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
        count_units(connection, run)
        forget(connection, run, kinds=FAILED)
        for leg in connection.execute(select(legs.c.name, legs.c.prepared).where(legs.c.run == run)).all():
            mine = [row for row in rows if row.leg == leg.name]
            unfinished = [row for row in mine if row.state != TaskState.DONE]
            preparing = [row for row in unfinished if row.kind == TaskKind.PREPARE]
            if unfinished and not preparing and not leg.prepared:
                # Its databases were dropped when it ended; the batches go on when they stand again.
                add_task(connection, mine[0], TaskKind.PREPARE, batch=0, now=now, due=due)
                continue
            for row in preparing or unfinished:
                move(connection, row, TaskState.QUEUED, now, due_at=due, fruitless=0, units_failed=0)


def insert_runs(connection: Connection, wanted: Sequence[NewRun], now: float) -> list[int]:
    """Write runs with their legs and their preparations; gives their ids, in that order."""
    if not wanted:
        return []
    # Parameters, not values(): each statement is compiled once, and takes all rows at once.
    query = insert(runs).returning(runs.c.id, sort_by_parameter_order=True)
    ids = [int(run) for run in connection.scalars(query, [_row(new, now) for new in wanted])]
    each = list(zip(ids, wanted, strict=True))
    connection.execute(
        insert(legs), [{"run": run, "prepared": False} | vars(leg) for run, new in each for leg in new.legs]
    )
    connection.execute(
        insert(tasks),
        [
            task_row(_Like(run, leg.name, new.pool, new.user, new.priority), TaskKind.PREPARE, batch=0, now=now)
            for run, new in each
            for leg in new.legs
        ],
    )
    blank = {"task": None, "attempt": None, "at": now, "kind": "submitted"}
    connection.execute(insert(events), [blank | {"run": run, "data": {"user": new.user}} for run, new in each])
    return ids


def _row(new: NewRun, now: float) -> dict[str, Any]:
    by_name = {leg.name: leg for leg in new.legs}
    candidate, baseline = by_name["candidate"], by_name.get("baseline")
    words = [candidate.ref, candidate.commit, candidate.subject, new.note, new.user, new.project]
    if baseline:
        words += [baseline.ref, baseline.commit]
    return {
        "project": new.project,
        "ref": candidate.ref,
        "commit": candidate.commit,
        "baseline_ref": baseline.ref if baseline else None,
        "baseline_commit": baseline.commit if baseline else None,
        "user": new.user,
        "note": new.note,
        "priority": new.priority,
        "units_filter": new.units_filter,
        "database": new.database,
        "pool": new.pool,
        "options": dict(new.options),
        "parent": new.parent,
        "state": RunState.QUEUED.value,
        "created_at": now,
        "search": "\n".join(words).lower(),
    }


@dataclass(frozen=True)
class _Like:
    run: int
    leg: str
    pool: str
    user: str
    priority: int


def _gone(connection: Connection, run: int) -> Gone | None:
    """Give the error for a run that was removed; None when there never was one."""
    row = connection.execute(select(removals).where(removals.c.run == run, removals.c.what == "run")).one_or_none()
    if row is None:
        return None
    return Gone(
        f"Run {run} was removed on {at(row.at):%Y-%m-%d}, {row.why}.",
        field="run",
        value=str(run),
        remedy="Submit its branch or commit again.",
    )


def _narrow(query: Select[Any], wanted: RunFilter) -> Select[Any]:
    columns = {
        runs.c.project: wanted.project,
        runs.c.state: wanted.state.value if wanted.state else None,
        runs.c.verdict: wanted.verdict.value if wanted.verdict else None,
        runs.c.user: wanted.user,
        runs.c.ref: wanted.ref,
    }
    for column, value in columns.items():
        if value is not None:
            query = query.where(column == value)
    if wanted.text:
        query = query.where(runs.c.search.contains(wanted.text.lower(), autoescape=True))
    return query
