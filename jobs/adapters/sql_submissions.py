"""Submissions in SQL: each is written once, whatever its client asks again, and those of one moment together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_plan import task_row
from jobs.adapters.sql_room import took_before, within
from jobs.adapters.sql_run_reads import SqlRunReads
from jobs.adapters.sql_schema import events, idempotency, legs, runs, tasks
from jobs.adapters.sql_together import Together
from jobs.new_run import NewRun
from jobs.run import Run, RunState
from runner.errors import RequestError
from runner.model import TaskKind
from runner.quota import Used

IDEMPOTENCY_SECONDS = 24 * 3600.0


class IdempotencyMismatch(RequestError):
    """This Idempotency-Key was used with another request."""

    code = "idempotency_mismatch"


@dataclass(frozen=True)
class _Wish:
    """A submission on its way into the records."""

    new: NewRun
    key: str | None
    body: str


class SqlSubmissions(SqlRunReads):
    """Accept runs, and read them."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._together = Together(database, self._add_all)

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

    def forget_keys(self) -> int:
        """Forget the idempotency keys that are too old to count; gives how many."""
        with self._db.write() as connection:
            old = idempotency.c.created_at < self._db.now(connection) - IDEMPOTENCY_SECONDS
            return connection.execute(delete(idempotency).where(old)).rowcount


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
    took: dict[tuple[str, str | None], Used | None] = {}
    for run, new in each:  # those of one moment are alike
        if (new.project, new.units_filter) not in took:
            found = took_before(connection, new.project, run, TaskKind.PREPARE)
            took[new.project, new.units_filter] = found
    connection.execute(
        insert(tasks),
        [
            task_row(
                _Like(run, leg.name, new.pool, new.user, new.priority),
                TaskKind.PREPARE,
                batch=0,
                now=now,
                need=within(took[new.project, new.units_filter], leg.disk_limit),
            )
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
