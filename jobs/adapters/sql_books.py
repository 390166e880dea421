"""The books of capacity in SQL: what was decided, for how long machines were billed, who looks after them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, delete, func, insert, or_, select, update

from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_machine_rows import interval_of, recorded_of, seconds
from jobs.adapters.sql_rows import at, moment
from jobs.adapters.sql_schema import (
    attempts,
    controllers,
    decisions,
    intervals,
    machines,
    runs,
    shortages,
    wishes,
)
from jobs.machines import Action, Decision, Interval, Recorded, Watch
from jobs.money import Use

# What is decided at every pass is told once; an alarm that goes on is told again after so long.
PASSING = frozenset({Action.NOTHING, Action.HOLD, Action.REFUSED})
ALARM_SECONDS = 3_600.0
# A year with some weeks beside it, so that a month can be held against that of the year before.
KEPT_SECONDS = 400 * 86_400.0
AT_ONCE = 1_000  # rows of a table that are looked at in one transaction


class SqlBooks:
    """Write and read decisions, intervals and shortages."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._told: dict[tuple[str, str | None], tuple[str, str]] = {}

    # ---- decisions ------------------------------------------------------------------------------------------

    def record(
        self, pool: str, decision: Decision, *, made_by: str = "policy", data: Mapping[str, Any] | None = None
    ) -> Recorded | None:
        """Put a decision into the history; None for one that says only again what the last one said."""
        action, code = decision.action, decision.code
        about, said = (pool, decision.instance), (action.value, code)
        passing = action in PASSING and made_by == "policy"
        if passing and self._told.get(about) == said:
            return None
        with self._db.write() as connection:
            now = self._db.now(connection)
            if action is Action.ALARM or passing:
                before = self._last(connection, about, action, code)
                known = before is not None and (before.action, before.code) == said
                if known and (action is not Action.ALARM or before.at > now - ALARM_SECONDS):
                    if action is not Action.ALARM:
                        self._told[about] = said
                    return None
            values = {"at": now, "pool": pool, "instance": decision.instance, "action": action.value, "code": code}
            more = {"reason": decision.reason, "made_by": made_by, "data": dict(data or {})}
            row = connection.execute(insert(decisions).values(**values, **more).returning(decisions)).one()
        if action is not Action.ALARM:
            self._told[about] = said
        return recorded_of(row)

    def _last(self, connection: Connection, about: tuple[str, str | None], action: Action, code: str) -> Any:
        query = select(decisions).where(
            decisions.c.pool == about[0], decisions.c.instance.is_not_distinct_from(about[1])
        )
        if action is Action.ALARM:
            query = query.where(decisions.c.action == Action.ALARM.value, decisions.c.code == code)
        else:
            query = query.where(decisions.c.action != Action.ALARM.value)
        return connection.execute(query.order_by(decisions.c.id.desc()).limit(1)).one_or_none()

    def forget_old(self) -> int:
        """Forget decisions and wishes of more than 400 days ago, some at a time; gives how many."""
        gone = 0
        with self._db.write() as connection:
            oldest = self._db.now(connection) - KEPT_SECONDS
            for table, when in ((decisions, decisions.c.at), (wishes, wishes.c.made_at)):
                first = select(table.c.id).order_by(table.c.id).limit(AT_ONCE)
                gone += connection.execute(delete(table).where(table.c.id.in_(first), when < oldest)).rowcount
        return gone

    def decisions(
        self, pool: str | None = None, *, instance: str | None = None, before: int | None = None, limit: int = 50
    ) -> list[Recorded]:
        """List decisions, newest first; `before`: the id of the last one seen."""
        with self._db.read() as connection:
            query = select(decisions).order_by(decisions.c.id.desc()).limit(limit)
            for column, value in ((decisions.c.pool, pool), (decisions.c.instance, instance)):
                if value is not None:
                    query = query.where(column == value)
            if before is not None:
                query = query.where(decisions.c.id < before)
            return [recorded_of(row) for row in connection.execute(query)]

    # ---- money ----------------------------------------------------------------------------------------------

    def intervals(
        self, pool: str | None = None, *, since: datetime | None = None, until: datetime | None = None
    ) -> list[Interval]:
        """List the times for which machines were billed, oldest first: those that touch [since, until)."""
        with self._db.read() as connection:
            query = select(intervals).order_by(intervals.c.started_at, intervals.c.id)
            if pool is not None:
                query = query.where(intervals.c.pool == pool)
            if since is not None:
                query = query.where(or_(intervals.c.ended_at.is_(None), intervals.c.ended_at > seconds(since)))
            if until is not None:
                query = query.where(intervals.c.started_at < seconds(until))
            return [interval_of(row) for row in connection.execute(query)]

    def first_interval(self, pool: str) -> datetime | None:
        """Tell when a machine of a pool was billed first."""
        with self._db.read() as connection:
            return moment(
                connection.execute(select(func.min(intervals.c.started_at)).where(intervals.c.pool == pool)).scalar()
            )

    def uses(self, pool: str, *, since: datetime) -> list[Use]:
        """List what tasks of which runs were done on a pool's machines since a time, oldest first."""
        with self._db.read() as connection:
            now = self._db.now(connection)
            query = (
                select(
                    machines.c.instance,
                    attempts.c.started_at,
                    attempts.c.ended_at,
                    runs.c.id,
                    runs.c.project,
                    runs.c.user,
                )
                .join(attempts, attempts.c.host == machines.c.host)
                .join(runs, runs.c.id == attempts.c.run)
                .where(
                    machines.c.pool == pool, or_(attempts.c.ended_at.is_(None), attempts.c.ended_at > seconds(since))
                )
                .order_by(attempts.c.started_at, attempts.c.task)
            )
            return [
                Use(row.instance, at(row.started_at), at(row.ended_at or now), row.id, row.project, row.user)
                for row in connection.execute(query)
            ]

    # ---- shortages, and who looks after a pool ----------------------------------------------------------------

    def short(self, pool: str, name: str, *, for_seconds: float, text: str) -> None:
        """Note that EC2 has no capacity for an instance or a type, and is not asked for it again before."""
        with self._db.write() as connection:
            connection.execute(delete(shortages).where(shortages.c.pool == pool, shortages.c.name == name))
            until = self._db.now(connection) + for_seconds
            connection.execute(insert(shortages).values(pool=pool, name=name, until=until, text=text))

    def not_short(self, pool: str, name: str) -> None:
        """Note that EC2 had capacity."""
        with self._db.write() as connection:
            connection.execute(delete(shortages).where(shortages.c.pool == pool, shortages.c.name == name))

    def shortages(self, pool: str) -> dict[str, tuple[datetime, str]]:
        """Give what EC2 is short of now: name → until when it is not asked for again, and what EC2 said."""
        with self._db.read() as connection:
            query = select(shortages).where(shortages.c.pool == pool, shortages.c.until > self._db.now(connection))
            return {row.name: (at(row.until), row.text) for row in connection.execute(query)}

    def controller_seen(self, pool: str = "", *, asked: bool = False, problem: str | None = None) -> None:
        """Note that a pool is looked after; `asked`: EC2 answered just now."""
        with self._db.write() as connection:
            now = self._db.now(connection)
            values: dict[str, Any] = {"seen_at": now, "problem": problem} | ({"asked_at": now} if asked else {})
            if not connection.execute(update(controllers).where(controllers.c.pool == pool).values(**values)).rowcount:
                self._db.alone(connection, f"controller {pool}")
                connection.execute(delete(controllers).where(controllers.c.pool == pool))
                connection.execute(insert(controllers).values(pool=pool, **values))

    def controller_seen_at(self, pool: str | None = None) -> datetime | None:
        """Tell when a pool, or any, was last looked after; None: never."""
        found = [watch.seen_at for watch in self.watches() if pool in (None, watch.pool)]
        return max(found, default=None)

    def watches(self) -> list[Watch]:
        """List when each pool was last looked after."""
        with self._db.read() as connection:
            rows = connection.execute(select(controllers).order_by(controllers.c.pool))
            return [Watch(row.pool, at(row.seen_at), moment(row.asked_at), row.problem) for row in rows]


def bill(
    connection: Connection,
    row: Any,
    now: float,
    *,
    billed: bool,
    started: float | None,
    cause: str,
    stopped: float | None = None,
) -> None:
    """Open or close a machine's interval as it is billed from now on, or not; what is so already stays.

    `started`, `stopped`: when that was, as far as EC2 tells it.
    """
    open_one = (intervals.c.instance == row.instance, intervals.c.ended_at.is_(None))
    known = connection.execute(select(intervals.c.started_at).where(*open_one).limit(1)).first()
    if billed and known is None:
        last = select(intervals.c.ended_at).where(intervals.c.instance == row.instance)
        ended = connection.execute(last.order_by(intervals.c.started_at.desc()).limit(1)).scalar()
        begin = now if started is None else max(min(started, now), ended or 0.0)
        values = {"instance": row.instance, "pool": row.pool, "started_at": begin, "price": row.price, "cause": cause}
        connection.execute(insert(intervals).values(**values))
    elif not billed and known is not None:
        # A stop of before the interval is another one, of which EC2 tells still.
        ended = now if stopped is None or stopped < known.started_at else min(stopped, now)
        connection.execute(update(intervals).where(*open_one).values(ended_at=ended))


def price_text(price: Decimal | None) -> str | None:
    return None if price is None else format(price, "f")
