"""Carry out what is decided on a pool: one pass a second over the records, EC2 asked when it must be. Safe to run twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence

import structlog

from jobs.adapters.sql_starts import SqlStarts
from jobs.adapters.sql_store import Store
from jobs.capacity import decide, grow_kind
from jobs.cloud import Cloud, CloudAway, CloudRefused, CloudUnavailable, Launch, NoCapacity, WrongState, uptime
from jobs.controlled import BackOff, Controlled, Times
from jobs.flag import Flag
from jobs.machines import Action, Decision, MachineNow, PoolNow
from jobs.reconciling import Reconciler
from jobs.stopping import Stopping
from jobs.wishing import Wishing
from runner.errors import InfraError, StoreUnavailable

PASS_SECONDS = 1.0
QUICK_SECONDS = 0.25  # while a machine drains: each step of its stop waits for a pass
ROUNDS = 8  # a type without capacity, and the next one, and the next one
STOPS_AT_ONCE = 5  # in a pass: a start waits for no more of them
# A start waits for nothing else of a pass.
ORDER = (Action.START, Action.GROW, Action.CANCEL_DRAIN, Action.ALARM, Action.DRAIN, Action.STOP)

log = structlog.get_logger(__name__)


class Controller:
    """Look after one pool of machines."""

    def __init__(
        self,
        store: Store,
        cloud: Cloud,
        pool: Controlled,
        *,
        times: Times | None = None,
        clock: Callable[[], float] = uptime,
    ) -> None:
        """Take the parts; `clock` goes on evenly, whatever anybody sets."""
        self.pool = pool
        self._store, self._cloud, self._clock = store, cloud, clock
        self._times = times or Times()
        self._starts = SqlStarts(store.database)
        self._back_off = BackOff(self._times, clock)
        self._reconciler = Reconciler(store, cloud, pool, self._times, clock)
        self._stopping = Stopping(store, cloud, pool, self._reconciler, self._times, clock)
        self._wishing = Wishing(store, cloud, pool, self._times)
        self._shown: float | None = None
        self._problem: str | None = None
        self._draining = False

    def work(self, stop: Flag) -> None:
        """Pass after pass until stopped."""
        log.info("controller.ready", pool=self.pool.name)
        while not stop.wait(QUICK_SECONDS if self._draining else PASS_SECONDS):
            try:
                self.look_after()
            except StoreUnavailable as error:
                log.error("controller.store_away", pool=self.pool.name, error=error.text)

    def look_after(self) -> None:
        """Do one pass. Raises StoreUnavailable; what EC2 does not answer is left for the next one."""
        asked = self._look()
        for _ in range(ROUNDS):
            facts = self._store.machines.now(self.pool.name, slots=self.pool.slots)
            decisions = self._decide(facts)
            if not self._carry_out(facts, decisions):
                break
        self._draining = any(one.machine.drain is not None for one in facts.machines)
        wanted = facts.queued > 0 or bool(facts.due)
        for one in facts.machines:
            self._stopping.go_on(one.machine, wanted=wanted)
        self._show(asked=asked)

    # ---- look and decide --------------------------------------------------------------------------------------

    def _look(self) -> bool:
        if not self._reconciler.due or not self._back_off.ready("look"):
            return False
        try:
            self._reconciler.look()
        except (CloudUnavailable, CloudRefused) as error:
            self._back_off.failed("look")
            self._wrong(error)
            return False
        self._back_off.worked("look")
        self._problem = None
        return True

    def _wrong(self, error: InfraError) -> None:
        if self._problem != error.code:
            log.error("controller.cloud", pool=self.pool.name, code=error.code, error=error.text)
        self._problem = error.code
        text = f"EC2 cannot be asked: {error.text} Nothing is stopped meanwhile."
        self._store.machines.record(self.pool.name, Decision(Action.ALARM, error.code, text))

    def _decide(self, facts: PoolNow) -> list[Decision]:
        now = self._store.machines.time()
        found = decide(facts, self.pool.policy, now)
        found = self._wishing.heard(facts, found, now)
        last = len(ORDER)
        return sorted(found, key=lambda one: ORDER.index(one.action) if one.action in ORDER else last)

    def _show(self, *, asked: bool) -> None:
        if asked or self._shown is None or self._clock() - self._shown >= self._times.seen:
            self._store.machines.controller_seen(self.pool.name, asked=asked, problem=self._problem)
            self._shown = self._clock()

    # ---- carry out ----------------------------------------------------------------------------------------------

    def _carry_out(self, facts: PoolNow, decisions: Sequence[Decision]) -> bool:
        """Do what was decided; tell whether it must be decided anew at once."""
        machines = {one.machine.instance: one for one in facts.machines}
        stops = 0
        for decision in decisions:
            one = machines.get(decision.instance or "")
            if one is None:
                if self._for_pool(facts, decision):
                    return True
                continue
            match decision.action:
                case Action.START:
                    if self._start(one, decision):
                        return True
                case Action.DRAIN:
                    self._drain(one, decision)
                case Action.CANCEL_DRAIN:
                    self._cancel(one, decision)
                case Action.STOP:
                    stops += 1
                    if stops <= STOPS_AT_ONCE and self._reconciler.fresh:
                        self._stopping.stop(one.machine, decision, silent=self._wishing.insists(one))
                case Action.ALARM:
                    self._alarm(decision)
                case _:
                    self._store.machines.record(self.pool.name, decision)
        return False

    def _for_pool(self, facts: PoolNow, decision: Decision) -> bool:
        if decision.action is Action.GROW:
            return self._grow(facts, decision)
        if decision.action is Action.ALARM:
            self._alarm(decision)
        else:
            self._store.machines.record(self.pool.name, decision)
        return False

    def _alarm(self, decision: Decision) -> None:
        if self._store.machines.record(self.pool.name, decision) is not None:
            log.error("machine.alarm", pool=self.pool.name, instance=decision.instance, code=decision.code)

    def _drain(self, one: MachineNow, decision: Decision) -> None:
        instance = one.machine.instance
        if not self._reconciler.fresh or not self._stopping.may_drain(instance):
            return  # nobody knows what EC2 would say, or it said no lately
        drain = self._store.machines.begin_drain(instance, reason=decision.reason)
        if drain is not None:
            self._store.machines.record(self.pool.name, decision, data={"token": drain.token})
            log.info("machine.drain", pool=self.pool.name, instance=instance, reason=decision.reason)

    def _cancel(self, one: MachineNow, decision: Decision) -> None:
        drain = one.machine.drain
        if drain is None:
            return
        kept = decision.code in ("no_answer", "answered_busy")
        if self._store.machines.cancel_drain(one.machine.instance, drain.token, kept=kept):
            self._store.machines.record(self.pool.name, decision, data={"token": drain.token})
            log.info("machine.drain_cancelled", pool=self.pool.name, instance=one.machine.instance, code=decision.code)

    # ---- start ----------------------------------------------------------------------------------------------------

    def _start(self, one: MachineNow, decision: Decision) -> bool:
        """Start a machine; tell whether EC2 has none, so that another one should be chosen."""
        instance, key = one.machine.instance, ("start", one.machine.instance)
        if not self._back_off.ready(key) or self._stopping.asked_lately(one.machine):
            return False
        try:
            seen, why = self._reconciler.checked(instance, within=self._times.stale)
        except (CloudUnavailable, CloudRefused) as error:
            self._failed(key, error)
            return False
        if why is not None or seen is None:
            if seen is not None:
                self._reconciler.refuse(seen, why or "")
            return True
        until = self._clock() + self._times.send
        if not self._starts.begin_start(instance, why=decision.reason):
            return False
        if self._back_off.times(key) == 0:
            self._store.machines.record(self.pool.name, decision, made_by=self._wishing.asked_by(decision))
        self._reconciler.soon()
        try:
            state = self._cloud.start(instance, until=until)
        except NoCapacity as error:
            self._starts.start_failed(instance)
            self._short(instance, f"{instance} ({one.machine.kind})", error, instance=instance)
            return True
        except (CloudUnavailable, CloudRefused) as error:
            self._starts.start_failed(instance)
            self._failed(key, error)
            return False
        self._back_off.worked(key)
        self._store.machines.not_short(self.pool.name, instance)
        log.info("machine.start", pool=self.pool.name, instance=instance, code=decision.code, state=state.value)
        return False

    def _grow(self, facts: PoolNow, decision: Decision) -> bool:
        """Launch one more machine; tell whether EC2 has none of its type, so that another one should be chosen."""
        kind = grow_kind(self.pool.policy, facts, self._store.machines.time())
        if kind is None or self.pool.template is None or not self._reconciler.fresh or not self._back_off.ready("grow"):
            return False
        launch = Launch(self.pool.template, self.pool.name, self._token(facts, kind), kind)
        if self._back_off.times("grow") == 0:
            self._store.machines.record(self.pool.name, decision, data={"kind": kind})
        try:
            if self._cloud.account() != self.pool.expected.account:
                return False  # each of its machines is refused, and so would this one be
            seen = self._cloud.launch(launch, until=self._clock() + self._times.send)
        except NoCapacity as error:
            self._short(kind, f"type {kind}" if kind else "the template's type", error)
            return True
        except (CloudUnavailable, CloudRefused) as error:
            self._failed("grow", error)
            return False
        self._back_off.worked("grow")
        self._reconciler.launched(seen, decision.reason)
        log.info("machine.launch", pool=self.pool.name, instance=seen.instance, kind=seen.kind)
        return False

    def _token(self, facts: PoolNow, kind: str) -> str:
        """Name the launch by what is known: who tries it again, or does it at the same time, makes no second machine."""
        known = sorted(one.machine.instance for one in facts.machines)
        words = [self.pool.installation, self.pool.name, self.pool.template or "", kind, *known]
        return hashlib.sha256("\n".join(words).encode()).hexdigest()[:32]

    def _short(self, name: str, what: str, error: NoCapacity, *, instance: str | None = None) -> None:
        log.warning("machine.no_capacity", pool=self.pool.name, name=name, error=error.text)
        self._store.machines.short(self.pool.name, name, for_seconds=self._times.short, text=error.text)
        text = f"EC2 has no capacity for {what}: another one is tried."
        self._store.machines.record(self.pool.name, Decision(Action.NOTHING, "no_capacity", text, instance))

    def _failed(self, key: Hashable, error: InfraError) -> None:
        self._back_off.failed(key)
        refused = isinstance(error, CloudRefused) and not isinstance(error, WrongState)
        log.warning("machine.start_again", pool=self.pool.name, what=str(key), code=error.code, error=error.text)
        if refused and not isinstance(error, CloudAway):
            text = f"EC2 refuses to start it: {error.text}"
            instance = key[1] if isinstance(key, tuple) else None
            self._store.machines.record(self.pool.name, Decision(Action.ALARM, error.code, text, instance))
