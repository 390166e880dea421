"""Records into the API's shapes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from jobs.run import Attempt, Event, Leg, Run, StepRecord, Task, Unit, UnitCounts
from runner.model import Reason, Ref
from web import links, present
from web import schemas as s

if TYPE_CHECKING:
    from jobs.attempts import Work
    from jobs.outlook import Estimate, KnownUnits
    from jobs.projects import Preview, ProjectInfo
    from jobs.waiting import Waiting


def reason(found: Reason | None) -> s.ReasonOut | None:
    return None if found is None else s.ReasonOut(code=found.code, text=found.text)


def counts(found: UnitCounts) -> s.CountsOut:
    return s.CountsOut(total=found.total, done=found.done, failed=found.failed)


def leg(found: Leg) -> s.LegOut:
    return s.LegOut.model_validate({name: getattr(found, name) for name in s.LegOut.model_fields})


def run(found: Run) -> s.RunOut:
    """Give a run as the API shows it."""
    return s.RunOut(**_run(found))


def _run(found: Run) -> dict[str, Any]:
    baseline = found.baseline
    return {
        "id": found.id,
        "project": found.project,
        "ref": found.candidate.ref,
        "commit": found.candidate.commit,
        "baseline": None if baseline is None else s.RefCommit(ref=baseline.ref, commit=baseline.commit),
        "state": found.state.value,
        "verdict": None if found.verdict is None else found.verdict.value,
        "reason": reason(found.reason),
        "units": counts(found.units),
        "different": found.units_different,
        "accepted": found.units_accepted,
        "accepted_groups": found.groups_accepted,
        "attempts": found.attempts,
        "created_at": found.created_at,
        "started_at": found.started_at,
        "finished_at": found.finished_at,
        "legs": [leg(one) for one in found.legs],
        "user": found.user,
        "note": found.note,
        "priority": found.priority,
        "database": found.database,
        "units_filter": found.units_filter,
        "pool": found.pool,
        "cancel_requested": found.cancel_requested,
        "parent": found.parent,
        "options": dict(found.options),
        "outputs_removed": None
        if found.removed is None
        else s.RemovedOut(at=found.removed.at, text=found.removed.text),
        "links": s.LinksOut(
            self=links.api_run(found.id),
            page=links.run(found.id),
            log=links.api_run(found.id, "/log"),
            stream=links.api_run(found.id, "/stream"),
            units=links.api_run(found.id, "/units"),
            diffs=None if baseline is None else links.api_run(found.id, "/diffs"),
            outputs=links.api_archive(found.id, "zip"),
        ),
    }


def detail(
    found: Run,
    tasks: Sequence[Task],
    steps: Sequence[StepRecord],
    guess: Estimate | None,
    held: Waiting | None,
) -> s.RunDetail:
    """Give a run with all that its page shows at first sight."""
    return s.RunDetail(
        **_run(found),
        waiting=waiting(held),
        estimate=estimate(guess),
        tasks=[task(one) for one in tasks],
        steps=[step(one) for one in steps],
    )


def waiting(found: Waiting | None) -> s.WaitingOut | None:
    return None if found is None else s.WaitingOut(code=found.code, text=found.text, until=found.until)


def estimate(found: Estimate | None) -> s.EstimateOut | None:
    if found is None:
        return None
    return s.EstimateOut(seconds_left=found.seconds_left, units_per_minute=found.units_per_minute, basis=found.basis)


def task(found: Task) -> s.TaskOut:
    return s.TaskOut(
        id=found.id,
        leg=found.leg,
        kind=found.kind.value,
        batch=found.batch,
        state=found.state.value,
        attempt=found.attempt,
        host=found.host,
        worker=found.worker,
        reason=reason(found.reason),
        units=s.CountsOut(total=found.units_total, done=found.units_done, failed=found.units_failed),
        log_size=found.log_size,
        created_at=found.created_at,
        started_at=found.started_at,
        finished_at=found.finished_at,
    )


def step(found: StepRecord) -> s.StepOut:
    return s.StepOut(**{name: getattr(found, name) for name in s.StepOut.model_fields})


def unit(run_id: int, found: Unit) -> s.UnitOut:
    output = None
    if found.output is not None:
        output = s.OutputOut(
            name=found.output.name,
            digest=found.output.digest,
            size=found.output.size,
            tree=found.output.tree,
            href=links.api_output(run_id, found.leg, found.unit),
        )
    return s.UnitOut(
        leg=found.leg,
        unit=found.unit,
        position=found.position,
        task=found.task,
        state=found.state.value,
        text=found.text,
        output=output,
        seconds=found.seconds,
        attempt=found.attempt,
    )


def attempt(found: Attempt, work: Work, task: Task | None) -> s.AttemptOut:
    told = s.WorkOut(**asdict(work), text=present.work(work, task))
    return s.AttemptOut(
        task=found.task,
        attempt=found.attempt,
        worker=found.worker,
        host=found.host,
        started_at=found.started_at,
        ended_at=found.ended_at,
        outcome=found.outcome,
        reason=reason(found.reason),
        log_offset=found.log_offset,
        work=told,
    )


def event(found: Event) -> s.EventOut:
    return s.EventOut(
        id=found.id,
        task=found.task,
        attempt=found.attempt,
        at=found.at,
        kind=found.kind,
        data=dict(found.data),
    )


def legs_counts(found: Mapping[str, UnitCounts]) -> dict[str, s.CountsOut]:
    return {name: counts(one) for name, one in found.items()}


def project(found: ProjectInfo) -> s.ProjectOut:
    return s.ProjectOut(
        name=found.name,
        repository=found.repository,
        default_baseline=found.default_baseline,
        pool=found.pool,
        database=found.database,
    )


def ref(found: Ref) -> s.RefOut:
    return s.RefOut(name=found.name, kind=found.kind.value, commit=found.sha)


def known_units(found: KnownUnits | None) -> s.KnownUnitsOut:
    if found is None:
        return s.KnownUnitsOut(run=None, ref=None, total=None, matching=None, first=[])
    return s.KnownUnitsOut(
        run=found.run, ref=found.ref, total=found.total, matching=found.matching, first=list(found.first)
    )


def preview(found: Preview) -> s.PreviewOut:
    commit = found.resolved.commit
    return s.PreviewOut(
        ref=ref(found.resolved.ref),
        commit=s.CommitOut(sha=commit.sha, subject=commit.subject, author=commit.author, at=commit.at),
        spec_source=found.spec_source,
        spec=found.spec.model_dump(mode="json"),
    )
