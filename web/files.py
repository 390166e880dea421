"""The API's bytes: logs and outputs, exactly as the branch wrote them, and never as a page."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote

from flask import Blueprint, Response, request

from jobs.run import Task, Unit
from runner.errors import NotFound
from runner.model import UnitState
from web import archive, asking, guard
from web import queries as q
from web import schemas as s
from web.api import answer
from web.words import task_title

if TYPE_CHECKING:
    from jobs.service import Service

blueprint = Blueprint("files", __name__)

PIECE = 1 << 16  # what a processor's cache holds: 256 KiB and 1 MiB were measured to be slower
UNITS_AT_ONCE = 1_000


def disposition(name: str, kind: str = "attachment") -> str:
    """Give the Content-Disposition of a download, or (`inline`) of what a browser may show (RFC 6266)."""
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\/;%' else "_" for c in name)
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def download(pieces: Iterator[bytes], name: str, mimetype: str, size: int | None = None) -> Response:
    """Send bytes as a file to keep."""
    response = guard.seal(Response(pieces, mimetype=mimetype))
    response.headers["Content-Disposition"] = disposition(name)
    if size is not None:
        response.headers["Content-Length"] = str(size)
    return response


def task_of(run: int, task: int) -> Task:
    """Find a task of a run whose log is there; raises NotFound."""
    service = asking.service()
    service.run_with_outputs(run)
    for found in service.tasks(run):
        if found.id == task:
            return found
    raise NotFound(f"Run {run} has no task {task}.", field="task", value=str(task), remedy="See its tasks.")


# ---- logs --------------------------------------------------------------------------------------------------


@blueprint.get("/runs/<id:run>/log")
def run_log(run: int) -> Response:
    """Send all logs of a run in the order of its tasks, with a header line before each."""
    asking.query(q.NoQuery)
    service = asking.service()
    service.run_with_outputs(run)
    tasks = service.tasks(run)

    def pieces() -> Iterator[bytes]:
        for task in tasks:
            yield f"==> task {task.id}: {task_title(task)} <==\n".encode()
            last = b"\n"
            for piece in service.open_log(task.id):
                last = piece[-1:] or last
                yield piece
            if last != b"\n":
                yield b"\n"

    return download(pieces(), f"run-{run}.log", "application/octet-stream")


@blueprint.get("/runs/<id:run>/tasks/<id:task>/log")
def task_log(run: int, task: int) -> Response:
    """Send a task's log from a byte on."""
    asked = asking.query(q.OffsetQuery)
    size = task_of(run, task).log_size
    service = asking.service()
    left = max(0, size - asked.offset)
    if asked.limit is not None:
        left = min(left, asked.limit)

    end = asked.offset + left

    def pieces() -> Iterator[bytes]:
        at = asked.offset
        for piece in service.open_log(task, offset=at, end=end):
            at += len(piece)
            yield piece
        if at < end:
            raise OSError(f"task {task}: the log ends at byte {at}, {end} were promised")

    response = download(pieces(), f"run-{run}-task-{task}.log", "application/octet-stream", left)
    response.headers["Seatrial-Log-Size"] = str(size)
    return response


@blueprint.get("/runs/<id:run>/tasks/<id:task>/lines")
def task_lines(run: int, task: int) -> Response:
    """Give a window of a task's log by line numbers."""
    asked = asking.query(q.LinesQuery)
    task_of(run, task)
    found = asking.indexes().of(task).window(asked.start, asked.count)
    return answer(s.LinesOut(task=task, **asdict(found)))


@blueprint.get("/runs/<id:run>/tasks/<id:task>/search")
def task_search(run: int, task: int) -> Response:
    """Search a task's log, case ignored."""
    asked = asking.query(q.SearchQuery)
    task_of(run, task)
    found = asking.indexes().of(task).search(asked.q, asked.line, asked.limit)
    return answer(s.HitsOut(task=task, **asdict(found)))


# ---- outputs -----------------------------------------------------------------------------------------------


@blueprint.get("/runs/<id:run>/units/<unit:unit>/output")
def output(run: int, unit: str) -> Response:
    """Send a unit's output; one of several files with `path`, all of them as a zip without."""
    asked = asking.query(q.OutputQuery)
    service = asking.service()
    service.run_with_outputs(run)
    found, source = service.open_output(run, asked.leg, unit)
    name = PurePosixPath(found.name).name
    if asked.path is None and not found.tree:
        return _object(source, found.digest, found.size, name)
    if not found.tree:
        source.close()
        raise NotFound(f"The output of {unit} is a single file.", field="path", value=asked.path)
    if asked.path is None:
        entries = archive.tree_entries("", source, service.open_object)
        return download(archive.zipped(entries), f"{PurePosixPath(unit).name}.zip", "application/zip")
    for digest, size in archive.tree_find(source, asked.path):
        return _object(service.open_object(digest), digest, size, PurePosixPath(asked.path).name)
    raise NotFound(f"The output of {unit} has no such file.", field="path", value=asked.path)


def _object(source: BinaryIO, digest: str, size: int, name: str) -> Response:
    """Send a stored object; what a browser holds already is not sent again."""
    if request.if_none_match.contains(digest):
        source.close()
        response = guard.seal(Response(status=304))
    else:
        kind = mimetypes.guess_type(name)[0]
        harmless = kind if kind in ("text/csv", "text/plain", "application/json") else None
        response = download(_pieces(source), name, harmless or "application/octet-stream", size)
        response.call_on_close(source.close)
    response.set_etag(digest)
    response.headers["Cache-Control"] = "private, no-cache"
    return response


def _pieces(source: BinaryIO) -> Iterator[bytes]:
    with source:
        while piece := source.read(PIECE):
            yield piece


def outputs_of(service: Service, run: int) -> Iterator[Unit]:
    """Walk over all units of a run that have an output, leg by leg; needs no request."""
    for leg in service.run(run).legs:
        after: int | None = None
        while found := service.units(run, leg=leg.name, after=after, limit=UNITS_AT_ONCE):
            yield from (one for one in found if one.output is not None and one.state is not UnitState.TODO)
            after = found[-1].position


@blueprint.get("/runs/<id:run>/outputs.<any(zip,tar):kind>")
def outputs(run: int, kind: str) -> Response:
    """Send all outputs of a run as an archive."""
    asking.query(q.NoQuery)
    service = asking.service()
    service.run_with_outputs(run)

    def entries() -> Iterator[archive.Entry]:
        for unit in outputs_of(service, run):
            if unit.output is not None:
                yield from archive.entries_of(unit.leg, unit.unit, unit.output, service.open_object)

    pieces = archive.zipped(entries()) if kind == "zip" else archive.tarred(entries())
    mimetype = "application/zip" if kind == "zip" else "application/x-tar"
    return download(pieces, f"run-{run}-outputs.{kind}", mimetype)
