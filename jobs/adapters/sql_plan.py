"""End a leg's preparation in SQL: its unit list and its batches.

A list of 200,000 units takes seconds to write. It is written in pieces, so that nobody's lease runs out meanwhile; the
batches come with the last one. Until then no worker can claim anything of the leg, and another attempt writes the list
anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection, Executable, bindparam, delete, func, insert, select, text, update

from jobs.adapters.sql_compare import forget
from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_moves import ending, fence, move
from jobs.adapters.sql_room import need_of
from jobs.adapters.sql_rows import append_event, lock_run, refresh_run
from jobs.adapters.sql_schema import legs, runs, tasks, units
from jobs.reusing import Made, Reuse
from jobs.run import FINAL_TASK_STATES, TaskState
from runner.errors import BaseReplaced, OutputsGone, StoreUnavailable
from runner.model import Prepared, TaskKind, UnitResult, UnitState
from runner.quota import Used
from runner.units import UnitFilterError

S = TaskState
Item = TypeVar("Item")
Divide = Callable[[Sequence[str]], list[tuple[str, ...]]]

PIECE = 5_000  # units in one transaction: about 0.1 s
MANY = 1_000  # units of one leg, from which on a poor plan for each of them is felt
PAUSE = 0.01  # between two of them, in which others get their turn

_BLANK = {
    "task": None,
    "state": UnitState.TODO.value,
    "text": "",
    "output_name": None,
    "output_digest": None,
    "output_size": None,
    "output_tree": None,
    "seconds": None,
    "attempt": None,
}
_HERE = (units.c.run == bindparam("of_run"), units.c.leg == bindparam("of_leg"), units.c.unit == bindparam("of_unit"))


@dataclass
class _List:
    """What is to be done about each unit. `left`: how many units each batch that stands has to do."""

    changed: list[str]
    repeated: int = 0
    new: list[tuple[str, int]] = field(default_factory=list)
    free: list[tuple[str, int]] = field(default_factory=list)
    moved: list[tuple[str, int]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    taken: list[tuple[str, int]] = field(default_factory=list)  # with what an earlier run's leg has
    first: bool = True  # nothing was prepared before
    left: dict[int, int] = field(default_factory=dict)
    batches: list[Any] = field(default_factory=list)


class SqlPlan:
    """Write what a preparation found."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def prepared(
        self,
        task: int,
        attempt: int,
        result: Prepared,
        divide: Divide,
        *,
        reuse: Reuse | None = None,
        only_of: int | None = None,
    ) -> None:
        """End a preparation. Units finished before a resume stay so, unless the image or the data changed.

        `divide`: gives the batches for units that no batch holds yet. `reuse`: what an earlier leg has. `only_of`: the run
        whose differing units alone are listed. Raises Fenced, BaseReplaced when the other leg stands on other data,
        OutputsGone, and UnitFilterError when no leg has any of those units.
        """
        known = reuse.units if reuse is not None else {}
        with self._db.read() as connection:
            row = fence(connection, task, attempt, lock=False)
            _require_same_data(connection, row, result)
            found = _compare(connection, row, result, known)
        order = [name for name, _ in sorted(found.new + found.free, key=lambda one: one[1])]
        batches = divide(order)
        with self._db.write() as connection:
            row = fence(connection, task, attempt)
            now = self._db.now(connection)
            if found.changed and found.repeated:
                data = {"changed": found.changed, "units": found.repeated}
                append_event(connection, row.run, "repeat", now, task=task, attempt=attempt, data=data)
            ids = reserve_tasks(connection, len(batches))
        holder = {name: number for number, names in zip(ids, batches, strict=True) for name in names}
        pieces = list(_pieces(row, found, holder, known))
        for statement, values in pieces[:-1]:
            with self._db.write() as connection:
                fence(connection, task, attempt)
                connection.execute(statement, values)
                # A sign of life: the worker's own has to wait for this row.
                connection.execute(update(tasks).where(tasks.c.id == task).values(renewals=tasks.c.renewals + 1))
            time.sleep(PAUSE)
        with self._db.write() as connection:
            row = fence(connection, task, attempt)
            for statement, values in pieces[-1:]:
                connection.execute(statement, values)
            if reuse is not None and found.first:
                self._note_reuse(connection, row, result, found, reuse)
            self._end(connection, row, result, found, list(zip(ids, batches, strict=True)), only_of)
        if len(found.new) >= MANY:
            with suppress(StoreUnavailable):  # it is only quicker afterwards
                self._db.learn(units)

    def _note_reuse(self, connection: Connection, row: Any, result: Prepared, found: _List, reuse: Reuse) -> None:
        """Record what was taken over, or why nothing was."""
        query = select(runs.c.id).where(runs.c.id == reuse.run, runs.c.outputs_removed_at.is_(None))
        if found.taken and connection.execute(query).first() is None:
            raise OutputsGone(f"The outputs of run {reuse.run} were removed while they were taken over.")
        here = (legs.c.run == row.run, legs.c.name == row.leg)
        spec = connection.execute(select(legs.c.spec_digest).where(*here)).scalar_one()
        made = Made(spec, result.image_digest, result.template.data_id if result.template else None, False)
        record = reuse.record(made, [name for name, _ in found.taken])
        connection.execute(update(legs).where(*here).values(reused=record))
        append_event(connection, row.run, "reuse", self._db.now(connection), task=row.id, data={"of": row.leg} | record)

    def _end(
        self,
        connection: Connection,
        row: Any,
        result: Prepared,
        found: _List,
        batches: Sequence[tuple[int, tuple[str, ...]]],
        only_of: int | None,
    ) -> None:
        now = self._db.now(connection)
        lock_run(connection, row.run)
        _require_same_data(connection, row, result)
        if found.new or found.free or found.gone or found.taken:
            forget(connection, row.run)
        if (why := ending(connection, row.run)) is not None:
            move(connection, row, S.CANCELLED, now, reason=why)
        else:
            if only_of is not None and not result.units:
                _require_some(connection, row, only_of)
            _requeue(connection, found, now)
            last = max((batch.batch for batch in found.batches), default=0)
            need = need_of(connection, row.run, row.leg, TaskKind.VERIFY) if batches else None
            for number, (task, names) in enumerate(batches, last + 1):
                add_task(
                    connection,
                    row,
                    TaskKind.VERIFY,
                    batch=number,
                    units_total=len(names),
                    now=now,
                    task=task,
                    need=need,
                )
            connection.execute(
                update(legs)
                .where(legs.c.run == row.run, legs.c.name == row.leg)
                .values(
                    prepared=True,
                    image=result.image,
                    image_digest=result.image_digest,
                    data_id=result.template.data_id if result.template else None,
                    snapshot=result.template.snapshot or result.template.data_id if result.template else None,
                    template=None if result.template is None else dict(vars(result.template)),
                )
            )
            move(connection, row, S.DONE, now, fruitless=0)
        count_units(connection, row.run)
        refresh_run(connection, row.run, now)


def settled_data(connection: Connection, run: int, leg: str) -> str | None:
    """Give the id of the data on which another leg of a run stands for good, None while it may still change.

    Only legs with the same source are looked at: with two databases neither settles what the other one stands on.
    """
    mine = select(legs.c.database).where(legs.c.run == run, legs.c.name == leg).scalar_subquery()
    others = select(legs).where(
        legs.c.run == run,
        legs.c.name != leg,
        legs.c.data_id.is_not(None),
        legs.c.database.is_not_distinct_from(mine),
    )
    final = [state.value for state in FINAL_TASK_STATES]
    for other in connection.execute(others.order_by(legs.c.prepared.desc(), legs.c.name)).all():
        preparing = select(tasks.c.id).where(
            tasks.c.run == run,
            tasks.c.leg == other.name,
            tasks.c.kind == TaskKind.PREPARE.value,
            tasks.c.state.not_in(final),
        )
        if other.prepared or connection.execute(preparing.limit(1)).first() is None:
            return str(other.data_id)
    return None


def _require_same_data(connection: Connection, row: Any, result: Prepared) -> None:
    wanted = settled_data(connection, row.run, row.leg)
    if result.template is None or wanted in (None, result.template.data_id):
        return
    raise BaseReplaced(
        f"The source was blessed anew while the legs were prepared: the other one has the data {wanted}, this one has "
        f"{result.template.data_id}. It is prepared again."
    )


def _require_some(connection: Connection, row: Any, only_of: int) -> None:
    """Refuse the last list of a run that has no unit at all; one leg alone may lack what differs."""
    final = [state.value for state in FINAL_TASK_STATES]
    preparing = (tasks.c.kind == TaskKind.PREPARE.value, tasks.c.state.not_in(final), tasks.c.id != row.id)
    living = select(tasks.c.id).where(tasks.c.run == row.run, *preparing)
    listed = select(units.c.unit).where(units.c.run == row.run)
    if all(connection.execute(query.limit(1)).first() is None for query in (living, listed)):
        raise UnitFilterError(f"None of the units that differed or failed in run {only_of} is listed any more.")


def _compare(connection: Connection, row: Any, result: Prepared, known: Collection[str]) -> _List:
    """Hold the list against the one that stands; a leg that is prepared for the first time takes what is `known`."""
    leg = connection.execute(select(legs).where(legs.c.run == row.run, legs.c.name == row.leg)).one()
    data_id = result.template.data_id if result.template else None
    versions = (("image", leg.image_digest, result.image_digest), ("data", leg.data_id, data_id))
    found = _List([what for what, old, new in versions if old is not None and old != new])
    found.first = leg.image_digest is None
    known = known if found.first else ()
    batches = (tasks.c.run == row.run, tasks.c.leg == row.leg, tasks.c.kind == TaskKind.VERIFY.value)
    found.batches = list(connection.execute(select(tasks).where(*batches).order_by(tasks.c.id)))
    # What was voided in a batch that ended well goes to a batch of its own.
    holding = {batch.id for batch in found.batches if batch.state != S.DONE}
    query = select(units.c.unit, units.c.state, units.c.task, units.c.position).where(
        units.c.run == row.run, units.c.leg == row.leg
    )
    old = {unit.unit: unit for unit in connection.execute(query)}
    for position, name in enumerate(result.units):
        unit = old.pop(name, None)
        if name in known and (unit is None or unit.state == UnitState.TODO.value):
            found.taken.append((name, position))
            if unit is not None:
                found.gone.append(name)  # left by an attempt that did not come to its end
        elif unit is None:
            found.new.append((name, position))
        elif unit.state == UnitState.DONE.value and found.changed:
            found.repeated += 1
            found.free.append((name, position))
        elif unit.state != UnitState.DONE.value and unit.task not in holding:
            found.free.append((name, position))
        else:
            if unit.state == UnitState.TODO.value:
                found.left[unit.task] = found.left.get(unit.task, 0) + 1
            if unit.position != position:
                found.moved.append((name, position))
    found.gone += list(old)
    return found


def _pieces(
    row: Any, found: _List, holder: Mapping[str, int], known: Mapping[str, UnitResult]
) -> Iterator[tuple[Executable, list[dict[str, Any]]]]:
    """Give the writes, each short enough for one transaction."""
    here = {"of_run": row.run, "of_leg": row.leg}
    mine = {"run": row.run, "leg": row.leg}
    for names in _cut(found.gone):
        yield delete(units).where(*_HERE), [here | {"of_unit": name} for name in names]
    for some in _cut(found.taken):
        yield insert(units), [mine | _BLANK | _taken(known[name]) | {"unit": name, "position": at} for name, at in some]
    for some in _cut(found.new):
        yield (
            insert(units),
            [mine | _BLANK | {"unit": name, "position": at, "task": holder.get(name)} for name, at in some],
        )
    for some in _cut(found.free):
        yield (
            update(units).where(*_HERE),
            [here | _BLANK | {"of_unit": name, "position": at, "task": holder.get(name)} for name, at in some],
        )
    for some in _cut(found.moved):
        yield update(units).where(*_HERE), [here | {"of_unit": name, "position": at} for name, at in some]


def _taken(result: UnitResult) -> dict[str, Any]:
    values = {"state": result.state.value, "text": result.text, "seconds": result.seconds}
    if result.output is not None:
        values |= {f"output_{name}": value for name, value in vars(result.output).items()}
    return values


def _cut(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), PIECE):
        yield items[start : start + PIECE]


def _requeue(connection: Connection, found: _List, now: float) -> None:
    """Let the batches that stand go on; one with nothing left to do ends when it is claimed."""
    for batch in found.batches:
        if S(batch.state) in FINAL_TASK_STATES and batch.state != S.DONE:
            left = found.left.get(batch.id, 0)
            values: dict[str, Any] = {"units_total": left, "units_done": 0, "units_failed": 0}
            move(connection, batch, S.QUEUED, now, due_at=now, fruitless=0, **values)


def reserve_tasks(connection: Connection, count: int) -> list[int]:
    """Give ids that no task has and none will be given by itself."""
    if not count:
        return []
    if connection.dialect.name == "sqlite":
        # A row stands here since the first task was made, and this leg's preparation is one.
        connection.execute(text("UPDATE sqlite_sequence SET seq = seq + :n WHERE name = 'tasks'"), {"n": count})
        last = connection.execute(text("SELECT seq FROM sqlite_sequence WHERE name = 'tasks'")).scalar_one()
        return list(range(int(last) - count + 1, int(last) + 1))
    query = text("SELECT nextval(pg_get_serial_sequence('tasks', 'id')) FROM generate_series(1, :n)")
    return sorted(int(number) for number in connection.scalars(query, {"n": count}))


def add_task(
    connection: Connection,
    like: Any,
    kind: TaskKind,
    *,
    batch: int,
    now: float,
    due: float | None = None,
    units_total: int = 0,
    task: int | None = None,
    need: Used | None = None,
) -> int:
    """Queue a task of `like`'s run, leg, pool, user and priority. `task`: its id, when it was reserved."""
    row = task_row(like, kind, batch=batch, now=now, due=due, units_total=units_total, need=need)
    if task is not None:
        row["id"] = task
    result = connection.execute(insert(tasks), row)
    assert result.inserted_primary_key is not None
    return int(result.inserted_primary_key[0])


def task_row(
    like: Any,
    kind: TaskKind,
    *,
    batch: int,
    now: float,
    due: float | None = None,
    units_total: int = 0,
    need: Used | None = None,
) -> dict[str, Any]:
    """Give the row of a queued task of `like`'s run, leg, pool, user and priority. `need`: see sql_room.need_of."""
    return {
        "run": like.run,
        "leg": like.leg,
        "kind": kind.value,
        "batch": batch,
        "pool": like.pool,
        "user": like.user,
        "priority": like.priority,
        "state": S.QUEUED.value,
        "units_total": units_total,
        "created_at": now,
        "due_at": now if due is None else due,
        "need_bytes": None if need is None else need.size,
        "need_files": None if need is None else need.files,
    }


def count_units(connection: Connection, run: int) -> None:
    """Count the run's units anew into its row."""
    query = select(units.c.state, func.count().label("n")).where(units.c.run == run).group_by(units.c.state)
    counts = {row.state: row.n for row in connection.execute(query)}
    connection.execute(
        update(runs)
        .where(runs.c.id == run)
        .values(
            units_total=sum(counts.values()) or None,  # not known yet
            units_done=counts.get(UnitState.DONE.value, 0),
            units_failed=counts.get(UnitState.FAILED.value, 0),
        )
    )
