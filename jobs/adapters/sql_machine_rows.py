"""Rows of capacity to values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, select

from jobs.adapters.sql_rows import at, moment
from jobs.adapters.sql_schema import machines
from jobs.machines import (
    Action,
    Answer,
    Disk,
    Drain,
    Hold,
    Interval,
    Machine,
    MachineState,
    Notice,
    Recorded,
    Wish,
    WishKind,
)

R = Any  # a row: its columns are those of the tables


def seconds(time: datetime | None) -> float | None:
    return None if time is None else time.timestamp()


def lock_machine(connection: Connection, instance: str) -> R | None:
    """Give a machine's row, and be the only one who changes it, or claims for it, until the end of the transaction."""
    query = select(machines).where(machines.c.instance == instance)
    return connection.execute(query.with_for_update()).one_or_none()


def machine_of(row: R) -> Machine:
    return Machine(
        instance=row.instance,
        pool=row.pool,
        state=MachineState(row.state),
        state_since=at(row.state_since),
        region=row.region,
        account=row.account,
        kind=row.kind,
        host=row.host,
        registered_at=moment(row.registered_at),
        seen_at=moment(row.seen_at),
        started_at=moment(row.started_at),
        why_on=row.why_on,
        drain=drain_of(row),
        disk=None if row.disk is None else Disk(**row.disk),
        notice=None if row.notice is None else _notice(row.notice),
        refused=row.refused,
        price=_price(row.price),
    )


def drain_of(row: R) -> Drain | None:
    if row.drain_token is None:
        return None
    answer = None
    if row.answer is not None and row.answer["token"] == row.drain_token:
        answer = Answer(row.answer["token"], at(row.answer["at"]), tuple(row.answer["busy"]))
    return Drain(row.drain_token, at(row.drain_since), row.drain_reason or "", row.drain_by or "policy", answer)


def _notice(data: Mapping[str, Any]) -> Notice:
    return Notice(data["kind"], at(data["at"]), data["text"])


def _price(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def hold_of(row: R) -> Hold:
    return Hold(
        id=row.id,
        pool=row.pool,
        instance=row.instance,
        until=at(row.until),
        reason=row.reason,
        made_by=row.made_by,
        made_at=at(row.made_at),
        released_at=moment(row.released_at),
        released_by=row.released_by,
    )


def wish_of(row: R) -> Wish:
    return Wish(
        id=row.id,
        pool=row.pool,
        instance=row.instance,
        kind=WishKind(row.kind),
        reason=row.reason,
        made_by=row.made_by,
        made_at=at(row.made_at),
        done_at=moment(row.done_at),
        outcome=row.outcome,
    )


def recorded_of(row: R) -> Recorded:
    return Recorded(
        id=row.id,
        at=at(row.at),
        pool=row.pool,
        action=Action(row.action),
        instance=row.instance,
        code=row.code,
        reason=row.reason,
        made_by=row.made_by,
        data=row.data,
    )


def interval_of(row: R) -> Interval:
    return Interval(row.instance, row.pool, at(row.started_at), moment(row.ended_at), _price(row.price), row.cause)
