"""A compare run as one file: HTML that needs nothing else, or Markdown for a pull request."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, render_template, request

from jobs.comparing import Compared
from jobs.overview import DIFFERING, HeatMap, Overview
from jobs.run import Run
from runner.errors import Conflict
from web import asking, diffwords, present
from web import queries as q
from web.files import disposition
from web.present import Badge

if TYPE_CHECKING:
    from jobs.acceptances import GroupInRun
    from jobs.adapters.sql_noise import NoiseTally, Unstable
    from jobs.service import Service

blueprint = Blueprint("report", __name__)

UNITS = 200
UNITS_IN_SHORT = 20
CELLS = 5  # the largest differences of a unit

# The file may be kept and opened anywhere: it loads nothing, runs nothing, and its only style is its own.
POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Entry:
    """A differing unit with its largest differences."""

    unit: Compared
    why: str
    cells: list[dict[str, Any]]
    more: int


@dataclass(frozen=True)
class Report:
    """What a report is made of."""

    run: Run
    badge: Badge
    words: str
    found: Overview
    heat: HeatMap
    entries: list[Entry]
    more: int
    groups: list[GroupInRun]
    now: datetime
    noise: NoiseTally | None
    unstable: list[Unstable]


def gather(service: Service, run: int, units: int) -> Report:
    """Read what a report says; raises NotFound, and Conflict while the run goes on or when it compares nothing."""
    found = service.run(run)
    overview = service.overview(run)
    if not found.state.final:
        raise Conflict(
            f"Run {run} goes on.", field="run", value=str(run), remedy="Its report is there when it has ended."
        )
    entries = []
    for one in service.by_position(run, DIFFERING, limit=units):
        _, cells = service.differences(run, one.unit) if one.rows else (one, [])
        entries.append(Entry(one, diffwords.why(one), cells[:CELLS], max(0, len(cells) - CELLS)))
    words = diffwords.verdict(overview.counts, found, overview.noisy)
    if found.reason is not None:
        words += f". {found.reason.text}"
    return Report(
        run=found,
        badge=present.badge(found),
        words=words,
        found=overview,
        heat=service.heat_map(run),
        entries=entries,
        more=max(0, overview.harmful - len(entries)),
        groups=service.groups(run),
        now=datetime.now(UTC),
        noise=service.noise(run),
        unstable=service.unstable(run, limit=units),
    )


@blueprint.get("/runs/<id:run>/report.html")
def html(run: int) -> Response:
    """Send the report of a compare run as one HTML file that needs nothing else."""
    asking.query(q.NoQuery)
    report = gather(asking.service(), run, UNITS)
    response = Response(render_template("report.html", report=report, address=request.host_url.rstrip("/")))
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Content-Disposition"] = disposition(f"run-{run}.html", "inline")
    return response


@blueprint.get("/runs/<id:run>/report.md")
def markdown(run: int) -> Response:
    """Send the summary of a compare run as Markdown, for a pull request."""
    asking.query(q.NoQuery)
    report = gather(asking.service(), run, UNITS_IN_SHORT)
    text = render_template("report.md", report=report, address=request.host_url.rstrip("/"), md=escape)
    response = Response(text, mimetype="text/markdown")
    response.headers["Content-Disposition"] = disposition(f"run-{run}.md", "inline")
    return response


def escape(text: object) -> str:
    """Let a text of a branch be only a text in a table of Markdown."""
    found = " ".join(str(text).split())
    for letter in "\\`*_{}[]<>#|@~!":
        found = found.replace(letter, f"\\{letter}" if letter not in "<>@" else f"&#{ord(letter)};")
    return found if len(found) <= 300 else f"{found[:299]}…"
