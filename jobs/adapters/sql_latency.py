"""How long the units of a compare run took on both legs, and before."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, select

from jobs.adapters.sql_compare import BASELINE, CANDIDATE
from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_schema import legs, runs, tasks, units
from jobs.latency import Latency, LegTimes, Timed, cautions
from jobs.run import RunState
from runner.model import TaskKind, UnitState

EARLIER = 5  # runs whose durations are the noise
POINTS = 1_500  # of a picture


_A, _B = units.alias("a"), units.alias("b")
_DONE = UnitState.DONE.value


def _slower(ratio: float, floor: float) -> ColumnElement[bool]:
    """Say `jobs.latency.is_slower` in SQL."""
    return and_(_B.c.seconds >= floor, _B.c.seconds > ratio * _A.c.seconds)


def _finished(run: int, *columns: Any) -> Select[Any]:
    """Select from the units that both legs finished."""
    return (
        select(*columns)
        .join_from(_B, _A, and_(_A.c.run == _B.c.run, _A.c.unit == _B.c.unit, _A.c.leg == BASELINE))
        .where(_B.c.run == run, _B.c.leg == CANDIDATE, _A.c.state == _DONE, _B.c.state == _DONE)
    )


def _timed(run: int, *columns: Any) -> Select[Any]:
    """Select from those whose times are known on both legs."""
    return _finished(run, *columns).where(_A.c.seconds.is_not(None), _B.c.seconds.is_not(None))


_PAIR = (_B.c.unit, _A.c.seconds.label("before"), _B.c.seconds.label("after"))


class SqlLatency:
    """Read durations."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def of(self, run: int, *, ratio: float, floor: float, limit: int) -> Latency:
        """Compare durations; the units that cost most come first."""
        slow = _slower(ratio, floor)
        sums = _timed(
            run,
            func.count(),
            func.sum(_A.c.seconds),
            func.sum(_B.c.seconds),
            func.sum(case((slow, 1), else_=0)),
        )
        with self._db.read() as connection:
            number, baseline, candidate, count = connection.execute(sums).one()
            finished = connection.execute(_finished(run, func.count())).scalar_one()
            query = _timed(run, *_PAIR).where(slow).order_by((_A.c.seconds - _B.c.seconds), _B.c.position)
            rows = connection.execute(query.limit(limit)).all() if count else []
            history = self._history(connection, run, [row.unit for row in rows])
            found = tuple(Timed(row.unit, row.before, row.after, history.get(row.unit, ())) for row in rows)
            times = self._legs(connection, run)
        return Latency(
            ratio=ratio,
            floor=floor,
            legs=times,
            units=int(number),
            baseline=float(baseline or 0.0),
            candidate=float(candidate or 0.0),
            count=int(count or 0),
            slower=found,
            cautions=cautions(times, untimed=int(finished) - int(number)),
        )

    def some(self, run: int, units: int) -> list[Timed]:
        """Give each n-th unit whose times are known, some `POINTS` of `units`, without their history."""
        step = max(1, units // POINTS)
        query = _timed(run, *_PAIR).where(_B.c.position % step == 0).limit(2 * POINTS)
        with self._db.read() as connection:
            return [Timed(*row) for row in connection.execute(query)]

    @staticmethod
    def _history(connection: Any, run: int, names: list[str]) -> dict[str, tuple[float, ...]]:
        """Give how long units took in the project's last runs, on whichever leg."""
        project = select(runs.c.project).where(runs.c.id == run).scalar_subquery()
        ended = (runs.c.project == project, runs.c.id < run, runs.c.state == RunState.DONE.value)
        last = select(runs.c.id).where(*ended).order_by(runs.c.id.desc()).limit(EARLIER)
        earlier = list(connection.scalars(last))
        query = select(units.c.unit, units.c.seconds).where(
            units.c.run.in_(earlier),
            units.c.unit.in_(names),
            units.c.seconds.is_not(None),
            units.c.attempt.is_not(None),
        )
        found: dict[str, tuple[float, ...]] = {}
        for row in connection.execute(query.order_by(units.c.run, units.c.leg)):
            found[row.unit] = (*found.get(row.unit, ()), row.seconds)
        return found

    @staticmethod
    def _legs(connection: Any, run: int) -> tuple[LegTimes, ...]:
        found = []
        for leg in connection.execute(select(legs).where(legs.c.run == run).order_by(legs.c.name)).all():
            mine = (tasks.c.run == run, tasks.c.leg == leg.name, tasks.c.kind == TaskKind.VERIFY.value)
            hosts = connection.scalars(select(tasks.c.host).where(*mine, tasks.c.host.is_not(None)).distinct()).all()
            started = connection.execute(select(func.min(tasks.c.started_at)).where(*mine)).scalar_one()
            total = select(func.sum(units.c.seconds)).where(units.c.run == run, units.c.leg == leg.name)
            seconds = connection.execute(total).scalar_one() or 0.0
            taken = (leg.reused or {}).get("units") and leg.reused["run"]
            found.append(LegTimes(leg.name, tuple(sorted(hosts)), started, float(seconds), taken or None))
        return tuple(found)
