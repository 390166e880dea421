"""The page of pools and their machines, and what its buttons ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, flash, make_response, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from jobs.machines import Hold, Wish
from runner.errors import Conflict, RequestError
from web import asking, links
from web import capacity_schemas as k
from web.problems import from_request_error
from web.schemas import ProblemOut

blueprint = Blueprint("capacity", __name__)

SHOWN = 12  # decisions of a pool; its own page has all
A_PAGE = 100
FIELDS = ("duration", "reason")


@blueprint.get("/capacity")
def capacity() -> str:
    """Show the pools: what their workers do, and the machines that are started and stopped."""
    service = asking.service()
    pools = service.capacity()
    busy = {worker.task for pool in pools for worker in pool.workers if worker.task is not None}
    of_machines = {pool.name: service.pool_machines(pool.name) for pool in pools}
    started = [name for name, found in of_machines.items() if found is not None]
    return render_template(
        "capacity.html",
        pools=pools,
        tasks={task: service.task(task) for task in busy},
        of_machines=of_machines,
        months={name: service.pool_month(name) for name in started},
        loads={name: service.pool_usage(name) for name in started},
        decided={name: service.pool_decisions(name, limit=SHOWN) for name in started},
    )


@blueprint.get("/capacity/<pool>/decisions")
def decisions(pool: str) -> str:
    """List what was decided on a pool and why."""
    asked = asking.query(k.DecisionsQuery)
    found = asking.service().pool_decisions(pool, instance=asked.instance, before=asked.before, limit=A_PAGE)
    older = None
    if len(found) == A_PAGE:
        older = links.capacity(pool, "/decisions", instance=asked.instance, before=found[-1].id)
    return render_template("decisions.html", pool=pool, instance=asked.instance, found=found, older=older)


@blueprint.get("/capacity/<pool>/hold")
def hold_form(pool: str) -> Response:
    """Show the form that keeps a pool or a machine awake."""
    return _form(pool, request.args.get("instance") or None, {"duration": "2h"})


@blueprint.post("/capacity/<pool>/hold")
def hold(pool: str) -> AnyResponse:
    """Keep a pool or a machine awake as the form says."""
    sent = {name: request.form.get(name, "").strip() for name in FIELDS}
    instance = request.form.get("instance") or None
    try:
        asking.service().hold_pool(pool, instance, duration=sent["duration"], reason=sent["reason"], user=asking.user())
    except Conflict as error:
        return _told(error)
    except RequestError as error:
        if error.status == 404:
            raise
        return _form(pool, instance, sent, from_request_error(error))
    return redirect("/capacity", 303)


@blueprint.post("/capacity/<pool>/start")
def start(pool: str) -> AnyResponse:
    """Ask for a machine to be started."""
    service = asking.service()
    return _ask(lambda: service.start_machine(pool, request.form.get("instance") or None, user=asking.user()))


@blueprint.post("/capacity/<pool>/stop")
def stop(pool: str) -> AnyResponse:
    """Ask for a machine to be stopped."""
    service = asking.service()
    return _ask(lambda: service.stop_machine(pool, request.form.get("instance", ""), user=asking.user()))


@blueprint.post("/capacity/holds/<id:hold>/release")
def release(hold: int) -> AnyResponse:
    """End a hold before its time."""
    return _ask(lambda: asking.service().release_hold(hold, user=asking.user()))


def _ask(action: Callable[[], Wish | Hold]) -> AnyResponse:
    try:
        action()
    except Conflict as error:
        return _told(error)
    return redirect("/capacity", 303)


def _told(error: Conflict) -> AnyResponse:
    flash(f"{error.text} {error.remedy or ''}".strip())
    return redirect("/capacity", 303)


def _form(pool: str, instance: str | None, sent: dict[str, Any], problem: ProblemOut | None = None) -> Response:
    found = asking.service().pool_machines(pool)
    errors = {item.key: item for item in problem.errors} if problem else {}
    page = render_template(
        "hold.html", pool=pool, instance=instance, sent=sent, errors=errors, problem=problem, ours=found is not None
    )
    return make_response(page, problem.status if problem else 200)
