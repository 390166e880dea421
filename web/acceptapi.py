"""The JSON API of groups of differences: what they are, and what of them is accepted."""

from __future__ import annotations

from datetime import UTC, datetime

from flask import Blueprint, Response, request

from jobs.accepting import Acceptance, Asked
from web import asking, compare_shapes, guard, shapes
from web import compare_schemas as c
from web import queries as q
from web.api import answer, bare

blueprint = Blueprint("acceptapi", __name__)


@blueprint.get("/runs/<id:run>/groups")
def groups(run: int) -> Response:
    """List the causes of a compare run's differences, those of most units first."""
    asking.query(q.NoQuery)
    now = datetime.now(UTC)
    return answer(c.GroupsOut(groups=[compare_shapes.group(one, now) for one in asking.service().groups(run)]))


@blueprint.post("/runs/<id:run>/groups/<key>/accept")
def accept(run: int, key: str) -> Response:
    """Accept a group of differences, in this run and in those of its project that are compared from now on."""
    asking.query(q.NoQuery)
    guard.require_json()
    body = q.AcceptBody.model_validate_json(request.get_data().strip() or b"{}")
    asked = Asked(body.name, body.reason, body.expires)
    return _answer(run, asking.service().accept(run, key, asked, user=asking.user()))


@blueprint.post("/runs/<id:run>/groups/<key>/withdraw")
def withdraw(run: int, key: str) -> Response:
    """Let an accepted group count as different again, in this run and in those that are compared from now on."""
    bare()
    return _answer(run, asking.service().withdraw(run, key, user=asking.user()))


def _answer(run: int, found: Acceptance) -> Response:
    shown = compare_shapes.acceptance(found, datetime.now(UTC))
    return answer(c.AcceptedOut(acceptance=shown, run=shapes.run(asking.service().run(run))))


@blueprint.get("/projects/<name>/acceptances")
def acceptances(name: str) -> Response:
    """List what was accepted in a project, newest first, also what expired or was withdrawn."""
    asking.query(q.NoQuery)
    now = datetime.now(UTC)
    found = asking.service().acceptances(name)
    return answer(c.AcceptancesOut(acceptances=[compare_shapes.acceptance(one, now) for one in found]))
