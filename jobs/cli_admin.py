"""What an admin or the author of a verification checks on the spot: settings, specifications, projects."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from jobs.cli_client import json_option
from jobs.cli_common import EXIT_USAGE, Failure, current_settings, pass_config, problem_line
from jobs.cli_show import columns, say_json, say_lines
from jobs.settings import find_settings_file, host_environment, settings_json_schema
from runner.errors import Problem, SpecError
from runner.spec import parse_spec, spec_json_schema


@click.group()
def spec() -> None:
    """Check a seatrial.yml."""


@spec.command("check")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@json_option
def spec_check(file: str, *, as_json: bool) -> None:
    """Check a seatrial.yml, and name every problem with its line.

    FILE may be - for standard input. Exit code 0 when it is valid, 2 when it is not.

    Example: seatrial spec check seatrial.yml
    """
    try:
        text = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}", EXIT_USAGE) from None
    problems: tuple[Problem, ...] = ()
    try:
        parse_spec(text, source=file)
    except SpecError as error:
        problems = error.problems
    if as_json:
        say_json({"valid": not problems, "problems": [asdict(problem) for problem in problems]})
    else:
        say_lines(problem_line(file, problem) for problem in problems)
    if problems:
        click.get_current_context().exit(EXIT_USAGE)
    if not as_json:
        click.echo(f"{file} is valid.")


@spec.command("schema")
def spec_schema() -> None:
    """Print the JSON Schema of seatrial.yml, for editors.

    Example: seatrial spec schema > spec.schema.json
    """
    say_json(spec_json_schema())


@click.group()
def settings() -> None:
    """Check seatrial.toml."""


@settings.command("check")
@pass_config
def settings_check(config: Path | None) -> None:
    """Check seatrial.toml and the environment, and name every problem.

    Exit code 0 when they are valid, 2 when not. What they name is tried by `seatrial doctor`.

    Example: seatrial --config /etc/seatrial.toml settings check
    """
    found = current_settings(config)
    file = find_settings_file(config, host_environment())
    counts = (
        f"{len(table)} {noun}{'' if len(table) == 1 else 's'}"
        for table, noun in ((found.projects, "project"), (found.databases, "database"), (found.pools, "pool"))
    )
    where = str(file) if file is not None else "There is no settings file; the environment and the defaults"
    click.echo(f"{where}: valid, {', '.join(counts)}; server at {found.server.url}, home {found.server.home}")


@settings.command("schema")
def settings_schema() -> None:
    """Print the JSON Schema of seatrial.toml, for editors.

    Example: seatrial settings schema > settings.schema.json
    """
    say_json(settings_json_schema())


@click.group()
def project() -> None:
    """Look at the projects of seatrial.toml."""


@project.command("list")
@json_option
@pass_config
def project_list(config: Path | None, *, as_json: bool) -> None:
    """List the projects of seatrial.toml, without asking the server.

    Example: seatrial project list
    """
    known = current_settings(config).projects
    found = [
        {
            "name": name,
            "repository": one.repository,
            "default_baseline": one.default_baseline,
            "spec": None if one.spec is None else str(one.spec),
            "pool": one.pool,
            "database": one.database,
        }
        for name, one in sorted(known.items())
    ]
    if as_json:
        say_json({"projects": found})
    elif found:
        rows = [(p["name"], p["pool"], p["database"] or "-", p["spec"] or "-", p["repository"]) for p in found]
        say_lines(columns(("PROJECT", "POOL", "DATABASE", "SPEC", "REPOSITORY"), rows))
    else:
        click.echo("No projects yet: add [projects.NAME] with its repository to seatrial.toml.", err=True)
