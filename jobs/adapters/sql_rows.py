"""Rows to records, and the two things that every write does: append its event, derive its run anew."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, bindparam, case, func, insert, select, update

from jobs.adapters.sql_schema import events, legs, runs, tasks
from jobs.run import (
    Attempt,
    Comparison,
    Derived,
    Event,
    Leg,
    Removed,
    Run,
    RunState,
    StepRecord,
    Task,
    TaskFacts,
    TaskState,
    Unit,
    UnitCounts,
    Verdict,
    Worker,
    derive,
)
from runner.errors import NotFound
from runner.model import Output, Reason, TaskKind, UnitState
from runner.quota import Used

R = Any  # a row: its columns are those of the tables


def moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def reason(row: R) -> Reason | None:
    return Reason(row.reason_code, row.reason_text or "") if row.reason_code else None


def leg_of(row: R) -> Leg:
    return Leg(
        name=row.name,
        ref=row.ref,
        commit=row.commit,
        subject=row.subject,
        author=row.author,
        spec_source=row.spec_source,
        spec_digest=row.spec_digest,
        image=row.image,
        image_digest=row.image_digest,
        data_id=row.data_id,
        prepared=row.prepared,
        reused=row.reused,
        database=row.database,
        snapshot=row.snapshot,
    )


def run_of(row: R, leg_rows: tuple[Leg, ...]) -> Run:
    return Run(
        id=row.id,
        project=row.project,
        legs=leg_rows,
        state=RunState(row.state),
        verdict=Verdict(row.verdict) if row.verdict else None,
        reason=reason(row),
        units=UnitCounts(row.units_total, row.units_done, row.units_failed),
        attempts=row.attempts,
        user=row.user,
        note=row.note,
        priority=row.priority,
        units_filter=row.units_filter,
        database=row.database,
        pool=row.pool,
        cancel_requested=row.cancel_requested,
        created_at=at(row.created_at),
        started_at=moment(row.started_at),
        finished_at=moment(row.finished_at),
        parent=row.parent,
        options=row.options,
        removed=None
        if row.outputs_removed_at is None
        else Removed(at(row.outputs_removed_at), row.outputs_removed_why or ""),
        units_different=row.units_different,
        units_accepted=row.units_accepted,
        groups_accepted=row.groups_accepted,
    )


def task_of(row: R) -> Task:
    return Task(
        id=row.id,
        run=row.run,
        leg=row.leg,
        kind=TaskKind(row.kind),
        batch=row.batch,
        state=TaskState(row.state),
        attempt=row.attempt,
        execution=row.execution,
        pool=row.pool,
        host=row.host,
        worker=row.worker,
        reason=reason(row),
        priority=row.priority,
        units_total=row.units_total,
        units_done=row.units_done,
        units_failed=row.units_failed,
        log_size=row.log_size,
        created_at=at(row.created_at),
        due_at=at(row.due_at),
        started_at=moment(row.started_at),
        finished_at=moment(row.finished_at),
        need=None if row.need_bytes is None else Used(row.need_bytes, row.need_files),
    )


def attempt_of(row: R) -> Attempt:
    return Attempt(
        task=row.task,
        attempt=row.attempt,
        worker=row.worker,
        host=row.host,
        started_at=at(row.started_at),
        ended_at=moment(row.ended_at),
        outcome=row.outcome,
        reason=reason(row),
        log_offset=row.log_offset,
    )


def step_of(row: R) -> StepRecord:
    return StepRecord(
        task=row.task,
        attempt=row.attempt,
        name=row.name,
        state=row.state,
        started_at=at(row.started_at),
        seconds=row.seconds,
        detail=row.detail,
    )


def output_of(row: R, side: str = "") -> Output | None:
    """Give the output that a row of units names; `side`: the prefix of its columns where two units stand in a row."""
    name, digest, size, tree = (row._mapping[f"{side}output_{part}"] for part in ("name", "digest", "size", "tree"))
    return None if digest is None else Output(name, digest, size, bool(tree))


def unit_of(row: R) -> Unit:
    return Unit(
        leg=row.leg,
        unit=row.unit,
        position=row.position,
        task=row.task,
        state=UnitState(row.state),
        text=row.text,
        output=output_of(row),
        seconds=row.seconds,
        attempt=row.attempt,
    )


def event_of(row: R) -> Event:
    return Event(row.id, row.run, row.task, row.attempt, at(row.at), row.kind, row.data)


def worker_of(row: R) -> Worker:
    return Worker(
        name=row.name,
        host=row.host,
        pool=row.pool,
        pid=row.pid,
        started_at=at(row.started_at),
        seen_at=at(row.seen_at),
        task=row.task,
        draining=row.draining,
        shortage=row.shortage,
    )


def no_run(run: int) -> NotFound:
    """Give the error for a run that is not there."""
    return NotFound(f"There is no run {run}.", field="run", value=str(run), remedy="See the list of runs.")


def lock_run(connection: Connection, run: int) -> None:
    """Be the only one who changes this run until the end of the transaction; lock its tasks before.

    Without it two tasks that end at once would each see the other running, and events could become visible in
    another order than that of their numbers. With SQLite a write transaction is alone anyway.
    """
    if connection.dialect.name != "sqlite":
        connection.execute(select(runs.c.id).where(runs.c.id == run).with_for_update())


def append_event(
    connection: Connection,
    run: int,
    kind: str,
    now: float,
    *,
    task: int | None = None,
    attempt: int | None = None,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Append to the run's history."""
    lock_run(connection, run)
    values = {"run": run, "task": task, "attempt": attempt, "at": now, "kind": kind, "data": dict(data or {})}
    connection.execute(insert(events), values)


# Put together once: every step of the state machine, or every look at a run, asks them.
_LEGS = select(legs).where(legs.c.run.in_(bindparam("run_ids", expanding=True))).order_by(legs.c.run, legs.c.name)
_BEFORE = select(
    runs.c.state,
    runs.c.started_at,
    runs.c.baseline_commit,
    runs.c.compared_at,
    runs.c.units_different,
    runs.c.units_accepted,
    runs.c.cancel_requested,
    runs.c.stop_code,
    runs.c.stop_text,
).where(runs.c.id == bindparam("run_"))
_CANCEL = (
    select(events.c.data)
    .where(events.c.run == bindparam("run_"), events.c.kind == "cancel")
    .order_by(events.c.id.desc())
).limit(1)
_FIRST = func.min(case((tasks.c.reason_code.is_not(None), tasks.c.id)))
_GROUPS = (
    select(tasks.c.kind, tasks.c.state, func.max(tasks.c.attempt).label("attempt"), _FIRST.label("first"))
    .where(tasks.c.run == bindparam("run_"))
    .group_by(tasks.c.kind, tasks.c.state)
    .order_by(_FIRST)
)


def cancelled_by(connection: Connection, run: int) -> Reason:
    """Say who cancelled a run last."""
    data = connection.execute(_CANCEL, {"run_": run}).scalar_one_or_none() or {}
    return Reason("cancelled", f"Cancelled by {data['user']}." if data.get("user") else "The run was cancelled.")


def refresh_run(connection: Connection, run: int, now: float) -> Derived:
    """Derive the run's state from its tasks and write it where lists read it; a change is an event."""
    lock_run(connection, run)
    before = connection.execute(_BEFORE, {"run_": run}).one()
    facts = _facts(connection, run)
    comparison = None
    if before.baseline_commit is not None:
        # The comparer says when nothing is left; counting it at each step would cost more than it tells.
        stopped = Reason(before.stop_code, before.stop_text) if before.stop_code is not None else None
        comparison = Comparison(
            before.compared_at is None,
            before.units_different,
            cancelled_by(connection, run) if before.cancel_requested else None,
            stopped=stopped,
            accepted=before.units_accepted,
        )
    derived = derive(facts, comparison=comparison)
    values: dict[str, Any] = {
        "state": derived.state.value,
        "verdict": derived.verdict.value if derived.verdict else None,
        "reason_code": derived.reason.code if derived.reason else None,
        "reason_text": derived.reason.text if derived.reason else None,
        "finished_at": now if derived.state.final else None,
    }
    if before.started_at is None and any(fact.attempt > 0 for fact in facts):
        values["started_at"] = now
    if derived.state.final and derived.state.value != before.state:
        values["cleaning_token"] = None  # a clean-up that began before the run was resumed is over, if it knows or not
    connection.execute(update(runs).where(runs.c.id == run).values(**values))
    if derived.state.value != before.state:
        data = {
            "from": before.state,
            "to": derived.state.value,
            "verdict": values["verdict"],
            "code": values["reason_code"],
            "text": values["reason_text"],
        }
        append_event(connection, run, "run", now, data=data)
    return derived


def _facts(connection: Connection, run: int) -> list[TaskFacts]:
    """Read what deriving needs: tasks of one kind and state are one fact, which has the first one's reason."""
    groups = connection.execute(_GROUPS, {"run_": run}).all()
    ids = [group.first for group in groups if group.first is not None]
    reasons = {}
    if ids:
        query = select(tasks.c.id, tasks.c.reason_code, tasks.c.reason_text).where(tasks.c.id.in_(ids))
        reasons = {row.id: reason(row) for row in connection.execute(query)}
    return [TaskFacts(TaskKind(g.kind), TaskState(g.state), g.attempt, reasons.get(g.first)) for g in groups]


def legs_of(connection: Connection, run_ids: list[int]) -> dict[int, tuple[Leg, ...]]:
    """Read the legs of some runs, baseline first."""
    found: dict[int, tuple[Leg, ...]] = dict.fromkeys(run_ids, ())
    if run_ids:
        for row in connection.execute(_LEGS, {"run_ids": run_ids}):
            found[row.run] += (leg_of(row),)
    return found
