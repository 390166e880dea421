"""A run's live stream: server-sent events that go on at the exact byte after a break."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING

from flask import Blueprint, Response, current_app, request

from web import asking
from web.cursor import Cursor
from web.hub import Channel, Hub, Snapshot
from web.queries import StreamQuery
from web.sse import CHUNK, event, log_event, portion

if TYPE_CHECKING:
    from jobs.service import Service

blueprint = Blueprint("stream", __name__)

HEARTBEAT = 15.0

# After so many bytes of one task's log a viewer who is behind looks at the run's other news.
BURST = 16 << 20

# He gets about so many bytes at once: fewer cost more calls, more leave the processor's cache.
WRITE = 2 * CHUNK

_AWAY = '{"text":"The records do not answer: what is shown may be old. Runs go on."}'
_BACK = '{"text":""}'


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
            if channel.away or "away" in sent:
                news["away"] = _AWAY if channel.away else _BACK
            self._cursor.event = max(self._cursor.event, channel.event)
            for kind, data in news.items():
                if sent.get(kind) != data:
                    sent[kind] = data
                    yield self._id() + event(kind, data)
            more = yield from self._logs()
            if more:
                continue
            if snapshot.final and version == channel.version and self._sent_all(snapshot):
                yield self._id() + event("end", "{}")
                return
            if not channel.wait(version, self._heartbeat):
                yield b": still here\n\n"

    def _id(self) -> bytes:
        return f"id: {self._cursor}\n".encode()

    def _sent_all(self, snapshot: Snapshot) -> bool:
        """Tell whether the viewer has all that he wants of the logs; the hub reads them after it saw the run's end."""
        return all(self._cursor.offsets.get(task, 0) >= snapshot.logs[task] for task in self._wanted(snapshot.logs))

    def _wanted(self, tasks: Iterable[int]) -> list[int]:
        """Give those of the tasks whose logs the viewer wants, in order."""
        logs = self._asked.logs
        if logs == "none":
            return []
        return sorted(tasks) if logs == "all" else [task for task in tasks if task == int(logs)]

    def _logs(self) -> Generator[bytes, None, bool]:
        """Send what is left of the logs, up to a burst a task; give whether there may be more."""
        more = False
        heads = dict(self._channel.heads)
        for task in self._wanted(heads):
            head = heads[task]
            stop = self._cursor.offsets.get(task, 0) + BURST
            while (offset := self._cursor.offsets.get(task, 0)) < min(head, stop):
                kept = self._channel.frame(task, offset)
                if kept is None:
                    yield from self._stored(task, offset, min(head, stop))
                    break
                self._cursor.offsets[task] = offset + kept.size
                yield self._id() + kept.event
            more = more or self._cursor.offsets.get(task, 0) < head
        return more

    def _stored(self, task: int, offset: int, end: int) -> Generator[bytes, None, None]:
        """Send bytes [offset, end) of a log from the store, some events at once, and move the cursor past them."""
        rest, size = b"", 0
        parts: list[bytes] = []
        for piece in self._service.open_log(task, offset=offset, end=end, block=CHUNK):
            data = rest + piece if rest else piece
            rest = b""
            while data:
                count, text = portion(data)
                whole = count == len(data)
                parts += self._piece(task, offset, data if whole else data[:count], text)
                offset += count
                size += count
                data = b"" if whole else data[count:]
                if text and data:
                    data, rest = b"", data  # a character whose rest is in the next piece
            if size >= WRITE:
                yield b"".join(parts)
                parts, size = [], 0
        if rest:
            parts += self._piece(task, offset, rest, text=False)
        yield b"".join(parts)

    def _piece(self, task: int, offset: int, data: bytes, text: bool) -> tuple[bytes, ...]:
        self._cursor.offsets[task] = offset + len(data)
        return self._id(), *log_event(task, offset, data, text)
