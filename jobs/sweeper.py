"""Keep the promises that no worker can keep: one pass a second, safe to run twice at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import structlog

from jobs.adapters.rq_doorbell import RqDoorbell
from jobs.adapters.sql_store import Store
from jobs.cleanup import Cleanup
from jobs.flag import Flag
from jobs.keeping import Done
from runner.errors import InfraError, StoreUnavailable

PASS_SECONDS = 1.0
RING_AGAIN_SECONDS = 5.0
CLEANUP_SECONDS = 10.0
HOUSEKEEPING_SECONDS = 120.0

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

    def __init__(
        self,
        store: Store,
        doorbell: RqDoorbell,
        cleanup: Cleanup,
        *,
        lease: float,
        housekeeping: Callable[[], Iterator[Done]] = lambda: iter(()),
        beside: Mapping[str, Callable[[Flag], None]] | None = None,
    ) -> None:
        """Take the parts; `housekeeping` parts with what this host and the records need no more, and tells of it.

        `beside`: what goes on in threads of their own until the flag is raised, by their names.
        """
        self._store, self._doorbell, self._cleanup, self._lease = store, doorbell, cleanup, lease
        self._housekeeping = housekeeping
        self._beside = beside or {}
        self._seen: dict[int, Sighting] = {}
        self._postponed: dict[int, float] = {}
        self._next_look = 0.0
        self.stop = Flag()  # a signal handler may raise it

    def work(self) -> None:
        """Pass after pass until stopped."""
        log.info("sweeper.ready")
        # A thread of its own: a Docker engine or a database that hangs must not hold up the leases.
        threads = [threading.Thread(target=self._clean_on, name="cleaner", daemon=True)]
        # And another one: an image takes its time to be removed, and a mirror to be packed anew.
        threads.append(threading.Thread(target=self._keep_house, name="housekeeper", daemon=True))
        # And one for each pool of machines: EC2 may take its time too.
        for name, work in self._beside.items():
            threads.append(threading.Thread(target=work, args=(self.stop,), name=name, daemon=True))
        for thread in threads:
            thread.start()
        while not self.stop.wait(PASS_SECONDS):
            try:
                self.sweep()
            except StoreUnavailable as error:
                self._seen = {}  # nobody could renew meanwhile: everyone gets a whole lease again
                log.error("sweeper.store_away", error=error.text)
            for thread in threads:
                if not thread.is_alive() and not self.stop.is_set():
                    # a bug: its trace is in the log, the supervisor starts anew
                    raise RuntimeError(f"the {thread.name} ended")

    def _clean_on(self) -> None:
        while not self.stop.wait(PASS_SECONDS):
            try:
                self.clean()
            except StoreUnavailable as error:
                log.error("sweeper.store_away", error=error.text)

    def _keep_house(self) -> None:
        while not self.stop.wait(HOUSEKEEPING_SECONDS):
            try:
                for done in self._housekeeping():
                    log.info("housekeeping.removed", what=done.what, name=done.name, why=done.why)
            except StoreUnavailable as error:
                log.error("sweeper.store_away", error=error.text)

    def sweep(self) -> None:
        """Do one pass over the tasks."""
        running = [(task, attempt, renewals) for task, attempt, renewals, _, _ in self._store.tasks.running()]
        now = time.monotonic()
        self._seen = sight(self._seen, running, now)
        for task, sighting in expired(self._seen, now, self._lease):
            if self._store.tasks.expire(task, sighting.attempt, sighting.renewals):
                log.warning("task.lease_expired", task=task, attempt=sighting.attempt)
        for task in self._store.tasks.requeue_due():
            log.info("task.due", task=task)
        for task, pool in self._store.tasks.to_ring(every=RING_AGAIN_SECONDS):
            if not self._doorbell.ring(pool, task):
                break

    def clean(self) -> None:
        """Do one pass over what is over."""
        self._store.database.write_back()
        now = time.monotonic()
        runs = self._store.runs.to_clean()
        self._postponed = {run: until for run, until in self._postponed.items() if until > now}
        for run in runs:
            if run not in self._postponed:
                self._clean(run)
        if now >= self._next_look:
            self._next_look = now + CLEANUP_SECONDS
            self._store.runs.forget_keys()
            self._store.machines.forget_old()
            self._orphans()

    def _clean(self, run: int) -> None:
        token = self._store.runs.begin_cleaning(run)
        if token is None:
            return
        cleaned = False
        try:
            for name in self._cleanup.run(run, lambda: self._store.runs.still_cleaning(run, token)):
                log.info("cleanup.removed", run=run, name=name)
            cleaned = True
        except InfraError as error:
            self._postponed[run] = time.monotonic() + CLEANUP_SECONDS
            log.warning("cleanup.postponed", run=run, code=error.code, error=error.text)
        if self._store.runs.cleaned(run, token, all_of_it=cleaned):
            log.info("run.cleaned", run=run, whole=cleaned)

    def _orphans(self) -> None:
        try:
            for name in self._cleanup.orphans():
                log.warning("cleanup.orphan", name=name)
        except InfraError as error:
            log.warning("cleanup.postponed", code=error.code, error=error.text)
