"""The pages: runs, one run, projects."""

from __future__ import annotations

import json
from typing import Literal, cast

from flask import Blueprint, Response, current_app, flash, make_response, redirect, render_template, request
from pydantic import BaseModel, ConfigDict, Field
from werkzeug.wrappers import Response as AnyResponse

from jobs.run import Run, RunFilter, RunState, Task, Verdict
from runner.errors import Conflict, NotFound
from runner.model import UnitState
from web import asking, diffpage, links, present
from web import schemas as s
from web.ansi import plain
from web.preview import READ, preview
from web.runpage import RunPages
from web.words import task_title

blueprint = Blueprint("pages", __name__)

RUNS_A_PAGE = 50
MINE = 5
UNITS_A_PAGE = 200
LINES_A_PAGE = 400
WORST = 5  # differing units on the summary of a run


class _PageQuery(BaseModel):
    """Ignores what it does not know: people keep links for long."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class RunsPageQuery(_PageQuery):
    project: s.Name | None = None
    state: (
        Literal["queued", "running", "interrupted", "passed", "different", "failed", "errored", "cancelled"] | None
    ) = None
    user: s.Name | None = None
    ref: s.Name | None = None
    text: s.Name | None = None
    before: s.Id | None = None
    after: int | None = Field(None, ge=0, le=s.MAX_ID)

    def filter(self) -> RunFilter:
        verdict = Verdict(self.state) if self.state in ("passed", "different") else None
        state = RunState(self.state) if self.state and verdict is None else None
        return RunFilter(
            project=self.project, state=state, user=self.user, ref=self.ref, text=self.text, verdict=verdict
        )

    def kept(self) -> dict[str, object]:
        return self.model_dump(exclude={"before", "after"}, exclude_none=True)


class RunPageQuery(_PageQuery):
    tab: Literal["summary", "differences", "units", "log", "attempts", "files"] = "summary"
    task: s.Id | None = None
    line: s.Id | None = None
    leg: s.Name | None = None
    state: s.UnitStateName | None = None
    text: s.Name | None = None
    after: int | None = Field(None, ge=-1, le=s.MAX_ID)


def run_pages() -> RunPages:
    return cast("RunPages", current_app.extensions["seatrial.pages"])


def wants_fragment() -> bool:
    """Tell whether htmx asks for a part of the page (and not the history for the whole)."""
    return "HX-Request" in request.headers and "HX-History-Restore-Request" not in request.headers


# ---- the list ----------------------------------------------------------------------------------------------


@blueprint.get("/")
def home() -> AnyResponse:
    return redirect("/runs")


@blueprint.get("/runs")
def runs() -> Response:
    """List runs, newest first."""
    asked = asking.query(RunsPageQuery)
    service = asking.service()
    page = service.runs(asked.filter(), before=asked.before, after=asked.after, limit=RUNS_A_PAGE)
    kept = asked.kept()
    newest = page.previous is None and asked.before is None
    top = page.runs[0].id if page.runs else 0
    values = {
        "asked": asked,
        "kept": kept,
        "rows": [present.row(run) for run in page.runs],
        "older": "/runs" + links.query(**kept, before=page.next) if page.next is not None else None,
        "newer": "/runs" + links.query(**kept, after=page.previous) if page.previous is not None else None,
        "first": None if newest else "/runs" + links.query(**kept),
        # The same rows again, however many came after them.
        "again": "/runs" + links.query(**kept, before=min(top + 1, s.MAX_ID)) if top else None,
        "pill": "/runs/newer" + links.query(**kept, after=top) if newest else None,
        "going": any(not run.state.final for run in page.runs),
    }
    # The reader's own come first, where others' would push them down.
    plain = newest and not kept
    mine = _mine() if plain and any(run.user != asking.user() for run in page.runs) else []
    values["mine"] = mine
    values["mine_going"] = any(not row.run.state.final for row in mine)
    if wants_fragment():
        part = "_runs_rows.html" if request.headers.get("HX-Target", "").endswith("#rows") else "_runs_list.html"
        return make_response(render_template(part, **values))
    values["projects"] = service.projects()
    return make_response(render_template("runs.html", **values))


def _mine() -> list[present.Row]:
    """Give the newest of the reader's own runs."""
    page = asking.service().runs(RunFilter(user=asking.user()), limit=MINE)
    return [present.row(run) for run in page.runs]


@blueprint.get("/runs/mine")
def mine() -> str:
    """Give the rows of the reader's own runs again."""
    return render_template("_runs_rows.html", rows=_mine(), prefix="mine-")


@blueprint.get("/runs/newer")
def newer() -> str:
    """Say how many runs came since the list was shown."""
    asked = asking.query(RunsPageQuery)
    count = asking.service().count_newer(asked.filter(), asked.after or 0)
    return render_template("_newer.html", count=count, href="/runs" + links.query(**asked.kept()))


# ---- one run -----------------------------------------------------------------------------------------------


@blueprint.get("/runs/<id:run>")
def run(run: int) -> Response:
    """Show a run; `tab` chooses what of it."""
    asked = asking.query(RunPageQuery)
    service = asking.service()
    found = service.run(run)
    tasks = service.tasks(run)
    values: dict[str, object] = {
        "asked": asked,
        "run": found,
        "head": run_pages().head(found),
        "tasks": tasks,
        "live": not found.state.final,
    }
    if found.baseline is None and asked.tab == "differences":
        return cast("Response", redirect(links.run(run)))
    if asked.tab == "summary":
        values["failure"] = run_pages().failure(found, tasks)
        values["cost"] = service.run_cost(found)
        values["worst"] = diffpage.worst(found, WORST) if found.baseline is not None else []
    elif asked.tab == "differences":
        wanted = asking.query(diffpage.DifferencesQuery)
        values |= diffpage.tab(found, wanted) | {"wanted": wanted}
        if wants_fragment():
            return _pushed(render_template("_diff_chosen.html", **values), links.run(run, **wanted.kept()))
    elif asked.tab == "units":
        values |= _units(found, asked)
        if wants_fragment():
            return make_response(render_template("_units.html", **values))
    elif asked.tab == "log":
        values |= _log(found, tasks, asked)
    elif asked.tab == "attempts":
        titles = {task.id: task_title(task) for task in tasks}
        known = {task.id: task for task in tasks}
        values |= {"attempts": service.works(run), "titles": titles, "known": known}
        values["events"] = service.events(run, limit=200)
        if wants_fragment():
            return make_response(render_template("_attempts.html", **values))
    else:
        values |= _units(found, RunPageQuery(state="done", after=asked.after))
    return make_response(render_template("run.html", **values))


def _pushed(fragment: str, address: str) -> Response:
    """Give a fragment whose address the browser remembers, once: what it shows already gets no second entry."""
    response = make_response(fragment)
    same = request.headers.get("HX-Current-URL", "").partition("#")[0].endswith(f"{request.host}{address}")
    response.headers["HX-Push-Url"] = "false" if same else address
    return response


def _units(found: Run, asked: RunPageQuery) -> dict[str, object]:
    service = asking.service()
    state = UnitState(asked.state) if asked.state else None
    units = service.units(
        found.id, leg=asked.leg, state=state, text=asked.text, task=asked.task, after=asked.after, limit=UNITS_A_PAGE
    )
    kept = asked.model_dump(include={"leg", "state", "text", "task"}, exclude_none=True)
    kept["tab"] = "units"
    more = len(units) >= UNITS_A_PAGE  # all legs' of the last position stand here
    return {
        "units": units,
        "counts": service.unit_counts(found.id),
        "next": links.run(found.id, **kept, after=units[-1].position) if more else None,
        "first": links.run(found.id, **kept) if asked.after is not None else None,
        "again": links.run(found.id, **kept, after=asked.after),
    }


def _log(found: Run, tasks: list[Task], asked: RunPageQuery) -> dict[str, object]:
    chosen = next((task for task in tasks if task.id == asked.task), None)
    if asked.task is not None and chosen is None:
        raise NotFound(f"Run {found.id} has no task {asked.task}.", remedy="Choose one on the run's log tab.")
    shown = chosen or next((task for task in reversed(tasks) if task.log_size), tasks[0] if tasks else None)
    lines: list[tuple[int, str]] = []
    total = 0
    if shown is not None and found.removed is None:
        start = asked.line if asked.line is not None else -LINES_A_PAGE
        window = asking.indexes().of(shown.id).window(start, LINES_A_PAGE)
        lines, total = [(line.n, plain(line.text)) for line in window.lines], window.total
    listed = [
        {"id": task.id, "title": task_title(task), "state": task.state.value, "size": task.log_size} for task in tasks
    ]
    return {"chosen": chosen, "shown": shown, "lines": lines, "total": total, "listed": json.dumps(listed)}


@blueprint.get("/runs/<id:run>/live")
def live(run: int) -> str:
    """Give the live part of a run's page once, for a browser that cannot follow the stream."""
    service = asking.service()
    found = service.run(run)
    failure = run_pages().failure(found, service.tasks(run))
    return render_template("_live.html", head=run_pages().head(found), failure=failure, links=links)


@blueprint.post("/runs/<id:run>/<any(cancel,resume,rerun):action>")
def act(run: int, action: str) -> AnyResponse:
    """Cancel, resume or rerun, then show the run."""
    service, user = asking.service(), asking.user()
    try:
        if action == "cancel":
            target = service.cancel(run, user=user)
        elif action == "resume":
            target = service.resume(run, user=user)
        else:
            target = service.rerun(run, user=user)
    except Conflict as error:
        flash(f"{error.text} {error.remedy or ''}".strip())
        return redirect(links.run(run), 303)
    return redirect(links.run(target.id), 303)


@blueprint.get("/runs/<id:run>/units/<leg>/<unit:unit>")
def unit(run: int, leg: str, unit: str) -> str:
    """Show a unit with a look into its output."""
    service = asking.service()
    found, one = service.run(run), service.unit(run, leg, unit)
    look, tree = None, None
    if one.output is not None and found.removed is None:
        output, source = service.open_output(run, leg, unit)
        with source:
            if output.tree:
                tree = sorted(json.load(source).items())
            else:
                look = preview(output.name, source.read(READ), output.size)
    return render_template("unit.html", run=found, unit=one, look=look, tree=tree, badge=present.UNIT_BADGES[one.state])


# ---- around runs -------------------------------------------------------------------------------------------


@blueprint.get("/projects")
def projects() -> str:
    """List the projects, each with its last run."""
    service = asking.service()
    listed = []
    for project in service.projects():
        last = service.runs(RunFilter(project=project.name), limit=1).runs
        listed.append((project, present.row(last[0]) if last else None))
    return render_template("projects.html", listed=listed)
