"""A run's live stream: server-sent events that go on at the exact byte after a break."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

from flask import Blueprint, Response, current_app, request

from web import asking
from web.cursor import Cursor
from web.hub import CHUNK, Channel, Hub, encode
from web.queries import StreamQuery

if TYPE_CHECKING:
    from jobs.service import Service

blueprint = Blueprint("stream", __name__)

HEARTBEAT = 15.0

# What a viewer who is behind reads at once, and after how many reads of one task it looks at the run's other news.
CATCH_UP = 1 << 20
BURST = 16


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
                event = self._next(task, offset) if offset < head else b""
                if not event:
                    break
                yield event
            else:
                more = True
        return more

    def _next(self, task: int, offset: int) -> bytes:
        """Give what comes next of a log, and move the cursor past it.

        That is the event made once for all, or, to a viewer who is far behind, many at once.
        """
        kept = self._channel.frame(task, offset)
        if kept is not None:
            self._cursor.offsets[task] = offset + len(kept.chunk.data)
            return self._id() + kept.event
        data = memoryview(self._service.log(task, offset=offset, limit=CATCH_UP))
        parts: list[bytes] = []
        for at in range(0, len(data), CHUNK):
            piece = data[at : at + CHUNK]
            self._cursor.offsets[task] = offset + at + len(piece)
            parts += (self._id(), *encode(task, offset + at, piece))
        return b"".join(parts)
