"""One worker slot: hear the doorbell, claim the best task in SQL, do it, end it."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

import structlog

from jobs.adapters.rq_doorbell import RqDoorbell
from jobs.adapters.sql_store import Store
from jobs.adapters.sql_tasks import Claim
from jobs.batches import divide
from jobs.flag import Flag
from jobs.recorder import LedgerRecorder
from jobs.run import NO_FIT, TaskState
from runner import pipeline
from runner.errors import (
    BaseReplaced,
    BranchError,
    Cancelled,
    ContainerFoundDead,
    Drained,
    Fenced,
    InfraError,
    OutputsGone,
    StoreUnavailable,
)
from runner.execution import Runtime
from runner.model import BASELINE_AGAIN, Known, Order, Prepared, Reason, TaskKind
from runner.room import Spare
from runner.spec import Spec, parse_spec
from runner.units import UnitFilterError

LISTEN_SECONDS = 5
PRESENCE_SECONDS = 5.0
AGAIN_SECONDS = 0.5
SHORT_SECONDS = 1.0  # between two looks for room, and for what could be adopted meanwhile

# What the records make of an end that is asked for: a batch is done only when its units are, an interruption may be one too
# many, or the run was cancelled.
_INTERRUPTION = frozenset({TaskState.INTERRUPTED, TaskState.ERRORED, TaskState.CANCELLED})
ENDS: dict[TaskState | None, frozenset[TaskState]] = {
    TaskState.DONE: frozenset({TaskState.DONE, TaskState.FAILED}),
    TaskState.FAILED: frozenset({TaskState.FAILED}),
    TaskState.CANCELLED: frozenset({TaskState.CANCELLED}),
    None: _INTERRUPTION,
}

T = TypeVar("T")
log = structlog.get_logger(__name__)


@lru_cache(64)  # a batch follows its preparation, and a run others of its branch
def _parsed(text: str, source: str) -> Spec:
    return parse_spec(text, source=source)


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


@dataclass(frozen=True)
class Ending:
    """How an attempt ended. `state` is None for an interruption; `free`: one that costs nothing."""

    state: TaskState | None
    reason: Reason | None = None
    prepared: Prepared | None = None
    free: bool = False


class Slot:
    """Take tasks one after the other until told to drain."""

    def __init__(
        self,
        place: Place,
        store: Store,
        doorbell: RqDoorbell,
        runtime: Runtime,
        *,
        lacking: Callable[[], str | None] = lambda: None,
        closed: Callable[[], str | None] = lambda: None,
        spare: Callable[[], Spare | None] = lambda: None,
    ) -> None:
        """Take the parts; `lacking` tells what this host lacks to take new work, None when it lacks nothing.

        `closed` tells why this host takes no work at all, not even what stands on it; `spare`, what may be written on it.
        """
        self._place, self._store, self._doorbell, self._runtime = place, store, doorbell, runtime
        self._lacking, self._closed, self._spare = lacking, closed, spare
        self._shortage: str | None = None
        self._unfit: str | None = None  # there is room, but not for what is queued
        self._since = 0.0  # when it registered, by the store's clock
        self._unsure = False  # the answer to a claim may be lost, and the task ours
        self.drain = Flag()  # a signal handler may raise it

    def work(self) -> None:
        """Work until drained. A running container is left running, for whoever claims its task next."""
        place = self._place
        self._since = self._steadily(
            lambda: self._store.workers.register(name=place.name, host=place.host, pool=place.pool, pid=place.pid)
        )
        presence = threading.Thread(target=self._show_presence, name="presence", daemon=True)
        presence.start()
        log.info("worker.ready", worker=place.name, pool=place.pool)
        while not self.drain.is_set():
            try:
                self._give_back_the_unheard_of()
                closed = self._closed()
                self._look_for_room(closed)
                if closed is not None:
                    self.drain.wait(SHORT_SECONDS)
                    continue
                short = self._shortage is not None
                spare = None if short else self._spare()
                claim = self._store.tasks.claim(
                    pool=place.pool,
                    host=place.host,
                    worker=place.name,
                    lease=place.lease,
                    adopt_only=short,
                    spare=spare.used if spare is not None else None,
                )
                if claim is not None:
                    self._unfit = None
                    self.do(claim)
                    self._store.workers.seen(place.name, idle=True, shortage=self._shortage)
                elif self._look_for_unfit(spare) or short:
                    self.drain.wait(SHORT_SECONDS)  # not by the doorbell: its rings are for those who have room
                else:
                    self._doorbell.listen(place.pool, seconds=LISTEN_SECONDS, stop=self.drain)
            except StoreUnavailable as error:
                log.error("worker.store_away", error=error.text)
                self._unsure = True
                self.drain.wait(1.0)
        presence.join()
        try:
            self._give_back_the_unheard_of()
            self._store.workers.unregister(place.name)
        except StoreUnavailable as error:
            log.error("worker.store_away", error=error.text)  # it is not listed any more when it was silent for long
        log.info("worker.drained", worker=place.name)

    def _give_back_the_unheard_of(self) -> None:
        """Give back what the store has claimed for us without our hearing of it: its lease would have to run out."""
        if self._unsure:
            reason = Reason(StoreUnavailable.code, "The answer to its claim was lost, so nobody has worked on it.")
            for task in self._store.tasks.give_back(self._place.name, self._since, reason):
                log.warning("task.given_back", task=task, worker=self._place.name)
            self._unsure = False

    def _look_for_room(self, closed: str | None) -> None:
        """Tell, once each, that this host takes no new work, being below its floor or closed, and that it does again."""
        shortage = closed or self._lacking()
        if (shortage is None) != (self._shortage is None):
            self._shortage = shortage
            if shortage is not None:
                log.warning("worker.no_room", worker=self._place.name, host=self._place.host, lacking=shortage)
            else:
                log.info("worker.room_again", worker=self._place.name, host=self._place.host)
            self._store.workers.seen(self._place.name, shortage=shortage)
        self._shortage = shortage

    def _look_for_unfit(self, spare: Spare | None) -> bool:
        """Tell whether something is queued for which there is not room enough here, and tell so on our row."""
        place, unfit = self._place, None
        if spare is not None:
            yet = self._store.tasks.does_not_fit(pool=place.pool, host=place.host, spare=spare.used)
            unfit = None if yet is None else f"{NO_FIT}: {spare.told(yet)}"
        changed = (unfit is None) != (self._unfit is None)
        self._unfit = unfit
        if changed:
            self._store.workers.seen(place.name, shortage=self._shortage or unfit)
            if unfit is not None:
                log.warning("worker.no_fit", worker=place.name, host=place.host, lacking=unfit)
        return unfit is not None

    def _show_presence(self) -> None:
        draining = False
        while not draining:
            draining = self.drain.wait(PRESENCE_SECONDS)
            try:
                shortage = self._shortage or self._unfit
                self._store.workers.seen(self._place.name, draining=draining, shortage=shortage)
            except StoreUnavailable as error:
                log.error("worker.store_away", error=error.text)

    def do(self, claim: Claim) -> None:
        """Do a claimed task and record how it ended."""
        task, attempt = claim.task.id, claim.task.attempt
        bound = log.bind(run=claim.task.run, task=task, attempt=attempt)
        bound.info("task.claimed", kind=claim.task.kind, units=len(claim.units))
        recorder = LedgerRecorder(
            self._store,
            self._runtime.objects,
            task=task,
            attempt=attempt,
            lease=claim.lease,
            drain=self.drain,
            log_size=claim.task.log_size,
        )
        fenced = False
        try:
            ending = self._verify(claim, recorder)
            bound.info("task.ended", state=ending.state or "interrupted", code=ending.reason and ending.reason.code)
            recorder.ending()  # the lease is kept while the end is written: a long list of units takes its time
            self._record(claim, ending, recorder)
        except Fenced as error:
            bound.warning("task.fenced", error=error.text)
            fenced = True
        finally:
            recorder.close()
        if fenced:
            refused, worker = recorder.refused, self._place.name
            self._steadily(lambda: self._store.tasks.note_refusal(task, attempt, worker=worker, what=refused))

    def _verify(self, claim: Claim, recorder: LedgerRecorder) -> Ending:
        """Run the pipeline and tell what its end means; only Fenced is raised."""
        try:
            try:
                order = self._order(claim)
                if order.kind is TaskKind.VERIFY and not order.units and order.live is None:
                    return Ending(TaskState.DONE)  # an earlier one finished all units; end() knows its fault
                result = pipeline.run(order, self._runtime, recorder)
            finally:
                recorder.flush()
        except BranchError as error:
            return Ending(TaskState.FAILED, Reason(error.code, error.text))
        except Cancelled:
            return Ending(TaskState.CANCELLED, Reason("cancelled", "The run was cancelled."))
        except Fenced:
            raise
        except InfraError as error:
            return Ending(None, Reason(error.code, error.text), free=isinstance(error, Drained | ContainerFoundDead))
        except Exception as error:  # noqa: BLE001 - the worker's outermost frame: nothing may end the slot
            log.error("task.broken", task=claim.task.id, error=repr(error), trace=traceback.format_exc())
            text = f"An error in Seatrial itself: {type(error).__name__}. The worker's log tells more."
            return Ending(None, Reason("internal", text))
        return Ending(TaskState.DONE, prepared=result)

    def _record(self, claim: Claim, ending: Ending, recorder: LedgerRecorder) -> None:
        """Write the end; raises Fenced when the task was taken from us."""
        tasks, task, attempt = self._store.tasks, claim.task.id, claim.task.attempt
        asked = 0
        possible = set(ENDS[ending.state])  # what is recorded for the attempt when an answer was lost

        def write() -> None:
            nonlocal asked
            asked += 1
            if ending.prepared is not None:
                try:
                    self._end_preparation(claim, ending.prepared)
                except (BaseReplaced, OutputsGone) as error:  # the next attempt starts from what there is then
                    possible.update(ENDS[None])
                    tasks.interrupt(task, attempt, Reason(error.code, error.text))
                except UnitFilterError as error:
                    tasks.end(task, attempt, TaskState.FAILED, Reason(error.code, error.text))
            elif ending.state is not None:
                tasks.end(task, attempt, ending.state, ending.reason)
            else:
                assert ending.reason is not None
                tasks.interrupt(task, attempt, ending.reason, free=ending.free)

        try:
            self._steadily(write)
        except Fenced:
            if asked == 1 or self._steadily(lambda: tasks.outcome(task, attempt)) not in possible:
                recorder.refused.append(f"its end as {ending.state or TaskState.INTERRUPTED}")
                raise  # else the first answer was lost, and the end stands as it was asked for
        if ending.prepared is not None:
            self._ring_the_others()

    def _end_preparation(self, claim: Claim, result: Prepared) -> None:
        task = claim.task
        leg = "baseline" if task.leg == BASELINE_AGAIN else task.leg
        durations = self._store.ledger.durations(claim.project, leg, before=task.run)
        slots = max(self._place.slots, len([w for w in self._store.workers.workers() if w.pool == task.pool]))
        first, reuse = frozenset[str](), None
        if claim.compares:
            first = self._store.compare.differed(claim.project, before=task.run)
        if claim.only_of is not None:
            wanted = self._store.compare.harmed(claim.only_of)
            result = replace(result, units=tuple(unit for unit in result.units if unit in wanted))
        elif claim.compares and claim.reuse and task.leg == "baseline":
            migrations = bool(_parsed(claim.spec_text, claim.spec_source).migrate)
            reuse = self._store.reuse.find(task.run, task.leg, result, migrations=migrations)
            if result.known is not None and (reuse is None or set(result.units) - reuse.units.keys()):
                raise OutputsGone(f"The units of run {result.known.run} are not all there any more.")
        self._store.plan.prepared(
            task.id,
            task.attempt,
            result,
            lambda units: divide(units, durations, slots=slots, first=first),
            reuse=reuse,
            only_of=claim.only_of,
        )

    def _known(self, claim: Claim, spec: Spec) -> Known | None:
        """Look for an earlier leg that may spare a baseline's preparation, because all of its units are finished."""
        task = claim.task
        prepares = task.kind is TaskKind.PREPARE and task.leg == "baseline" and claim.compares
        if not prepares or not claim.reuse or claim.only_of is not None:
            return None
        return self._store.reuse.whole(task.run, migrations=bool(spec.migrate))

    def _ring_the_others(self) -> None:
        try:
            found = self._store.tasks.to_ring(every=0.0, limit=self._place.slots)
        except StoreUnavailable:
            return  # the sweeper rings
        for task, pool in found:
            self._doorbell.ring(pool, task)

    def _steadily(self, action: Callable[[], T]) -> T:
        """Ask until the store answers: nothing else can be done meanwhile, and no end of a task may get lost."""
        while True:
            try:
                return action()
            except StoreUnavailable as error:
                log.error("worker.store_away", error=error.text)
            # Not self.drain.wait(): the end is written also while draining, until the supervisor's patience ends.
            time.sleep(AGAIN_SECONDS)

    def _order(self, claim: Claim) -> Order:
        task = claim.task
        live = self._steadily(lambda: self._store.ledger.live_execution(task.id))
        spec = _parsed(claim.spec_text, claim.spec_source)
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
            image_digest=claim.image_digest,
            template=claim.template,
            data_id=claim.data_id,
            snapshot=claim.snapshot,
            installation=self._place.installation,
            live=live[0] if live is not None and live[2] == self._place.host else None,
            elsewhere=self._store.ledger.standing_elsewhere(task.id, host=self._place.host),
            known=self._steadily(lambda: self._known(claim, spec)),
        )
