"""Comparisons in SQL: which pairs are ready, what became of them, and when nothing is left to compare.

A comparison is a pure function of the two outputs, so nothing has to be claimed: two comparers do the same work, and
what the second one writes changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, RowMapping, and_, case, delete, func, insert, literal, select, update
from sqlalchemy.sql.expression import Select

from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_rows import lock_run, refresh_run
from jobs.adapters.sql_schema import comparisons, legs, runs, tasks, units
from jobs.comparing import HARMLESS, Compared, Pair, Side, UnitClass
from jobs.run import FINAL_TASK_STATES, RunState
from runner.errors import NotFound
from runner.model import Output, UnitState

BASELINE, CANDIDATE = "baseline", "candidate"
TODO = UnitState.TODO.value

A, B = units.alias("a"), units.alias("b")
_SIDES = [
    column.label(f"{name}_{column.name}")
    for name, side in (("a", A), ("b", B))
    for column in (side.c.state, side.c.output_name, side.c.output_digest, side.c.output_size, side.c.output_tree)
]


class SqlCompare:
    """Write and read what became of the units of compare runs."""

    def __init__(self, database: Database) -> None:
        self._db = database

    # ---- what the comparer asks and tells -------------------------------------------------------------

    def open_runs(self) -> list[int]:
        """List the compare runs of which something may be left to compare, oldest first."""
        with self._db.read() as connection:
            query = select(runs.c.id).where(runs.c.baseline_commit.is_not(None), runs.c.compared_at.is_(None))
            return list(connection.scalars(query.order_by(runs.c.id)))

    def ready(self, run: int, limit: int) -> list[Pair]:
        """Give pairs that are not compared yet and on which nothing goes on any more, in the order of the lists."""
        with self._db.read() as connection:
            over = _waits_for_us(connection, run)
            found = [_pair(row) for row in connection.execute(_both(run, over=over).limit(limit))]
            if len(found) < limit and _are_listed(connection, run):
                found += [_pair(row) for row in connection.execute(_lone(run).limit(limit - len(found)))]
            return found

    def record(self, run: int, found: Iterable[Compared]) -> None:
        """Write what became of some units; what is written already stays."""
        wanted = list(found)
        with self._db.write() as connection:
            lock_run(connection, run)
            now = self._db.now(connection)
            here = (comparisons.c.run == run, comparisons.c.unit.in_([one.unit for one in wanted]))
            known = set(connection.scalars(select(comparisons.c.unit).where(*here)))
            new = [one for one in wanted if one.unit not in known]
            if not new:
                return
            rows = [
                vars(one) | {"run": run, "kind": one.kind.value, "summary": dict(one.summary), "at": now} for one in new
            ]
            connection.execute(insert(comparisons), rows)
            harmful = sum(one.kind not in HARMLESS for one in new)
            values = {"units_different": runs.c.units_different + harmful}
            connection.execute(update(runs).where(runs.c.id == run).values(values))

    def close(self, run: int) -> bool:
        """End a run of which nothing is left to compare; False while something is, or goes on."""
        with self._db.write() as connection:
            lock_run(connection, run)
            if not _is_over(connection, run):
                return False
            if _waits_for_us(connection, run) and left_to_compare(connection, run):
                return False
            now = self._db.now(connection)
            connection.execute(update(runs).where(runs.c.id == run).values(compared_at=now))
            refresh_run(connection, run, now)
            return True

    # ---- what people read -----------------------------------------------------------------------------

    def tally(self, run: int) -> tuple[dict[UnitClass, int], int]:
        """Count the units by class, and those that have none yet."""
        with self._db.read() as connection:
            return counts_of(connection, run), left_to_compare(connection, run)

    def list(
        self, run: int, *, kinds: Sequence[UnitClass] = (), text: str = "", after: int = -1, limit: int = 200
    ) -> list[Compared]:
        """Give compared units after a position, in the order of the list."""
        query = select(comparisons).where(comparisons.c.run == run, comparisons.c.position > after)
        if kinds:
            query = query.where(comparisons.c.kind.in_([kind.value for kind in kinds]))
        if text:
            query = query.where(comparisons.c.unit.contains(text, autoescape=True))
        with self._db.read() as connection:
            rows = connection.execute(query.order_by(comparisons.c.position, comparisons.c.unit).limit(limit))
            return [_compared(row) for row in rows]

    def one(self, run: int, unit: str) -> Compared:
        """Give what became of a unit; raises NotFound."""
        with self._db.read() as connection:
            query = select(comparisons).where(comparisons.c.run == run, comparisons.c.unit == unit)
            row = connection.execute(query).one_or_none()
        if row is None:
            remedy = "It may not be compared yet; see the run's differences."
            raise NotFound(f"Run {run} has no comparison of {unit!r}.", field="unit", value=unit[:80], remedy=remedy)
        return _compared(row)


def counts_of(connection: Connection, run: int) -> dict[UnitClass, int]:
    """Count a run's units by class."""
    query = select(comparisons.c.kind, func.count().label("n")).where(comparisons.c.run == run)
    return {UnitClass(row.kind): row.n for row in connection.execute(query.group_by(comparisons.c.kind))}


def left_to_compare(connection: Connection, run: int) -> int:
    """Count the units of both legs together that have no class yet."""
    names = select(func.count(units.c.unit.distinct())).where(units.c.run == run)
    done = select(func.count()).where(comparisons.c.run == run)
    return int(connection.execute(names).scalar_one()) - int(connection.execute(done).scalar_one())


def forget(connection: Connection, run: int, wanted: Sequence[str] | None = None) -> None:
    """Let units be compared again, because they are done again: these, or all."""
    if connection.execute(select(runs.c.baseline_commit).where(runs.c.id == run)).scalar_one() is None:
        return
    here = [comparisons.c.run == run]
    if wanted is not None:
        here.append(comparisons.c.unit.in_(wanted))
    connection.execute(delete(comparisons).where(*here))
    _recount(connection, run)


def forget_failed(connection: Connection, run: int) -> None:
    """Let those that failed on a leg be compared again."""
    failed = (UnitClass.BASELINE_FAILED, UnitClass.CANDIDATE_FAILED, UnitClass.BOTH_FAILED)
    here = (comparisons.c.run == run, comparisons.c.kind.in_([kind.value for kind in failed]))
    connection.execute(delete(comparisons).where(*here))
    _recount(connection, run)


def _recount(connection: Connection, run: int) -> None:
    harmful = sum(count for kind, count in counts_of(connection, run).items() if kind not in HARMLESS)
    connection.execute(update(runs).where(runs.c.id == run).values(units_different=harmful, compared_at=None))


def _is_over(connection: Connection, run: int) -> bool:
    """Tell whether no task of the run goes on, or will by itself."""
    final = [state.value for state in FINAL_TASK_STATES]
    living = select(tasks.c.id).where(tasks.c.run == run, tasks.c.state.not_in(final)).limit(1)
    return connection.execute(living).first() is None


def _waits_for_us(connection: Connection, run: int) -> bool:
    """Tell whether both legs were done as far as they will be, and the run's end waits for its comparisons."""
    state = connection.execute(select(runs.c.state).where(runs.c.id == run)).scalar_one()
    return state == RunState.RUNNING.value and _is_over(connection, run)


def _are_listed(connection: Connection, run: int) -> bool:
    """Tell whether the lists of both legs are complete."""
    return set(connection.scalars(select(legs.c.prepared).where(legs.c.run == run))) == {True}


def _both(run: int, *, over: bool) -> Select[Any]:
    """Select units that both legs list and have ended; `over`: also those that will not end any more."""
    query = (
        select(B.c.unit, B.c.position, *_SIDES)
        .join_from(B, A, and_(A.c.run == B.c.run, A.c.unit == B.c.unit, A.c.leg == BASELINE))
        .where(B.c.run == run, B.c.leg == CANDIDATE, _uncompared(B))
        .order_by(B.c.position)
    )
    return query if over else query.where(A.c.state != TODO, B.c.state != TODO)


def _lone(run: int) -> Select[Any]:
    """Select units that only one leg lists: those of the candidate in their places, the others behind all of them."""
    other = units.alias("other")
    last = select(func.coalesce(func.max(units.c.position), -1) + 1).where(units.c.run == run, units.c.leg == CANDIDATE)
    unknown = [literal(None).label(f"{side}_{name}") for side in "ab" for name in _COLUMNS]
    place = case((B.c.leg == CANDIDATE, B.c.position), else_=B.c.position + last.scalar_subquery())
    twin = select(other.c.unit).where(other.c.run == B.c.run, other.c.unit == B.c.unit, other.c.leg != B.c.leg)
    return (
        select(B.c.unit, place.label("position"), B.c.leg.label("leg"), *unknown)
        .where(B.c.run == run, ~twin.exists(), _uncompared(B))
        .order_by(place)
    )


_COLUMNS = ("state", "output_name", "output_digest", "output_size", "output_tree")


def _uncompared(side: Any) -> Any:
    done = select(comparisons.c.unit).where(comparisons.c.run == side.c.run, comparisons.c.unit == side.c.unit)
    return ~done.exists()


def _pair(row: Row[Any]) -> Pair:
    fields = row._mapping
    leg = fields.get("leg")
    if leg is not None:
        side = Side(UnitState.TODO)
        return Pair(row.unit, row.position, side if leg == BASELINE else None, side if leg == CANDIDATE else None)
    return Pair(row.unit, row.position, _side(fields, "a"), _side(fields, "b"))


def _side(fields: RowMapping, name: str) -> Side:
    output = None
    if fields[f"{name}_output_digest"] is not None:
        output = Output(*(fields[f"{name}_{column}"] for column in _COLUMNS[1:]))
    return Side(UnitState(fields[f"{name}_state"]), output)


def _compared(row: Row[Any]) -> Compared:
    return Compared(
        unit=row.unit,
        position=row.position,
        kind=UnitClass(row.kind),
        changed=row.changed,
        largest=row.largest,
        summary=row.summary,
        rows=row.rows,
        seconds=row.seconds,
    )
