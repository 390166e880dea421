"""Machines, holds, wishes and money into the API's shapes. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from web import capacity_schemas as k
from web.schemas import WorkerOut

if TYPE_CHECKING:
    from jobs.machines import Arrivals, Decision, Hold, Recorded, Wish
    from jobs.money import Total
    from jobs.outlook import PoolStatus
    from jobs.pools import Cost, MachineStatus, Month, PoolMachines


def decision(found: Decision) -> k.DecisionOut:
    return k.DecisionOut(action=found.action.value, code=found.code, reason=found.reason, until=found.until)


def hold(found: Hold) -> k.HoldOut:
    return k.HoldOut(**{name: getattr(found, name) for name in k.HoldOut.model_fields})


def wish(found: Wish) -> k.WishOut:
    told = {name: getattr(found, name) for name in k.WishOut.model_fields}
    return k.WishOut(**told | {"kind": found.kind.value})


def recorded(found: Recorded) -> k.RecordedOut:
    told = {name: getattr(found, name) for name in k.RecordedOut.model_fields}
    return k.RecordedOut(**told | {"action": found.action.value})


def arrivals(found: Arrivals) -> k.ArrivalsOut:
    runs = [k.ArrivalOut(**{name: getattr(run, name) for name in k.ArrivalOut.model_fields}) for run in found.runs]
    return k.ArrivalsOut(runs=runs, forms=list(found.forms))


def machine(found: MachineStatus) -> k.MachineOut:
    """Give a machine as the API shows it."""
    now, one = found.now, found.now.machine
    drain = None
    if one.drain is not None:
        answer = one.drain.answer
        drain = k.DrainOut(
            since=one.drain.since,
            reason=one.drain.reason,
            asked_by=one.drain.asked_by,
            busy=None if answer is None else list(answer.busy),
        )
    return k.MachineOut(
        instance=one.instance,
        state=one.state.value,
        state_since=one.state_since,
        kind=one.kind,
        host=one.host,
        seen_at=one.seen_at,
        started_at=one.started_at,
        why_on=one.why_on,
        tasks=now.leases,
        slots=now.slots,
        busy=list(now.busy),
        idle_since=now.idle_since,
        disk=None if one.disk is None else k.DiskOut(**vars(one.disk)),
        notice=None if one.notice is None else k.NoticeOut(**vars(one.notice)),
        drain=drain,
        hold=None if found.hold is None else hold(found.hold),
        refused=one.refused,
        decision=decision(found.decision),
        alarms=[decision(alarm) for alarm in found.alarms],
    )


def machines(found: PoolMachines) -> k.PoolMachinesOut:
    """Give the machines of a pool as the API shows them."""
    return k.PoolMachinesOut(
        policy=found.settings.idle_policy,
        min_running=found.settings.min_running,
        max_running=found.settings.max_running,
        machines=[machine(one) for one in found.machines],
        holds=[hold(one) for one in found.facts.holds],
        wishes=[wish(one) for one in found.wishes],
        news=[decision(one) for one in found.news],
        short=dict(found.facts.short),
        watched=found.watched,
        asked_at=None if found.watch is None else found.watch.asked_at,
        problem=None if found.watch is None else found.watch.problem,
    )


def month(pool: str, found: Month) -> k.MonthOut:
    """Give what a pool cost in a month."""
    return k.MonthOut(
        pool=pool,
        since=found.since,
        until=found.until,
        currency=found.currency,
        total=_total(None, found.total),
        saved=None if found.saved is None else k.SavedOut(**vars(found.saved)),
        projects=_totals(found.by_project),
        users=_totals(found.by_user),
        runs=_totals(found.by_run),
        days=[k.DayOut(day=day, seconds=total.seconds, cost=total.cost) for day, total in found.by_day],
    )


def cost(found: Cost | None) -> k.RunCostOut:
    """Give what a run cost."""
    if found is None:
        return k.RunCostOut(cost=None)
    return k.RunCostOut(cost=k.CostOut(currency=found.currency, **vars(found.total)))


def _totals(found: Iterable[tuple[str | int | None, Total]]) -> list[k.TotalOut]:
    return [_total(name, total) for name, total in found]


def _total(name: str | int | None, found: Total) -> k.TotalOut:
    return k.TotalOut(name=name, seconds=found.seconds, cost=found.cost, unpriced=found.unpriced)


def pool(found: PoolStatus, its: PoolMachines | None) -> k.PoolOut:
    """Give a pool as the API shows it."""
    return k.PoolOut(
        name=found.name,
        provider="ec2" if its is not None else "local",
        slots=found.slots,
        queued=found.queued,
        running=found.running,
        workers=[WorkerOut(**{name: getattr(one, name) for name in WorkerOut.model_fields}) for one in found.workers],
        ec2=None if its is None else machines(its),
    )
