"""A run's live stream: server-sent events that go on at the exact byte after a break."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

from flask import Blueprint, Response, current_app, request

from jobs.run import LogChunk
from web import asking
from web.cursor import Cursor
from web.hub import CHUNK, Channel, Frame, Hub, encode
from web.schemas import StreamQuery

if TYPE_CHECKING:
    from jobs.service import Service

blueprint = Blueprint("stream", __name__)

HEARTBEAT = 15.0

# After so many chunks of one task a viewer looks at the run's other news.
BURST = 64


@blueprint.get("/runs/<id:run>/stream")
def stream(run: int) -> Response:
    """Follow a run."""
    asked = asking.query(StreamQuery)
    given = request.headers.get("Last-Event-ID") or asked.cursor
    cursor = Cursor.parse(given) if given else Cursor()
    hub = asking.hub()
    heartbeat = float(current_app.config.get("HEARTBEAT", HEARTBEAT))
    viewer = Viewer(asking.service(), hub, hub.join(run), cursor, asked, heartbeat)
    response = Response(viewer, mimetype="text/event-stream")
    response.headers["X-Accel-Buffering"] = "no"
    response.headers["Cache-Control"] = "no-store, no-transform"
    return response


class Viewer:
    """One connection: an iterator of bytes that leaves the hub when it is closed."""

    def __init__(
        self,
        service: Service,
        hub: Hub,
        channel: Channel,
        cursor: Cursor,
        asked: StreamQuery,
        heartbeat: float,
    ) -> None:
        self._service = service
        self._hub = hub
        self._channel = channel
        self._cursor = cursor
        self._asked = asked
        self._heartbeat = heartbeat
        self._events = self._run()
        self._gone = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._events)

    def close(self) -> None:
        self._events.close()
        if not self._gone:
            self._gone = True
            self._hub.leave(self._channel)

    def _run(self) -> Generator[bytes, None, None]:
        channel = self._channel
        sent: dict[str, str] = {}
        yield b"retry: 1000\n\n"
        while not self._hub.closed:
            version = channel.version
            snapshot = channel.snapshot
            news = {"run": snapshot.run, "steps": snapshot.steps}
            if self._asked.view == "page" and snapshot.page is not None:
                news["page"] = snapshot.page
            self._cursor.event = max(self._cursor.event, channel.event)
            for kind, data in news.items():
                if sent.get(kind) != data:
                    sent[kind] = data
                    yield self._id() + f"event: {kind}\ndata: {data}\n\n".encode()
            more = yield from self._logs()
            if more:
                continue
            if snapshot.final and version == channel.version:
                yield self._id() + b"event: end\ndata: {}\n\n"
                return
            if not channel.wait(version, self._heartbeat):
                yield b": still here\n\n"

    def _id(self) -> bytes:
        return f"id: {self._cursor}\n".encode()

    def _logs(self) -> Generator[bytes, None, bool]:
        """Send what is left of the logs, up to a burst a task; give whether there may be more."""
        if self._asked.logs == "none":
            return False
        more = False
        only = None if self._asked.logs == "all" else int(self._asked.logs)
        for task, head in sorted(dict(self._channel.heads).items()):
            if only is not None and task != only:
                continue
            for _ in range(BURST):
                offset = self._cursor.offsets.get(task, 0)
                frame = self._read(task, offset) if offset < head else None
                if frame is None:
                    break
                self._cursor.offsets[task] = offset + len(frame.chunk.data)
                yield self._id() + frame.event
            else:
                more = True
        return more

    def _read(self, task: int, offset: int) -> Frame | None:
        kept = self._channel.frame(task, offset)
        if kept is not None:
            return kept
        data = self._service.log(task, offset=offset, limit=CHUNK)
        if not data:
            return None
        chunk = LogChunk(task, offset, data)
        return Frame(chunk, encode(chunk))
