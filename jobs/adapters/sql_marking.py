"""Mark the units of a run that are accepted, slice by slice, so that nobody waits long for the store.

What has to be marked is a row: `begin` writes it in the transaction that changes what the run holds, each slice moves it
on, the last one deletes it together with what came of it. Who died in the middle left the row, and anybody may go on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Text, cast, delete, func, insert, select, update

from jobs.accepting import explained
from jobs.adapters.sql_acceptance_rows import SHARE, each, held_by, read_shares
from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_rows import append_event, lock_run
from jobs.adapters.sql_schema import causes, comparisons, markings, runs
from jobs.comparing import HARMFUL
from jobs.run import Comparison, Verdict, verdict_of
from runner.model import Reason

SLICE = 500  # units in one transaction: some ten milliseconds
BREATH_SECONDS = 0.01  # twice as long as who waits for SQLite's lock sleeps
AT_ONCE = 500  # names in one statement

# As SQLAlchemy writes JSON; a quote inside of a text would have a backslash before it. See jobs.accepting.is_cut.
_CUT = cast(comparisons.c.summary, Text).like('%"truncated": "%')


def begin(connection: Connection, run: int, keys: Sequence[str], now: float, event: dict[str, Any] | None) -> None:
    """Have the units with these causes held against what the run holds now.

    `event`: what was done, with its `kind`; appended with the verdict that comes of it when all are marked.
    """
    values = {"run": run, "causes": sorted(keys), "at": now, "event": event}
    connection.execute(insert(markings).values(**values))


def is_pending(connection: Connection, run: int) -> bool:
    """Tell whether a run's units are being marked, or somebody died doing so."""
    return connection.execute(select(markings.c.run).where(markings.c.run == run)).first() is not None


def pending(database: Database) -> list[int]:
    """List the runs of which units have to be marked."""
    with database.read() as connection:
        return list(connection.scalars(select(markings.c.run).order_by(markings.c.run)))


def finish(database: Database, run: int) -> None:
    """Mark what is left to mark of a run; raises StoreUnavailable, and may be called again."""
    while advance(database, run):
        time.sleep(BREATH_SECONDS)


def advance(database: Database, run: int) -> bool:
    """Mark one slice; tell whether more is left."""
    with database.write() as connection:
        lock_run(connection, run)
        row = connection.execute(select(markings).where(markings.c.run == run)).one_or_none()
        if row is None:
            return False
        keys, key, unit = list(row.causes), row.key, row.unit
        units: list[str] = []
        while keys and len(units) < SLICE:
            here = (causes.c.run == run, causes.c.key == keys[0])
            query = select(causes.c.unit).where(*here).order_by(causes.c.unit).limit(SLICE - len(units))
            found = list(connection.scalars(query if key != keys[0] else query.where(causes.c.unit > unit)))
            if found:
                units += found
                key, unit = keys[0], found[-1]
            else:
                keys.pop(0)
        _mark(connection, run, units)
        if not keys:
            _end(connection, run, row)
            return False
        values = {"causes": keys, "key": key, "unit": unit}
        connection.execute(update(markings).where(markings.c.run == run).values(**values))
        return True


def _mark(connection: Connection, run: int, units: Sequence[str]) -> None:
    """Mark those of these units that are wholly explained by what the run holds, and only those.

    Those that differ by noise alone are none of them: they do not count in any case.
    """
    held = held_by(connection, run)
    names = sorted(set(units))
    for piece in (names[at : at + AT_ONCE] for at in range(0, len(names), AT_ONCE)):
        query = select(*SHARE).where(causes.c.run == run, causes.c.unit.in_(piece)).order_by(causes.c.unit)
        known = {
            unit
            for unit, rows in groupby(read_shares(connection, query), key=itemgetter(0))
            if explained({key: share for _, key, share in rows}, held, cut=False)
        }
        here = (comparisons.c.run == run, comparisons.c.unit.in_(piece))
        whole = set(
            connection.scalars(
                select(comparisons.c.unit).where(comparisons.c.unit.in_(known), *here, ~comparisons.c.noisy, ~_CUT)
            )
        )
        marked = set(connection.scalars(select(comparisons.c.unit).where(*here, comparisons.c.accepted)))
        for value, changed in ((True, whole - marked), (False, marked - whole)):
            if changed:
                of_these = (comparisons.c.run == run, comparisons.c.unit.in_(changed))
                connection.execute(update(comparisons).where(*of_these).values(accepted=value))


def _end(connection: Connection, run: int, row: Any) -> None:
    """Count what is accepted, and judge the run anew by that when somebody did something."""
    kinds = [kind.value for kind in HARMFUL]
    here = (comparisons.c.run == run, comparisons.c.kind.in_(kinds), comparisons.c.accepted)
    units = connection.execute(select(func.count()).select_from(comparisons).where(*here)).scalar_one()
    groups = len({one.key for one in each(held_by(connection, run))})
    values = {"units_accepted": units, "groups_accepted": groups}
    connection.execute(update(runs).where(runs.c.id == run).values(**values))
    connection.execute(delete(markings).where(markings.c.run == run))
    if row.event is not None:
        told = dict(row.event)
        _judge(connection, run, told.pop("kind"), row.at, told)


def _judge(connection: Connection, run: int, kind: str, now: float, data: dict[str, Any]) -> None:
    """Give a run that has a verdict the one that it has now, and append what was done, by whom and why."""
    row = connection.execute(select(runs).where(runs.c.id == run)).one()
    after = row.verdict
    if row.verdict is not None:
        stopped = Reason(row.stop_code, row.stop_text or "") if row.stop_code is not None else None
        found = Comparison(different=row.units_different, stopped=stopped, accepted=row.units_accepted)
        after = verdict_of(found).value
        if Verdict(row.verdict).value != after:
            connection.execute(update(runs).where(runs.c.id == run).values(verdict=after))
    told = {"units": row.units_accepted, "from": row.verdict, "verdict": after}
    append_event(connection, run, kind, now, data=data | told)
