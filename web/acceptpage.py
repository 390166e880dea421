"""The pages of groups of differences: one group with its form, and what a project accepts."""

from __future__ import annotations

from datetime import UTC, datetime

from flask import Blueprint, Response, flash, make_response, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from jobs.accepting import UNACCEPTABLE, AcceptanceRefused, Asked
from runner.errors import Conflict
from web import asking, links
from web.problems import from_request_error
from web.schemas import ProblemOut

blueprint = Blueprint("accepting", __name__)

FIELDS = ("name", "reason", "expires")


@blueprint.get("/runs/<id:run>/groups/<key>")
def group(run: int, key: str) -> Response:
    """Show a group of differences."""
    return _show(run, key)


@blueprint.post("/runs/<id:run>/groups/<key>/accept")
def accept(run: int, key: str) -> AnyResponse:
    """Accept a group as the form says, then show the run's groups."""
    sent = {name: request.form.get(name, "").replace("\r\n", "\n") for name in FIELDS}
    asked = Asked(sent["name"], sent["reason"], sent["expires"] or None)
    try:
        asking.service().accept(run, key, asked, user=asking.user())
    except (AcceptanceRefused, Conflict) as error:
        return _show(run, key, sent, from_request_error(error))
    return redirect(links.run(run, tab="differences") + f"#group-{key}", 303)


@blueprint.post("/runs/<id:run>/groups/<key>/withdraw")
def withdraw(run: int, key: str) -> AnyResponse:
    """Let a group count as different again, then show the run's groups."""
    try:
        asking.service().withdraw(run, key, user=asking.user())
    except Conflict as error:
        flash(f"{error.text} {error.remedy or ''}".strip())
    return redirect(links.run(run, tab="differences") + f"#group-{key}", 303)


@blueprint.get("/projects/<name>/acceptances")
def acceptances(name: str) -> str:
    """List what was accepted in a project."""
    listed = asking.service().acceptances(name)
    return render_template("acceptances.html", project=name, listed=listed, now=datetime.now(UTC))


def _show(run: int, key: str, sent: dict[str, str] | None = None, problem: ProblemOut | None = None) -> Response:
    service = asking.service()
    errors = {item.key: item for item in problem.errors} if problem else {}
    page = render_template(
        "group.html",
        run=service.run(run),
        found=service.group(run, key),
        unacceptable=UNACCEPTABLE,
        now=datetime.now(UTC),
        sent=sent or {},
        problem=problem,
        errors=errors,
        marked=bool(errors.keys() & set(FIELDS)),
        others=[item for item in errors.values() if item.key not in FIELDS],
    )
    return make_response(page, problem.status if problem else 200)
