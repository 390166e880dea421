"""What two runs of one baseline differ in, in SQL: a row for each unit that is unstable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, func, select

from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_schema import comparisons, legs, noise, units
from jobs.comparing import UnitClass
from jobs.noise import Noise, noise_of
from runner.model import BASELINE_AGAIN, UnitState


@dataclass(frozen=True)
class Unstable:
    """A unit that moves, its class, and whether nothing else is the reason for that."""

    unit: str
    position: int
    kind: UnitClass
    noisy: bool
    noise: Noise


@dataclass(frozen=True)
class NoiseTally:
    """How many units were made twice and compared, how many of them move, and how many differ by that alone."""

    checked: int
    unstable: int
    noisy: int


class SqlNoise:
    """Read what moves by itself."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def tally(self, run: int) -> NoiseTally | None:
        """Count; None for a run whose baseline runs once."""
        with self._db.read() as connection:
            leg = select(legs.c.run).where(legs.c.run == run, legs.c.name == BASELINE_AGAIN)
            if connection.execute(leg).first() is None:
                return None
            judged = and_(comparisons.c.run == units.c.run, comparisons.c.unit == units.c.unit)
            first = units.alias("first")
            both = and_(first.c.run == units.c.run, first.c.unit == units.c.unit, first.c.leg == "baseline")
            done = UnitState.DONE.value
            checked = (
                select(func.count())
                .select_from(units.join(comparisons, judged).join(first, both))
                .where(units.c.run == run, units.c.leg == BASELINE_AGAIN, units.c.state == done, first.c.state == done)
            )
            unstable = select(func.count()).select_from(noise).where(noise.c.run == run)
            noisy = select(func.count()).select_from(comparisons)
            noisy = noisy.where(comparisons.c.run == run, comparisons.c.noisy)
            return NoiseTally(*(int(connection.execute(query).scalar_one()) for query in (checked, unstable, noisy)))

    def list(self, run: int, *, after: int = -1, limit: int = 200) -> list[Unstable]:
        """List the units that move, in the order of their lists."""
        query = _unstable(run).where(noise.c.position > after).order_by(noise.c.position, noise.c.unit).limit(limit)
        with self._db.read() as connection:
            return [_of(row) for row in connection.execute(query)]

    def one(self, run: int, unit: str) -> Noise | None:
        """Give what moves in a unit; None when nothing does, or it was made once."""
        with self._db.read() as connection:
            row = connection.execute(_unstable(run).where(noise.c.unit == unit)).one_or_none()
            return None if row is None else _of(row).noise


def _unstable(run: int) -> Any:
    same = and_(comparisons.c.run == noise.c.run, comparisons.c.unit == noise.c.unit)
    columns = (noise.c.unit, noise.c.position, noise.c.moves, comparisons.c.kind, comparisons.c.noisy)
    return select(*columns).join_from(noise, comparisons, same).where(noise.c.run == run)


def _of(row: Any) -> Unstable:
    return Unstable(row.unit, row.position, UnitClass(row.kind), row.noisy, noise_of(row.moves))
