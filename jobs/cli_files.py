"""Bytes of a run on the command line: logs and outputs, exactly as the branch wrote them."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO
from urllib.parse import unquote

import click
import httpx

from jobs.api_client import PIECE, ApiClient, Document, ServerUnreachable, part
from jobs.cli_client import POLL_SECONDS, RUN_ID, Patience, with_client
from jobs.cli_common import EXIT_INFRASTRUCTURE, EXIT_USAGE, Failure
from jobs.cli_show import FINAL, size, task_title

# A line may be long, but not for ever: what is held back until its end comes is at most so much.
LINE_LIMIT = 1 << 16


@click.command()
@click.argument("run", type=RUN_ID)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@click.option("--task", type=RUN_ID, help="Only this task's log, and not a byte more.")
@with_client
def logs(client: ApiClient, run: int, task: int | None, *, follow: bool) -> None:
    """Write a run's log, byte by byte as the branch wrote it.

    The logs of all its tasks, with a header line before each; with --task that one alone. With -f the logs of
    tasks that run at once come as they grow, in whole lines, and a server that is restarted leaves no gap.

    Example: seatrial logs 7 -f
    """
    out = sys.stdout.buffer
    if follow:
        for piece in Follower(client, run, task).pieces():
            out.write(piece)
            out.flush()
        return
    path = f"/runs/{run}/log" if task is None else f"/runs/{run}/tasks/{task}/log"
    with client.stream(path) as answer:
        for piece in answer.iter_raw(PIECE):
            out.write(piece)
    out.flush()


class Follower:
    """Follow the logs of a run by byte offsets: what was written once is never asked for again."""

    def __init__(self, client: ApiClient, run: int, task: int | None) -> None:
        self._client = client
        self._run = run
        self._only = task
        self._offsets: dict[int, int] = {}
        self._held: dict[int, bytes] = {}
        self._current: int | None = None
        self._inside_line = False

    def pieces(self) -> Iterator[bytes]:
        """Give the bytes as they come, until the run has ended."""
        patience = Patience()
        while True:
            over = False
            with patience.look():
                run = self._client.run(self._run)
                tasks = [task for task in run["tasks"] if self._only in (None, task["id"])]
                if self._only is not None and not tasks:
                    raise Failure(
                        f"Run {self._run} has no task {self._only}. See: seatrial show {self._run}", EXIT_USAGE
                    )
                for task in tasks:
                    yield from self._news(task)
                over = run["state"] in FINAL or (self._only is not None and tasks[0]["state"] in FINAL)
            if over:
                return
            time.sleep(POLL_SECONDS)

    def _news(self, task: Document) -> Iterator[bytes]:
        at = self._offsets.get(task["id"], 0)
        if task["log_size"] > at:
            path = f"/runs/{self._run}/tasks/{task['id']}/log"
            with self._client.stream(path, offset=at, limit=task["log_size"] - at) as answer:
                for piece in answer.iter_raw(PIECE):
                    self._offsets[task["id"]] = self._offsets.get(task["id"], 0) + len(piece)
                    yield from self._woven(task, piece)
        if task["state"] in FINAL and self._held.get(task["id"]):
            yield from self._under(task, self._held.pop(task["id"]))

    def _woven(self, task: Document, piece: bytes) -> Iterator[bytes]:
        """Give what can be printed: all of a single task, whole lines of several."""
        if self._only is not None:
            yield piece
            return
        held = self._held.get(task["id"], b"") + piece
        end = len(held) if len(held) > LINE_LIMIT else held.rfind(b"\n") + 1
        self._held[task["id"]] = held[end:]
        if end:
            yield from self._under(task, held[:end])

    def _under(self, task: Document, piece: bytes) -> Iterator[bytes]:
        """Put the task's header before what it wrote, unless it wrote last."""
        if self._current != task["id"]:
            header = f"==> task {task['id']}: {task_title(task)} <==\n".encode()
            yield b"\n" + header if self._inside_line else header
            self._current = task["id"]
        self._inside_line = not piece.endswith(b"\n")
        yield piece


@click.command()
@click.argument("run", type=RUN_ID)
@click.argument("unit", required=False)
@click.option("-o", "--output", "target", metavar="FILE|DIR", help="Where to; - is standard output.")
@click.option("--leg", default="candidate", show_default=True, help="candidate or baseline.")
@click.option("--path", metavar="PATH", help="One file of an output that is several.")
@with_client
def output(client: ApiClient, run: int, unit: str | None, target: str | None, leg: str, path: str | None) -> None:
    """Fetch a unit's output, or all of a run as an archive.

    A UNIT's output goes to standard output unless -o says otherwise; one of several files is a zip. Without UNIT
    the archive goes to run-RUN-outputs.zip here, or to -o: a name that ends in .tar makes it a tar.

    Example: seatrial output 7 tenant_042/pl -o before.csv
    """
    if unit is None:
        if path is not None:
            raise click.UsageError("--path is for one unit: name it.")
        kind = "tar" if target is not None and target.endswith(".tar") else "zip"
        with client.stream(f"/runs/{run}/outputs.{kind}") as answer:
            keep(answer, target or f"run-{run}-outputs.{kind}")
        return
    with client.stream(f"/runs/{run}/units/{part(unit, slashes=True)}/output", leg=leg, path=path) as answer:
        keep(answer, target or "-")


def keep(answer: httpx.Response, target: str) -> None:
    """Write an answer to a file, to a directory under the name that the server offers, or (-) to standard output."""
    if target == "-":
        out = sys.stdout.buffer
        if out.isatty() and answer.headers.get("Content-Type", "").startswith("application/"):
            raise Failure("That is no text for a terminal: name a file with -o, or - into a pipe.", EXIT_USAGE)
        _pour(answer, out)
        out.flush()
        return
    file = Path(target)
    if file.is_dir():
        file = file / offered_name(answer.headers.get("Content-Disposition", ""))
    try:
        with _beside(file) as kept:
            count = _pour(answer, kept)
    except OSError as error:
        raise Failure(f"{file} cannot be written: {error.strerror}", EXIT_INFRASTRUCTURE) from None
    click.echo(f"{file}: {size(count)}", err=True)


def _pour(answer: httpx.Response, out: IO[bytes] | BinaryIO) -> int:
    """Copy an answer's bytes and check them against the digest that names them."""
    digest, count = hashlib.sha256(), 0
    for piece in answer.iter_raw(PIECE):
        out.write(piece)
        digest.update(piece)
        count += len(piece)
    wanted = answer.headers.get("ETag", "").strip('"')
    if re.fullmatch(r"[0-9a-f]{64}", wanted) and digest.hexdigest() != wanted:
        raise ServerUnreachable(f"What came is not what was stored: its SHA-256 is not {wanted[:12]}…")
    return count


@contextmanager
def _beside(file: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes its name when all of it is there; half of one is never kept."""
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as kept:
            yield kept
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise


def offered_name(disposition: str) -> str:
    """Read the file name that the server offers (RFC 6266), never with a directory in it."""
    found = re.search(r"filename\*=UTF-8''([^;]+)", disposition)
    name = Path(unquote(found[1])).name if found else ""
    return name if name not in ("", ".", "..") and "\0" not in name else "output"
