"""Records into the API's shapes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from jobs.noise import words as noise_words
from jobs.run import Attempt, Event, Leg, Run, StepRecord, Task, Unit, UnitCounts
from runner.model import Reason, Ref
from web import compare_schemas as c
from web import diffwords, links
from web import schemas as s

if TYPE_CHECKING:
    from jobs.acceptances import GroupInRun
    from jobs.accepting import Acceptance
    from jobs.adapters.sql_noise import NoiseTally, Unstable
    from jobs.attempts import Work
    from jobs.comparing import Compared, UnitClass
    from jobs.latency import Latency
    from jobs.noise import Noise
    from jobs.outlook import Estimate, KnownUnits
    from jobs.overview import HeatMap, Overview, Part
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


def attempt(found: Attempt, work: Work) -> s.AttemptOut:
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
        work=s.WorkOut(**{name: getattr(work, name) for name in s.WorkOut.model_fields}),
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


def diff(run_id: int, found: Compared) -> c.DiffOut:
    """Give what became of a unit as the API shows it."""
    return c.DiffOut.model_validate(_diff(run_id, found))


def _diff(run_id: int, found: Compared) -> dict[str, Any]:
    summary = found.summary
    files = summary.get("results", [summary])
    return {
        "unit": found.unit,
        "position": found.position,
        "class": found.kind.value,
        "noisy": found.noisy,
        "rows": summary.get("rows"),
        "largest": found.largest,
        "rule": next((file["rule"] for file in files if file.get("rule")), None),
        "leniencies": sorted({one for file in files for one in file.get("leniencies", ())}),
        "notes": [note["text"] for file in files for note in file.get("notes", ())],
        "seconds": found.seconds,
        "accepted": found.accepted,
        "links": {
            "self": links.api_diff(run_id, found.unit),
            "page": links.diff(run_id, found.unit),
            "baseline": links.api_output(run_id, "baseline", found.unit),
            "candidate": links.api_output(run_id, "candidate", found.unit),
        },
    }


def comparison(run: Run, found: Overview) -> c.ComparisonOut:
    """Give a compare run from above."""
    return c.ComparisonOut(
        counts=_by_class(found.counts),
        left=found.left,
        differing=found.harmful,
        noisy=found.noisy,
        verdict=diffwords.verdict(found.counts, run, found.noisy),
        reports=[part(one) for one in found.reports],
        tenants=[part(one) for one in found.tenants],
        columns=[
            c.ColumnOut(column=one.column, units=one.units, cells=one.cells, delta=one.delta, kinds=dict(one.kinds))
            for one in found.columns
        ],
        columns_of=found.read,
        largest=[diff(run.id, one) for one in found.largest],
    )


def _by_class(found: Mapping[UnitClass, int]) -> dict[str, int]:
    return {kind.value: count for kind, count in found.items()}


def part(found: Part) -> c.PartOut:
    counts = _by_class(found.counts)
    return c.PartOut(name=found.name, counts=counts, differing=found.harmful, noisy=found.noisy, total=found.total)


def heat(found: HeatMap) -> c.HeatOut:
    """Give the map of tenants and reports."""

    def cell(tenant: str, report: str) -> str | None:
        kind = found.cells.get((tenant, report))
        return None if kind is None else kind.value

    return c.HeatOut.model_validate(
        {
            "tenants": [part(one) for one in found.tenants],
            "reports": found.reports,
            "cells": [[cell(one.name, report) for report in found.reports] for one in found.tenants],
            "differing": found.differing,
            "whole": found.whole,
            "more_reports": found.more_reports,
        }
    )


def diff_detail(
    run_id: int,
    found: Compared,
    differences: Sequence[Mapping[str, Any]],
    noise: Noise | None,
    *,
    stored: int,
    following: str | None,
) -> c.DiffDetail:
    """Give a unit with all that its comparison found."""
    files = found.summary.get("results", [found.summary])
    cut = [file["truncated"] for file in files if file.get("truncated")]
    return c.DiffDetail.model_validate(
        _diff(run_id, found)
        | {
            "result": dict(found.summary),
            "differences": [dict(one) for one in differences],
            "found": sum(file.get("found", 0) for file in files),
            "stored": stored,
            "truncated": " ".join(cut) or None,
            "noise": None if noise is None else moves(noise),
            "next": following,
        }
    )


def moves(found: Noise) -> dict[str, Any]:
    """Give what moves in a unit."""
    return {
        "columns": list(found.columns),
        "whole": list(found.whole),
        "words": noise_words(found),
        "changed": found.changed,
        "examples": [dict(one) for one in found.examples],
    }


def noise(run_id: int, tally: NoiseTally | None, found: Sequence[Unstable], following: str | None) -> c.NoiseOut:
    """Give what two runs of the baseline differ in."""
    units = [
        moves(one.noise)
        | {
            "unit": one.unit,
            "class": one.kind.value,
            "noisy": one.noisy,
            "links": {"self": links.api_diff(run_id, one.unit), "page": links.diff(run_id, one.unit)},
        }
        for one in found
    ]
    counts = {"checked": 0, "unstable": 0, "noisy": 0} if tally is None else vars(tally)
    more = {"baseline_runs": 1 if tally is None else 2, "units": units, "next": following}
    return c.NoiseOut.model_validate(counts | more)


def latency(found: Latency) -> c.LatencyOut:
    """Give the comparison of durations as the API shows it."""
    return c.LatencyOut(
        ratio=found.ratio,
        floor=found.floor,
        legs=[
            c.LegTimesOut(
                name=one.name,
                hosts=list(one.hosts),
                started_at=None if one.started_at is None else datetime.fromtimestamp(one.started_at, UTC),
                seconds=one.seconds,
                reused_from=one.reused_from,
            )
            for one in found.legs
        ],
        units=found.units,
        baseline=found.baseline,
        candidate=found.candidate,
        count=found.count,
        slower=[
            c.SlowerOut(
                unit=one.unit,
                baseline=one.baseline,
                candidate=one.candidate,
                ratio=one.ratio,
                history=list(one.history),
                within_noise=one.within_noise,
            )
            for one in found.slower
        ],
        cautions=list(found.cautions),
    )


def group(found: GroupInRun, now: datetime) -> c.GroupOut:
    """Give a cause as the API shows it."""
    cause, stands = found.group.cause, found.stands
    return c.GroupOut.model_validate(
        {
            "key": found.group.key,
            "title": cause.title,
            "pattern": cause.pattern,
            "what": cause.what,
            "column": cause.column,
            "sign": cause.sign,
            "units": found.group.units,
            "count": found.group.count,
            "ratio": found.group.ratio,
            "offset": found.group.offset,
            "first": list(found.group.first),
            "accepted_units": stands.units,
            "accepted": [acceptance(one, now) for one in stands.held],
            "offered": [acceptance(one, now) for one in stands.offered],
        }
    )


def acceptance(found: Acceptance, now: datetime) -> c.AcceptanceOut:
    """Give what was accepted as the API shows it."""
    own = {"title": found.cause.title, "standing": found.standing(now).value, "last_day": found.last_day}
    return c.AcceptanceOut.model_validate(own | {name: value for name, value in vars(found).items() if name != "cause"})
