"""What compare runs found into the API's shapes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from jobs.noise import words as noise_words
from jobs.run import Run
from web import compare_schemas as c
from web import diffwords, links

if TYPE_CHECKING:
    from jobs.acceptances import GroupInRun, UnitCause
    from jobs.accepting import Acceptance
    from jobs.adapters.sql_noise import NoiseTally, Unstable
    from jobs.comparing import Compared, UnitClass
    from jobs.latency import Latency
    from jobs.noise import Noise
    from jobs.overview import HeatMap, Overview, Part


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
    causes: Sequence[UnitCause],
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
            "causes": [_unit_cause(one, datetime.now(UTC)) for one in causes],
            "next": following,
        }
    )


def _unit_cause(found: UnitCause, now: datetime) -> dict[str, Any]:
    cause = found.share.cause
    return {
        "key": found.group.key,
        "title": cause.title,
        "what": cause.what,
        "column": cause.column,
        "count": found.share.count,
        "units": found.group.units,
        "accepted": [acceptance(one, now) for one in found.by],
    }


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
            "parts": [{"key": one.key, "sign": one.cause.sign, "units": one.units} for one in found.group.parts],
            "accepted_units": stands.units,
            "accepted": [acceptance(one, now) for one in stands.held],
            "offered": [acceptance(one, now) for one in stands.offered],
        }
    )


def acceptance(found: Acceptance, now: datetime) -> c.AcceptanceOut:
    """Give what was accepted as the API shows it."""
    own = {"title": found.cause.title, "standing": found.standing(now).value, "last_day": found.last_day}
    return c.AcceptanceOut.model_validate(own | {name: value for name, value in vars(found).items() if name != "cause"})
