"""Snapshots of verification databases on the command line: take, list, remove; and the refresh of a source."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from jobs import snapshots as decide
from jobs.adapters.sql_store import Store
from jobs.cli_client import json_option
from jobs.cli_common import EXIT_INFRASTRUCTURE, EXIT_USAGE, Failure, current_settings, pass_config
from jobs.cli_show import columns, plain, say_json, say_lines, size
from jobs.cli_sources import open_source
from jobs.settings import Settings, host_environment
from jobs.snapshot_keeping import prune, refresh, uses_of
from jobs.snapshots import SnapshotKept, Uses
from runner.adapters.postgres_clone import PostgresSource
from runner.errors import InfraError
from runner.model import SNAPSHOT, Base

RUNS_SHOWN = 5

yes_option = click.option("--yes", is_flag=True, help="Do it without asking.")


def name_option(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse what cannot be a snapshot's name."""
    if value is not None and not SNAPSHOT.fullmatch(value):
        raise click.BadParameter(
            "use a letter or digit and up to 62 letters, digits, dots, dashes or underscores", context, parameter
        )
    return value


def _told(base: Base, uses: Uses | None = None) -> dict[str, Any]:
    found = {**asdict(base), "blessed_at": base.blessed_at.isoformat()}
    if uses is not None:
        found |= {"runs": list(uses.runs.get(base.data_id, ())), "live_runs": uses.live_runs(base)}
    return found


def take(settings: Settings, source: PostgresSource, name: str | None) -> tuple[Base, list[Base]]:
    """Freeze a snapshot, and part with those that are past their time; gives both."""
    return source.snapshot(name), _prune(settings, source)


def _prune(settings: Settings, source: PostgresSource) -> list[Base]:
    with closing(Store.open(settings.server.database_url)) as store:
        return list(prune(store, source, settings.databases[source.name].keep_snapshots))


def needed_by_runs(settings: Settings, source: PostgresSource) -> set[str]:
    """Name the databases of the snapshots that runs need which have not ended."""
    found = source.bases()
    with closing(Store.open(settings.server.database_url)) as store:
        uses = uses_of(store, source.name, found)
    return {base.database for base in found if uses.live_runs(base)}


def _say(done: str, base: Base, dropped: Sequence[Base], *, as_json: bool) -> None:
    if as_json:
        say_json({**_told(base), "dropped": [one.name for one in dropped]})
        return
    click.echo(f"{base.source}: {done} {base.name}, data {base.data_id}, {size(base.size)}")
    say_lines([f"dropped {one.name}, as keep_snapshots says" for one in dropped])


def remove(settings: Settings, source: PostgresSource, name: str) -> Base:
    """Drop a snapshot; refused for the newest, and while a run that has not ended uses it."""
    found = source.bases()
    base = decide.find(found, name)
    if base is None:
        known = ", ".join(one.name for one in found[:10]) or "none yet"
        raise Failure(f"{source.name} has no snapshot {name}. Known: {known}", EXIT_USAGE)
    with closing(Store.open(settings.server.database_url)) as store:
        try:
            decide.refuse_to_remove(base, found, uses_of(store, source.name, found))
        except SnapshotKept as error:
            raise Failure(f"{error.text} {error.remedy}", EXIT_USAGE) from None
    source.remove(base)
    return base


def table(found: Sequence[Base], uses: Uses) -> list[str]:
    """Write a list of snapshots, with the runs that use them."""
    rows = []
    for base in found:
        runs = uses.runs.get(base.data_id, ())
        more = f" and {len(runs) - RUNS_SHOWN} more" if len(runs) > RUNS_SHOWN else ""
        live = ", ".join(map(str, uses.live_runs(base)))
        shown = ", ".join(map(str, runs[:RUNS_SHOWN])) + more
        rows.append((base.name, f"{base.blessed_at:%Y-%m-%d %H:%M:%S}", size(base.size), base.data_id, live, shown))
    return list(columns(("SNAPSHOT", "DATE (UTC)", "SIZE", "DATA", "IN USE BY", "RUNS"), rows))


REFRESH = """\
This will, on {place}:
  1. take the verification marker from the source; its snapshots serve on
  2. run on this machine, with the source in DATABASE_URL: {commands}
  3. run in the source, as the application's role: {masking}
  4. mark the source again and freeze a snapshot, which later runs use
When one of them fails the source stays unmarked, and the snapshots that stand serve on."""


def do_refresh(settings: Settings, source: PostgresSource, name: str | None, *, yes: bool, as_json: bool) -> None:
    """Ask, refresh the source, and part with snapshots that are past their time."""
    known = settings.databases[source.name]
    if not known.refresh:
        text = f"databases.{source.name} has no refresh: name the commands that replace its data."
        raise Failure(text, EXIT_USAGE)
    if name is not None and decide.find(source.bases(), name) is not None:
        raise Failure(f"{source.name} has a snapshot {name} already: choose another name.", EXIT_USAGE)
    commands, masking = "; ".join(known.refresh), ", ".join(file.name for file in known.masking) or "nothing"
    click.echo(REFRESH.format(place=plain(source.place), commands=plain(commands), masking=plain(masking)), err=True)
    if not yes:
        if not sys.stdin.isatty():
            raise Failure("Nobody is there to confirm it: say --yes. Nothing was changed.", EXIT_USAGE)
        if not click.confirm("Go on?", err=True):
            raise Failure("Nothing was changed.", EXIT_USAGE)
    try:
        base = refresh(
            source, known, host_environment(), snapshot=name, tell=lambda text: click.echo(f"· {plain(text)}", err=True)
        )
    except InfraError as error:
        raise Failure(f"{error.text} The snapshots that stand serve on.", EXIT_INFRASTRUCTURE) from None
    _say("refreshed; snapshot", base, _prune(settings, source), as_json=as_json)


@click.command()
@click.argument("source")
@click.option("--name", metavar="NAME", callback=name_option, help="What to call it (default: its data id).")
@click.option("--remove", "removed", metavar="NAME", callback=name_option, help="Drop this one instead.")
@json_option
@pass_config
def snapshot(config: Path | None, source: str, name: str | None, removed: str | None, *, as_json: bool) -> None:
    """Freeze the data of a marked source as it is now; later runs use it.

    Runs that are under way keep the snapshot that they began with.

    Example: seatrial db snapshot verification --name month-end

    Example: seatrial db snapshot verification --remove month-end
    """
    if name is not None and removed is not None:
        raise Failure("Give --name or --remove, not both.", EXIT_USAGE)
    settings = current_settings(config)
    opened = open_source(settings, source)
    if removed is None:
        base, dropped = take(settings, opened, name)
        _say("snapshot", base, dropped, as_json=as_json)
        return
    gone = remove(settings, opened, removed)
    if as_json:
        say_json({"dropped": [gone.name]})
    else:
        click.echo(f"{source}: dropped {gone.name}")


@click.command()
@click.argument("source")
@json_option
@pass_config
def snapshots(config: Path | None, source: str, *, as_json: bool) -> None:
    """List a source's snapshots, newest first, and the runs that use them.

    Example: seatrial db snapshots verification
    """
    settings = current_settings(config)
    found = open_source(settings, source).bases()
    with closing(Store.open(settings.server.database_url)) as store:
        uses = uses_of(store, source, found)
    if as_json:
        say_json({"snapshots": [_told(base, uses) for base in found]})
    elif found:
        say_lines(table(found, uses))
    else:
        click.echo(f"{source} has no snapshot yet. Make one: seatrial db bless {source}", err=True)


@click.command("refresh")
@click.argument("source")
@click.option("--name", metavar="NAME", callback=name_option, help="What to call the snapshot (default: its data id).")
@yes_option
@json_option
@pass_config
def refresh_source(config: Path | None, source: str, name: str | None, *, yes: bool, as_json: bool) -> None:
    """Replace the data of a source, mask it, and freeze a snapshot of it.

    Runs the commands of databases.NAME.refresh and the files of databases.NAME.masking. The marker is written at the
    end; when something fails before, the snapshots that stand serve on.

    Example: seatrial db refresh verification --yes
    """
    settings = current_settings(config)
    do_refresh(settings, open_source(settings, source), name, yes=yes, as_json=as_json)
