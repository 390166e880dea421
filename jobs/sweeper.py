"""Keep the promises that no worker can keep: one pass a second, safe to run twice at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from jobs.adapters.rq_doorbell import RqDoorbell
from jobs.adapters.sql_store import Store
from jobs.cleanup import Cleanup
from runner.errors import InfraError, StoreUnavailable

PASS_SECONDS = 1.0
RING_AGAIN_SECONDS = 5.0
CLEANUP_SECONDS = 10.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Sighting:
    """A lease as it was first seen: while the renewal counter does not change, `since` (monotonic) stays."""

    attempt: int
    renewals: int
    since: float


def sight(seen: dict[int, Sighting], running: Iterable[tuple[int, int, int]], now: float) -> dict[int, Sighting]:
    """Note the (task, attempt, renewals) that run now; what did not change keeps the time of its first sighting."""
    found = {}
    for task, attempt, renewals in running:
        old = seen.get(task)
        same = old is not None and (old.attempt, old.renewals) == (attempt, renewals)
        found[task] = old if same and old is not None else Sighting(attempt, renewals, now)
    return found


def expired(seen: dict[int, Sighting], now: float, lease: float) -> list[tuple[int, Sighting]]:
    """Give the tasks whose lease was not renewed for its whole length, by this process' own clock."""
    return [(task, sighting) for task, sighting in seen.items() if now - sighting.since > lease]


class Sweeper:
    """Expired leases → interrupted; due → queued; queued but not ringing → ring; what is over → cleaned up."""

    def __init__(self, store: Store, doorbell: RqDoorbell, cleanup: Cleanup, *, lease: float) -> None:
        self._store, self._doorbell, self._cleanup, self._lease = store, doorbell, cleanup, lease
        self._seen: dict[int, Sighting] = {}
        self._next_cleanup = 0.0
        self.stop = threading.Event()

    def work(self) -> None:
        """Pass after pass until stopped."""
        log.info("sweeper.ready")
        while not self.stop.wait(PASS_SECONDS):
            try:
                self.sweep()
            except StoreUnavailable as error:
                self._seen = {}  # nobody could renew meanwhile: everyone gets a whole lease again
                log.error("sweeper.store_away", error=error.text)

    def sweep(self) -> None:
        """Do one pass."""
        now = time.monotonic()
        running = [(task, attempt, renewals) for task, attempt, renewals, _, _ in self._store.tasks.running()]
        self._seen = sight(self._seen, running, now)
        for task, sighting in expired(self._seen, now, self._lease):
            if self._store.tasks.expire(task, sighting.attempt, sighting.renewals):
                log.warning("task.lease_expired", task=task, attempt=sighting.attempt)
        for task in self._store.tasks.requeue_due():
            log.info("task.due", task=task)
        for task, pool in self._store.tasks.to_ring(every=RING_AGAIN_SECONDS):
            if not self._doorbell.ring(pool, task):
                break
        for run in self._store.runs.to_clean():
            self._clean(run)
        if now >= self._next_cleanup:
            self._next_cleanup = now + CLEANUP_SECONDS
            self._orphans()

    def _clean(self, run: int) -> None:
        try:
            self._cleanup.run(run)
        except InfraError as error:
            log.warning("cleanup.postponed", run=run, code=error.code, error=error.text)
            return
        self._store.runs.cleaned(run)
        log.info("run.cleaned", run=run)

    def _orphans(self) -> None:
        try:
            for name in self._cleanup.orphans():
                log.warning("cleanup.orphan", container=name)
        except InfraError as error:
            log.warning("cleanup.postponed", code=error.code, error=error.text)
