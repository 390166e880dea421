"""Verification databases on the command line: bless, check, bases, forget. They ask the servers directly."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from jobs.cli_client import json_option
from jobs.cli_common import EXIT_INFRASTRUCTURE, EXIT_USAGE, Failure, current_settings, pass_config
from jobs.cli_show import columns, duration, plain, say_json, say_lines, size
from jobs.cli_snapshots import needed_by_runs, refresh_source, snapshot, snapshots
from jobs.cli_sources import open_source
from runner.adapters.postgres_clone import SourceCheck


@click.group()
def db() -> None:
    """Bless, check and tidy the verification databases."""


for command in (snapshot, snapshots, refresh_source):
    db.add_command(command)


BLESS = """\
This will, on {place}:
  1. mark the database as a verification database, in its comment; its data is not changed
  2. freeze a base: a copy of it as it is now, named seatrial_base_{name}_…, that takes no connections
Every later run of this source gets its data from the newest base. Sessions on the database make this fail; none is
ended. Branches that nobody has reviewed will read this data: bless a copy of production, never production itself."""


@db.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do it without asking.")
@json_option
@pass_config
def bless(config: Path | None, name: str, *, yes: bool, as_json: bool) -> None:
    """Mark a source as a verification database and freeze its data as it is now.

    Says what it will do and asks, unless --yes is given. A database that is marked as production is refused.

    Example: seatrial db bless verification
    """
    source = open_source(current_settings(config), name)
    click.echo(BLESS.format(place=plain(source.place), name=name), err=True)
    if not yes:
        if not sys.stdin.isatty():
            raise Failure("Nobody is there to confirm it: say --yes. Nothing was changed.", EXIT_USAGE)
        if not click.confirm("Go on?", err=True):
            raise Failure("Nothing was changed.", EXIT_USAGE)
    base = source.bless()
    if as_json:
        say_json({**asdict(base), "blessed_at": base.blessed_at.isoformat()})
    else:
        click.echo(f"{name}: blessed; base {base.database}, data {base.data_id}, {size(base.size)}, owner {base.owner}")


@db.command()
@click.argument("name", required=False)
@json_option
@pass_config
def check(config: Path | None, name: str | None, *, as_json: bool) -> None:
    """Tell whether runs can use a source, what to mend, and how long a clone takes.

    Without NAME all sources. Makes a clone of the newest base and drops it. Exit code 0 when all can be used, else 3.

    Example: seatrial db check verification
    """
    settings = current_settings(config)
    found: dict[str, SourceCheck] = {}
    for each in [name] if name is not None else sorted(settings.databases):
        found[each] = open_source(settings, each).check()
    if as_json:
        say_json({each: {**asdict(check), "usable": check.usable} for each, check in found.items()})
    else:
        for each, checked in found.items():
            say_lines(check_lines(each, checked))
        if not found:
            click.echo("No databases yet: add [databases.NAME] with its dsn to seatrial.toml.", err=True)
    if not all(checked.usable for checked in found.values()):
        click.get_current_context().exit(EXIT_INFRASTRUCTURE)


def check_lines(name: str, found: SourceCheck) -> list[str]:
    """Write what a check found."""
    facts: dict[str, Any] = {
        "server": f"PostgreSQL {found.version}" if found.version else "",
        "marker": found.marker or ("none" if found.reachable else ""),
        "owner": found.owner,
        "size": "" if found.size is None else size(found.size),
        "bases": ", ".join(f"{base} ({size(count)})" for base, count in found.sizes.items()),
        "clone": f"{found.method}, {duration(found.seconds)}" if found.method else "",
    }
    lines = [f"{name}: {'can be used' if found.usable else 'cannot be used yet'}"]
    lines += [f"  {key:<7} {plain(value)}" for key, value in facts.items() if value]
    for problem in found.problems:
        lines += [
            f"  {'problem' if problem.refuses else 'warning'}: {plain(problem.text)}",
            f"    {plain(problem.remedy)}",
        ]
    return lines


@db.command()
@click.argument("name")
@json_option
@pass_config
def bases(config: Path | None, name: str, *, as_json: bool) -> None:
    """List a source's frozen bases, newest first; runs take the first one.

    Example: seatrial db bases verification
    """
    found = open_source(current_settings(config), name).bases()
    if as_json:
        say_json({"bases": [{**asdict(base), "blessed_at": base.blessed_at.isoformat()} for base in found]})
    elif found:
        rows = [(b.data_id, f"{b.blessed_at:%Y-%m-%d %H:%M:%S}", size(b.size), b.owner, b.database) for b in found]
        say_lines(columns(("DATA", "BLESSED (UTC)", "SIZE", "OWNER", "DATABASE"), rows))
    else:
        click.echo(f"{name} has no base yet. Make one: seatrial db bless {name}", err=True)


@db.command()
@click.argument("name")
@click.option("--keep", type=click.IntRange(1), required=True, help="How many of the newest to keep.")
@json_option
@pass_config
def forget(config: Path | None, name: str, keep: int, *, as_json: bool) -> None:
    """Drop a source's old bases.

    Those that a run needs which has not ended stay.

    Example: seatrial db forget verification --keep 2
    """
    settings = current_settings(config)
    source = open_source(settings, name)
    dropped = source.forget(keep=keep, needed=needed_by_runs(settings, source))
    if as_json:
        say_json({"dropped": dropped})
    else:
        say_lines([f"dropped {base}" for base in dropped] or [f"{name} has no more than {keep}: nothing was dropped."])
