"""End a leg's preparation in SQL: its unit list and its batches, in one step with the end itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_rows import append_event, refresh_run
from jobs.adapters.sql_schema import legs, runs, tasks, units
from jobs.adapters.sql_tasks import fence, move
from jobs.run import FINAL_TASK_STATES, TaskState
from runner.model import Prepared, TaskKind, UnitState

S = TaskState
Divide = Callable[[Sequence[str]], list[tuple[str, ...]]]

_CHUNK = 500  # names in one IN (…), well below SQLite's limit of variables


class SqlPlan:
    """Write what a preparation found."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def prepared(self, task: int, attempt: int, result: Prepared, divide: Divide) -> None:
        """End a preparation. Units finished before a resume stay so, unless the image or the data changed.

        `divide`: gives the batches for units that no batch holds yet. Raises Fenced.
        """
        with self._db.write() as connection:
            now = self._db.now(connection)
            row = fence(connection, task, attempt)
            leg = connection.execute(select(legs).where(legs.c.run == row.run, legs.c.name == row.leg)).one()
            data_id = result.template.data_id if result.template else None
            changed = [
                what
                for what, old, new in (
                    ("image", leg.image_digest, result.image_digest),
                    ("data", leg.data_id, data_id),
                )
                if old is not None and old != new
            ]
            repeated = _write_units(connection, row, result.units, void=bool(changed))
            if changed and repeated:
                data = {"changed": changed, "units": repeated}
                append_event(connection, row.run, "repeat", now, task=task, attempt=attempt, data=data)
            _write_batches(connection, row, divide, now)
            connection.execute(
                update(legs)
                .where(legs.c.run == row.run, legs.c.name == row.leg)
                .values(
                    prepared=True,
                    image=result.image,
                    image_digest=result.image_digest,
                    data_id=data_id,
                    template=None if result.template is None else dict(vars(result.template)),
                )
            )
            move(connection, row, S.DONE, now, fruitless=0)
            count_units(connection, row.run)
            refresh_run(connection, row.run, now)


def _write_units(connection: Connection, row: Row[Any], names: Sequence[str], *, void: bool) -> int:
    """Write the list; names that were there keep their state and batch. Gives how many finished units were voided."""
    here = (units.c.run == row.run, units.c.leg == row.leg)
    old = {r["unit"]: dict(r) for r in connection.execute(select(units).where(*here)).mappings()}
    voided = 0
    values = []
    for position, name in enumerate(names):
        kept = old.get(name)
        if kept is not None and kept["state"] == UnitState.DONE.value and void:
            voided += 1
            kept = None
        blank = {
            "run": row.run,
            "leg": row.leg,
            "unit": name,
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
        values.append((kept or blank) | {"position": position})
    if old:
        connection.execute(delete(units).where(*here))
    if values:
        connection.execute(insert(units), values)
    return voided


def _write_batches(connection: Connection, row: Row[Any], divide: Divide, now: float) -> None:
    here = (tasks.c.run == row.run, tasks.c.leg == row.leg, tasks.c.kind == TaskKind.VERIFY.value)
    todo = (units.c.run == row.run, units.c.leg == row.leg, units.c.state == UnitState.TODO.value)
    number = 0
    for batch in connection.execute(select(tasks).where(*here)).all():
        number = max(number, batch.batch)
        left = connection.execute(
            select(func.count()).select_from(units).where(*todo, units.c.task == batch.id)
        ).scalar_one()
        if batch.state == S.DONE:
            # What was voided in a batch that ended well goes to a batch of its own.
            connection.execute(update(units).where(*todo, units.c.task == batch.id).values(task=None))
        elif S(batch.state) in FINAL_TASK_STATES and left:
            move(connection, batch, S.QUEUED, now, units_total=left, units_done=0, units_failed=0, due_at=now)
        elif not left:
            connection.execute(delete(tasks).where(tasks.c.id == batch.id))
    free = connection.scalars(
        select(units.c.unit).where(*todo, units.c.task.is_(None)).order_by(units.c.position)
    ).all()
    for names in divide(free):
        number += 1
        task = add_task(connection, row, TaskKind.VERIFY, batch=number, units_total=len(names), now=now)
        for start in range(0, len(names), _CHUNK):
            some = names[start : start + _CHUNK]
            connection.execute(update(units).where(*todo, units.c.unit.in_(some)).values(task=task))


def add_task(connection: Connection, like: Any, kind: TaskKind, *, batch: int, now: float, units_total: int = 0) -> int:
    """Queue a task of `like`'s run, leg, pool, user and priority."""
    result = connection.execute(
        insert(tasks).values(
            run=like.run,
            leg=like.leg,
            kind=kind.value,
            batch=batch,
            pool=like.pool,
            user=like.user,
            priority=like.priority,
            state=S.QUEUED.value,
            units_total=units_total,
            created_at=now,
            due_at=now,
        )
    )
    assert result.inserted_primary_key is not None
    return int(result.inserted_primary_key[0])


def count_units(connection: Connection, run: int) -> None:
    """Count the run's units anew into its row."""

    def number(*where: Any) -> Any:
        return select(func.count()).select_from(units).where(units.c.run == run, *where).scalar_subquery()

    connection.execute(
        update(runs)
        .where(runs.c.id == run)
        .values(
            units_total=number(),
            units_done=number(units.c.state == UnitState.DONE.value),
            units_failed=number(units.c.state == UnitState.FAILED.value),
        )
    )
