"""One reader of the store a process, fanned out to all viewers of a run."""

from __future__ import annotations

import json
import threading
import time
from binascii import b2a_base64
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from jobs.run import LogChunk, Run, StepRecord, Task
from web import shapes
from web.problems import WebError
from web.schemas import RunDetail

if TYPE_CHECKING:
    from jobs.service import Service

log = structlog.get_logger(__name__)

CHUNK = 65_536

# How many bytes of log a run's channel keeps for viewers that are nearly up to date; the others read the store.
TAIL = 4 << 20

# A run's snapshot is made at most four times a second, and at least every ten seconds while it goes on (its ETA
# changes also when nothing else does).
SNAPSHOT_EVERY = 0.25
SNAPSHOT_AT_LEAST = 10.0


@dataclass(frozen=True)
class Snapshot:
    """What all viewers of a run see of it; each value is the `data` of an event."""

    run: str
    steps: str
    page: str | None
    final: bool


@dataclass(frozen=True)
class Frame:
    """Bytes of a log and the same as an event without its id, made once for all viewers."""

    chunk: LogChunk
    event: bytes


def encode(task: int, offset: int, data: bytes | memoryview) -> tuple[bytes, bytes, bytes]:
    """Write a chunk as an event without its id; in parts, so that many are joined with one copy."""
    return (
        b'event: log\ndata: {"task":%d,"offset":%d,"data":"' % (task, offset),
        b2a_base64(data, newline=False),
        b'"}\n\n',
    )


Render = Callable[[RunDetail, Run, list[Task], list[StepRecord]], str]


class Channel:
    """A run that somebody looks at. The poller writes it; viewers read it and wait for its version to change."""

    def __init__(self, service: Service, run: int, render: Render | None) -> None:
        self.run = run
        self.viewers = 0
        self.version = 0
        self.heads: dict[int, int] = {}
        self.event = 0
        self._service = service
        self._render = render
        self._condition = threading.Condition()
        self._tail: deque[Frame] = deque()
        self._tail_size = 0
        self._made_at = 0.0
        self._dirty = True
        self.heads = {task.id: task.log_size for task in service.tasks(run)}
        self.snapshot = self._snapshot()

    def refresh(self, *, changed: bool) -> None:
        """Read what is new in the store and wake the viewers."""
        news = self._read_logs() if changed else False
        self._dirty = self._dirty or changed
        age = time.monotonic() - self._made_at
        if (self._dirty and age >= SNAPSHOT_EVERY) or (age >= SNAPSHOT_AT_LEAST and not self.snapshot.final):
            snapshot = self._snapshot()
            news = news or snapshot != self.snapshot
            self.snapshot = snapshot
        if news:
            self.wake()

    def wake(self) -> None:
        with self._condition:
            self.version += 1
            self._condition.notify_all()

    def wait(self, version: int, timeout: float) -> bool:
        """Wait until the version differs from `version`; False when the time ran out before."""
        with self._condition:
            return self._condition.wait_for(lambda: self.version != version, timeout)

    def frame(self, task: int, offset: int) -> Frame | None:
        """Give the kept frame that begins at that byte."""
        with self._condition:
            for frame in reversed(self._tail):
                if frame.chunk.task == task and frame.chunk.offset <= offset:
                    return frame if frame.chunk.offset == offset else None
        return None

    def _read_logs(self) -> bool:
        news = False
        for _ in range(16):  # at most 1 MiB a task and tick, so that one noisy run does not starve the others
            changes = self._service.changes(self.run, event=self.event, logs=self.heads, limit=CHUNK)
            if changes.events:
                self.event = changes.events[-1].id
                news = True
            for chunk in changes.logs:
                self._keep(chunk)
            if not changes.logs:
                break
            news = True
        return news

    def _keep(self, chunk: LogChunk) -> None:
        frame = Frame(chunk, b"".join(encode(chunk.task, chunk.offset, chunk.data)))
        with self._condition:
            self._tail.append(frame)
            self._tail_size += len(chunk.data)
            while self._tail_size > TAIL:
                self._tail_size -= len(self._tail.popleft().chunk.data)
            self.heads[chunk.task] = chunk.offset + len(chunk.data)

    def _snapshot(self) -> Snapshot:
        self._made_at = time.monotonic()
        self._dirty = False
        service = self._service
        run = service.run(self.run)
        tasks, steps = service.tasks(self.run), service.steps(self.run)
        for task in tasks:
            self.heads.setdefault(task.id, 0)
        final = run.state.final
        estimate = None if final else service.estimate(self.run)
        explanation = "" if final else service.explain(self.run)
        detail = shapes.detail(run, tasks, steps, estimate, explanation)
        page = None
        if self._render is not None:
            page = json.dumps({"html": self._render(detail, run, tasks, steps)})
        steps_json = json.dumps([json.loads(shapes.step(one).model_dump_json()) for one in steps])
        return Snapshot(detail.model_dump_json(exclude={"steps"}), steps_json, page, final)


class Hub:
    """The channels of a process and the one thread that feeds them; it lives only while somebody looks."""

    def __init__(
        self, service: Service, *, viewers: int = 300, interval: float = 0.1, render: Render | None = None
    ) -> None:
        self.limit = viewers
        self.closed = False
        self._service = service
        self._interval = interval
        self._render = render
        self._lock = threading.Lock()
        self._channels: dict[int, Channel] = {}
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], bool] = lambda: False

    @property
    def viewers(self) -> int:
        with self._lock:
            return sum(channel.viewers for channel in self._channels.values())

    def stop_when(self, stop: Callable[[], bool]) -> None:
        """Let go of all viewers as soon as `stop` says so."""
        self._stop = stop

    def close(self) -> None:
        """Let go of all viewers."""
        self.closed = True
        with self._lock:
            channels = list(self._channels.values())
        for channel in channels:
            channel.wake()

    def join(self, run: int) -> Channel:
        """Become a viewer of a run; raises NotFound, and WebError 503 when there are too many viewers."""
        self._service.run(run)
        with self._lock:
            if self.closed:
                raise WebError(503, "shutting_down", "The server is shutting down; connect again in a moment.")
            if sum(channel.viewers for channel in self._channels.values()) >= self.limit:
                raise WebError(
                    503,
                    "too_many_viewers",
                    f"{self.limit} viewers follow runs live already, which is as many as this server takes.",
                    remedy="Everything but live updates works; try again in a minute.",
                )
            channel = self._channels.get(run)
            if channel is None:
                channel = self._channels[run] = Channel(self._service, run, self._render)
            channel.viewers += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._poll, name="hub", daemon=True)
                self._thread.start()
            return channel

    def leave(self, channel: Channel) -> None:
        """Stop being a viewer."""
        with self._lock:
            channel.viewers -= 1
            if channel.viewers == 0:
                self._channels.pop(channel.run, None)

    def _poll(self) -> None:
        seen: int | None = None
        while True:
            if self._stop():
                self.close()
            with self._lock:
                channels = list(self._channels.values())
                if not channels or self.closed:
                    self._thread = None
                    return
            seen = self._tick(channels, seen)
            time.sleep(self._interval)

    def _tick(self, channels: list[Channel], seen: int | None) -> int | None:
        """Feed the channels; a store that does not answer now is asked again at the next tick."""
        try:
            pulse = self._service.pulse()
            for channel in channels:
                channel.refresh(changed=pulse != seen)
        except Exception as error:  # noqa: BLE001 - the outermost frame of this thread: it must outlive any outage
            log.warning("cannot read the store for viewers", error=str(error))
            return None
        return pulse
