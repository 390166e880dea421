"""What EC2 says of a pool's machines, brought into the records: also what was started or stopped by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

import structlog

from jobs.adapters.sql_store import Store
from jobs.cloud import Cloud, Seen, refusal, uptime
from jobs.controlled import Controlled, Times
from jobs.machines import Action, Decision, Machine, MachineState

GONE_SECONDS = 3_600.0  # EC2 goes on showing a terminated machine for about so long
OURS = timedelta(seconds=60)  # between the record of a start and what EC2 gives as its time

log = structlog.get_logger(__name__)


class Reconciler:
    """Look at a pool's machines, and note what they are at."""

    def __init__(
        self, store: Store, cloud: Cloud, pool: Controlled, times: Times, clock: Callable[[], float] = uptime
    ) -> None:
        self._store, self._cloud, self._pool, self._times, self._clock = store, cloud, pool, times, clock
        self._asked: float | None = None
        self._seen: dict[str, tuple[Seen, float]] = {}
        self._soon = False

    @property
    def due(self) -> bool:
        """Tell whether it is time to look."""
        every = self._times.look_soon if self._soon else self._times.look
        return self._asked is None or self._clock() - self._asked >= every

    @property
    def fresh(self) -> bool:
        """Tell whether EC2 answered lately."""
        return self._asked is not None and self._clock() - self._asked < self._times.stale

    def soon(self) -> None:
        """Look again before long: something is on its way."""
        self._soon = True

    def look(self) -> None:
        """Ask EC2, and record what it says. Raises CloudUnavailable, CloudRefused: then nothing is changed."""
        known = {machine.instance: machine for machine in self._store.machines.machines(self._pool.name)}
        found = self._ask(known.values())
        now = self._store.machines.time()
        for instance, seen in found.items():
            self._note(seen, known.get(instance), now)
        for instance, machine in known.items():
            if instance not in found and machine.state is not MachineState.GONE:
                self._missing(machine, now)
        for instance in self._pool.instances:
            if instance not in found and instance not in known:
                text = f"EC2 shows no machine {instance} in {self._pool.expected.region}, which the settings name."
                self._store.machines.record(self._pool.name, Decision(Action.ALARM, "not_there", text, instance))
        self._soon = any(
            machine.state in (MachineState.PENDING, MachineState.STOPPING)
            for machine in self._store.machines.machines(self._pool.name)
        )

    def checked(self, instance: str, *, within: float = 0.0) -> tuple[Seen | None, str | None]:
        """Give a machine as EC2 shows it, and why it may not be touched. `within`: what was seen so lately will do."""
        seen, at = self._seen.get(instance, (None, 0.0))
        if seen is None or self._clock() - at > within:
            found = {one.instance: one for one in self._cloud.machines(self._pool.name, (instance,))}
            self._remember(found)
            seen = found.get(instance)
        if seen is None:
            return None, "EC2 does not show it"
        return seen, refusal(seen, self._pool.expected, account=self._cloud.account())

    def refuse(self, seen: Seen, why: str) -> None:
        """Record that a machine is none of ours."""
        log.error("machine.refused", pool=self._pool.name, instance=seen.instance, why=why)
        self._upsert(seen, refused=why)
        text = f"Seatrial neither starts nor stops {seen.instance}: {why}."
        self._store.machines.record(self._pool.name, Decision(Action.REFUSED, "refused", text, seen.instance))

    def launched(self, seen: Seen, why: str) -> None:
        """Record a machine that was launched just now; EC2's lists show it some seconds later."""
        self._remember({seen.instance: seen})
        self._upsert(seen, refused=refusal(seen, self._pool.expected, account=self._cloud.account()), why_on=why)
        self._soon = True

    def _ask(self, known: Iterable[Machine]) -> dict[str, Seen]:
        self._cloud.account()  # asked for once: without it nothing can be said of any machine
        ids = [machine.instance for machine in known if machine.state is not MachineState.GONE]
        found = {seen.instance: seen for seen in self._cloud.machines(self._pool.name, (*self._pool.instances, *ids))}
        self._asked = self._clock()
        self._remember(found)
        return found

    def _remember(self, found: Mapping[str, Seen]) -> None:
        self._seen |= {instance: (seen, self._clock()) for instance, seen in found.items()}

    def _note(self, seen: Seen, machine: Machine | None, now: datetime) -> None:
        why = refusal(seen, self._pool.expected, account=self._cloud.account())
        if why is not None and (machine is None or machine.refused != why):
            self.refuse(seen, why)
            return
        if machine is None:
            log.info("machine.found", pool=self._pool.name, instance=seen.instance, state=seen.state.value)
        elif self._is_said(seen, machine, why) or self._is_old(seen, machine, now):
            return
        self._upsert(seen, refused=why, before=machine)
        if machine is not None and machine.state is MachineState.STOPPED and seen.state.billed:
            self._started_by_hand(seen)

    def _upsert(
        self, seen: Seen, *, refused: str | None, why_on: str | None = None, before: Machine | None = None
    ) -> None:
        self._store.machines.upsert(
            seen.instance,
            pool=self._pool.name,
            state=seen.state,
            region=seen.region,
            account=seen.account,
            kind=seen.kind,
            started_at=seen.launched_at if seen.state.billed else None,
            stopped_at=None if seen.state.billed else seen.stopped_at,
            price=self._pool.price,
            refused=refused,
            why_on=why_on,
            before=before,
        )

    def _is_said(self, seen: Seen, machine: Machine, why: str | None) -> bool:
        """Tell whether the records say the same, as they do of most machines at most times."""
        told = (machine.state, machine.kind, machine.account, machine.region, machine.refused, machine.price)
        same = told == (seen.state, seen.kind, seen.account, seen.region, why, self._pool.price)
        newer = (
            seen.launched_at is not None and machine.started_at is not None and seen.launched_at > machine.started_at
        )
        return same and not (seen.state.billed and (machine.started_at is None or newer))

    def _is_old(self, seen: Seen, machine: Machine, now: datetime) -> bool:
        """Tell whether EC2 shows what was before a start that was asked for just now, as it does for some seconds."""
        lately = now - machine.state_since < timedelta(seconds=self._times.apart)
        return machine.state is MachineState.PENDING and seen.state is MachineState.STOPPED and lately

    def _missing(self, machine: Machine, now: datetime) -> None:
        """A machine that EC2 does not show is taken for busy; one that it does not show for an hour is gone."""
        if machine.state is MachineState.PENDING and now - machine.state_since < timedelta(seconds=self._times.look):
            return  # it was launched just now
        state = MachineState.UNKNOWN
        if machine.state is state and now - machine.state_since > timedelta(seconds=GONE_SECONDS):
            state = MachineState.GONE
        if machine.state is not state:
            log.warning("machine.not_shown", pool=self._pool.name, instance=machine.instance, state=state.value)
            self._store.machines.upsert(
                machine.instance,
                pool=machine.pool,
                state=state,
                refused=machine.refused,
                price=machine.price,
                before=machine,
            )
        text = "EC2 does not show it any more: it is taken for busy."
        self._store.machines.record(self._pool.name, Decision(Action.ALARM, "not_shown", text, machine.instance))

    def _started_by_hand(self, seen: Seen) -> None:
        """Whoever started a machine past us has it for a while; the hold can be released like any other."""
        history = self._store.machines.decisions(self._pool.name, instance=seen.instance, limit=20)
        last = next((one.at for one in history if one.action in (Action.START, Action.GROW)), None)
        if last is not None and (seen.launched_at is None or last > seen.launched_at - OURS):
            return  # a start of ours of which we heard no answer
        log.info("machine.started_by_hand", pool=self._pool.name, instance=seen.instance)
        self._store.machines.hold(
            self._pool.name,
            seconds=self._times.by_hand,
            reason="it was started by hand",
            made_by="somebody in AWS",
            instance=seen.instance,
        )
