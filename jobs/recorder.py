"""The ledger of one attempt: holds log bytes and steps back for a moment, renews the lease, and refuses when it lost it.

A store that is away for a while costs nothing: the container goes on, and every write is asked again until the store
answers. Each of them may be asked twice, because an answer can get lost after the store has done it.
"""

from __future__ import annotations

import errno
import io
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import structlog

from jobs.adapters.sql_ledger import INLINE_BYTES, StepChange
from jobs.adapters.sql_store import Store
from runner.errors import Cancelled, DiskFull, Drained, Fenced, InfraError, StoreUnavailable
from runner.model import Output, Reason, UnitResult
from runner.ports import Objects
from runner.quota import Used

FLUSH_SECONDS = 0.2
FLUSH_BYTES = 1 << 20
# Fail-over of a managed database takes a minute or two; what a container did in hours is worth ten.
PATIENCE_SECONDS = 600.0
AGAIN_SECONDS = 0.5
COMPLAIN_SECONDS = 10.0

T = TypeVar("T")
log = structlog.get_logger(__name__)


class Drain(Protocol):
    """Tells that this worker is to end; an Event does, or a Flag."""

    def is_set(self) -> bool: ...


@dataclass(frozen=True)
class _Chunk:
    """Bytes on their way into the log; asked again they are the same."""

    data: bytes
    source: tuple[int, int] | None


@dataclass(frozen=True)
class _HeldStep:
    """A change of a step on its way, and when it was told."""

    change: StepChange
    at: float


class LedgerRecorder:
    """A Recorder on the store. Threads of its own flush and renew; every method may raise Fenced.

    `log_size`: how long the task's log was when it was claimed. `patience`: seconds that a call of the runner waits
    for a store that does not answer, before it raises StoreUnavailable.
    """

    def __init__(
        self,
        store: Store,
        objects: Objects,
        *,
        task: int,
        attempt: int,
        lease: float,
        drain: Drain,
        log_size: int | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._store, self._objects = store, objects
        self._task, self._attempt, self._lease = task, attempt, lease
        self._drain, self._patience = drain, patience
        self._lock = threading.RLock()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._source: tuple[int, int] | None = None
        self._chunk: _Chunk | None = None
        self._steps: list[_HeldStep] = []
        self._log_size = log_size
        self._cancelled = False
        self._ending = False
        self._fenced: Fenced | None = None
        self.refused: list[str] = []  # what was not written because another attempt holds the task
        self._complain_at = 0.0
        self._closed = threading.Event()
        # Two of them: an object store that takes its time over a piece of the log must not cost the lease.
        self._threads = [
            threading.Thread(target=self._keep, args=(action, every), name=f"{name}-{task}", daemon=True)
            for name, action, every in (
                ("lease", self._renew, lease / 3),
                ("ledger", self._flush_if_free, FLUSH_SECONDS),
            )
        ]
        for thread in self._threads:
            thread.start()

    # ---- what the runner calls ------------------------------------------------------------------------

    def log(self, data: bytes, *, source: tuple[int, int] | None = None) -> None:
        """Append to the task's log; written within FLUSH_SECONDS."""
        with self._lock:
            self._refuse(f"{len(data)} bytes of the log")
            if source is not None and self._source is not None and source[0] != self._source[0]:
                self.flush()
            self._held.append(data)
            self._held_bytes += len(data)
            self._source = source or self._source
            if self._held_bytes >= FLUSH_BYTES:
                self.flush()

    def flush(self) -> None:
        """Write all that is held back."""
        with self._lock:
            held = self._chunk is not None or self._held or self._steps
            self._steadily(self._flush, "log and steps" if held else "")

    def step(self, name: str, *, state: str, seconds: float | None = None, detail: str = "") -> None:
        """Begin or end a step; written within FLUSH_SECONDS. One that ended until then is written once."""
        with self._lock:
            self._refuse(f"the step {name}")
            last = self._steps[-1].change if self._steps else None
            if last is not None and (last.name, last.state) == (name, "running") and state != "running":
                self._steps.pop()
            self._steps.append(_HeldStep(StepChange(name, state, seconds, detail), time.monotonic()))

    def mark(self, results: Sequence[UnitResult], *, source: tuple[int, int] | None = None) -> None:
        """Record finished units."""
        units = f"{len(results)} unit{'s' if len(results) != 1 else ''}"
        self._steadily(lambda: self._store.ledger.mark(self._task, self._attempt, results, source), units)

    def void(self, unit: str, reason: str) -> None:
        """Take a mark back."""
        self._steadily(lambda: self._store.ledger.void(self._task, self._attempt, unit, reason), "a unit taken back")

    def token(self, token: str, *, source: tuple[int, int] | None = None) -> None:
        """Record the last token."""
        self._steadily(lambda: self._store.ledger.token(self._task, self._attempt, token, source), "a token")

    def resume_point(self, token: str, output: Output) -> None:
        """Record from where the next container goes on."""
        point = self._store.ledger.resume_point
        self._steadily(lambda: point(self._task, self._attempt, token, output), "a resume point")

    def offsets(self, execution: int) -> tuple[int, int]:
        """Give how far an execution's log and checkpoint were taken."""
        return self._steadily(lambda: self._store.ledger.offsets(self._task, execution), "")

    def execution(
        self,
        execution: int,
        *,
        state: str,
        container: str,
        exit_code: int | None = None,
        fault: Reason | None = None,
        wrote: Used | None = None,
    ) -> None:
        """Record a container's beginning or end, and what it wrote."""
        self.flush()
        ledger = self._store.ledger
        self._steadily(
            lambda: ledger.execution(
                self._task,
                self._attempt,
                execution,
                state=state,
                container=container,
                exit_code=exit_code,
                fault=fault,
                wrote=wrote,
            ),
            f"a container as {state}",
        )

    def next_execution(self) -> int:
        """Give a number that no container of this task had."""
        number = self._store.ledger.next_execution
        return self._steadily(lambda: number(self._task, self._attempt), "a new container")

    def renew(self) -> None:
        """Renew the lease now; raises Fenced, even where the thread that renews has not heard of it yet."""
        self._steadily(self._renew, "the lease")

    def check(self) -> None:
        """Raise Fenced, Cancelled or Drained."""
        self._refuse()
        if self._cancelled:
            raise Cancelled("The run was cancelled.")
        if self._drain.is_set():
            raise Drained

    # ---- what the slot calls --------------------------------------------------------------------------

    def ending(self) -> None:
        """Tell that the attempt's end is being written; it is renewed until close(), and then needs no lease."""
        self._ending = True

    def close(self) -> None:
        """Stop renewing; what is held back is written if it still may be. Safe to call twice."""
        self._closed.set()
        for thread in self._threads:
            thread.join()
        with self._lock:
            try:
                self._flush()
            except (Fenced, InfraError, OSError) as error:
                # Not lost: the next attempt takes them from the container's file, from where they were recorded.
                held = self._held_bytes + (len(self._chunk.data) if self._chunk else 0)
                if held and isinstance(error, Fenced):
                    self._note_refused(f"{held} bytes of the log")
                log.warning("recorder.not_written", task=self._task, bytes=held, error=str(error))

    # ---- writing --------------------------------------------------------------------------------------

    def _refuse(self, what: str = "") -> None:
        if self._fenced is not None:
            self._note_refused(what)
            raise self._fenced

    def _note_refused(self, what: str) -> None:
        if what:
            self.refused.append(what)

    def _steadily(self, action: Callable[[], T], what: str) -> T:
        """Do it when the store answers; `what` it writes, empty when it only reads."""
        deadline = time.monotonic() + self._patience
        while True:
            self._refuse(what)
            try:
                return action()
            except Fenced as error:
                self._fenced = error
                self._note_refused(what)
                raise
            except StoreUnavailable as error:
                if time.monotonic() >= deadline:
                    raise
                if self._drain.is_set():
                    raise Drained from error
                self._complain(error)
            time.sleep(AGAIN_SECONDS)

    def _complain(self, error: Exception) -> None:
        if time.monotonic() >= self._complain_at:
            self._complain_at = time.monotonic() + COMPLAIN_SECONDS
            log.error("recorder.store_away", task=self._task, attempt=self._attempt, error=str(error))

    def _flush(self) -> None:
        while self._chunk is not None or self._held or self._steps:
            now, ledger, told = time.monotonic(), self._store.ledger, len(self._steps)
            changes = [replace(held.change, late=now - held.at) for held in self._steps]
            if self._chunk is None and self._held:
                self._chunk = _Chunk(b"".join(self._held), self._source)
                self._held, self._held_bytes, self._source = [], 0, None
            if self._chunk is None:
                ledger.steps(self._task, self._attempt, changes)
            else:
                data, source = self._chunk.data, self._chunk.source
                digest = self._put(data) if len(data) > INLINE_BYTES else None
                self._log_size = ledger.append_log(
                    self._task,
                    self._attempt,
                    data,
                    object_digest=digest,
                    source=source,
                    at=self._log_size,
                    changes=changes,
                )
                self._chunk = None
            del self._steps[:told]

    def _put(self, data: bytes) -> str:
        try:
            return self._objects.put(io.BytesIO(data), durable=False)[0]
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(f"The host's disk is full: {error}") from error
            raise

    # ---- the threads ----------------------------------------------------------------------------------

    def _keep(self, action: Callable[[], None], every: float) -> None:
        """Do it again and again; after an error soon."""
        pause = FLUSH_SECONDS
        while not self._closed.wait(pause):
            pause = every
            try:
                action()
            except Fenced as error:
                if self._fenced is None and not self._ending:
                    self._note_refused("the lease" if action == self._renew else "log and steps")
                    log.warning("recorder.fenced", task=self._task, attempt=self._attempt)
                self._fenced = error
                return
            except (InfraError, OSError) as error:
                self._complain(error)
                pause = FLUSH_SECONDS

    def _renew(self) -> None:
        self._cancelled = self._store.tasks.renew(self._task, self._attempt, self._lease)

    def _flush_if_free(self) -> None:
        """Write what is held back, unless a call of the runner does so now and maybe waits for the store."""
        if self._lock.acquire(blocking=False):
            try:
                self._flush()
            finally:
                self._lock.release()
