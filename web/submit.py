"""The page "New run": a form that keeps what was chosen, and says before submit what will happen."""

from __future__ import annotations

from flask import Blueprint, Response, make_response, redirect, render_template, request, session
from pydantic import BaseModel, ConfigDict, ValidationError
from werkzeug.wrappers import Response as AnyResponse

from jobs.run import RunFilter, RunState
from jobs.submission import Submission
from runner.errors import RequestError
from web import asking, links, present, shapes
from web import queries as q
from web import schemas as s
from web.problems import from_request_error, from_validation
from web.words import duration

blueprint = Blueprint("submit", __name__)

CHOICES = ("project", "ref", "units", "database", "priority")


class NewRunForm(BaseModel):
    """The form's fields as they come from a browser: all are texts."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    project: str = ""
    ref: str = ""
    units: str = ""
    database: str = ""
    note: str = ""
    priority: str = "0"

    def submission(self) -> Submission:
        """Check the fields as the API does; raises ValidationError, RequestError."""
        body = q.RunBody.model_validate(
            {
                "project": self.project,
                "ref": self.ref.strip(),
                "units": self.units.strip() or None,
                "database": self.database or None,
                "note": self.note.replace("\r\n", "\n"),
                "priority": int(self.priority) if self.priority.lstrip("-").isdecimal() else self.priority,
            }
        )
        return Submission(
            project=body.project,
            ref=body.ref,
            units=body.units,
            database=body.database,
            priority=body.priority,
            note=body.note,
        )


@blueprint.get("/new")
def form() -> Response:
    """Show the form with the last choices; the address may name others."""
    kept = {key: str(value) for key, value in session.get("choices", {}).items() if key in CHOICES}
    given = {key: value for key, value in request.args.items() if key in NewRunForm.model_fields}
    if given.get("project", kept.get("project")) != kept.get("project"):
        kept = {}
    return _show(NewRunForm(**(kept | given)))


@blueprint.post("/new")
def create() -> AnyResponse:
    """Submit the form."""
    sent = NewRunForm(**{key: value for key, value in request.form.items() if key in NewRunForm.model_fields})
    key = request.form.get("key", "")[:64] or None
    try:
        run, _ = asking.service().submit(sent.submission(), user=asking.user(), idempotency_key=key)
    except ValidationError as error:
        return _show(sent, from_validation(error))
    except RequestError as error:
        return _show(sent, from_request_error(error))
    session["choices"] = {name: getattr(sent, name) for name in CHOICES}
    return redirect(links.run(run.id), 303)


def _show(shown: NewRunForm, problem: s.ProblemOut | None = None) -> Response:
    service = asking.service()
    projects = service.projects()
    if projects and shown.project not in {project.name for project in projects} and problem is None:
        shown = shown.model_copy(update={"project": projects[0].name})
    errors = {item.key: item for item in problem.errors} if problem else {}
    page = render_template(
        "new.html",
        form=shown,
        projects=projects,
        databases=service.databases(),
        refs=_refs(shown.project, ""),
        problem=problem,
        errors=errors,
        others=[item for item in errors.values() if item.key not in NewRunForm.model_fields],
    )
    return make_response(page, problem.status if problem else 200)


def _refs(project: str, begun: str) -> list[s.RefOut]:
    try:
        return [shapes.ref(ref) for ref in asking.service().refs(project, begun[:300], 50)]
    except RequestError:
        return []


@blueprint.get("/new/refs")
def refs() -> str:
    """List the refs that match what was typed."""
    return render_template("_refs.html", refs=_refs(request.args.get("project", ""), request.args.get("ref", "")))


@blueprint.get("/new/units")
def units() -> str:
    """Say how many units the filter chooses."""
    project, ref = request.args.get("project", ""), request.args.get("ref", "").strip()
    pattern = request.args.get("units", "").strip()
    try:
        asked = q.KnownUnitsQuery(ref=ref or None, filter=pattern or None)
        asking.service().project(project)
        found = asking.service().known_units(project, asked.ref, asked.filter)
    except ValidationError as error:
        return render_template("_units_count.html", problem=from_validation(error))
    except RequestError as error:
        return render_template("_units_count.html", problem=from_request_error(error))
    return render_template("_units_count.html", found=found, pattern=pattern, ref=asked.ref)


@blueprint.get("/new/preview")
def preview() -> str:
    """Show what a submission would run."""
    project, ref = request.args.get("project", ""), request.args.get("ref", "").strip()
    service = asking.service()
    if not project or not ref:
        return render_template("_preview.html", empty=True)
    try:
        found = service.preview(project, q.PreviewQuery(ref=ref).ref)
    except ValidationError as error:
        return render_template("_preview.html", problem=from_validation(error))
    except RequestError as error:
        return render_template("_preview.html", problem=from_request_error(error))
    last = service.runs(RunFilter(project=project, state=RunState.DONE), limit=1).runs
    took = duration(present.span(last[0])) if last else ""
    return render_template("_preview.html", found=found, spec=found.spec, last=last[0] if last else None, took=took)
