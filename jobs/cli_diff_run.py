"""`seatrial diff RUN [UNIT]`: what differs in a compare run, as the server found it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

import click

from jobs.api_client import ApiClient, Document, part
from jobs.cli_client import exit_code
from jobs.cli_common import EXIT_FAILED, EXIT_PASSED, EXIT_USAGE
from jobs.cli_files import keep
from jobs.cli_show import FINAL, columns, plain, say_json, say_lines
from jobs.comparing import HARMLESS, UnitClass

PAGE = 1_000  # the most that the server gives at once


def tell_run(client: ApiClient, run: int, *, as_json: bool, limit: int) -> int:
    """Tell a run's differences: classes, groups, then units; give the exit code of what is known."""
    found = client.run(run)
    above = client.get(f"/runs/{run}/comparison")
    groups = client.get(f"/runs/{run}/groups")["groups"]
    size = max(1, min(limit, PAGE))
    pages = client.pages(f"/runs/{run}/diffs", **{"class": "differing", "limit": size})
    units = list(islice(chain.from_iterable(page["units"] for page in pages), limit)) if limit else []
    if as_json:
        say_json({"run": found, "comparison": above, "groups": groups, "units": units})
    else:
        say_lines(_run_lines(found, above, groups, units))
    if above["differing"]:
        return EXIT_FAILED
    if found["state"] not in FINAL:
        click.echo(f"Run {run} goes on: nothing differs so far, units left to compare: {above['left']}.", err=True)
        return EXIT_USAGE
    return exit_code(found)


def _run_lines(run: Document, above: Document, groups: list[Document], units: list[Document]) -> Iterator[str]:
    standing = run["verdict"] or run["state"]
    yield f"{standing}: run {run['id']}, {plain(run['project'])} {' against '.join(_refs(run))}"
    yield f"  {plain(above['verdict'])}"
    if above["left"]:
        yield f"  {above['left']} not compared"
    if above["counts"]:
        yield ""
        yield from columns(("CLASS", "UNITS"), above["counts"].items())
    if groups:
        yield ""
        rows = [(one["units"], one["count"], _constant(one), one["title"]) for one in groups]
        yield from columns(("UNITS", "CELLS", "BY", "CAUSE"), rows)
    if units:
        yield ""
        yield from columns(("CLASS", "UNIT", "ROWS", "LARGEST", "RULE"), map(_unit_row, units))
    if (more := above["differing"] - len(units)) > 0:
        yield f"{more} more; --limit N tells more of them"


def _refs(run: Document) -> list[str]:
    order = {"candidate": 0, "baseline": 1}
    legs = sorted((leg for leg in run["legs"] if leg["name"] in order), key=lambda leg: order[leg["name"]])
    return [f"{plain(leg['ref'])} = {leg['commit'][:10]}" for leg in legs]


def _constant(group: Document) -> str:
    """Write the one number that explains a group: ×1.005, +0.5; nothing when there is none."""
    if group["ratio"] is not None:
        return f"×{group['ratio']:.6g}"
    return "" if group["offset"] is None else f"{group['offset']:+.6g}"


def _unit_row(one: Document) -> tuple[object, ...]:
    rows = one["rows"] or {}
    changed = ", ".join(f"{rows[what]} {what}" for what in ("changed", "added", "removed") if rows.get(what))
    return one["class"], one["unit"], changed, _number(one["largest"]), one["rule"] or ""


def tell_unit(client: ApiClient, run: int, unit: str, *, as_json: bool, limit: int) -> int:
    """Tell a unit's differences, the largest first; exit code 1 when it counts as different.

    One that is different by noise alone, or of which all is accepted, does not.
    """
    asked = {"limit": max(1, min(limit, PAGE))}
    pages = client.pages(f"/runs/{run}/diffs/{part(unit, slashes=True)}", **asked)
    first = next(pages)
    listed = chain(first["differences"], chain.from_iterable(page["differences"] for page in pages))
    found = first | {"differences": list(islice(listed, limit)), "next": None}
    if as_json:
        say_json(found)
    else:
        say_lines(_unit_lines(run, found))
    harmless = UnitClass(found["class"]) in HARMLESS or found["noisy"] or found["accepted"]
    return EXIT_PASSED if harmless else EXIT_FAILED


def _unit_lines(run: int, found: Document) -> Iterator[str]:
    rows = found["rows"] or {}
    yield f"{found['class']}{_standing(found)}: {plain(found['unit'])} of run {run}"
    if counted := ", ".join(f"{rows[what]} {what}" for what in ("changed", "added", "removed", "same") if what in rows):
        yield f"  rows      {counted}"
    told = {"rule": found["rule"], "lenient": ", ".join(found["leniencies"]), "largest": _number(found["largest"])}
    yield from (f"  {name:<9} {plain(value)}" for name, value in told.items() if value)
    if found["noise"] is not None:
        only = ", and the candidate differs by nothing else" if found["noisy"] else ""
        yield f"  noise     between two runs of the baseline: {plain(found['noise']['words'])}{only}"
    for cause in found["causes"]:
        yield f"  cause     {plain(cause['title'])}{_accepted(cause)}"
    yield from (f"  note      {plain(note)}" for note in found["notes"])
    if found["truncated"]:
        yield f"  cut       {plain(found['truncated'])}"
    if found["differences"]:
        yield ""
        yield from columns(
            ("CHANGE", "KEY", "COLUMN", "BASELINE", "CANDIDATE", "DELTA"), map(_cell, found["differences"])
        )
    if (more := found["found"] - len(found["differences"])) > 0:
        yield f"{more} more; --limit N tells more of the {found['stored']} that are stored"


def _standing(found: Document) -> str:
    """Say why a unit that differs does not count as different; nothing when it does."""
    if found["noisy"]:
        return ", but by noise alone"
    if not found["accepted"]:
        return ""
    names = dict.fromkeys(one["name"] for cause in found["causes"] for one in cause["accepted"])
    return f", and accepted as {', '.join(plain(name) for name in names)}"


def _accepted(cause: Document) -> str:
    """Say by which name a cause is accepted, by whom and until when."""
    by = [f"{plain(one['name'])} (by {plain(one['made_by'])}, until {one['last_day']})" for one in cause["accepted"]]
    return f"; accepted as {', '.join(by)}" if by else ""


def _cell(one: Document) -> tuple[object, ...]:
    key = " | ".join("null" if piece is None else str(piece) for piece in one["key"])
    place = f"{one['file']}: {key}" if one.get("file") else key
    return one["change"], place, one["column"] or "", _side(one["a"]), _side(one["b"]), _number(one["delta"])


def _side(text: str | None) -> str:
    return "" if text is None else text


def _number(value: float | str | None) -> str:
    return f"{value:.10g}" if isinstance(value, int | float) else value or ""


def fetch(client: ApiClient, run: int, unit: str, form: str, target: str | None) -> None:
    """Fetch a unit's stored differences as a file: here under its own name, or as `target`."""
    with client.stream(f"/runs/{run}/units/{part(unit, slashes=True)}/differences.{form}") as answer:
        keep(answer, target or ".")
