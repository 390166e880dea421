"""How long the units of a compare run took on both legs, and before."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, and_, func, select

from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_schema import legs, runs, tasks, units
from jobs.latency import Latency, LegTimes, Timed, cautions
from jobs.run import RunState
from runner.model import TaskKind

EARLIER = 5  # runs whose durations are the noise


class SqlLatency:
    """Read durations."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def of(self, run: int, *, ratio: float, floor: float, limit: int) -> Latency:
        """Compare durations; the units that cost most come first."""
        a, b = units.alias("a"), units.alias("b")
        both = and_(a.c.run == b.c.run, a.c.unit == b.c.unit, a.c.leg == "baseline")
        timed: tuple[ColumnElement[Any], ...] = (
            b.c.run == run,
            b.c.leg == "candidate",
            a.c.seconds.is_not(None),
            b.c.seconds.is_not(None),
        )
        slower = (b.c.seconds > floor, b.c.seconds - a.c.seconds > floor, b.c.seconds >= ratio * a.c.seconds)
        with self._db.read() as connection:
            number = connection.execute(select(func.count()).select_from(b.join(a, both)).where(*timed)).scalar_one()
            query = select(func.count()).select_from(b.join(a, both)).where(*timed, *slower)
            count = connection.execute(query).scalar_one()
            rows = connection.execute(
                select(b.c.unit, a.c.seconds.label("before"), b.c.seconds.label("after"))
                .join_from(b, a, both)
                .where(*timed, *slower)
                .order_by((a.c.seconds - b.c.seconds), b.c.position)
                .limit(limit)
            ).all()
            history = self._history(connection, run, [row.unit for row in rows])
            found = tuple(Timed(row.unit, row.before, row.after, history.get(row.unit, ())) for row in rows)
            times = self._legs(connection, run)
        return Latency(ratio, floor, times, number, count, found, cautions(times))

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
