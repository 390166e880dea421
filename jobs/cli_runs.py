"""What an engineer does with runs: submit, list, show, units, resume, cancel, rerun."""

from __future__ import annotations

from typing import Any

import click

from jobs.api_client import ApiClient, Document
from jobs.cli_client import RUN_ID, json_option, wait_for, with_client
from jobs.cli_common import EXIT_USAGE, Failure
from jobs.cli_show import (
    ATTEMPT_HEAD,
    RUN_HEAD,
    attempt_row,
    columns,
    duration,
    folded,
    headline,
    plain,
    run_lines,
    run_row,
    say_json,
    say_lines,
    size,
    task_title,
)

STATES = ("queued", "running", "interrupted", "done", "failed", "errored", "cancelled")
VERDICTS = ("passed", "different")
RUNS_AT_ONCE = 200
UNITS_AT_ONCE = 1_000

wait_option = click.option(
    "--wait", is_flag=True, help="Wait for the end; exit code 0 passed, 1 failed, different or cancelled, 3 errored."
)


def accepted(client: ApiClient, run: Document, *, wait: bool, as_json: bool) -> None:
    """Tell of a run that was accepted, and wait for it when that is wanted."""
    if wait:
        click.echo(f"Run {run['id']}: {client.url}{run['links']['page']}", err=True)
        wait_for(client, run["id"], as_json=as_json)
    elif as_json:
        say_json(run)
    else:
        click.echo(f"{headline(run)}: {plain(run['project'])} {plain(run['ref'])} at {run['commit'][:10]}")
        click.echo(f"{client.url}{run['links']['page']}")


@click.command()
@click.argument("ref")
@click.option("--project", metavar="NAME", help="The project (may be left out when the server has only one).")
@click.option("--baseline", metavar="REF", help="Compare with this branch, tag or commit.")
@click.option("--compare", is_flag=True, help="Compare with the project's default baseline.")
@click.option("--merge-base", is_flag=True, help="Compare not with the baseline's tip, but with where REF left it.")
@click.option(
    "--fail-fast",
    metavar="N",
    type=click.IntRange(0),
    help="Stop when N units differ, whatever the branch says; 0 never.",
)
@click.option("--no-reuse", is_flag=True, help="Take nothing over that an earlier run of the baseline has finished.")
@click.option(
    "--noise",
    metavar="N",
    type=click.IntRange(1, 2),
    help="2: run the baseline twice, and leave out of the verdict what differs between both; 1: once, whatever the branch says.",
)
@click.option("--units", metavar="FILTER", help="Only the units that match.")
@click.option("--database", metavar="NAME", help="Another source than the project's.")
@click.option(
    "--baseline-database", metavar="NAME", help="Compare REF on this source with the same commit on --database."
)
@click.option("--snapshot", metavar="NAME", help="This snapshot of the database, not the newest.")
@click.option("--baseline-snapshot", metavar="NAME", help="The same of --baseline-database.")
@click.option("--note", metavar="TEXT", help="What could this change affect?")
@click.option("--priority", type=click.IntRange(-100, 100), help="Higher goes first (default 0).")
@click.option("--idempotency-key", metavar="KEY", help="The same key gives the same run for 24 hours.")
@wait_option
@json_option
@with_client
def submit(
    client: ApiClient,
    ref: str,
    project: str | None,
    idempotency_key: str | None,
    *,
    compare: bool,
    merge_base: bool,
    fail_fast: int | None,
    no_reuse: bool,
    noise: int | None,
    baseline_database: str | None,
    snapshot: str | None,
    baseline_snapshot: str | None,
    wait: bool,
    as_json: bool,
    **more: Any,
) -> None:
    """Verify a branch, tag or commit.

    REF is a branch, a tag, a full or abbreviated commit, or refs/pull/N/head; it is pinned to its commit now. With a
    baseline, both run on the same data, and each unit's outputs are compared.

    Example: seatrial submit --project ledger feature/new-rates --note "rounding of interest" --wait

    Example: seatrial submit --project ledger feature/new-rates --baseline v2.41.0 --wait

    Example: seatrial submit --project ledger v2.41.0 --baseline-database old_server --database new_server
    """
    body: dict[str, Any] = {"project": project or _only_project(client), "ref": ref}
    asked = (
        ("compare", compare or None),
        ("merge_base", merge_base or None),
        ("fail_fast", fail_fast),
        ("noise", noise),
        ("baseline_database", baseline_database),
        ("snapshot", snapshot),
        ("baseline_snapshot", baseline_snapshot),
    )
    options: dict[str, Any] = {name: value for name, value in asked if value is not None}
    options |= {"reuse": False} if no_reuse else {}
    body |= {"options": options} if options else {}
    body |= {name: value for name, value in more.items() if value is not None}
    accepted(client, client.post("/runs", body, key=idempotency_key), wait=wait, as_json=as_json)


def _only_project(client: ApiClient) -> str:
    known = [str(project["name"]) for project in client.get("/projects")["projects"]]
    if len(known) == 1:
        return known[0]
    named = f"Name one with --project: {', '.join(known)}" if known else "Add one to the server's seatrial.toml."
    raise Failure(f"The server has {len(known) or 'no'} projects. {named}", EXIT_USAGE)


@click.command("list")
@click.option("--project", metavar="NAME")
@click.option("--state", type=click.Choice((*STATES, *VERDICTS)), help="As the column STATE says it, or done.")
@click.option("--verdict", type=click.Choice(VERDICTS))
@click.option("--user", metavar="NAME")
@click.option("--text", metavar="TEXT", help="Search ref, commit, note and user.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most so many.")
@json_option
@with_client
def list_runs(client: ApiClient, limit: int, *, as_json: bool, **wanted: str | None) -> None:
    """List runs, newest first.

    Example: seatrial list --state failed --project ledger
    """
    if wanted["state"] in VERDICTS:
        if wanted["verdict"] not in (None, wanted["state"]):
            raise Failure("--state and --verdict name two verdicts, and a run has one: leave one out.", EXIT_USAGE)
        wanted |= {"state": None, "verdict": wanted["state"]}
    found: list[Document] = []
    for page in client.pages("/runs", limit=min(limit, RUNS_AT_ONCE), **wanted):
        found += page["runs"]
        if len(found) >= limit:
            break
    found = found[:limit]
    if as_json:
        say_json({"runs": found})
    elif found:
        say_lines(columns(RUN_HEAD, map(run_row, found)))
    else:
        click.echo(
            "No run matches." if any(wanted.values()) else "No runs yet. Start one: seatrial submit REF", err=True
        )


@click.command()
@click.argument("run", type=RUN_ID)
@json_option
@with_client
def show(client: ApiClient, run: int, *, as_json: bool) -> None:
    """Show a run: its state and why, its units, steps and tasks.

    Example: seatrial show 7
    """
    found = client.run(run)
    if as_json:
        say_json(found)
    else:
        say_lines(run_lines(found, client.url))


@click.command()
@click.argument("run", type=RUN_ID)
@json_option
@with_client
def attempts(client: ApiClient, run: int, *, as_json: bool) -> None:
    """List a run's attempts: by whom, how each ended, what it repeated.

    Example: seatrial attempts 7
    """
    found = client.get(f"/runs/{run}/attempts")
    if as_json:
        say_json(found)
    elif found["attempts"]:
        titles = {task["id"]: task_title(task) for task in client.run(run)["tasks"]}
        say_lines(columns(ATTEMPT_HEAD, [attempt_row(one, titles) for one in found["attempts"]]))
    else:
        click.echo("No attempt yet: no worker has begun it.", err=True)


@click.command()
@click.argument("run", type=RUN_ID)
@click.option("--state", type=click.Choice(("todo", "done", "failed")))
@click.option("--text", metavar="TEXT", help="Only units whose names contain it.")
@click.option("--leg", metavar="NAME", help="candidate or baseline (default: both).")
@json_option
@with_client
def units(client: ApiClient, run: int, *, as_json: bool, **wanted: str | None) -> None:
    """List a run's units.

    One a line: state, how long it took, size of its output, name, and why it failed.

    Example: seatrial units 7 --state failed
    """
    pages = client.pages(f"/runs/{run}/units", limit=UNITS_AT_ONCE, **wanted)
    if as_json:
        found = list(pages)
        say_json({"units": [unit for page in found for unit in page["units"]], "counts": found[0]["counts"]})
        return
    for page in pages:
        several = len(page["counts"]) > 1
        for unit in page["units"]:
            click.echo(_unit_line(unit, several=several))


def _unit_line(unit: Document, *, several: bool) -> str:
    name = f"{unit['leg']} {unit['unit']}" if several else unit["unit"]
    weight = size(unit["output"]["size"]) if unit["output"] else ""
    why = f"  {folded(unit['text'], '    ')}" if unit["text"] else ""
    return f"{unit['state']:<6}  {duration(unit['seconds']):>8}  {weight:>9}  {plain(name)}{why}"


@click.command()
@click.argument("run", type=RUN_ID)
@wait_option
@json_option
@with_client
def resume(client: ApiClient, run: int, *, wait: bool, as_json: bool) -> None:
    """Go on with a run at its first unfinished unit.

    On the same commit; what is finished is not done again.

    Example: seatrial resume 7 --wait
    """
    accepted(client, client.post(f"/runs/{run}/resume"), wait=wait, as_json=as_json)


@click.command()
@click.argument("run", type=RUN_ID)
@json_option
@with_client
def cancel(client: ApiClient, run: int, *, as_json: bool) -> None:
    """End a run.

    Its workspaces are asked to stop, then killed. It can be resumed later.

    Example: seatrial cancel 7
    """
    accepted(client, client.post(f"/runs/{run}/cancel"), wait=False, as_json=as_json)


@click.command()
@click.argument("run", type=RUN_ID)
@click.option("--different", is_flag=True, help="Only the units that differ, failed or are missing.")
@wait_option
@json_option
@with_client
def rerun(client: ApiClient, run: int, *, different: bool, wait: bool, as_json: bool) -> None:
    """Run the same commit again from its beginning, as a new run.

    Example: seatrial rerun 7 --wait
    """
    accepted(
        client,
        client.post(f"/runs/{run}/rerun", {"only": "different"} if different else None),
        wait=wait,
        as_json=as_json,
    )
