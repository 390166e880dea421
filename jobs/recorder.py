"""The ledger of one attempt: holds log bytes back for a moment, renews the lease, and refuses when it lost it."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Sequence

import structlog

from jobs.adapters.sql_ledger import INLINE_BYTES
from jobs.adapters.sql_store import Store
from runner.errors import Cancelled, Drained, Fenced, StoreUnavailable
from runner.model import Output, UnitResult
from runner.ports import Objects

FLUSH_SECONDS = 0.2
FLUSH_BYTES = 1 << 20

log = structlog.get_logger(__name__)


class LedgerRecorder:
    """A Recorder on the store. One thread of its own flushes and renews; every method may raise Fenced."""

    def __init__(
        self, store: Store, objects: Objects, *, task: int, attempt: int, lease: float, drain: threading.Event
    ) -> None:
        self._store, self._objects = store, objects
        self._task, self._attempt, self._lease = task, attempt, lease
        self._drain = drain
        self._lock = threading.RLock()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._source: tuple[int, int] | None = None
        self._cancelled = False
        self._fenced: Fenced | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"ledger-{task}", daemon=True)
        self._thread.start()

    # ---- what the runner calls ------------------------------------------------------------------------

    def log(self, data: bytes, *, source: tuple[int, int] | None = None) -> None:
        """Append to the task's log; written within FLUSH_SECONDS."""
        with self._lock:
            self._refuse()
            if source is not None and self._source is not None and source[0] != self._source[0]:
                self._flush()
            self._held.append(data)
            self._held_bytes += len(data)
            self._source = source or self._source
            if self._held_bytes >= FLUSH_BYTES:
                self._flush()

    def flush(self) -> None:
        """Write all that is held back."""
        with self._lock:
            self._refuse()
            self._flush()

    def step(self, name: str, *, state: str, seconds: float | None = None, detail: str = "") -> None:
        """Begin or end a step."""
        self._store.ledger.step(self._task, self._attempt, name, state=state, seconds=seconds, detail=detail)

    def mark(self, results: Sequence[UnitResult], *, source: tuple[int, int] | None = None) -> None:
        """Record finished units."""
        self._store.ledger.mark(self._task, self._attempt, results, source)

    def void(self, unit: str, reason: str) -> None:
        """Take a mark back."""
        self._store.ledger.void(self._task, self._attempt, unit, reason)

    def token(self, token: str, *, source: tuple[int, int] | None = None) -> None:
        """Record the last token."""
        self._store.ledger.token(self._task, self._attempt, token, source)

    def resume_point(self, token: str, output: Output) -> None:
        """Record from where the next container goes on."""
        self._store.ledger.resume_point(self._task, self._attempt, token, output)

    def offsets(self, execution: int) -> tuple[int, int]:
        """Give how far an execution's log and checkpoint were taken."""
        return self._store.ledger.offsets(self._task, execution)

    def execution(self, execution: int, *, state: str, container: str, exit_code: int | None = None) -> None:
        """Record a container's beginning or end."""
        self.flush()
        self._store.ledger.execution(
            self._task, self._attempt, execution, state=state, container=container, exit_code=exit_code
        )

    def next_execution(self) -> int:
        """Give a number that no container of this task had."""
        return self._store.ledger.next_execution(self._task, self._attempt)

    def check(self) -> None:
        """Raise Fenced, Cancelled or Drained."""
        self._refuse()
        if self._cancelled:
            raise Cancelled("The run was cancelled.")
        if self._drain.is_set():
            raise Drained

    # ---- the thread -----------------------------------------------------------------------------------

    def _refuse(self) -> None:
        if self._fenced is not None:
            raise self._fenced

    def _keep(self) -> None:
        next_renewal = time.monotonic()
        while not self._closed.wait(FLUSH_SECONDS):
            try:
                with self._lock:
                    self._flush()
                if time.monotonic() >= next_renewal:
                    next_renewal = time.monotonic() + self._lease / 3
                    self._cancelled = self._store.tasks.renew(self._task, self._attempt, self._lease)
            except Fenced as error:
                self._fenced = error
                log.warning("recorder.fenced", task=self._task, attempt=self._attempt)
                return
            except (StoreUnavailable, OSError) as error:
                log.error("recorder.failed", task=self._task, error=str(error))

    def _flush(self) -> None:
        if not self._held or self._fenced is not None:
            return
        data, source = b"".join(self._held), self._source
        digest = None
        if len(data) > INLINE_BYTES:
            digest, _ = self._objects.put(io.BytesIO(data), durable=False)
        self._store.ledger.append_log(self._task, self._attempt, data, object_digest=digest, source=source)
        self._held, self._held_bytes, self._source = [], 0, None

    def close(self) -> None:
        """Stop renewing; what is held back is written if it still may be."""
        self._closed.set()
        self._thread.join()
        with self._lock:
            try:
                self._flush()
            except Fenced as error:
                log.warning("recorder.fenced", task=self._task, error=str(error))
