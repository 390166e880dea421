"""Comparisons in SQL: which pairs are ready, what became of them, and when nothing is left to compare.

A comparison is a pure function of the two outputs, so nothing has to be claimed: two comparers do the same work, and
what the second one writes changes nothing. Outputs that changed since they were read are compared again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, case, delete, func, insert, literal, or_, select, update
from sqlalchemy.sql.expression import Select

from jobs.adapters import sql_marking
from jobs.adapters.sql_acceptances import SqlAcceptances, explained_now, tell_accepted
from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_groups import share_row
from jobs.adapters.sql_moves import ending, stop
from jobs.adapters.sql_rows import lock_run, output_of, refresh_run
from jobs.adapters.sql_schema import causes, comparisons, legs, noise, runs, tasks, units
from jobs.comparing import HARMFUL, Compared, Pair, Side, UnitClass, is_still_so
from jobs.run import FAIL_FAST, FINAL_TASK_STATES, RunState
from runner.errors import NotFound
from runner.model import BASELINE_AGAIN, Reason, UnitState

BASELINE, CANDIDATE = "baseline", "candidate"
TODO = UnitState.TODO.value

LEGS = (BASELINE, CANDIDATE)  # whose units are compared; a second run of the baseline only tells what moves by itself

A, B, C = units.alias("a"), units.alias("b"), units.alias("c")
_COLUMNS = ("state", "output_name", "output_digest", "output_size", "output_tree")


def _columns(name: str, side: Any) -> list[Any]:
    return [side.c[column].label(f"{name}_{column}") for column in _COLUMNS]


class SqlCompare:
    """Write and read what became of the units of compare runs."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._acceptances = SqlAcceptances(database)

    # ---- what the comparer asks and tells -------------------------------------------------------------

    def open_runs(self) -> list[int]:
        """List the compare runs of which something may be left to compare, oldest first."""
        with self._db.read() as connection:
            query = select(runs.c.id).where(runs.c.baseline_commit.is_not(None), runs.c.compared_at.is_(None))
            return list(connection.scalars(query.order_by(runs.c.id)))

    def ready(self, run: int, limit: int) -> list[Pair]:
        """Give pairs that are not compared yet and on which nothing goes on any more, in the order of the lists.

        None of a run that somebody cancelled, or that was stopped.
        """
        with self._db.read() as connection:
            if ending(connection, run) is not None:
                return []
            over = _waits_for_us(connection, run)
            again = _second_run(connection, run)
            found = [_pair(row) for row in connection.execute(_both(run, over=over, again=again).limit(limit))]
            if len(found) < limit and _are_listed(connection, run):
                found += [_pair(row) for row in connection.execute(_lone(run).limit(limit - len(found)))]
            return found

    def record(self, run: int, found: Iterable[tuple[Pair, Compared]], *, fail_fast: int | None = None) -> bool:
        """Write what became of some units; what is written already stays, and what is not so any more is left out.

        `fail_fast`: stop the run when so many units differ that are not accepted. Tells whether the run goes on.
        """
        wanted = list(found)
        with self._db.write() as connection:
            lock_run(connection, run)
            now = self._db.now(connection)
            if ending(connection, run) is not None:
                return False
            names = [one.unit for _, one in wanted]
            here = (comparisons.c.run == run, comparisons.c.unit.in_(names))
            known = set(connection.scalars(select(comparisons.c.unit).where(*here)))
            present = _present(connection, run, names)
            over = _waits_for_us(connection, run)
            new = [
                one
                for pair, one in wanted
                if one.unit not in known and is_still_so(pair, present.get(pair.unit, {}), over=over)
            ]
            if not new:
                return True
            held = explained_now(connection, run, new, now)
            own = {"run": run, "at": now}
            rows = [
                {name: value for name, value in vars(one).items() if name not in ("causes", "noise")}
                | {"kind": one.kind.value, "summary": dict(one.summary), "accepted": one.unit in held}
                | own
                for one in new
            ]
            connection.execute(insert(comparisons), rows)
            if shares := [share_row(run, one.unit, share) for one in new for share in one.causes]:
                connection.execute(insert(causes), shares)
            moving = [
                {"run": run, "unit": one.unit, "position": one.position, "moves": one.noise.as_json()}
                for one in new
                if one.noise is not None
            ]
            if moving:
                connection.execute(insert(noise), moving)
            harmful = sum(one.harmful for one in new)
            counts = {"units_different": harmful, "units_accepted": len(held)}
            values = {name: runs.c[name] + count for name, count in counts.items()}
            connection.execute(update(runs).where(runs.c.id == run).values(values))
            query = select(runs.c.units_different - runs.c.units_accepted).where(runs.c.id == run)
            different = int(connection.execute(query).scalar_one())
            if fail_fast is None or different < fail_fast:
                return True
            stop(connection, run, Reason(FAIL_FAST, _stopped(different, None)), now)
            refresh_run(connection, run, now)
            return False

    def close(self, run: int) -> bool:
        """End a run of which nothing is left to compare; False while something is, or goes on.

        One that ended otherwise (cancelled, failed, errored) stays as it ended.
        """
        with self._db.read() as connection:
            if not _can_end(connection, run):
                return False
            waits = _waits_for_us(connection, run)
        if waits:
            self._acceptances.settle(run)
        with self._db.write() as connection:
            lock_run(connection, run)
            if not _can_end(connection, run) or sql_marking.is_pending(connection, run):
                return False
            row = connection.execute(select(runs).where(runs.c.id == run)).one()
            now = self._db.now(connection)
            values: dict[str, Any] = {"compared_at": now}
            waits = _waits_for_us(connection, run)
            accepted = tell_accepted(connection, run, now) if waits else row.units_accepted
            if row.stop_code == FAIL_FAST:
                values["stop_text"] = _stopped(row.units_different - accepted, left_to_compare(connection, run))
            connection.execute(update(runs).where(runs.c.id == run).values(values))
            if waits:
                refresh_run(connection, run, now)
            return True

    def differed(self, project: str, *, before: int) -> frozenset[str]:
        """Give the units that differed or failed in the last compare run that this one can be held against."""
        with self._db.read() as connection:
            chosen = select(runs.c.units_filter).where(runs.c.id == before).scalar_subquery()
            last = connection.execute(
                select(runs.c.id)
                .where(
                    runs.c.project == project,
                    runs.c.id < before,
                    runs.c.baseline_commit.is_not(None),
                    runs.c.state == RunState.DONE.value,
                    or_(runs.c.units_filter.is_(None), runs.c.units_filter == chosen),
                )
                .order_by(runs.c.id.desc())
                .limit(1)
            ).scalar_one_or_none()
            return _harmed(connection, last)

    def harmed(self, run: int) -> frozenset[str]:
        """Give the units of a run that differ, failed or are missing."""
        with self._db.read() as connection:
            return _harmed(connection, run)

    def one(self, run: int, unit: str) -> Compared:
        """Give what became of a unit; raises NotFound."""
        with self._db.read() as connection:
            query = select(comparisons).where(comparisons.c.run == run, comparisons.c.unit == unit)
            row = connection.execute(query).one_or_none()
        if row is None:
            remedy = "It may not be compared yet; see the run's differences."
            raise NotFound(f"Run {run} has no comparison of {unit!r}.", field="unit", value=unit[:80], remedy=remedy)
        return compared(row)


def _harmed(connection: Connection, run: int | None) -> frozenset[str]:
    harmful = comparisons.c.kind.in_([kind.value for kind in HARMFUL])
    query = select(comparisons.c.unit).where(comparisons.c.run == run, harmful, ~comparisons.c.noisy)
    return frozenset(connection.scalars(query))


def _stopped(different: int, left: int | None) -> str:
    """Say what `fail_fast` did; `left`: how many units have no class, None while that is not known."""
    text = f"Stopped after {different:,} differing unit{'s' if different != 1 else ''} (fail_fast)"
    if left is None:
        return f"{text}."
    if not left:
        return f"{text}; it was the last one to compare."
    return f"{text}; {left:,} unit{'s were' if left != 1 else ' was'} not compared."


def _present(connection: Connection, run: int, names: Sequence[str]) -> dict[str, dict[str, Side]]:
    """Read units as the legs have them now."""
    found: dict[str, dict[str, Side]] = {}
    for row in connection.execute(select(units).where(units.c.run == run, units.c.unit.in_(names))):
        found.setdefault(row.unit, {})[row.leg] = Side(UnitState(row.state), output_of(row))
    return found


def counts_of(connection: Connection, run: int) -> dict[UnitClass, int]:
    """Count a run's units by class."""
    query = select(comparisons.c.kind, func.count().label("n")).where(comparisons.c.run == run)
    return {UnitClass(row.kind): row.n for row in connection.execute(query.group_by(comparisons.c.kind))}


def left_to_compare(connection: Connection, run: int) -> int:
    """Count the units of both legs together that have no class yet."""
    names = select(func.count(units.c.unit.distinct())).where(units.c.run == run, units.c.leg.in_(LEGS))
    done = select(func.count()).where(comparisons.c.run == run)
    return int(connection.execute(names).scalar_one()) - int(connection.execute(done).scalar_one())


def forget(
    connection: Connection, run: int, *, names: Sequence[str] | None = None, kinds: Iterable[UnitClass] | None = None
) -> None:
    """Let units be compared again, because they are done again: all, or those of these names, or of these classes."""
    if connection.execute(select(runs.c.baseline_commit).where(runs.c.id == run)).scalar_one() is None:
        return
    here = [comparisons.c.run == run]
    if names is not None:
        here.append(comparisons.c.unit.in_(names))
    if kinds is not None:
        here.append(comparisons.c.kind.in_([kind.value for kind in kinds]))
    connection.execute(delete(comparisons).where(*here))
    _forget_causes(connection, run)
    _recount(connection, run)


def _forget_causes(connection: Connection, run: int) -> None:
    """Forget why units differed, and what moves in them, that have no class any more."""
    for table in (causes, noise):
        known = select(comparisons.c.unit).where(comparisons.c.run == run, comparisons.c.unit == table.c.unit)
        connection.execute(delete(table).where(table.c.run == run, ~known.exists()))


def _recount(connection: Connection, run: int) -> None:
    harmful = len(_harmed(connection, run))
    accepted = select(func.count()).where(comparisons.c.run == run, comparisons.c.accepted)
    values = {"units_different": harmful, "units_accepted": connection.execute(accepted).scalar_one()}
    connection.execute(update(runs).where(runs.c.id == run).values(compared_at=None, **values))


def _is_over(connection: Connection, run: int) -> bool:
    """Tell whether no task of the run goes on, or will by itself."""
    final = [state.value for state in FINAL_TASK_STATES]
    living = select(tasks.c.id).where(tasks.c.run == run, tasks.c.state.not_in(final)).limit(1)
    return connection.execute(living).first() is None


def _can_end(connection: Connection, run: int) -> bool:
    """Tell whether nothing of the run goes on, and nothing is left to compare that its end waits for."""
    if not _is_over(connection, run):
        return False
    stopped = connection.execute(select(runs.c.stop_code).where(runs.c.id == run)).scalar_one() is not None
    return stopped or not _waits_for_us(connection, run) or not left_to_compare(connection, run)


def _waits_for_us(connection: Connection, run: int) -> bool:
    """Tell whether both legs were done as far as they will be, and the run's end waits for its comparisons."""
    state = connection.execute(select(runs.c.state).where(runs.c.id == run)).scalar_one()
    return state == RunState.RUNNING.value and _is_over(connection, run)


def _are_listed(connection: Connection, run: int) -> bool:
    """Tell whether the lists of both legs are complete."""
    return set(connection.scalars(select(legs.c.prepared).where(legs.c.run == run))) == {True}


def _second_run(connection: Connection, run: int) -> bool | None:
    """Tell whether the list of the baseline's second run is complete; None when it runs once."""
    query = select(legs.c.prepared).where(legs.c.run == run, legs.c.name == BASELINE_AGAIN)
    return connection.execute(query).scalar_one_or_none()


def _both(run: int, *, over: bool, again: bool | None) -> Select[Any]:
    """Select units that both legs list and have ended, in the baseline's second run too.

    `over`: also those that will not end any more. `again`: whether the list of that run is complete, None without one.
    """
    query = (
        select(B.c.unit, B.c.position, *_columns("a", A), *_columns("b", B))
        .join_from(B, A, and_(A.c.run == B.c.run, A.c.unit == B.c.unit, A.c.leg == BASELINE))
        .where(B.c.run == run, B.c.leg == CANDIDATE, _uncompared(B))
        .order_by(B.c.position)
    )
    if again is not None:
        same = and_(C.c.run == B.c.run, C.c.unit == B.c.unit, C.c.leg == BASELINE_AGAIN)
        query = query.add_columns(*_columns("c", C)).outerjoin(C, same)
    if over:
        return query
    query = query.where(A.c.state != TODO, B.c.state != TODO)
    if again is None:
        return query
    return query.where(or_(C.c.state != TODO, C.c.unit.is_(None)) if again else C.c.state != TODO)


def _lone(run: int) -> Select[Any]:
    """Select units that only one leg lists: those of the candidate in their places, the others behind all of them."""
    other = units.alias("other")
    last = select(func.coalesce(func.max(units.c.position), -1) + 1).where(units.c.run == run, units.c.leg == CANDIDATE)
    unknown = [literal(None).label(f"{side}_{name}") for side in "ab" for name in _COLUMNS]
    place = case((B.c.leg == CANDIDATE, B.c.position), else_=B.c.position + last.scalar_subquery())
    twin = select(other.c.unit).where(
        other.c.run == B.c.run, other.c.unit == B.c.unit, other.c.leg != B.c.leg, other.c.leg.in_(LEGS)
    )
    return (
        select(B.c.unit, place.label("position"), B.c.leg.label("leg"), *unknown)
        .where(B.c.run == run, B.c.leg.in_(LEGS), ~twin.exists(), _uncompared(B))
        .order_by(place)
    )


def _uncompared(side: Any) -> Any:
    done = select(comparisons.c.unit).where(comparisons.c.run == side.c.run, comparisons.c.unit == side.c.unit)
    return ~done.exists()


def _pair(row: Row[Any]) -> Pair:
    leg = row._mapping.get("leg")
    if leg is not None:
        side = Side(UnitState.TODO)
        return Pair(row.unit, row.position, side if leg == BASELINE else None, side if leg == CANDIDATE else None)
    again = _side(row, "c") if row._mapping.get("c_state") is not None else None
    return Pair(row.unit, row.position, _side(row, "a"), _side(row, "b"), again)


def _side(row: Row[Any], name: str) -> Side:
    return Side(UnitState(row._mapping[f"{name}_state"]), output_of(row, f"{name}_"))


def compared(row: Row[Any]) -> Compared:
    """Give a row as what is recorded of a unit."""
    return Compared(
        unit=row.unit,
        position=row.position,
        kind=UnitClass(row.kind),
        changed=row.changed,
        largest=row.largest,
        summary=row.summary,
        rows=row.rows,
        seconds=row.seconds,
        accepted=row.accepted,
        noisy=row.noisy,
    )
