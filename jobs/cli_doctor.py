"""`seatrial doctor`: look at everything that Seatrial needs, and say how to mend it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.cli_client import json_option
from jobs.cli_common import EXIT_INFRASTRUCTURE, EXIT_PASSED, pass_config
from jobs.cli_show import plain, say_json, say_lines
from jobs.doctor import Finding, Level, counted, healthy
from jobs.doctor_facts import Look, looks_at_installation, looks_at_machine, looks_at_pools

STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}
# Where no terminal says how wide it is: logs and pipes take long lines.
PIPE_WIDTH = 200


@click.command()
@click.option("--aws", is_flag=True, help="Look at the machines of EC2 pools alone, and try each right by a dry run.")
@json_option
@pass_config
def doctor(config: Path | None, *, aws: bool, as_json: bool) -> None:
    """Check all that Seatrial needs, and say how to mend it.

    Python, git, the Docker engine, Redis, the store, the object store, each database and each project of the
    settings. Nothing is changed. Exit code 0 when there is no problem (warnings are none), 3 otherwise.

    With --aws: the account, the machines and the rights of each pool with provider = "ec2", with the credentials of the
    one who asks: ask as the sweeper. Nothing is started, stopped or made, and what carries a production tag is refused.

    Example: seatrial --config /etc/seatrial.toml doctor
    """
    console = Console(stderr=True)
    findings: list[Finding] = []
    with console.status("Looking …") as status:
        for what, look in _looks(config, aws=aws):
            status.update(f"Looking at {what} …")
            findings += look()
    if as_json:
        listed = [asdict(finding) for finding in findings]
        say_json({"healthy": healthy(findings), "findings": listed})
    else:
        show(findings)
    click.get_current_context().exit(EXIT_PASSED if healthy(findings) else EXIT_INFRASTRUCTURE)


def _looks(config: Path | None, *, aws: bool) -> Iterator[Look]:
    from jobs.settings import SettingsError, settings_from_process

    if not aws:
        yield from looks_at_machine()
    try:
        settings = settings_from_process(config)
    except SettingsError as error:
        remedy = "Correct it: docs/configuration.md tells each key."
        problems = [Finding("settings", Level.PROBLEM, str(problem), remedy) for problem in error.problems]
        yield "the settings", lambda: problems
        return
    yield "the settings", lambda: [Finding("settings", Level.OK, f"valid; the server is at {settings.server.url}")]
    yield from looks_at_pools(settings) if aws else looks_at_installation(settings)


def show(findings: Iterable[Finding]) -> None:
    """Print the findings as a table, each problem with its remedy below."""
    findings = list(findings)
    console = Console(highlight=False)
    piped = not console.is_terminal
    if piped:
        console = Console(highlight=False, width=PIPE_WIDTH)
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        said = Text(plain(finding.text))
        if finding.remedy:
            said.append(f"\n→ {plain(finding.remedy)}", style="italic")
        table.add_row(Text(finding.level.value, style=STYLES[finding.level]), Text(plain(finding.what)), said)
    with console.capture() as written:
        console.print(table)
    # A table is as wide as its widest line, which a log or a pipe need not be.
    say_lines(line.rstrip() if piped else line for line in written.get().splitlines())
    console.print(f"\n{counted(findings)}.")
