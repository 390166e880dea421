"""Read what is accepted in SQL, and what units have of causes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, select

from jobs.accepting import Acceptance, Held
from jobs.adapters.sql_rows import at, moment
from jobs.adapters.sql_schema import acceptances, accepted, causes
from jobs.causes import Cause, Share

_A = acceptances.c
SHARE = [causes.c[name] for name in ("unit", "key", "ratio_low", "ratio_high", "offset_low", "offset_high")]
_NAMELESS = Cause("", "other")  # acceptances go by keys


def living(connection: Connection, project: str, now: float) -> Held:
    """Read what holds in a project for runs that are compared now."""
    query = select(acceptances).where(_A.project == project, _A.withdrawn_at.is_(None), _A.expires_at > now)
    return _by_key(connection.execute(query.order_by(_A.id)))


def held_by(connection: Connection, run: int) -> Held:
    """Read what holds for a run."""
    query = select(acceptances).join(accepted, accepted.c.acceptance == _A.id).where(accepted.c.run == run)
    return _by_key(connection.execute(query.order_by(_A.id)))


def _by_key(rows: Iterable[Row[Any]]) -> Held:
    """Put acceptances by the keys of what they speak of: one of a column whichever way it went is there by each."""
    found: dict[str, list[Acceptance]] = {}
    for row in rows:
        one = acceptance_of(row)
        for key in {one.key, *spoken_of([one])}:
            found.setdefault(key, []).append(one)
    return found


def each(held: Held) -> dict[Acceptance, None]:
    """Give acceptances once each."""
    return {one: None for some in held.values() for one in some}


def alive(held: Held, now: float) -> Held:
    """Leave out what was withdrawn or has expired."""
    return {
        key: [one for one in some if one.withdrawn_at is None and one.expires_at.timestamp() > now]
        for key, some in held.items()
    }


def spoken_of(some: Iterable[Acceptance]) -> list[str]:
    """Name the causes of units that acceptances speak of, in the order of their keys."""
    return sorted({cause.key for one in some for cause in one.cause.meant})


def shares_of_keys(connection: Connection, run: int, keys: Sequence[str]) -> Iterator[tuple[str, str, Share]]:
    """Read what units have of some causes: unit, key, share."""
    return read_shares(connection, select(*SHARE).where(causes.c.run == run, causes.c.key.in_(keys)))


def read_shares(connection: Connection, query: Select[Any]) -> Iterator[tuple[str, str, Share]]:
    """Read what units have of causes, by a query of `SHARE`."""
    for unit, key, ratio_low, ratio_high, offset_low, offset_high in connection.execute(query):
        ratio = None if ratio_low is None else (ratio_low, ratio_high)
        offset = None if offset_low is None else (offset_low, offset_high)
        yield unit, key, Share(_NAMELESS, 1, ratio, offset)


def acceptance_of(row: Row[Any]) -> Acceptance:
    """Give a row of the table of acceptances."""
    return Acceptance(
        id=row.id,
        project=row.project,
        key=row.key,
        cause=Cause(row.pattern, row.what, row.column, row.sign),
        name=row.name,
        reason=row.reason,
        run=row.run,
        made_by=row.made_by,
        made_at=at(row.made_at),
        expires_at=at(row.expires_at),
        ratio=row.ratio,
        offset=row.offset,
        withdrawn_at=moment(row.withdrawn_at),
        withdrawn_by=row.withdrawn_by,
    )
