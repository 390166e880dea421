"""What the records say of things that are kept: which images and commits are needed, which outputs are referred to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, insert, select, tuple_

from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_rows import append_event, at
from jobs.adapters.sql_schema import (
    attempts,
    comparisons,
    housekeeping,
    legs,
    log_chunks,
    runs,
    steps,
    tasks,
    units,
)
from jobs.keeping import Done

NOTES = 1_000  # of what was of no run
UNITS_AT_ONCE = 5_000  # read in one transaction: about 0.1 s
_BUILT = re.compile(r"seatrial/build:[0-9a-f]{40}")


@dataclass(frozen=True)
class Note:
    """What a sweeper removed on a host, or on its behalf, and when."""

    at: datetime
    host: str
    done: Done


class SqlKeeping:
    """Read what is needed by whom, and record what was removed."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def now(self) -> float:
        """Give the store's time."""
        with self._db.read() as connection:
            return self._db.now(connection)

    def note(self, host: str, done: Done) -> None:
        """Record what a sweeper removed: as an event of its run where that is known, else in a list of the newest ones."""
        with self._db.write() as connection:
            now = self._db.now(connection)
            known = select(runs.c.id).where(runs.c.id == done.run)
            if done.run is not None and connection.execute(known).one_or_none() is not None:
                data = {"what": done.what, "name": done.name, "why": done.why, "host": host}
                append_event(connection, done.run, "removed", now, task=done.task, data=data)
                return
            values = {"at": now, "host": host, "what": done.what, "name": done.name, "why": done.why}
            made = connection.execute(insert(housekeeping).values(**values)).inserted_primary_key
            assert made is not None
            connection.execute(delete(housekeeping).where(housekeeping.c.id <= made[0] - NOTES))

    def notes(self, *, limit: int = NOTES) -> list[Note]:
        """List what sweepers removed that was of no run, oldest first; of more than `limit` the newest."""
        with self._db.read() as connection:
            query = select(housekeeping).order_by(housekeeping.c.id.desc()).limit(limit)
            rows = connection.execute(query).all()
        return [Note(at(row.at), row.host, Done(row.what, row.name, row.why)) for row in reversed(rows)]

    def images(self) -> dict[str, tuple[bool, float]]:
        """Give the built images that our runs used: name → (needed by a living run, last use)."""
        used: dict[str, tuple[bool, float]] = {}
        end = func.coalesce(runs.c.finished_at, runs.c.created_at)
        of_legs = select(legs.c.image.label("text"), end.label("at"), runs.c.cleaned_at).join(
            runs, runs.c.id == legs.c.run
        )
        # A preparation that failed has used its image too, and only its step tells.
        of_steps = select(steps.c.detail.label("text"), end.label("at"), runs.c.cleaned_at).join(
            runs, runs.c.id == steps.c.run
        )
        queries = (
            of_legs.where(legs.c.image.startswith("seatrial/build:")),
            of_steps.where(steps.c.name == "image", steps.c.detail.contains("seatrial/build:")),
        )
        with self._db.read() as connection:
            for query in queries:
                for row in connection.execute(query):
                    if (match := _BUILT.search(row.text)) is None:
                        continue
                    needed, at = used.get(match[0], (False, 0.0))
                    used[match[0]] = (needed or row.cleaned_at is None, max(at, row.at))
        return used

    def living_commits(self) -> set[tuple[str, str]]:
        """Give (project, commit) of all legs of runs that have not ended or not been cleaned up."""
        with self._db.read() as connection:
            query = select(runs.c.project, legs.c.commit).join(legs, legs.c.run == runs.c.id)
            return {(row[0], row[1]) for row in connection.execute(query.where(runs.c.cleaned_at.is_(None)))}

    def oldest_claim(self, host: str) -> float | None:
        """Tell when the attempt began that has gone on for longest on a host; None when there is none."""
        with self._db.read() as connection:
            query = select(func.min(attempts.c.started_at)).where(
                attempts.c.host == host, attempts.c.ended_at.is_(None)
            )
            found: float | None = connection.execute(query).scalar_one()
            return found

    def references(self) -> Iterator[tuple[str, bool]]:
        """Give the objects that the records refer to: digest, and whether it is a manifest, whose entries count too.

        Some come several times. What is recorded while this is read may be missing.
        """
        with self._db.read() as connection:
            query = select(runs.c.id).where(runs.c.outputs_removed_at.is_(None)).order_by(runs.c.id)
            known = list(connection.scalars(query))
        for run in known:
            yield from self._of_units(run)
            yield from self._of_tasks(run)
            yield from self._of_comparisons(run)

    def _of_units(self, run: int) -> Iterator[tuple[str, bool]]:
        key = tuple_(units.c.leg, units.c.unit)  # the position moves when a list comes in another order
        query = select(units.c.leg, units.c.unit, units.c.output_digest, units.c.output_tree)
        query = query.where(units.c.run == run).order_by(units.c.leg, units.c.unit).limit(UNITS_AT_ONCE)
        after = ("", "")
        while True:
            with self._db.read() as connection:
                found = connection.execute(query.where(key > after)).all()
            for row in found:
                if row.output_digest is not None:
                    yield row.output_digest, bool(row.output_tree)
            if len(found) < UNITS_AT_ONCE:
                return
            after = (found[-1].leg, found[-1].unit)

    def _of_comparisons(self, run: int) -> Iterator[tuple[str, bool]]:
        with self._db.read() as connection:
            query = select(comparisons.c.rows).where(comparisons.c.run == run, comparisons.c.rows.is_not(None))
            found = list(connection.scalars(query))
        for digest in found:  # whoever asks takes his time, and no transaction waits for him
            yield digest, False

    def _of_tasks(self, run: int) -> Iterator[tuple[str, bool]]:
        with self._db.read() as connection:
            query = select(tasks.c.id, tasks.c.resume_output).where(tasks.c.run == run).order_by(tasks.c.id)
            known = connection.execute(query).all()
        for row in known:
            if row.resume_output:
                yield row.resume_output["digest"], bool(row.resume_output["tree"])
            with self._db.read() as connection:
                here = (log_chunks.c.task == row.id, log_chunks.c.object.is_not(None))
                pieces = list(connection.scalars(select(log_chunks.c.object).where(*here)))
            for digest in pieces:
                yield digest, False
