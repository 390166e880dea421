"""Acceptances in SQL: what people accept and withdraw, which of it holds for a run, and what of it a run is told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy import delete as delete_rows

from jobs.accepting import Acceptance, Asked, Held, InRun, check_acceptable, explained, is_cut
from jobs.adapters import sql_marking
from jobs.adapters.sql_acceptance_rows import acceptance_of, alive, each, held_by, living, shares_of_keys, spoken_of
from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_groups import groups_of
from jobs.adapters.sql_rows import append_event, at, lock_run, no_run
from jobs.adapters.sql_schema import acceptances, accepted, causes, comparisons, runs
from jobs.causes import Share
from jobs.comparing import Compared
from jobs.grouping import Group
from runner.errors import Conflict, NotFound

LISTED = 1_000  # acceptances of a project that are shown, newest first

_A = acceptances.c


@dataclass(frozen=True)
class _Seen:
    """What was read of a run, or of a group in it, before something is accepted or withdrawn.

    `held`: what the run holds; `known`: what the project accepts now.
    """

    project: str
    held: Held
    known: Held


class SqlAcceptances:
    """Accept groups of differences, withdraw that, and tell of it. Nothing is ever deleted.

    What is decided is written in one short transaction; then units are marked slice by slice (see sql_marking). Who dies
    before all are marked leaves that to whoever calls `go_on`; until then the run's numbers and verdict are those before.
    """

    def __init__(self, database: Database) -> None:
        self._db = database

    def of_project(self, project: str) -> list[Acceptance]:
        """List what was accepted in a project, newest first, also what expired or was withdrawn."""
        with self._db.read() as connection:
            query = select(acceptances).where(_A.project == project).order_by(_A.id.desc()).limit(LISTED)
            return [acceptance_of(row) for row in connection.execute(query)]

    def of_run(self, run: int) -> dict[str, InRun]:
        """Tell of each group of a run that somebody accepted, by key; of its units `counts` tells."""
        with self._db.read() as connection:
            row = connection.execute(select(runs.c.project).where(runs.c.id == run)).one_or_none()
            if row is None:
                return {}
            held = held_by(connection, run)
            known = living(connection, row.project, self._db.now(connection))
        mine = each(held)
        found = {}
        for key in held.keys() | known.keys():
            offered = tuple(one for one in known.get(key, ()) if one not in mine)
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
        while True:
            sql_marking.finish(self._db, run)
            with self._db.read() as connection:
                now = self._db.now(connection)
                seen, group = _look(connection, run, key, now)
                mine = _covering(connection, run, group, alive(seen.held, now))
                theirs = _covering(connection, run, group, seen.known)
            _check(run, group, mine, theirs, asked, now)
            with self._db.write() as connection:
                _begin(connection, self._db, run)
                now = self._db.now(connection)
                if not _is_still_so(connection, run, seen, now):
                    continue
                new = theirs or [_made(connection, run, seen.project, group, asked, user, now)]
                known = each(seen.held)
                _hold(connection, run, [one for one in new if one not in known])
                event = {"kind": "accept", "user": user, **_told(new[-1])}
                sql_marking.begin(connection, run, spoken_of(new), now, event)
            sql_marking.finish(self._db, run)
            return new[-1]

    def withdraw(self, run: int, key: str, user: str) -> Acceptance:
        """Let a group count as different again, in this run and in those that are compared from now on.

        Other runs that have ended stay as they are. Raises NotFound, Conflict.
        """
        while True:
            sql_marking.finish(self._db, run)
            with self._db.read() as connection:
                seen, group = _look(connection, run, key, self._db.now(connection))
            mine = [one for one in each(seen.held) if {one.key, *spoken_of([one])} & {key, *group.keys}]
            if not mine:
                text = f"Group {key} is not accepted in run {run}."
                raise Conflict(text, field="key", value=key, remedy="There is nothing to withdraw.")
            ids = [one.id for one in mine]
            with self._db.write() as connection:
                _begin(connection, self._db, run)
                now = self._db.now(connection)
                if not _is_still_so(connection, run, seen, now):
                    continue
                values = {"withdrawn_at": now, "withdrawn_by": user}
                of_these = (_A.id.in_(ids), _A.withdrawn_at.is_(None))
                connection.execute(update(acceptances).where(*of_these).values(**values))
                connection.execute(delete_rows(accepted).where(accepted.c.run == run, accepted.c.acceptance.in_(ids)))
                event = {"kind": "withdraw", "user": user, **_told(mine[-1])}
                sql_marking.begin(connection, run, spoken_of(mine), now, event)
                found = acceptance_of(connection.execute(select(acceptances).where(_A.id == ids[-1])).one())
            sql_marking.finish(self._db, run)
            return found

    def settle(self, run: int) -> None:
        """Hold a run that is about to end against what is accepted at this moment."""
        while True:
            sql_marking.finish(self._db, run)
            with self._db.read() as connection:
                project = connection.execute(select(runs.c.project).where(runs.c.id == run)).scalar_one()
                known = living(connection, project, self._db.now(connection))
                seen = _Seen(project, held_by(connection, run), known)
                if not known and not seen.held:
                    return
                wanted = _covering_some(shares_of_keys(connection, run, list(known)), known)
            with self._db.write() as connection:
                _begin(connection, self._db, run)
                now = self._db.now(connection)
                if not _is_still_so(connection, run, seen, now):
                    continue
                connection.execute(delete_rows(accepted).where(accepted.c.run == run))
                _hold(connection, run, wanted)
                sql_marking.begin(connection, run, spoken_of([*each(seen.held), *wanted]), now, None)
            sql_marking.finish(self._db, run)
            return

    def go_on(self) -> None:
        """Mark the units of runs in which somebody accepted or withdrew a group, and died before all were."""
        for run in sql_marking.pending(self._db):
            sql_marking.finish(self._db, run)


# ---- what comparing does, within its own transactions ----------------------------------------------------------


def explained_now(connection: Connection, run: int, found: Iterable[Compared], now: float) -> set[str]:
    """Give the units that differ and are wholly explained by what holds now, and keep what explains them with the run."""
    harmful = [one for one in found if one.harmful]
    if not harmful:
        return set()
    project = connection.execute(select(runs.c.project).where(runs.c.id == run)).scalar_one()
    known = living(connection, project, now)
    if not known:
        return set()
    units, shares = set(), []
    for one in harmful:
        mine = {share.cause.key: share for share in one.causes}
        shares += [(one.unit, key, share) for key, share in mine.items()]
        if explained(mine, known, cut=is_cut(one.summary)):
            units.add(one.unit)
    before = each(held_by(connection, run))
    new = [one for one in _covering_some(shares, known) if one not in before]
    if new:
        _hold(connection, run, new)
        values = {"groups_accepted": len({one.key for one in (*before, *new)})}
        connection.execute(update(runs).where(runs.c.id == run).values(**values))
    return units


def tell_accepted(connection: Connection, run: int, now: float) -> int:
    """Say in a run's events what of it is accepted when it ends; give how many units are."""
    units = int(connection.execute(select(runs.c.units_accepted).where(runs.c.id == run)).scalar_one())
    held = sorted(each(held_by(connection, run)), key=lambda one: (one.key, one.id))
    if held:
        data = {"units": units, "groups": [_told(one) for one in held[:100]]}
        append_event(connection, run, "accepted", now, data=data)
    return units


# ---- decisions ---------------------------------------------------------------------------------------------------


def _look(connection: Connection, run: int, key: str, now: float) -> tuple[_Seen, Group]:
    """Read what a decision about a group rests on; raises NotFound."""
    project = connection.execute(select(runs.c.project).where(runs.c.id == run)).scalar_one_or_none()
    if project is None:
        raise no_run(run)
    group = next(iter(groups_of(connection, run, key)), None)
    if group is None:
        remedy = "See its groups: seatrial groups RUN, or the run's page."
        raise NotFound(f"Run {run} has no group {key[:40]!r}.", field="key", value=key[:80], remedy=remedy)
    return _Seen(project, held_by(connection, run), living(connection, project, now)), group


def _check(
    run: int, group: Group, mine: Sequence[Acceptance], theirs: Sequence[Acceptance], asked: Asked, now: float
) -> None:
    """Refuse what may not be accepted, or is already. `mine`, `theirs`: what explains it in the run, in the project."""
    if not asked.empty or not (mine or theirs):
        check_acceptable(group.key, group.cause)
        asked.wish(at(now))  # something has to be said
    if mine:
        remedy = "Withdraw it first, to give another name, reason or date."
        raise _already(run, group.key, mine[-1], f"in run {run}", remedy)
    if theirs and not asked.empty:
        remedy = "Take it over for this run: leave name, reason and expires out."
        raise _already(run, group.key, theirs[-1], f"in run {theirs[-1].run}", remedy)


def _is_still_so(connection: Connection, run: int, seen: _Seen, now: float) -> bool:
    """Tell whether nobody accepted or withdrew anything since it was looked at, and all units are marked."""
    if sql_marking.is_pending(connection, run):
        return False
    same = each(held_by(connection, run)) == each(seen.held)
    return same and each(living(connection, seen.project, now)) == each(seen.known)


def _made(
    connection: Connection, run: int, project: str, group: Group, asked: Asked, user: str, now: float
) -> Acceptance:
    """Write a new acceptance."""
    wish = asked.wish(at(now))
    values = {
        "project": project,
        "key": group.key,
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
    return acceptance_of(connection.execute(query).one())


def _hold(connection: Connection, run: int, new: Sequence[Acceptance]) -> None:
    """Keep with a run which acceptances cover something of it."""
    if new:
        rows = [{"run": run, "key": one.key, "acceptance": one.id} for one in new]
        connection.execute(insert(accepted), rows)


def _covering_some(shares: Iterable[tuple[str, str, Share]], held: Held) -> list[Acceptance]:
    """Give the acceptances that cover something of what units have, in the order in which they were made."""
    left = {key: dict.fromkeys(some) for key, some in held.items()}
    found: dict[Acceptance, None] = {}
    for _, key, share in shares:
        for one in [one for one in left.get(key, ()) if one.covers(share)]:
            del left[key][one]
            found[one] = None
    return sorted(found, key=lambda one: one.id)


def _covering(connection: Connection, run: int, group: Group, held: Held) -> list[Acceptance]:
    """Give the acceptances of a group of which all is accepted; none while something is not."""
    mine = {key: held.get(key, ()) for key in group.keys}
    if not all(mine.values()):
        return []
    found: dict[Acceptance, None] = {}
    for _, key, share in shares_of_keys(connection, run, list(mine)):
        covering = [one for one in mine[key] if one.covers(share)]
        if not covering:
            return []
        found |= dict.fromkeys(covering)
    return sorted(found, key=lambda one: one.id)


def _begin(connection: Connection, database: Database, run: int) -> None:
    """Let nobody else accept or withdraw in the run's project meanwhile, nor change the run."""
    row = connection.execute(select(runs.c.project).where(runs.c.id == run)).one_or_none()
    if row is None:
        raise no_run(run)
    database.alone(connection, f"acceptances of {row.project}")
    lock_run(connection, run)


def _already(run: int, key: str, found: Acceptance, where: str, remedy: str) -> Conflict:
    text = (
        f"Group {key} of run {run} is accepted already, as {found.name!r}, by {found.made_by} {where} "
        f"until {found.last_day}."
    )
    return Conflict(text, field="key", value=key, remedy=remedy)


def _told(found: Acceptance) -> dict[str, Any]:
    """Say in an event what was accepted."""
    return {"acceptance": found.id, "key": found.key, "name": found.name, "reason": found.reason}
