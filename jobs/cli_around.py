"""What a server offers: projects and their refs."""

from __future__ import annotations

import click

from jobs.api_client import ApiClient, part
from jobs.cli_client import json_option, with_client
from jobs.cli_show import columns, say_json, say_lines


@click.command()
@json_option
@with_client
def projects(client: ApiClient, *, as_json: bool) -> None:
    """List the server's projects.

    Example: seatrial projects
    """
    found = client.get("/projects")
    if as_json:
        say_json(found)
        return
    rows = [(p["name"], p["pool"], p["database"] or "-", p["repository"]) for p in found["projects"]]
    say_lines(columns(("PROJECT", "POOL", "DATABASE", "REPOSITORY"), rows))


@click.command()
@click.argument("project")
@click.argument("text", required=False)
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True, help="At most so many.")
@json_option
@with_client
def refs(client: ApiClient, project: str, text: str | None, limit: int, *, as_json: bool) -> None:
    """List the branches and tags of a project.

    Those that the server's mirror knows, newest first; TEXT is a part of their names.

    Example: seatrial refs ledger feature/
    """
    found = client.get(f"/projects/{part(project)}/refs", q=text, limit=limit)
    if as_json:
        say_json(found)
    elif found["refs"]:
        rows = [(ref["commit"][:10], ref["kind"], ref["name"]) for ref in found["refs"]]
        say_lines(columns(("COMMIT", "KIND", "NAME"), rows))
    else:
        click.echo("The mirror knows none. It is filled by the first submission; any ref can be submitted.", err=True)
