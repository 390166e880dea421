"""`seatrial report`: a compare run as one file."""

from __future__ import annotations

import click

from jobs.api_client import ApiClient
from jobs.cli_client import RUN_ID, with_client
from jobs.cli_files import keep


@click.command()
@click.argument("run", type=RUN_ID)
@click.option(
    "--format",
    "form",
    type=click.Choice(("html", "md")),
    help="One HTML file, or Markdown for a pull request (default: by the name after -o, else html).",
)
@click.option("-o", "--output", "target", metavar="FILE|DIR", help="Where to (default: standard output).")
@with_client
def report(client: ApiClient, run: int, form: str | None, target: str | None) -> None:
    """Write the report of a compare run as one file.

    The run must have ended. The HTML file needs nothing else: no server, no script, no network.

    Example: seatrial report 7 --format md | gh pr comment 42 --body-file -
    """
    chosen = form or ("md" if (target or "").endswith((".md", ".markdown")) else "html")
    with client.stream(f"/runs/{run}/report.{chosen}") as answer:
        keep(answer, target or "-")
