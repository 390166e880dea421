"""The page "New run": a form that keeps what was chosen, and says before submit what will happen."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Blueprint, Response, make_response, redirect, render_template, request, session
from pydantic import BaseModel, ConfigDict, ValidationError
from werkzeug.wrappers import Response as AnyResponse

from jobs import two_databases
from jobs.projects import Preview, ProjectInfo
from jobs.run import RunFilter, RunState
from jobs.submission import Submission
from runner.errors import RequestError
from web import asking, links, present, shapes
from web import queries as q
from web import schemas as s
from web.problems import from_request_error, from_validation
from web.words import duration

blueprint = Blueprint("submit", __name__)

CHOICES = (
    *("project", "ref", "units", "database", "priority", "against", "baseline", "merge_base", "baseline_database"),
    *("anew", "noise"),
)
# What a submission may be compared with: nothing, the project's default baseline, or the ref in `baseline`
# (`other`), or the same commit on the data of `baseline_database`.
AGAINST = ("nothing", "default", "other", "database")


class NewRunForm(BaseModel):
    """The form's fields as they come from a browser: all are texts."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    project: str = ""
    ref: str = ""
    units: str = ""
    database: str = ""
    note: str = ""
    priority: str = "0"
    against: str = "nothing"
    baseline: str = ""
    merge_base: str = ""
    baseline_database: str = ""
    snapshot: str = ""
    baseline_snapshot: str = ""
    anew: str = ""
    noise: str = ""

    @property
    def compares(self) -> bool:
        return self.against in ("default", "other", "database")

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
                "baseline": self.baseline.strip() if self.against == "other" else None,
                "options": self._options(),
            }
        )
        return Submission(
            project=body.project,
            ref=body.ref,
            units=body.units,
            database=body.database,
            priority=body.priority,
            note=body.note,
            baseline=body.baseline,
            options=body.options,
        )

    def _options(self) -> dict[str, object]:
        found: dict[str, object] = {"snapshot": self.snapshot.strip()} if self.snapshot.strip() else {}
        if self.against == "database":
            found |= {"baseline_database": self.baseline_database}
            found |= {"baseline_snapshot": self.baseline_snapshot.strip()} if self.baseline_snapshot.strip() else {}
        elif self.compares:
            found |= {"compare": True} if self.against == "default" else {}
            found |= {"merge_base": True} if self.merge_base else {}
        if self.compares:
            found |= {"reuse": False} if self.anew else {}
            found |= {"noise": int(self.noise) if self.noise.isdecimal() else self.noise} if self.noise else {}
        return found


@blueprint.get("/new")
def form() -> Response:
    """Show the form with the last choices; the address may name others."""
    kept = {key: str(value) for key, value in session.get("choices", {}).items() if key in CHOICES}
    given = {key: value for key, value in request.args.items() if key in NewRunForm.model_fields}
    if given.get("project", kept.get("project")) != kept.get("project"):
        kept = {}
    chosen = kept | given
    if "against" not in chosen:
        chosen["against"] = "other" if chosen.get("baseline") else "default"
    return _show(NewRunForm(**chosen), opened=True)


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
    session["choices"] = {name: getattr(sent, name).strip() for name in CHOICES}
    return redirect(links.run(run.id), 303)


def _show(shown: NewRunForm, problem: s.ProblemOut | None = None, *, opened: bool = False) -> Response:
    service = asking.service()
    projects = service.projects()
    if projects and shown.project not in {project.name for project in projects} and problem is None:
        shown = shown.model_copy(update={"project": projects[0].name})
    if opened:
        service.form_opened(shown.project, user=asking.user())  # a machine boots while it is filled in
    errors = {item.key.removeprefix("options."): item for item in problem.errors} if problem else {}
    default = _default_baseline(shown.project, projects)
    if shown.against not in AGAINST or (shown.against == "default" and default is None and problem is None):
        shown = shown.model_copy(update={"against": "nothing"})
    page = render_template(
        "new.html",
        form=shown,
        projects=projects,
        databases=service.databases(),
        refs=_refs(shown.project, ""),
        default=default,
        problem=problem,
        errors=errors,
        others=[item for name, item in errors.items() if name not in NewRunForm.model_fields],
    )
    return make_response(page, problem.status if problem else 200)


def _default_baseline(project: str, projects: list[ProjectInfo]) -> str | None:
    return next((one.default_baseline for one in projects if one.name == project), None)


def _refs(project: str, begun: str) -> list[s.RefOut]:
    try:
        return [shapes.ref(ref) for ref in asking.service().refs(project, begun[:300], 50)]
    except RequestError:
        return []


@blueprint.get("/new/refs")
def refs() -> str:
    """List the refs that match what was typed."""
    begun = request.args.get(request.args.get("field", "ref"), "")
    return render_template("_refs.html", refs=_refs(request.args.get("project", ""), begun))


@blueprint.get("/new/default")
def default() -> str:
    """Say what a project is compared with when nothing is named."""
    found = _default_baseline(request.args.get("project", ""), asking.service().projects())
    return render_template("_default.html", default=found)


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
    sent = NewRunForm(**{key: value for key, value in request.args.items() if key in NewRunForm.model_fields})
    project, ref = sent.project, sent.ref.strip()
    service = asking.service()
    if not project or not ref:
        return render_template("_preview.html", empty=True)
    try:
        found = service.preview(project, q.PreviewQuery(ref=ref).ref)
        against = _against(sent, found)
    except ValidationError as error:
        return render_template("_preview.html", problem=from_validation(error))
    except RequestError as error:
        return render_template("_preview.html", problem=from_request_error(error))
    last = service.runs(RunFilter(project=project, state=RunState.DONE), limit=1).runs
    took = duration(present.span(last[0])) if last else ""
    return render_template(
        "_preview.html",
        found=found,
        spec=found.spec,
        source=_source(sent, found),
        against=against,
        twice=(sent.noise or str(found.spec.compare.noise)) == "2",
        last=last[0] if last else None,
        took=took,
    )


def _source(sent: NewRunForm, found: Preview) -> str | None:
    """Name the candidate's database, as the submission will choose it."""
    if found.spec.database is None:
        return None
    return sent.database or asking.service().project(sent.project).database or found.spec.database.source


@dataclass(frozen=True)
class Against:
    """What a submission would be compared with; `words` when that cannot be said yet, or cannot be.

    `database`: the source on which the same commit is the baseline.
    """

    ref: str
    found: Preview | None
    words: str = ""
    database: str = ""


def _against(sent: NewRunForm, candidate: Preview) -> Against | None:
    """Look at the baseline as the submission will; None when nothing is compared."""
    if not sent.compares:
        return None
    service = asking.service()
    if sent.against == "database":
        refused = two_databases.problems(sent.baseline_database, _source(sent, candidate), service.databases())
        words = " ".join(f"The baseline's database: {problem.message}." for problem in refused)
        return Against(sent.ref, candidate, words, database=sent.baseline_database)
    ref = sent.baseline.strip() if sent.against == "other" else service.project(sent.project).default_baseline
    if not ref:
        return Against("", None, "Name the baseline to compare with.")
    try:
        found = service.preview(sent.project, q.PreviewQuery(ref=ref).ref)
        if sent.merge_base:
            base = service.merge_base(sent.project, found.resolved.commit.sha, candidate.resolved.commit.sha)
            if base is None:
                return Against(ref, None, f"{sent.ref} and {ref} have no commit in common.")
            return Against(f"merge base with {ref}", service.preview(sent.project, base))
    except ValidationError as error:
        return Against(ref, None, from_validation(error).detail)
    except RequestError as error:
        remedy = error.remedy or ""
        return Against(ref, None, f"{error.text.removesuffix(remedy).rstrip()} {remedy}".rstrip())
    return Against(ref, found)
