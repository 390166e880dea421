"""The demo on the command line."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from jobs.api_client import ApiClient
from jobs.cli_alone import expect_free
from jobs.cli_common import EXIT_FAILED, EXIT_INFRASTRUCTURE, Failure, current_settings
from jobs.cli_doctor import PIPE_WIDTH
from jobs.cli_server import WORKER_SECONDS
from jobs.demo import Expected, default_home, expected, postgres, prepare, settings_file, submit, wait_until_ready
from jobs.host import Sources
from jobs.logs import configure_logging
from jobs.settings import Settings, host_environment
from jobs.supervisor import LAST_SECONDS, Program, Supervisor
from runner.errors import DatabaseRefused, SeatrialError

UP_SECONDS = WORKER_SECONDS + LAST_SECONDS + 1.0  # that it has for ending its own in order
FINAL = ("done", "failed", "errored", "cancelled")


@click.command()
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), help="Where the demo keeps its things.")
@click.option("--port", type=click.IntRange(1, 65_535), default=8321, show_default=True)
@click.option("--slots", type=click.IntRange(1, 64), default=2, show_default=True, help="Tasks at once.")
@click.option("--once", is_flag=True, help="End after the runs; exit code 0 only if each ended as its example says.")
def demo(home: Path | None, port: int, slots: int, once: bool) -> None:
    """Show Seatrial on real input: sample databases, example repositories, a whole server, and their runs.

    Example: seatrial demo --once
    """
    home = (home or default_home()).absolute()
    expect_free("127.0.0.1", port, remedy="name another one with --port")
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE_WIDTH)
    try:
        wanted = expected()
        for line in prepare(home, port=port, slots=slots):
            console.print(f"· {line}")
        settings = current_settings(settings_file(home))
        _bless(settings, console)
        matched = _serve(settings, home, wanted, console, once=once)
    except SeatrialError as error:
        raise Failure(error.text, EXIT_INFRASTRUCTURE) from None
    finally:
        if (home / "postgres").is_dir():
            postgres(home).stop()
    if once and not matched:
        raise Failure("Not every run ended as its example says.", EXIT_FAILED)


def _bless(settings: Settings, console: Console) -> None:
    sources = Sources(settings)
    for name in sorted(settings.databases):
        try:
            base = sources(name).base()
        except DatabaseRefused:
            base = sources(name).bless()
        console.print(f"· Database {name}: blessed base {base.data_id}")


def _serve(settings: Settings, home: Path, wanted: list[Expected], console: Console, *, once: bool) -> bool:
    log = home / "server.log"
    configure_logging(log)
    console.print(f"· Server processes (their log: {log})")
    with log.open("ab") as output:
        # A process of its own: it forks, and this one has threads.
        up = Program("up", [sys.executable, "-m", "jobs.cli", "--config", str(settings_file(home)), "up"])
        supervisor = Supervisor([up], host_environment(), output=output, patience=UP_SECONDS)
        supervisor.install_signals()
        thread = threading.Thread(target=supervisor.run, name="supervisor")
        thread.start()
        try:
            with ApiClient(settings.server.url) as client:
                wait_until_ready(client)
                console.print(f"\n[bold]Seatrial is at {client.url}[/bold]\n")
                runs = [(submit(client, run), run) for run in wanted]
                matched = _watch(client, runs, supervisor, console)
            if not once and not supervisor.stopping():
                console.print(f"\nOpen {settings.server.url} in a browser. Ctrl-C ends the demo.")
                while not supervisor.stopping():
                    time.sleep(0.2)
        finally:
            console.print("· Ending the server; what runs is handed over")
            supervisor.stop()
            thread.join()
    return matched


def _watch(client: ApiClient, runs: list[tuple[int, Expected]], supervisor: Supervisor, console: Console) -> bool:
    """Show the runs until all have ended; tell whether each ended as its example says.

    A terminal shows a table that lives; a log gets a line as each run ends, and the table at the end.
    """
    wanted = [expected for _, expected in runs]
    told: set[int] = set()
    with Live(console=console, refresh_per_second=4) if console.is_terminal else nullcontext() as live:
        while True:
            found = [client.run(run) for run, _ in runs]
            if live is not None:
                live.update(_table(found, wanted, client.url))
            else:
                tell_ended(found, wanted, told, console)
            if all(run["state"] in FINAL for run in found) or supervisor.stopping():
                break
            time.sleep(0.5)
    if live is None:
        console.print(_table(found, wanted, client.url))
    return all(expected.matches(run) for run, expected in zip(found, wanted, strict=True))


def tell_ended(found: list[dict[str, Any]], wanted: list[Expected], told: set[int], console: Console) -> None:
    """Print a line for each run that has ended and is not in `told`, and put it there."""
    for run, example in zip(found, wanted, strict=True):
        if run["state"] in FINAL and run["id"] not in told:
            told.add(run["id"])
            ended = "as expected" if example.matches(run) else "not as expected"
            console.print(f"· Run {run['id']}, {run['project']} {run['ref']}: {_state(run)}, {ended}")


def _state(run: dict[str, Any]) -> str:
    """Say in what state a run is, and why."""
    reason = f" ({run['reason']['code']})" if run["reason"] else ""
    return f"{run['verdict'] or run['state']}{reason}"


def _table(found: list[dict[str, Any]], expected: list[Expected], url: str) -> Table:
    table = Table(title="Runs", title_justify="left")
    for column in ("run", "project", "ref → commit", "state", "units", "as expected"):
        table.add_column(column, overflow="fold")
    for run, wanted in zip(found, expected, strict=True):
        units = run["units"]
        total = "?" if units["total"] is None else units["total"]
        ended = run["state"] in FINAL
        table.add_row(
            f"{url}/runs/{run['id']}",
            run["project"],
            f"{run['ref']} → {run['commit'][:10]}" + (f" against {wanted.baseline}" if wanted.baseline else ""),
            _state(run),
            f"{units['done']} / {total}"
            + (f", {units['failed']} failed" if units["failed"] else "")
            + (f", {run['different']} differ" if run["different"] else ""),
            ("yes" if wanted.matches(run) else "[bold red]no[/bold red]") if ended else "…",
        )
    return table
