"""The JSON API of compare runs: the run from above, its units, and what differs in them."""

from __future__ import annotations

import json
from collections.abc import Iterator

from flask import Blueprint, Response

from jobs.comparing import HARMFUL, UnitClass
from jobs.overview import Wanted
from web import asking, compare_shapes, diffcsv, links
from web import compare_schemas as c
from web import queries as q
from web.api import answer
from web.diffpage import select
from web.diffwords import files
from web.files import download

blueprint = Blueprint("diffapi", __name__)

UNITS_AT_ONCE = 1_000


def wanted(asked: q.DiffsQuery | q.DiffsFileQuery) -> Wanted:
    """Give the store's filter of a query."""
    kinds: tuple[UnitClass, ...] = ()
    if asked.kind == "differing":
        kinds = HARMFUL
    elif asked.kind is not None and asked.kind != "noisy":
        kinds = (UnitClass(asked.kind),)
    noisy = {"differing": False, "noisy": True}.get(asked.kind or "")
    return Wanted(kinds, asked.text or "", asked.tenant, asked.report, asked.group, asked.accepted, noisy)


@blueprint.get("/runs/<id:run>/comparison")
def comparison(run: int) -> Response:
    """Sum a compare run up: classes, the worst reports, tenants and columns, the largest deltas."""
    asking.query(q.NoQuery)
    return answer(compare_shapes.comparison(asking.service().run(run), asking.service().overview(run)))


@blueprint.get("/runs/<id:run>/comparison/map")
def heat(run: int) -> Response:
    """Show the classes of a compare run's units by tenant and report."""
    asked = asking.query(q.HeatQuery)
    return answer(compare_shapes.heat(asking.service().heat_map(run, first=asked.first, limit=asked.limit)))


@blueprint.get("/runs/<id:run>/diffs")
def diffs(run: int) -> Response:
    """List what became of a compare run's units."""
    asked = asking.query(q.DiffsQuery)
    service = asking.service()
    if asked.sort == "delta":
        after = None if asked.after is None or asked.delta is None else (asked.delta, asked.after)
        found = service.by_delta(run, wanted(asked), after=after, limit=asked.limit)
    else:
        found = service.by_position(run, wanted(asked), after=asked.after, limit=asked.limit)
    following = None
    if len(found) == asked.limit:
        kept = asked.model_dump(exclude={"after", "delta"}, exclude_defaults=True, by_alias=True)
        largest = found[-1].largest if asked.sort == "delta" else None
        following = links.api_run(run, "/diffs", **kept, after=found[-1].position, delta=largest)
    tally = service.comparison(run)
    body = c.DiffsOut(
        units=[compare_shapes.diff(run, one) for one in found],
        counts={kind.value: count for kind, count in tally.counts.items()},
        left=tally.left,
        next=following,
    )
    return answer(body, headers={"Link": f'<{following}>; rel="next"'} if following else None)


@blueprint.get("/runs/<id:run>/diffs.csv")
def diffs_file(run: int) -> Response:
    """Send what became of a compare run's units as CSV; what a spreadsheet would calculate begins with an apostrophe."""
    asked = asking.query(q.DiffsFileQuery)
    service = asking.service()
    first = service.by_position(run, wanted(asked), limit=UNITS_AT_ONCE)

    def pieces() -> Iterator[bytes]:
        yield diffcsv.units_head()
        found = first
        while found:
            lines = []
            for one in found:
                rule = next((str(file["rule"]) for file in files(one.summary) if file.get("rule")), "")
                rows = one.summary.get("rows") or {}
                lines.append(diffcsv.unit_line(one.unit, one.kind.value, rows, one.largest, rule, one.seconds))
            yield b"".join(lines)
            found = service.by_position(run, wanted(asked), after=found[-1].position, limit=UNITS_AT_ONCE)

    return download(pieces(), f"run-{run}-units.csv", "text/csv")


@blueprint.get("/runs/<id:run>/diffs/<unit:unit>")
def diff(run: int, unit: str) -> Response:
    """Show what became of a unit of a compare run, with its differences, the largest first."""
    asked = asking.query(q.DiffQuery)
    found, differences = asking.service().differences(run, unit)
    chosen = select(differences, column=asked.column, change=asked.change, file=asked.file)
    page = chosen[asked.after : asked.after + asked.limit]
    following = None
    if asked.after + len(page) < len(chosen):
        kept = asked.model_dump(exclude={"after"}, exclude_none=True)
        following = links.api_diff(run, unit, **kept, after=asked.after + len(page))
    noise = asking.service().noise_of(run, unit)
    found_causes = asking.service().unit_causes(run, unit)
    return answer(
        compare_shapes.diff_detail(run, found, page, noise, found_causes, stored=len(differences), following=following)
    )


@blueprint.get("/runs/<id:run>/noise")
def noise(run: int) -> Response:
    """List the units of a compare run that move between two runs of its baseline."""
    asked = asking.query(q.NoiseQuery)
    service = asking.service()
    tally = service.noise(run)
    found = service.unstable(run, after=asked.after, limit=asked.limit)
    following = None
    if len(found) == asked.limit:
        following = links.api_run(run, "/noise", after=found[-1].position, limit=asked.limit)
    return answer(
        compare_shapes.noise(run, tally, found, following),
        headers={"Link": f'<{following}>; rel="next"'} if following else None,
    )


@blueprint.get("/runs/<id:run>/units/<unit:unit>/differences.<any(csv,json,parquet):form>")
def diff_file(run: int, unit: str, form: str) -> Response:
    """Send a unit's stored differences as a file; in CSV what a spreadsheet would calculate begins with an apostrophe."""
    asked = asking.query(q.DiffFileQuery)
    _, differences = asking.service().differences(run, unit)
    chosen = select(differences, column=asked.column, change=asked.change, file=asked.file)
    name = f"run-{run}-{unit.replace('/', '-')}.{form}"
    if form == "csv":
        return download(diffcsv.lines(chosen), name, "text/csv")
    if form == "json":
        return download(iter([json.dumps(chosen).encode()]), name, "application/json")
    from runner.adapters.parquet_writer import parquet_of  # half a second that few requests need

    return download(iter([parquet_of(chosen)]), name, "application/vnd.apache.parquet")
