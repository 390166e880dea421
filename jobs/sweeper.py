"""Keep the promises that no worker can keep: one pass a second, safe to run twice at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from jobs.adapters.rq_doorbell import RqDoorbell
from jobs.adapters.sql_store import Store
from jobs.cleanup import Cleanup
from jobs.flag import Flag
from jobs.heartbeats import SWEEPER, Heart
from jobs.keeping import Done
from jobs.patience import Patience
from runner.errors import StoreUnavailable

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
        host: str = "",
        housekeeping: Sequence[Callable[[], Iterator[Done]]] = (),
        beside: Mapping[str, Callable[[Flag], None]] | None = None,
    ) -> None:
        """Take the parts. `host`: the name of this one.

        `housekeeping`: what parts with what this host and the records need no more, and tells of it. `beside`: what
        goes on in threads of their own until the flag is raised, by their names.
        """
        self._store, self._doorbell, self._cleanup, self._lease = store, doorbell, cleanup, lease
        self._housekeeping, self._host = housekeeping, host
        self._beside = beside or {}
        self._seen: dict[int, Sighting] = {}
        self._patience = Patience()
        self._next_look = 0.0
        self._heart = Heart(lambda: store.heartbeats.beat(SWEEPER))
        self.stop = Flag()  # a signal handler may raise it

    def work(self) -> None:
        """Pass after pass until stopped."""
        log.info("sweeper.ready")
        # A thread of its own: a Docker engine or a database that hangs must not hold up the leases.
        threads = [self._thread("cleaner", self._clean_on)]
        # And another one: an image takes its time to be removed, and a mirror to be packed anew.
        threads.append(self._thread("housekeeper", self._keep_house))
        # And one for each pool of machines: EC2 may take its time too.
        threads += [self._thread(name, partial(work, self.stop)) for name, work in self._beside.items()]
        for thread in threads:
            thread.start()
        while not self.stop.wait(PASS_SECONDS):
            try:
                self.sweep()
            except StoreUnavailable as error:
                self._seen = {}  # nobody could renew meanwhile: everyone gets a whole lease again
                log.error("sweeper.store_away", error=error.text)

    def _thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        """Give a thread that works until stopped: an error in it ends neither the thread nor the watch on the leases."""

        def run() -> None:
            while not self.stop.is_set():
                if self._patience.ready(name):
                    try:
                        with self._patience.guard(name):
                            work()
                    except StoreUnavailable as error:
                        log.error("sweeper.store_away", error=error.text)
                self.stop.wait(PASS_SECONDS)

        return threading.Thread(target=run, name=name, daemon=True)

    def _clean_on(self) -> None:
        while not self.stop.wait(PASS_SECONDS):
            self.clean()

    def _keep_house(self) -> None:
        while not self.stop.wait(HOUSEKEEPING_SECONDS):
            self.keep_house()

    def keep_house(self) -> None:
        """Part with what this host and the records need no more."""
        for number, part in enumerate(self._housekeeping):
            with self._patience.guard(f"housekeeping {number}"):
                for done in part():
                    log.info("housekeeping.removed", what=done.what, name=done.name, why=done.why)
                    self._store.keeping.note(self._host, done)

    def sweep(self) -> None:
        """Do one pass over the tasks. Raises StoreUnavailable; whatever else is wrong with one of them holds up no other."""
        self._heart.beat()
        running = [(task, attempt, renewals) for task, attempt, renewals, _, _ in self._store.tasks.running()]
        now = time.monotonic()
        self._seen = sight(self._seen, running, now)
        for task, sighting in expired(self._seen, now, self._lease):
            what = f"task {task}"
            if self._patience.ready(what):
                with self._patience.guard(what):
                    if self._store.tasks.expire(task, sighting.attempt, sighting.renewals):
                        log.warning("task.lease_expired", task=task, attempt=sighting.attempt)
        for what, step in (("due tasks", self._queue_due), ("rings", self._ring)):
            if self._patience.ready(what):
                with self._patience.guard(what):
                    step()

    def _queue_due(self) -> None:
        for task in self._store.tasks.requeue_due():
            log.info("task.due", task=task)

    def _ring(self) -> None:
        for task, pool in self._store.tasks.to_ring(every=RING_AGAIN_SECONDS):
            if not self._doorbell.ring(pool, task):
                break

    def clean(self) -> None:
        """Do one pass over what is over. Raises StoreUnavailable; what cannot be cleaned up is left for a while."""
        self._store.database.write_back()
        for run in self._store.runs.to_clean():
            what = f"run {run}"
            if self._patience.ready(what):
                with self._patience.guard(what):
                    self._clean(run)
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + CLEANUP_SECONDS
            with self._patience.guard("old records"):
                self._store.runs.forget_keys()
                self._store.machines.forget_old()
            for done in self._cleanup.orphans():
                log.warning("cleanup.orphan", what=done.what, name=done.name, why=done.why)
                self._store.keeping.note(self._host, done)

    def _clean(self, run: int) -> None:
        token = self._store.runs.begin_cleaning(run)
        if token is None:
            return
        cleaned = False
        removed: list[str] = []
        try:
            for name in self._cleanup.run(run, lambda: self._store.runs.still_cleaning(run, token)):
                log.info("cleanup.removed", run=run, name=name)
                removed.append(name)
            cleaned = True
        finally:
            if self._store.runs.cleaned(run, token, all_of_it=cleaned, removed=removed):
                log.info("run.cleaned", run=run, whole=cleaned)
