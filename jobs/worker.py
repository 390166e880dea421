"""One worker slot: hear the doorbell, claim the best task in SQL, do it, end it."""

from __future__ import annotations

import threading
import traceback
from dataclasses import dataclass

import structlog

from jobs.adapters.rq_doorbell import RqDoorbell
from jobs.adapters.sql_store import Store
from jobs.adapters.sql_tasks import Claim
from jobs.batches import divide
from jobs.recorder import LedgerRecorder
from jobs.run import TaskState
from runner import pipeline
from runner.errors import BranchError, Cancelled, Drained, Fenced, InfraError, StoreUnavailable
from runner.execution import Runtime
from runner.model import Order, Prepared, Reason, TaskKind
from runner.spec import parse_spec

LISTEN_SECONDS = 5
PRESENCE_SECONDS = 5.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Place:
    """Who this slot is."""

    name: str
    host: str
    pool: str
    pid: int
    slots: int
    installation: str
    lease: float


class Slot:
    """Take tasks one after the other until told to drain."""

    def __init__(self, place: Place, store: Store, doorbell: RqDoorbell, runtime: Runtime) -> None:
        self._place, self._store, self._doorbell, self._runtime = place, store, doorbell, runtime
        self.drain = threading.Event()

    def work(self) -> None:
        """Work until drained. A running container is left running, for whoever claims its task next."""
        place = self._place
        self._store.workers.register(name=place.name, host=place.host, pool=place.pool, pid=place.pid)
        presence = threading.Thread(target=self._show_presence, name="presence", daemon=True)
        presence.start()
        log.info("worker.ready", worker=place.name, pool=place.pool)
        while not self.drain.is_set():
            try:
                claim = self._store.tasks.claim(pool=place.pool, host=place.host, worker=place.name, lease=place.lease)
                if claim is not None:
                    self.do(claim)
                    self._store.workers.seen(place.name, idle=True)
                else:
                    self._doorbell.listen(place.pool, seconds=LISTEN_SECONDS)
            except StoreUnavailable as error:
                log.error("worker.store_away", error=error.text)
                self.drain.wait(1.0)
        self._store.workers.unregister(place.name)
        log.info("worker.drained", worker=place.name)

    def _show_presence(self) -> None:
        while not self.drain.wait(PRESENCE_SECONDS):
            try:
                self._store.workers.seen(self._place.name, draining=self.drain.is_set())
            except StoreUnavailable as error:
                log.error("worker.store_away", error=error.text)

    def do(self, claim: Claim) -> None:
        """Do a claimed task and record how it ended."""
        task, attempt = claim.task.id, claim.task.attempt
        bound = log.bind(run=claim.task.run, task=task, attempt=attempt)
        bound.info("task.claimed", kind=claim.task.kind, units=len(claim.units))
        recorder = LedgerRecorder(
            self._store, self._runtime.objects, task=task, attempt=attempt, lease=claim.lease, drain=self.drain
        )
        try:
            try:
                result = pipeline.run(self._order(claim), self._runtime, recorder)
            finally:
                recorder.close()
            if result is not None:
                self._end_preparation(claim, result)
            else:
                self._store.tasks.end(task, attempt, TaskState.DONE, None)
        except BranchError as error:
            bound.info("task.failed", code=error.code)
            self._store.tasks.end(task, attempt, TaskState.FAILED, Reason(error.code, error.text))
        except Cancelled:
            self._store.tasks.end(task, attempt, TaskState.CANCELLED, Reason("cancelled", "The run was cancelled."))
        except Fenced as error:
            bound.warning("task.fenced", error=error.text)
            self._store.tasks.note_refusal(task, attempt)
        except InfraError as error:
            bound.warning("task.interrupted", code=error.code, error=error.text)
            self._interrupt(claim, Reason(error.code, error.text), free=isinstance(error, Drained))
        except Exception as error:  # noqa: BLE001 - the worker's outermost frame: nothing may end the slot
            bound.error("task.broken", error=repr(error), trace=traceback.format_exc())
            text = f"An error in Seatrial itself: {type(error).__name__}. The worker's log tells more."
            self._interrupt(claim, Reason("internal", text))

    def _interrupt(self, claim: Claim, reason: Reason, *, free: bool = False) -> None:
        try:
            self._store.tasks.interrupt(claim.task.id, claim.task.attempt, reason, free=free)
        except Fenced:
            self._store.tasks.note_refusal(claim.task.id, claim.task.attempt)

    def _end_preparation(self, claim: Claim, result: Prepared) -> None:
        task = claim.task
        durations = self._store.ledger.durations(claim.project, task.leg, before=task.run)
        slots = max(self._place.slots, len([w for w in self._store.workers.workers() if w.pool == task.pool]))
        self._store.plan.prepared(task.id, task.attempt, result, lambda units: divide(units, durations, slots=slots))
        for found, pool in self._store.tasks.to_ring(every=0.0, limit=slots):
            log.debug("task.rung", task=found)
            self._doorbell.ring(pool, found)

    def _order(self, claim: Claim) -> Order:
        task = claim.task
        live = self._store.ledger.live_execution(task.id)
        spec = parse_spec(claim.spec_text, source=claim.spec_source)
        if claim.database is not None and spec.database is not None:
            spec = spec.model_copy(update={"database": spec.database.model_copy(update={"source": claim.database})})
        return Order(
            run=task.run,
            leg=task.leg,
            task=task.id,
            kind=TaskKind(task.kind),
            attempt=task.attempt,
            project=claim.project,
            commit=claim.commit,
            spec=spec,
            migrate=claim.migrate,
            units=claim.units,
            units_filter=claim.units_filter,
            resume_from=claim.resume_from,
            resume_output=claim.resume_output,
            image=claim.image,
            template=claim.template,
            installation=self._place.installation,
            live=live[0] if live is not None and live[2] == self._place.host else None,
        )
