"""Groups of differences on the command line: list them, accept one, withdraw that, list what a project accepts."""

from __future__ import annotations

from typing import Any

import click

from jobs.api_client import ApiClient, Document, part
from jobs.cli_client import RUN_ID, json_option, with_client
from jobs.cli_show import columns, headline, plain, say_json, say_lines

GROUP_HEAD = ("KEY", "UNITS", "BY", "ACCEPTED", "WHAT DIFFERS")
ACCEPTANCE_HEAD = ("STANDS", "NAME", "BY", "RUN", "KEY", "UNTIL", "WHAT DIFFERS", "REASON")


@click.command()
@click.argument("run", type=RUN_ID)
@json_option
@with_client
def groups(client: ApiClient, run: int, *, as_json: bool) -> None:
    """List the causes of a compare run's differences, those of most units first.

    Example: seatrial groups 7
    """
    found = client.get(f"/runs/{run}/groups")
    if as_json:
        say_json(found)
    elif found["groups"]:
        rows = [(g["key"], g["units"], change(g), _accepted(g), g["title"]) for g in found["groups"]]
        say_lines(columns(GROUP_HEAD, rows))
    else:
        click.echo("Nothing differs.", err=True)


@click.command()
@click.argument("run", type=RUN_ID)
@click.argument("key")
@click.option("--name", metavar="NAME", help="By which others know it.")
@click.option("--reason", metavar="TEXT", help="Why the difference is right.")
@click.option("--expires", metavar="DAYS|DATE", help="Until when: 90d, or the last day, 2027-02-28 (default 90d).")
@json_option
@with_client
def accept(client: ApiClient, run: int, key: str, *, as_json: bool, **asked: str | None) -> None:
    """Accept a group of differences, in this run and in later ones of its project.

    Without name, reason and expiry, what the project accepted since the run was compared is taken over. KEY is one of
    `seatrial groups RUN`.

    Example: seatrial accept 7 1f6b0c9a2d3e4f50 --name "New tax rate" --reason "The law changed" --expires 90d
    """
    body = {name: value for name, value in asked.items() if value is not None}
    _say(client.post(f"/runs/{run}/groups/{part(key)}/accept", body), as_json=as_json)


@click.command()
@click.argument("run", type=RUN_ID)
@click.argument("key")
@json_option
@with_client
def withdraw(client: ApiClient, run: int, key: str, *, as_json: bool) -> None:
    """Let an accepted group count as different again, in this run and in later ones.

    Example: seatrial withdraw 7 1f6b0c9a2d3e4f50
    """
    _say(client.post(f"/runs/{run}/groups/{part(key)}/withdraw"), as_json=as_json)


@click.command()
@click.argument("project")
@json_option
@with_client
def acceptances(client: ApiClient, project: str, *, as_json: bool) -> None:
    """List what a project accepts, also what expired or was withdrawn.

    Example: seatrial acceptances ledger
    """
    found = client.get(f"/projects/{part(project)}/acceptances")
    if as_json:
        say_json(found)
    elif found["acceptances"]:
        say_lines(columns(ACCEPTANCE_HEAD, map(_row, found["acceptances"])))
    else:
        click.echo("Nothing is accepted. Accept a group: seatrial accept RUN KEY", err=True)


def change(found: Document) -> str:
    """Write the one number that explains a group of numbers."""
    parts = [] if found["ratio"] is None else [f"x {found['ratio']:.6g}"]
    return " or ".join(parts if found["offset"] is None else [*parts, f"{found['offset']:+.6g}"])


def _accepted(group: Document) -> str:
    if not group["accepted"]:
        return "for later runs" if group["offered"] else "-"
    return f"{group['accepted_units']} as {', '.join(one['name'] for one in group['accepted'])}"


def _row(one: Document) -> tuple[Any, ...]:
    who = f"{one['made_by']}, withdrawn by {one['withdrawn_by']}" if one["withdrawn_by"] else one["made_by"]
    what = f"{one['title']} {change(one)}".strip()
    until = one["last_day"]
    return one["standing"], one["name"], who, one["run"], one["key"], until, what, one["reason"]


def _say(found: Document, *, as_json: bool) -> None:
    if as_json:
        say_json(found)
        return
    one = found["acceptance"]
    did = f"withdrawn by {one['withdrawn_by']}" if one["withdrawn_at"] else f"accepted until {one['last_day']}"
    click.echo(f"{plain(one['name'])} ({plain(one['title'])}): {plain(did)}")
    click.echo(headline(found["run"]))
