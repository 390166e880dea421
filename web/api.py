"""The JSON API: submissions, runs and what a run consists of, projects."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Blueprint, Response, make_response, request
from pydantic import BaseModel

from jobs.run import RunFilter, RunState, Verdict
from jobs.submission import Submission
from runner.model import UnitState
from web import asking, compare_shapes, guard, links, shapes
from web import queries as q
from web import schemas as s

blueprint = Blueprint("api", __name__)


def answer(shape: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with JSON."""
    response = make_response(shape.model_dump_json(), status)
    response.mimetype = "application/json"
    for name, value in (headers or {}).items():
        response.headers[name] = value
    return response


def run_filter(asked: q.RunsQuery) -> RunFilter:
    """Give the store's filter of a query."""
    return RunFilter(
        project=asked.project,
        state=RunState(asked.state) if asked.state else None,
        user=asked.user,
        ref=asked.ref,
        text=asked.text,
        verdict=Verdict(asked.verdict) if asked.verdict else None,
    )


# ---- runs --------------------------------------------------------------------------------------------------


@blueprint.post("/runs")
def submit() -> Response:
    """Submit a run; answers 201, or 200 with the same run when the idempotency key was used before."""
    guard.require_json()
    asking.query(q.NoQuery)
    body = q.RunBody.model_validate_json(request.get_data())
    submission = Submission(
        project=body.project,
        ref=body.ref,
        baseline=body.baseline,
        units=body.units,
        database=body.database,
        priority=body.priority,
        note=body.note,
        options=body.options,
    )
    run, created = asking.service().submit(submission, user=asking.user(), idempotency_key=asking.idempotency_key())
    return answer(shapes.run(run), 201 if created else 200, {"Location": links.api_run(run.id)})


@blueprint.get("/runs")
def runs() -> Response:
    """List runs, newest first."""
    asked = asking.query(q.RunsQuery)
    page = asking.service().runs(run_filter(asked), before=asked.before, after=asked.after, limit=asked.limit)
    kept = asked.model_dump(exclude={"before", "after"}, exclude_defaults=True)
    address = links.API + "/runs"
    older = address + links.query(**kept, before=page.next) if page.next is not None else None
    newer = address + links.query(**kept, after=page.previous) if page.previous is not None else None
    found = [f'<{url}>; rel="{rel}"' for url, rel in ((older, "next"), (newer, "prev")) if url]
    found.append(f'<{address + links.query(**kept)}>; rel="first"')
    body = s.RunsOut(runs=[shapes.run(run) for run in page.runs], next=older, previous=newer)
    return answer(body, headers={"Link": ", ".join(found)})


@blueprint.get("/runs/<id:run>")
def show(run: int) -> Response:
    """Show a run."""
    asking.query(q.NoQuery)
    return answer(detail(run))


def detail(run_id: int) -> s.RunDetail:
    """Read all that a run's page shows at first sight."""
    service = asking.service()
    run = service.run(run_id)
    final, tasks = run.state.final, service.tasks(run_id)
    return shapes.detail(
        run,
        tasks,
        service.steps(run_id),
        None if final else service.estimate(run, tasks),
        None if final else service.waiting(run, tasks),
    )


def bare() -> None:
    """Refuse a body that is neither empty nor JSON: these requests need none."""
    asking.query(q.NoQuery)
    guard.require_json()
    body = request.get_data()
    if body.strip() not in (b"", b"{}"):
        q.NoQuery.model_validate_json(body)


@blueprint.post("/runs/<id:run>/cancel")
def cancel(run: int) -> Response:
    """Cancel a run."""
    bare()
    return answer(shapes.run(asking.service().cancel(run, user=asking.user())))


@blueprint.post("/runs/<id:run>/resume")
def resume(run: int) -> Response:
    """Resume a run at its first unfinished unit."""
    bare()
    return answer(shapes.run(asking.service().resume(run, user=asking.user())))


@blueprint.post("/runs/<id:run>/rerun")
def rerun(run: int) -> Response:
    """Run the same commit with the same options again, as a new run; all of it, or what differed."""
    asking.query(q.NoQuery)
    guard.require_json()
    body = q.RerunBody.model_validate_json(request.get_data().strip() or b"{}")
    new = asking.service().rerun(run, user=asking.user(), only=body.only)
    return answer(shapes.run(new), 201, {"Location": links.api_run(new.id)})


# ---- inside a run ------------------------------------------------------------------------------------------


@blueprint.get("/runs/<id:run>/units")
def units(run: int) -> Response:
    """List a run's units in their order."""
    asked = asking.query(q.UnitsQuery)
    service = asking.service()
    service.run(run)
    found = service.units(
        run,
        leg=asked.leg,
        state=UnitState(asked.state) if asked.state else None,
        text=asked.text,
        task=asked.task,
        after=asked.after,
        limit=asked.limit,
    )
    following = None
    if len(found) >= asked.limit:
        kept = asked.model_dump(exclude={"after"}, exclude_defaults=True)
        following = links.api_run(run, "/units", **kept, after=found[-1].position)
    body = s.UnitsOut(
        units=[shapes.unit(run, one) for one in found],
        counts=shapes.legs_counts(service.unit_counts(run)),
        next=following,
    )
    return answer(body, headers={"Link": f'<{following}>; rel="next"'} if following else None)


@blueprint.get("/runs/<id:run>/latency")
def latency(run: int) -> Response:
    """Compare how long the units of a compare run took on both legs: those that became slower, the costliest first."""
    asked = asking.query(q.LatencyQuery)
    return answer(compare_shapes.latency(asking.service().latency(run, limit=asked.limit)))


@blueprint.get("/runs/<id:run>/attempts")
def attempts(run: int) -> Response:
    """List every claim of the run's tasks and how it ended."""
    asking.query(q.NoQuery)
    service = asking.service()
    service.run(run)
    tasks = {task.id: task for task in service.tasks(run)}
    found = [shapes.attempt(one, work, tasks.get(one.task)) for one, work in service.works(run)]
    return answer(s.AttemptsOut(attempts=found))


@blueprint.get("/runs/<id:run>/events")
def events(run: int) -> Response:
    """List what happened, oldest first."""
    asked = asking.query(q.EventsQuery)
    service = asking.service()
    service.run(run)
    found = service.events(run, after=asked.after, limit=asked.limit)
    following = None
    if len(found) == asked.limit:
        following = links.api_run(run, "/events", after=found[-1].id, limit=asked.limit)
    return answer(s.EventsOut(events=[shapes.event(one) for one in found], next=following))


# ---- around runs -------------------------------------------------------------------------------------------


@blueprint.get("/projects")
def projects() -> Response:
    """List the projects."""
    asking.query(q.NoQuery)
    return answer(s.ProjectsOut(projects=[shapes.project(one) for one in asking.service().projects()]))


@blueprint.get("/projects/<name>/refs")
def refs(name: str) -> Response:
    """List refs whose names begin with `q`, from the mirror."""
    asked = asking.query(q.RefsQuery)
    found = asking.service().refs(name, asked.q, asked.limit)
    return answer(s.RefsOut(refs=[shapes.ref(one) for one in found]))


@blueprint.get("/projects/<name>/units")
def known_units(name: str) -> Response:
    """Show which units a filter would choose, by the last run that listed them all."""
    asked = asking.query(q.KnownUnitsQuery)
    asking.service().project(name)
    return answer(shapes.known_units(asking.service().known_units(name, asked.ref, asked.filter)))


@blueprint.get("/projects/<name>/preview")
def preview(name: str) -> Response:
    """Show what a ref stands for now and how it would be verified."""
    asked = asking.query(q.PreviewQuery)
    return answer(shapes.preview(asking.service().preview(name, asked.ref)))
