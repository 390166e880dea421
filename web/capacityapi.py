"""The JSON API of pools: ask for a start or a stop, keep awake, look at decisions and money."""

from __future__ import annotations

from typing import TypeVar

from flask import Blueprint, Response, request
from pydantic import BaseModel

from web import asking, guard, ledgercsv, links
from web import capacity_schemas as k
from web import capacity_shapes as shapes
from web import queries as q
from web.api import answer, bare

blueprint = Blueprint("capacityapi", __name__)

B = TypeVar("B", bound=BaseModel)


def _body(model: type[B]) -> B:
    guard.require_json()
    return model.model_validate_json(request.get_data().strip() or b"{}")


@blueprint.get("/capacity")
def capacity() -> Response:
    """List pools, their workers, and the machines of those that are started and stopped."""
    asking.query(q.NoQuery)
    service = asking.service()
    found = [shapes.pool(one, service.pool_machines(one.name)) for one in service.capacity()]
    return answer(k.CapacityOut(pools=found))


@blueprint.post("/capacity/<pool>/start")
def start(pool: str) -> Response:
    """Ask for a machine to be started; the controller does so."""
    body = _body(k.StartBody)
    found = asking.service().start_machine(pool, body.instance, user=asking.user(), reason=body.reason)
    return answer(k.WishAnswer(wish=shapes.wish(found)), 202)


@blueprint.post("/capacity/<pool>/stop")
def stop(pool: str) -> Response:
    """Ask for a machine to be stopped, by the same steps as one that is idle; a busy one is refused."""
    body = _body(k.StopBody)
    found = asking.service().stop_machine(pool, body.instance, user=asking.user(), reason=body.reason)
    return answer(k.WishAnswer(wish=shapes.wish(found)), 202)


@blueprint.post("/capacity/<pool>/hold")
def hold(pool: str) -> Response:
    """Keep a pool, or one machine of it, awake for a while."""
    body = _body(k.HoldBody)
    found = asking.service().hold_pool(
        pool, body.instance, duration=body.duration, user=asking.user(), reason=body.reason
    )
    return answer(k.HoldAnswer(hold=shapes.hold(found)), 201)


@blueprint.post("/capacity/holds/<id:hold>/release")
def release(hold: int) -> Response:
    """End a hold before its time."""
    bare()
    return answer(k.HoldAnswer(hold=shapes.hold(asking.service().release_hold(hold, user=asking.user()))))


@blueprint.get("/capacity/<pool>/decisions")
def decisions(pool: str) -> Response:
    """List what was decided on a pool's machines and why, newest first."""
    asked = asking.query(k.DecisionsQuery)
    found = asking.service().pool_decisions(pool, instance=asked.instance, before=asked.before, limit=asked.limit)
    following = None
    if len(found) == asked.limit:
        following = links.api_capacity(
            pool, "decisions", instance=asked.instance, before=found[-1].id, limit=asked.limit
        )
    return answer(k.DecisionsOut(decisions=[shapes.recorded(one) for one in found], next=following))


@blueprint.get("/capacity/<pool>/arrivals")
def arrivals(pool: str) -> Response:
    """Tell when runs came to a pool, and forms for new ones were opened: what policies are tried on."""
    asked = asking.query(k.ArrivalsQuery)
    return answer(shapes.arrivals(asking.service().pool_arrivals(pool, asked.limit)))


@blueprint.get("/capacity/<pool>/money")
def money(pool: str) -> Response:
    """Tell what a pool cost in a month: by project, user and run, and against machines that are always on."""
    asked = asking.query(k.MonthQuery)
    return answer(shapes.month(pool, asking.service().pool_month(pool, asked.month)))


@blueprint.get("/capacity/<pool>/ledger.csv")
def ledger(pool: str) -> Response:
    """Give a month's billed intervals, divided among their runs, as CSV."""
    asked = asking.query(k.MonthQuery)
    service = asking.service()
    found = service.pool_ledger(pool, asked.month)
    response = Response(ledgercsv.lines(found, service.pool_month(pool, asked.month).currency), mimetype="text/csv")
    name = f"{pool}-{asked.month or 'this-month'}.csv"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


@blueprint.get("/runs/<id:run>/cost")
def run_cost(run: int) -> Response:
    """Tell what a run cost so far."""
    asking.query(q.NoQuery)
    service = asking.service()
    return answer(shapes.cost(service.run_cost(service.run(run))))
