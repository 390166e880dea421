"""Acceptances in SQL: which hold for a run, which of its units they explain, and what that makes of its verdict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, select, update
from sqlalchemy import delete as delete_rows

from jobs.accepting import Acceptance, Asked, Held, InRun, check_acceptable, explained, is_cut
from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_groups import groups_of
from jobs.adapters.sql_rows import append_event, at, lock_run, moment, no_run
from jobs.adapters.sql_schema import acceptances, accepted, causes, comparisons, runs
from jobs.causes import Cause, Share
from jobs.comparing import Compared
from jobs.grouping import Group
from jobs.run import Comparison, Verdict, verdict_of
from runner.errors import Conflict, NotFound
from runner.model import Reason

AT_ONCE = 500  # names in one statement
LISTED = 1_000  # acceptances of a project that are shown, newest first

_A = acceptances.c


class SqlAcceptances:
    """Accept groups of differences, withdraw that, and tell of it. Nothing is ever deleted."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def of_project(self, project: str) -> list[Acceptance]:
        """List what was accepted in a project, newest first, also what expired or was withdrawn."""
        with self._db.read() as connection:
            query = select(acceptances).where(_A.project == project).order_by(_A.id.desc()).limit(LISTED)
            return [_acceptance(row) for row in connection.execute(query)]

    def of_run(self, run: int) -> dict[str, InRun]:
        """Tell of each group of a run that somebody accepted, by key; of its units `counts` tells."""
        with self._db.read() as connection:
            row = connection.execute(select(runs.c.project).where(runs.c.id == run)).one_or_none()
            if row is None:
                return {}
            held = _held(connection, run)
            known = {one.id for one in _each(held)}
            living = _living(connection, row.project, self._db.now(connection))
        found = {}
        for key in held.keys() | living.keys():
            offered = tuple(one for one in living.get(key, ()) if one.id not in known)
            found[key] = InRun(0, tuple(held.get(key, ())), offered)
        return found

    def counts(self, run: int) -> dict[str, int]:
        """Count the accepted units of each group of a run, by key."""
        both = (comparisons.c.run == causes.c.run) & (comparisons.c.unit == causes.c.unit)
        query = select(causes.c.key, func.count()).join(comparisons, both)
        query = query.where(causes.c.run == run, comparisons.c.run == run, comparisons.c.accepted)
        with self._db.read() as connection:
            return {key: int(count) for key, count in connection.execute(query.group_by(causes.c.key))}

    def accept(self, run: int, key: str, asked: Asked, user: str) -> Acceptance:
        """Accept a group for this run and for those of its project that are compared from now on.

        Asking for nothing takes over what the project accepted since this run was compared. Raises NotFound, Conflict,
        AcceptanceRefused.
        """
        with self._db.write() as connection:
            project = _begin(connection, self._db, run)
            now = self._db.now(connection)
            group = next(iter(groups_of(connection, run, key)), None)
            if group is None:
                remedy = "See its groups: seatrial groups RUN, or the run's page."
                raise NotFound(f"Run {run} has no group {key[:40]!r}.", field="key", value=key[:80], remedy=remedy)
            held = _held(connection, run)
            living = _living(connection, project, now)
            if not asked.empty:
                check_acceptable(key, group.cause)
                wish = asked.wish(at(now))
            if mine := _covering(connection, run, group, _alive(held, now)):
                remedy = "Withdraw it first, to give another name, reason or date."
                raise _already(run, key, mine[-1], f"in run {run}", remedy)
            theirs = _covering(connection, run, group, living)
            if asked.empty:
                if not theirs:
                    check_acceptable(key, group.cause)
                    asked.wish(at(now))  # raises: something has to be said
                    raise AssertionError("an empty wish was taken for one")
                found = theirs[-1]
            elif theirs:
                remedy = "Take it over for this run: leave name, reason and expires out."
                raise _already(run, key, theirs[-1], f"in run {theirs[-1].run}", remedy)
            else:
                values = {
                    "project": project,
                    "key": key,
                    "ratio": group.ratio,
                    "offset": group.offset,
                    "name": wish.name,
                    "reason": wish.reason,
                    "run": run,
                    "made_by": user,
                    "made_at": now,
                    "expires_at": wish.expires_at.timestamp(),
                }
                made = connection.execute(insert(acceptances).values(**values, **vars(group.cause)))
                query = select(acceptances).where(_A.id == made.inserted_primary_key[0])  # type: ignore[index]
                found = _acceptance(connection.execute(query).one())
            known = set(_each(held))
            rows = [
                {"run": run, "key": one.key, "acceptance": one.id} for one in theirs or (found,) if one not in known
            ]
            connection.execute(insert(accepted), rows)
            _assess(connection, run, _held(connection, run))
            _judge(connection, run, "accept", now, {"user": user, **_told(found)})
            return found

    def withdraw(self, run: int, key: str, user: str) -> Acceptance:
        """Let a group count as different again, in this run and in those that are compared from now on.

        Other runs that have ended stay as they are. Raises NotFound, Conflict.
        """
        with self._db.write() as connection:
            _begin(connection, self._db, run)
            now = self._db.now(connection)
            held = _held(connection, run)
            group = next(iter(groups_of(connection, run, key)), None)
            mine = list(_each({one: held.get(one, ()) for one in (key, *(() if group is None else group.keys))}))
            if not mine:
                if group is None:
                    remedy = "See its groups: seatrial groups RUN, or the run's page."
                    raise NotFound(f"Run {run} has no group {key[:40]!r}.", field="key", value=key[:80], remedy=remedy)
                text = f"Group {key} is not accepted in run {run}."
                raise Conflict(text, field="key", value=key, remedy="There is nothing to withdraw.")
            ids = [one.id for one in mine]
            values = {"withdrawn_at": now, "withdrawn_by": user}
            connection.execute(update(acceptances).where(_A.id.in_(ids), _A.withdrawn_at.is_(None)).values(**values))
            connection.execute(delete_rows(accepted).where(accepted.c.run == run, accepted.c.acceptance.in_(ids)))
            _assess(connection, run, _held(connection, run))
            _judge(connection, run, "withdraw", now, {"user": user, **_told(mine[-1])})
            return _acceptance(connection.execute(select(acceptances).where(_A.id == ids[-1])).one())


# ---- what comparing does, within its own transactions ----------------------------------------------------------


def explained_now(connection: Connection, run: int, found: Iterable[Compared], now: float) -> set[str]:
    """Give the units that differ and are wholly explained by what holds now, and keep what explains them with the run."""
    harmful = [one for one in found if one.harmful]
    if not harmful:
        return set()
    project = connection.execute(select(runs.c.project).where(runs.c.id == run)).scalar_one()
    living = _living(connection, project, now)
    if not living:
        return set()
    units, shares = set(), []
    for one in harmful:
        mine = {share.cause.key: share for share in one.causes}
        shares += list(mine.items())
        if explained(mine, living, cut=is_cut(one.summary)):
            units.add(one.unit)
    _hold(connection, run, living, shares)
    return units


def settle(connection: Connection, run: int, now: float) -> int:
    """Hold a run that is about to end against what is accepted at this moment, and say so in its events.

    Gives how many of its units are accepted.
    """
    row = connection.execute(select(runs.c.project, runs.c.groups_accepted).where(runs.c.id == run)).one()
    living = _living(connection, row.project, now)
    if not living and not row.groups_accepted and not _held(connection, run):
        return 0
    connection.execute(delete_rows(accepted).where(accepted.c.run == run))
    _hold(connection, run, living, ((key, share) for _, key, share in _shares(connection, run, list(living))))
    held = _held(connection, run)
    units = _assess(connection, run, held)
    if held:
        names = [_told(one) for one in sorted(_each(held), key=lambda one: (one.key, one.id))]
        append_event(connection, run, "accepted", now, data={"units": units, "groups": names[:100]})
    return units


def _hold(connection: Connection, run: int, living: Held, shares: Iterable[tuple[str, Share]]) -> None:
    """Keep with a run which acceptances cover something of it."""
    known = {one.id: one.key for one in _each(_held(connection, run))}
    new: dict[int, str] = {}
    for key, share in shares:
        for one in living.get(key, ()):
            if one.id not in known and one.id not in new and one.covers(share):
                new[one.id] = one.key
    if new:
        connection.execute(insert(accepted), [{"run": run, "key": key, "acceptance": one} for one, key in new.items()])
        values = {"groups_accepted": len({*known.values(), *new.values()})}
        connection.execute(update(runs).where(runs.c.id == run).values(**values))


def _assess(connection: Connection, run: int, held: Held) -> int:
    """Mark the units of a run that are wholly explained by what it holds, count them, and give how many they are.

    Those that differ by noise alone are none of them: they do not count in any case.
    """
    here = comparisons.c.run == run
    connection.execute(update(comparisons).where(here, comparisons.c.accepted).values(accepted=False))
    count = 0
    for names in _pieces(_explained(connection, run, held)):
        summaries = select(comparisons.c.unit, comparisons.c.summary)
        summaries = summaries.where(here, comparisons.c.unit.in_(names), ~comparisons.c.noisy)
        whole = [row.unit for row in connection.execute(summaries) if not is_cut(row.summary)]
        connection.execute(update(comparisons).where(here, comparisons.c.unit.in_(whole)).values(accepted=True))
        count += len(whole)
    values = {"units_accepted": count, "groups_accepted": len({one.key for one in _each(held)})}
    connection.execute(update(runs).where(runs.c.id == run).values(**values))
    return count


def _explained(connection: Connection, run: int, held: Held) -> list[str]:
    """Name the units whose causes are all accepted, as far as these are known."""
    if not held:
        return []
    touched = select(causes.c.unit).where(causes.c.run == run, causes.c.key.in_(list(held)))
    query = select(*_SHARE).where(causes.c.run == run, causes.c.unit.in_(touched)).order_by(causes.c.unit)
    found = []
    for unit, rows in groupby(_read(connection, query), key=itemgetter(0)):
        if explained({key: share for _, key, share in rows}, held, cut=False):
            found.append(unit)
    return found


_SHARE = [causes.c[name] for name in ("unit", "key", "ratio_low", "ratio_high", "offset_low", "offset_high")]
_NAMELESS = Cause("", "other")  # acceptances go by keys


def _shares(connection: Connection, run: int, keys: Sequence[str]) -> Iterator[tuple[str, str, Share]]:
    """Read what units have of some causes."""
    return _read(connection, select(*_SHARE).where(causes.c.run == run, causes.c.key.in_(keys)))


def _read(connection: Connection, query: Select[Any]) -> Iterator[tuple[str, str, Share]]:
    for unit, key, ratio_low, ratio_high, offset_low, offset_high in connection.execute(query):
        ratio = None if ratio_low is None else (ratio_low, ratio_high)
        offset = None if offset_low is None else (offset_low, offset_high)
        yield unit, key, Share(_NAMELESS, 1, ratio, offset)


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


# ---- rows --------------------------------------------------------------------------------------------------------


def _begin(connection: Connection, database: Database, run: int) -> str:
    """Let nobody else accept or withdraw in the run's project meanwhile, nor change the run; give the project."""
    row = connection.execute(select(runs.c.project).where(runs.c.id == run)).one_or_none()
    if row is None:
        raise no_run(run)
    database.alone(connection, f"acceptances of {row.project}")
    lock_run(connection, run)
    return str(row.project)


def _living(connection: Connection, project: str, now: float) -> dict[str, list[Acceptance]]:
    """Read what holds in a project for runs that are compared now."""
    query = select(acceptances).where(_A.project == project, _A.withdrawn_at.is_(None), _A.expires_at > now)
    return _by_key(connection.execute(query.order_by(_A.id)))


def _held(connection: Connection, run: int) -> dict[str, list[Acceptance]]:
    """Read what holds for a run."""
    query = select(acceptances).join(accepted, accepted.c.acceptance == _A.id).where(accepted.c.run == run)
    return _by_key(connection.execute(query.order_by(_A.id)))


def _by_key(rows: Iterable[Row[Any]]) -> dict[str, list[Acceptance]]:
    """Put acceptances by the keys of what they speak of: one of a column whichever way it went is there by each."""
    found: dict[str, list[Acceptance]] = {}
    for row in rows:
        one = _acceptance(row)
        for key in {one.key, *(cause.key for cause in one.cause.meant)}:
            found.setdefault(key, []).append(one)
    return found


def _each(held: Held) -> dict[Acceptance, None]:
    """Give acceptances once each."""
    return {one: None for some in held.values() for one in some}


def _alive(held: Held, now: float) -> Held:
    return {
        key: [one for one in some if one.withdrawn_at is None and one.expires_at.timestamp() > now]
        for key, some in held.items()
    }


def _covering(connection: Connection, run: int, group: Group, held: Held) -> list[Acceptance]:
    """Give the acceptances of a group of which all is accepted; none while something is not."""
    mine = {key: held.get(key, ()) for key in group.keys}
    if not all(mine.values()):
        return []
    found: dict[Acceptance, None] = {}
    for _, key, share in _shares(connection, run, list(mine)):
        covering = [one for one in mine[key] if one.covers(share)]
        if not covering:
            return []
        found |= dict.fromkeys(covering)
    return sorted(found, key=lambda one: one.id)


def _already(run: int, key: str, found: Acceptance, where: str, remedy: str) -> Conflict:
    text = (
        f"Group {key} of run {run} is accepted already, as {found.name!r}, by {found.made_by} {where} "
        f"until {found.last_day}."
    )
    return Conflict(text, field="key", value=key, remedy=remedy)


def _told(found: Acceptance) -> dict[str, Any]:
    """Say in an event what was accepted."""
    return {"acceptance": found.id, "key": found.key, "name": found.name, "reason": found.reason}


def _pieces(names: Sequence[str]) -> Iterator[list[str]]:
    rest = iter(names)
    while piece := list(islice(rest, AT_ONCE)):
        yield piece


def _acceptance(row: Row[Any]) -> Acceptance:
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
