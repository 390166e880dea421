"""The end of the stop protocol: identity, dry run, last look, StopInstances with one id, and waiting for `stopped`.

How far it is stands in the records: a drain with its token, then the state `stopping` with that token, then what EC2
says. Whoever comes by goes on with it, so that a killed sweeper leaves nothing half done, and two of them do it once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from jobs.adapters.sql_store import Store
from jobs.cloud import Cloud, CloudAway, CloudRefused, CloudUnavailable, TooLate, uptime
from jobs.controlled import BackOff, Controlled, Times
from jobs.machines import Action, Decision, Drain, Machine, MachineState
from jobs.reconciling import Reconciler
from runner.errors import InfraError

# What is known of the last StopInstances of a drain. SENDING: it may be on its way, or never have been sent.
SENDING, NOT_DONE, ACCEPTED = "sending", "not_done", "accepted"

log = structlog.get_logger(__name__)


class Stopping:
    """Stop a drained machine of a pool."""

    def __init__(
        self,
        store: Store,
        cloud: Cloud,
        pool: Controlled,
        reconciler: Reconciler,
        times: Times,
        clock: Callable[[], float] = uptime,
    ) -> None:
        self._store, self._cloud, self._pool, self._times, self._clock = store, cloud, pool, times, clock
        self._reconciler = reconciler
        self._back_off = BackOff(times, clock)
        self._rights = BackOff(times, clock)

    def may_drain(self, instance: str) -> bool:
        """Tell whether a stop would be tried; not so for a while after it was refused."""
        return self._rights.ready(instance)

    # ---- from drained to confirmed ----------------------------------------------------------------------------

    def stop(self, machine: Machine, decision: Decision, *, silent: bool = False) -> None:
        """Stop a machine that has drained, unless anything speaks against it now. `silent`: an operator's word."""
        drain = machine.drain
        if drain is None or not self._back_off.ready(machine.instance):
            return
        try:
            if not self._may(machine, drain, silent=silent):
                return
        except CloudUnavailable as error:
            self._failed(machine, error)  # it goes on draining: work that arrives is taken
            return
        # Taken before the last look: what is sent in time was asked for when nothing had arrived.
        until = self._clock() + self._times.send
        if not self._store.machines.confirm_stop(machine.instance, drain.token, silent=silent):
            return  # work, a hold or somebody else was there first
        made_by = drain.asked_by
        self._store.machines.record(self._pool.name, decision, made_by=made_by, data={"token": drain.token})
        self._send(machine, drain, until)

    def _may(self, machine: Machine, drain: Drain, *, silent: bool) -> bool:
        seen, why = self._reconciler.checked(machine.instance)
        if why is None and machine.host is None and not silent:
            why = "no worker has registered from it"
        if why is not None or seen is None:
            if seen is not None:
                self._reconciler.refuse(seen, why or "")
            self._give_up(machine, drain)
            return False
        if seen.state is not MachineState.RUNNING:
            self._reconciler.soon()  # somebody else stopped it: EC2 is looked at again
            return False
        try:
            self._cloud.may_stop(machine.instance)
        except CloudRefused as error:
            self._refused(machine, error)
            self._give_up(machine, drain)
            return False
        return True

    def _give_up(self, machine: Machine, drain: Drain) -> None:
        self._rights.failed(machine.instance, at_least=self._pool.policy.ask_again.total_seconds())
        self._store.machines.cancel_drain(machine.instance, drain.token, kept=True)

    # ---- from confirmed to stopped ----------------------------------------------------------------------------

    def _send(self, machine: Machine, drain: Drain, until: float) -> None:
        instance = machine.instance
        noted = self._note(machine, drain, SENDING)
        try:
            state = self._cloud.stop(instance, until=until)
        except (CloudAway, TooLate) as error:
            if self._last(machine, drain) == noted:  # else somebody has asked again while this was held up
                self._note(machine, drain, NOT_DONE)
            self._failed(machine, error)
        except CloudUnavailable as error:
            self._failed(machine, error)
        except CloudRefused as error:
            self._refused(machine, error)
            self._rights.failed(instance, at_least=self._pool.policy.ask_again.total_seconds())
            self._store.machines.stop_failed(instance, drain.token)
        else:
            log.info("machine.stop", pool=self._pool.name, instance=instance, reason=drain.reason, state=state.value)
            self._note(machine, drain, ACCEPTED)
            self._back_off.worked(instance)
            self._rights.worked(instance)
        self._reconciler.soon()

    def go_on(self, machine: Machine, *, wanted: bool) -> None:
        """Go on with a confirmed stop of which EC2 has shown nothing yet. `wanted`: work waits for the pool."""
        drain = machine.drain
        if drain is None or machine.state is not MachineState.STOPPING or not self._back_off.ready(machine.instance):
            return
        stop = self._last(machine, drain)
        now = self._store.machines.time()
        since = (now - machine.state_since).total_seconds() if stop is None else now.timestamp() - stop["at"]
        if since < (2 * self._times.send if stop is None else self._times.look_soon):
            return  # whoever confirmed it may be about to send it, or EC2 to show it
        until = self._clock() + self._times.send
        try:
            seen, why = self._reconciler.checked(machine.instance)
        except CloudUnavailable as error:
            self._failed(machine, error)
            return
        started = seen is not None and seen.launched_at is not None and seen.launched_at > machine.state_since
        if seen is None or seen.state is not MachineState.RUNNING or started:
            self._reconciler.soon()  # it stops, or it has stopped and somebody has started it
            return
        sure = stop is None or stop["outcome"] == NOT_DONE or since > self._times.doubt
        if why is not None:
            self._reconciler.refuse(seen, why)
        elif not (wanted and sure):
            again = self._store.machines.machine(machine.instance)
            if again is not None and again.state is MachineState.STOPPING and again.drain == drain:
                self._send(machine, drain, until)
            return
        if sure and self._store.machines.stop_failed(machine.instance, drain.token):
            text = "Its stop had not happened yet: it works on." if why is None else f"It is left alone: {why}."
            decision = Decision(Action.CANCEL_DRAIN, "queued" if why is None else "refused", text, machine.instance)
            self._store.machines.record(self._pool.name, decision)
            log.info("machine.works_on", pool=self._pool.name, instance=machine.instance)

    def asked_lately(self, machine: Machine) -> bool:
        """Tell whether a stop of it may still be on its way to EC2, so that it is not started yet."""
        stop = self._store.machines.notes(machine.instance).get("stop")
        return stop is not None and self._store.machines.time().timestamp() - stop["at"] < self._times.apart

    def _note(self, machine: Machine, drain: Drain, outcome: str) -> dict[str, Any]:
        at = self._store.machines.time().timestamp()
        stop = {"token": drain.token, "at": at, "outcome": outcome}
        self._store.machines.note(machine.instance, stop=stop)
        return stop

    def _last(self, machine: Machine, drain: Drain) -> Any:
        stop = self._store.machines.notes(machine.instance).get("stop")
        return stop if stop is not None and stop["token"] == drain.token else None

    def _failed(self, machine: Machine, error: InfraError) -> None:
        self._back_off.failed(machine.instance)
        log.warning("machine.stop_again", pool=self._pool.name, instance=machine.instance, error=error.text)

    def _refused(self, machine: Machine, error: CloudRefused) -> None:
        log.error("machine.stop_refused", pool=self._pool.name, instance=machine.instance, error=error.text)
        text = f"EC2 refuses to stop it: {error.text}"
        self._store.machines.record(self._pool.name, Decision(Action.ALARM, error.code, text, machine.instance))
