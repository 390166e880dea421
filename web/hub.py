"""One reader of the store a process, fanned out to all viewers of a run."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from jobs.run import Run, StepRecord, Task
from runner.errors import StoreUnavailable
from web import shapes
from web.problems import WebError
from web.schemas import RunDetail
from web.sse import CHUNK, log_event, portion

if TYPE_CHECKING:
    from jobs.adapters.sql_inside import Pulse
    from jobs.service import Service

log = structlog.get_logger(__name__)

# How many bytes of log a run's channel keeps for viewers that are nearly up to date; the others read the store.
TAIL = 4 << 20

# A run's snapshot is made at most four times a second, and at least every ten seconds while it goes on (its ETA
# changes also when nothing else does).
SNAPSHOT_EVERY = 0.25
SNAPSHOT_AT_LEAST = 10.0

# What a run waits for changes with other runs and with workers: it is looked at again so often while anything does.
WAITING_EVERY = 2.0

# What is read of a run's logs at each tick, so that one noisy run does not starve the others.
READ_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Snapshot:
    """What all viewers of a run see of it; each text is the `data` of an event. `logs`: how long its logs are."""

    run: str
    steps: str
    page: str | None
    final: bool
    waiting: bool
    logs: Mapping[int, int]


@dataclass(frozen=True)
class Frame:
    """Bytes [offset, offset + size) of a log as an event without its id, made once for all viewers."""

    task: int
    offset: int
    size: int
    event: bytes


Render = Callable[[RunDetail, Run, list[Task], list[StepRecord]], str]


class Channel:
    """A run that somebody looks at. The poller writes it; viewers read it and wait for its version to change."""

    def __init__(self, service: Service, run: int, render: Render | None) -> None:
        self.run = run
        self.viewers = 0
        self.version = 0
        self.event = 0
        self.away = False  # the records do not answer
        self._service = service
        self._render = render
        self._condition = threading.Condition()
        self._tail: deque[Frame] = deque()
        self._tail_size = 0
        self._made_at = 0.0
        self._dirty = True
        self._moved = False  # something was recorded since the snapshot was made
        self._seen: Pulse | None = None
        self._removed = service.run(run).removed is not None
        self.heads: dict[int, int] = {} if self._removed else {task.id: task.log_size for task in service.tasks(run)}
        self.snapshot = self._snapshot()

    @property
    def behind(self) -> bool:
        """Tell whether there is more to read than was read."""
        return self._seen is None

    def refresh(self, found: Pulse | None, *, changed: bool) -> None:
        """Read what is new and wake the viewers. `found`: how far the run has come; `changed`: any record did."""
        news = False
        if found is not None and found != self._seen:
            self._dirty = True
            news, whole = self._read_logs(found.logs)
            news = news or found.event > self.event
            self.event = found.event
            self._seen = found if whole else None
        age = time.monotonic() - self._made_at
        self._moved = self._moved or changed
        if self._moved and self.snapshot.waiting and age >= WAITING_EVERY:
            self._dirty = True
        if (self._dirty and age >= SNAPSHOT_EVERY) or (age >= SNAPSHOT_AT_LEAST and not self.snapshot.final):
            snapshot = self._snapshot()
            news = news or snapshot != self.snapshot
            self.snapshot = snapshot
        if news:
            self.wake()

    def tell_away(self, *, away: bool) -> None:
        """Let the viewers know that the records do not answer, or do so again."""
        if away != self.away:
            self.away = away
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
                if frame.task == task and frame.offset <= offset:
                    return frame if frame.offset == offset else None
        return None

    def _read_logs(self, sizes: Mapping[int, int]) -> tuple[bool, bool]:
        """Read up to a MiB of what the logs have grown by; tell whether anything came, and whether that was all."""
        if self._removed:
            return False, True
        left, news = READ_AT_ONCE, False
        for task, size in sizes.items():
            head = self.heads.get(task, 0)
            if head >= size:
                continue
            end = min(size, head + left)
            rest = b""
            for piece in self._service.open_log(task, offset=head, end=end, block=CHUNK):
                rest = self._keep(task, rest + piece)
                left -= len(piece)
            if rest:
                self._keep(task, rest, whole=True)
            news = True
            if end < size:
                return news, False
        return news, True

    def _keep(self, task: int, data: bytes, *, whole: bool = False) -> bytes:
        """Make frames of bytes that follow what is kept; give the beginning of a character that is left, unless `whole`."""
        while data:
            size, text = portion(data)
            offset = self.heads.get(task, 0)
            frame = Frame(task, offset, size, b"".join(log_event(task, offset, data[:size], text)))
            with self._condition:
                self._tail.append(frame)
                self._tail_size += size
                while self._tail_size > TAIL:
                    self._tail_size -= self._tail.popleft().size
                self.heads[task] = offset + size
            data = data[size:]
            if text and not whole:
                break
        return data

    def _snapshot(self) -> Snapshot:
        self._made_at = time.monotonic()
        self._dirty = self._moved = False
        service = self._service
        run = service.run(self.run)
        self._removed = run.removed is not None
        tasks, steps = service.tasks(self.run), service.steps(self.run)
        for task in tasks:
            self.heads.setdefault(task.id, 0)
        final = run.state.final
        estimate = None if final else service.estimate(run, tasks)
        held = None if final else service.waiting(run, tasks)
        detail = shapes.detail(run, tasks, steps, estimate, held)
        page = None
        if self._render is not None:
            page = json.dumps({"html": self._render(detail, run, tasks, steps)})
        steps_json = json.dumps([json.loads(shapes.step(one).model_dump_json()) for one in steps])
        logs = {} if self._removed else {task.id: task.log_size for task in tasks}
        return Snapshot(detail.model_dump_json(exclude={"steps"}), steps_json, page, final, held is not None, logs)


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
            changed = pulse != seen
            found: Mapping[int, Pulse] = {}
            if changed or any(channel.behind for channel in channels):
                found = self._service.pulses([channel.run for channel in channels])
            for channel in channels:
                channel.refresh(found.get(channel.run), changed=changed)
                channel.tell_away(away=False)
        except Exception as error:  # noqa: BLE001 - the outermost frame of this thread: it must outlive any outage
            log.warning("cannot read the store for viewers", error=str(error))
            for channel in channels:
                channel.tell_away(away=isinstance(error, StoreUnavailable))
            return None
        return pulse
