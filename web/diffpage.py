"""The pages of compare runs: what differs, seen from above, unit by unit, and cell by cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

from flask import Blueprint, Response, make_response, render_template
from pydantic import BaseModel, ConfigDict, Field

from jobs.acceptances import GroupInRun
from jobs.accepting import UNACCEPTABLE
from jobs.comparing import HARMFUL, Compared, UnitClass
from jobs.differences import MAP_TENANTS
from jobs.overview import DIFFERING as HARM
from jobs.overview import Wanted, distribution
from jobs.run import Run, Unit
from runner.errors import NotFound
from web import asking, charts, diffwords, links
from web import schemas as s

blueprint = Blueprint("diffs", __name__)

UNITS_A_PAGE = 100
CELLS_A_PAGE = 100
SLOWER = 50
UNSTABLE = 50  # units that move, on the tab

# What a filter names: one class, or those that speak against the candidate together.
DIFFERING = "differing"
NOISY = "noisy"  # different by what moves in the baseline too
ClassFilter = Literal[
    "all",
    "differing",
    "same",
    "equivalent",
    "different",
    "baseline_failed",
    "candidate_failed",
    "both_failed",
    "missing",
    "new",
    "noisy",
]


class _Page(BaseModel):
    """Ignores what it does not know: people keep links for long."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class DifferencesQuery(_Page):
    kind: ClassFilter | None = Field(None, alias="class")
    text: s.Name | None = None
    tenant: str | None = Field(None, max_length=300)
    report: s.Name | None = None
    group: s.Name | None = None
    accepted: Literal["yes", "no"] | None = None
    sort: Literal["position", "delta"] = "position"
    after: int | None = Field(None, ge=-1, le=s.MAX_ID)
    delta: float | None = Field(None, allow_inf_nan=False)
    map: int = Field(0, ge=0, le=s.MAX_ID)
    seen: int | None = Field(None, ge=0, le=s.MAX_ID)

    def kept(self, **other: object) -> dict[str, object]:
        """Give what an address of the same list has."""
        sort = self.sort if self.sort != "position" else None
        values: dict[str, object] = {"class": self.kind, "text": self.text, "sort": sort}
        values |= {"tenant": self.tenant, "report": self.report, "group": self.group, "accepted": self.accepted}
        return {"tab": "differences"} | values | other


class GroupsQuery(_Page):
    shown: str = Field("", max_length=2_000)


class UnitQuery(_Page):
    column: s.Name | None = None
    change: Literal["value", "type", "null", "format", "removed", "added"] | None = None
    file: s.Name | None = None
    after: int = Field(0, ge=0, le=s.MAX_ID)


def tab(run: Run, asked: DifferencesQuery) -> dict[str, object]:
    """Gather what the tab "Differences" shows."""
    service = asking.service()
    found = service.overview(run.id)
    kind = asked.kind or (DIFFERING if found.harmful or not run.state.final else "all")
    values = _summary(run, asked, kind)
    heat = service.heat_map(run.id, first=asked.map)
    following = asked.map + MAP_TENANTS
    values |= _groups(run) | {
        "heat": heat,
        "map_next": links.run(run.id, **asked.kept(map=following)) if heat.differing > following else None,
        "map_first": links.run(run.id, **asked.kept()) if asked.map else None,
    }
    tally = service.noise(run.id)
    values |= {"noise": tally, "unstable": service.unstable(run.id, limit=UNSTABLE) if tally is not None else []}
    return values | units(run, asked, kind)


def _groups(run: Run, shown: str = "") -> dict[str, object]:
    """Gather the causes; those that are `shown` already keep their places."""
    places = {key: place for place, key in enumerate(shown.split(","))}

    def place(one: GroupInRun) -> tuple[int, bool]:
        # What somebody has to look at comes first; sorting keeps the order of size.
        return places.get(one.group.key, len(places)), one.stands.units == one.group.units

    groups = sorted(asking.service().groups(run.id), key=place)
    return {
        "groups": groups,
        "group_titles": {one.group.key: one.group.cause.title for one in groups},
        "unacceptable": UNACCEPTABLE,
        "now": datetime.now(UTC),
    }


def _summary(run: Run, asked: DifferencesQuery, kind: str) -> dict[str, object]:
    """Gather the part of the tab that changes while the run goes on; the number of new ones is the last part."""
    service = asking.service()
    found = service.overview(run.id)
    now = service.count_compared(run.id, _wanted(asked, kind))
    return {
        "found": found,
        "chosen": kind,
        "chips": _chips(run, asked, kind),
        "count": now,
        "fresh": max(0, now - asked.seen) if asked.seen is not None else 0,
        "here": links.run(run.id, **asked.kept()),
        "poll": f"/runs/{run.id}/differences/live"
        + links.query(**asked.kept(tab=None, seen=now if asked.seen is None else asked.seen)),
    }


def _wanted(asked: DifferencesQuery, kind: str) -> Wanted:
    kinds = {"all": (), DIFFERING: HARMFUL, NOISY: (UnitClass.DIFFERENT,)}.get(kind)
    accepted = None if asked.accepted is None else asked.accepted == "yes"
    noisy = {DIFFERING: False, NOISY: True}.get(kind)
    kinds = (UnitClass(kind),) if kinds is None else kinds
    return Wanted(kinds, asked.text or "", asked.tenant, asked.report, asked.group, accepted, noisy)


class Chip(BaseModel):
    """A filter with its count."""

    name: str
    label: str
    count: int
    href: str
    chosen: bool


def _chips(run: Run, asked: DifferencesQuery, kind: str) -> list[Chip]:
    found = asking.service().overview(run.id)

    def chip(name: str, label: str, count: int) -> Chip:
        href = links.run(run.id, **(asked.kept() | {"class": name}))
        return Chip(name=name, label=label, count=count, href=href, chosen=kind == name)

    chips = [chip("all", "All compared", found.compared), chip(DIFFERING, "Differing", found.harmful)]
    for one, label in diffwords.CLASSES.items():
        count = found.counts.get(one, 0)
        # While more comes, a chip that appears would push the others.
        if count or not run.state.final or kind == one:
            chips.append(chip(one.value, label, count))
    if found.noisy or kind == NOISY:
        chips.append(chip(NOISY, "Noise alone", found.noisy))
    return chips


def units(run: Run, asked: DifferencesQuery, kind: str) -> dict[str, object]:
    """Gather a page of the list of units."""
    service, wanted = asking.service(), _wanted(asked, kind)
    if asked.sort == "delta":
        after = (asked.delta, asked.after) if asked.delta is not None and asked.after is not None else None
        rows = service.by_delta(run.id, wanted, after=after, limit=UNITS_A_PAGE + 1)
    else:
        rows = service.by_position(run.id, wanted, after=asked.after, limit=UNITS_A_PAGE + 1)
    following = None
    if len(rows) > UNITS_A_PAGE:
        rows = rows[:UNITS_A_PAGE]
        largest = rows[-1].largest if asked.sort == "delta" else None
        following = links.run(run.id, **asked.kept(after=rows[-1].position, delta=largest))
    return {
        "rows": rows,
        "next": following,
        "first": links.run(run.id, **asked.kept()) if asked.after is not None else None,
        "by_position": links.run(run.id, **asked.kept(sort=None)),
        "by_delta": links.run(run.id, **asked.kept(sort="delta")),
    }


@blueprint.get("/runs/<id:run>/differences/live")
def live(run: int) -> str:
    """Give the counts again, and how many units came since the list was shown."""
    asked = asking.query(DifferencesQuery)
    found = asking.service().run(run)
    kind = asked.kind or DIFFERING
    return render_template("_diff_summary.html", run=found, wanted=asked, **_summary(found, asked, kind))


@blueprint.get("/runs/<id:run>/differences/groups")
def groups_found(run: int) -> str:
    """Give the causes again; `shown`: the keys of those that the page shows, in their order."""
    asked = asking.query(GroupsQuery)
    found = asking.service().run(run)
    return render_template("_groups_found.html", run=found, live=True, **_groups(found, asked.shown))


@blueprint.get("/runs/<id:run>/differences/durations")
def durations(run: int) -> str:
    """Give the picture of durations, which takes longer than the rest of the tab."""
    service = asking.service()
    found = service.latency(run, limit=SLOWER)
    shown = service.timed(run, found.units)
    drawn = charts.scatter(shown, found.ratio, found.floor)
    return render_template("_durations.html", run=service.run(run), found=found, shown=len(shown), drawn=drawn)


# ---- one unit ----------------------------------------------------------------------------------------------


@blueprint.get("/runs/<id:run>/diffs/<unit:unit>")
def unit(run: int, unit: str) -> Response:
    """Show what became of a unit: why, both sides, and its differences cell by cell."""
    asked = asking.query(UnitQuery)
    service = asking.service()
    job = service.run(run)
    found, differences = service.differences(run, unit)
    chosen = select(differences, column=asked.column, change=asked.change, file=asked.file)
    page = chosen[asked.after : asked.after + CELLS_A_PAGE]
    kept = asked.model_dump(exclude={"after"}, exclude_none=True)
    following = asked.after + len(page)
    kinds = HARMFUL if found.harmful else (found.kind,)
    before, after = service.beside(run, found.position, kinds, noisy=found.noisy if found.kind in HARMFUL else None)
    parts = diffwords.files(found.summary)
    values: dict[str, object] = {
        "asked": asked,
        "run": job,
        "one": found,
        "badge": diffwords.badge(found.kind),
        "why": diffwords.why(found),
        "sides": [(leg.name, _side(run, leg.name, unit)) for leg in job.legs],
        "parts": parts,
        "several": "results" in found.summary,
        "cut": [part["truncated"] for part in parts if part.get("truncated")],
        "columns": _columns(parts),
        "changes": _changes(parts, differences),
        "cells": page,
        "chosen": len(chosen),
        "stored": len(differences),
        "counted": sum(part.get("found", 0) for part in parts),
        "kept": kept,
        "next": links.diff(run, unit, **kept, after=following) if following < len(chosen) else None,
        "first": links.diff(run, unit, **kept) if asked.after else None,
        "beside": (before, after),
        "noise": service.noise_of(run, unit),
        "causes": service.unit_causes(run, unit),
        "unacceptable": UNACCEPTABLE,
        "now": datetime.now(UTC),
        "bars": charts.bars(distribution(chosen)),
    }
    return make_response(render_template("diff.html", **values))


def select(
    differences: Sequence[Mapping[str, Any]], *, column: str | None, change: str | None, file: str | None
) -> list[Mapping[str, Any]]:
    """Choose from stored differences, in their order."""
    return [
        one
        for one in differences
        if (column is None or one["column"] == column)
        and (change is None or one["change"] == change)
        and (file is None or one.get("file") == file)
    ]


def _side(run: int, leg: str, unit: str) -> Unit | None:
    """Give a unit on one leg; None where it is not listed."""
    try:
        return asking.service().unit(run, leg, unit)
    except NotFound:
        return None


def _columns(parts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Add up the changes of each column over the files of a unit, most changed first."""
    found: dict[str, dict[str, Any]] = {}
    for part in parts:
        for change in part.get("changes", ()):
            kept = found.setdefault(
                change["column"], {"column": change["column"], "changed": 0, "tolerated": 0, "delta": None}
            )
            kept["changed"] += change["changed"]
            kept["tolerated"] += change["tolerated"]
            if isinstance(change["delta"], int | float):
                kept["delta"] = max(kept["delta"] or 0.0, abs(change["delta"]))
    return sorted(found.values(), key=lambda one: (-one["changed"], -one["tolerated"], one["column"]))


def _changes(parts: Sequence[Mapping[str, Any]], differences: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count the differences of each kind; exact where the comparison counted them, else what is stored."""
    counts: dict[str, int] = {}
    for part in parts:
        for change in part.get("changes", ()):
            for kind, count in change["kinds"].items():
                counts[kind] = counts.get(kind, 0) + count
        for kind in ("added", "removed"):
            if count := (part.get("rows") or {}).get(kind, 0):
                counts[kind] = counts.get(kind, 0) + count
    for one in differences:
        counts.setdefault(one["change"], 0)
    return {kind: counts[kind] for kind in diffwords.CHANGES if kind in counts}


def worst(run: Run, limit: int) -> list[Compared]:
    """Give the first differing units of a run that nobody accepted."""
    if run.units_accepted >= run.units_different:
        return []
    return asking.service().by_position(run.id, replace(HARM, accepted=False), limit=limit)
