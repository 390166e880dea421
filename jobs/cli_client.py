"""What the commands share that talk to a server: its address, and waiting for a run to end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import update_wrapper
from pathlib import Path
from typing import Any

import click

from jobs.api_client import ApiClient, Document, ServerUnreachable
from jobs.cli_common import EXIT_FAILED, EXIT_INFRASTRUCTURE, EXIT_PASSED, Failure, current_server, pass_config
from jobs.cli_group import EXIT_STOPPED
from jobs.cli_show import FINAL, counted, duration, headline, plain, say_json, standing
from runner.errors import InfraError

RUN_ID = click.IntRange(1, 2**63 - 1)
POLL_SECONDS = 0.5
# A server that is restarted or upgraded is back by then; the runs don't notice either.
PATIENCE_SECONDS = 120.0
# Where nobody watches a bar, a line is printed at least so often while something moves.
LINE_SECONDS = 30.0
NO_FILE = (
    "There is no seatrial.toml here that says where the server is: go to its directory, or name it with "
    "`seatrial --config FILE` or SEATRIAL_CONFIG."
)


def with_client(function: Callable[..., Any]) -> Callable[..., Any]:
    """Hand a client of the server to a command, as its first argument, and add the option that names the server."""

    @pass_config
    def wrapped(config: Path | None, *args: Any, **kwargs: Any) -> Any:
        server = kwargs.pop("server")
        with ApiClient(server or current_server(config)) as client:
            try:
                return function(client, *args, **kwargs)
            except ServerUnreachable as error:
                from jobs.settings import has_settings_file

                if server or has_settings_file(config):
                    raise
                raise ServerUnreachable(f"{error.text} {NO_FILE}") from None

    option = click.option("--server", metavar="URL", help="The server (default: server.listen of the settings).")
    return option(update_wrapper(wrapped, function))


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option that asks for JSON."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


class Patience:
    """Bear with a server that is away for a while; `look` raises InfraError when that lasts."""

    def __init__(self, seconds: float = PATIENCE_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._since: float | None = None

    @contextmanager
    def look(self) -> Iterator[None]:
        """Swallow an outage of the server, unless there has been one for too long."""
        try:
            yield
        except InfraError as error:
            now = self._clock()
            if self._since is None:
                self._since = now
                click.echo(f"{error.text} Trying again.", err=True)
            if now - self._since >= self._seconds:
                raise
        else:
            self._since = None


def watch(client: ApiClient, run: int, show: Callable[[Document], None]) -> Document:
    """Look at a run until it has ended, and give it; `show` is told each time."""
    patience = Patience()
    while True:
        found = None
        with patience.look():
            found = client.run(run)
        if found is not None:
            show(found)
            if found["state"] in FINAL:
                return found
        time.sleep(POLL_SECONDS)


def wait_for(client: ApiClient, run: int, *, as_json: bool) -> None:
    """Wait for a run, show how it goes, and end with the exit code of its verdict."""
    try:
        with Bar() if sys.stderr.isatty() else Lines() as shown:
            found = watch(client, run, shown.show)
    except KeyboardInterrupt:
        raise Failure(f"Run {run} goes on by itself. Look at it: seatrial show {run}", EXIT_STOPPED) from None
    except InfraError as error:
        goes_on = f"Run {run} goes on by itself; when the server is back: seatrial show {run}"
        raise Failure(f"{error.text}\n{goes_on}", EXIT_INFRASTRUCTURE) from None
    if as_json:
        say_json(found)
    else:
        click.echo(f"{headline(found)}; units: {counted(found['units'])}\n{client.url}{found['links']['page']}")
    click.get_current_context().exit(exit_code(found))


def exit_code(run: Document) -> int:
    """Give the exit code of a run that has ended."""
    if standing(run) == "passed":
        return EXIT_PASSED
    return EXIT_INFRASTRUCTURE if run["state"] == "errored" else EXIT_FAILED


class Lines:
    """Tell how a run goes in lines, for logs: at each change of state, each tenth of its units, each half minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, say: Callable[[str], None] | None = None) -> None:
        self._clock = clock
        self._say = say or (lambda line: click.echo(line, err=True))
        self._told: tuple[str, int] | None = None
        self._line = ""
        self._at = 0.0

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, run: Document) -> None:
        """Look at a run; print when it is worth a line."""
        units, now = run["units"], self._clock()
        total = units["total"] or 0
        tenth = 10 * (units["done"] + units["failed"]) // total if total else 0
        line = progress_words(run)
        late = now - self._at >= LINE_SECONDS and line != self._line
        if self._told != (run["state"], tenth) or late:
            self._told, self._line, self._at = (run["state"], tenth), line, now
            self._say(line)


class Bar:
    """Show how a run goes as a bar on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn("Run {task.fields[run]}"),
            BarColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task("", total=None, run="")

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, run: Document) -> None:
        """Move the bar."""
        units = run["units"]
        words = progress_words(run).partition(": ")[2]
        self._progress.update(
            self._task,
            run=run["id"],
            description=words,
            total=units["total"],
            completed=units["done"] + units["failed"],
        )


def progress_words(run: Document) -> str:
    """Write how far a run is in one line."""
    words = [f"run {run['id']}: {standing(run)}"]
    if run["units"]["total"] is not None:
        words.append(f"{counted(run['units'])} units")
    elif run["state"] == "running" and run["steps"]:
        words.append(plain(run["steps"][-1]["name"]))
    estimate = run["estimate"]
    if estimate and estimate["seconds_left"] is not None:
        words.append(f"about {duration(estimate['seconds_left'])} left")
    if run["waiting"] is not None:
        words.append(plain(run["waiting"]["text"]))
    return ", ".join(words)
