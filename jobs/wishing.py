"""What people ask of a pool by page, CLI or API, put into the words of decisions; each wish ends with what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog

from jobs.adapters.sql_store import Store
from jobs.cloud import Cloud, CloudRefused, CloudUnavailable
from jobs.controlled import Controlled, Times
from jobs.machines import Action, Decision, Machine, MachineNow, MachineState, PoolNow, Wish, WishKind
from jobs.zombies import is_silent, registered

PATIENCE = timedelta(minutes=10)  # so long a machine that cannot be had is tried for somebody
LOAD_SECONDS = 900.0
QUIET_PERCENT = 5.0  # a machine that boots, logs and waits uses less

log = structlog.get_logger(__name__)


class Wishing:
    """Hear what is asked of a pool."""

    def __init__(self, store: Store, cloud: Cloud, pool: Controlled, times: Times) -> None:
        self._store, self._cloud, self._pool, self._times = store, cloud, pool, times
        self._asked: dict[str, str] = {}  # machine → who asked for its start

    def heard(self, facts: PoolNow, decisions: Sequence[Decision], now: datetime) -> tuple[Decision, ...]:
        """Give the decisions with those that somebody asked for in place of others."""
        self._asked = {}
        wished: dict[str, Decision] = {}
        for wish in self._store.machines.open_wishes(self._pool.name):
            one = self._meant(facts, wish)
            if one is None:
                self._done(wish, "There is no such machine in this pool.")
            elif wish.kind is WishKind.STOP:
                decision = self._stop(wish, one, now)
                wished |= {one.machine.instance: decision} if decision is not None else {}
            elif (decision := self._start(facts, wish, one, now)) is not None:
                wished[one.machine.instance] = decision
                self._asked[one.machine.instance] = wish.made_by
        for one in facts.machines:
            if self.insists(one) and one.machine.state is MachineState.RUNNING:
                wished[one.machine.instance] = self._insisted(facts, one, now)
        rest = [one for one in decisions if one.action is Action.ALARM or one.instance not in wished]
        return (*wished.values(), *rest)

    def asked_by(self, decision: Decision) -> str:
        """Tell who asked for a start: a person, or the policy."""
        return self._asked.get(decision.instance or "", "policy")

    def insists(self, one: MachineNow) -> bool:
        """Tell whether an operator wants a machine stopped of which nothing is heard."""
        drain = one.machine.drain
        if drain is None or drain.asked_by == "policy":
            return False
        return self._store.machines.notes(one.machine.instance).get("silent") == drain.token

    def _meant(self, facts: PoolNow, wish: Wish) -> MachineNow | None:
        if wish.instance is not None:
            return next((one for one in facts.machines if one.machine.instance == wish.instance), None)
        if wish.kind is WishKind.STOP:
            return None
        # Any machine: best one that runs, or else the one that runs soonest.
        order = [MachineState.RUNNING, MachineState.PENDING, MachineState.STOPPED, MachineState.STOPPING]
        able = [one for one in facts.machines if one.machine.state in order and one.machine.refused is None]
        able = [one for one in able if one.machine.instance not in facts.short] or able
        return min(able, key=lambda one: (order.index(one.machine.state), one.machine.instance), default=None)

    # ---- start ----------------------------------------------------------------------------------------------------

    def _start(self, facts: PoolNow, wish: Wish, one: MachineNow, now: datetime) -> Decision | None:
        machine = one.machine
        if machine.refused is not None:
            self._done(wish, f"Seatrial leaves this machine alone: {machine.refused}.")
        elif machine.state is MachineState.RUNNING and machine.drain is not None:
            self._done(wish, "It was about to be stopped, and takes work again.")
            text = f"{wish.made_by} wants it to go on."
            return Decision(Action.CANCEL_DRAIN, "asked", text, machine.instance)
        elif machine.state.billed:
            self._started(wish, machine)
        elif machine.state is MachineState.GONE:
            self._done(wish, "EC2 has no such machine any more.")
        elif now - wish.made_at > PATIENCE:
            short = self._store.machines.shortages(self._pool.name).get(machine.instance)
            self._done(wish, "It could not be started." if short is None else f"It could not be started: {short[1]}")
        elif machine.state is MachineState.STOPPED and machine.instance not in facts.short:
            most = self._pool.policy.max_running
            running = sum(1 for other in facts.machines if other.machine.state.billed)
            if most is not None and running >= most:
                self._done(wish, f"No more than {most} of this pool may run at once, and so many do.")
            else:
                reason = f"{wish.made_by} asked for it{f': {wish.reason}' if wish.reason else '.'}"
                return Decision(Action.START, "asked", reason, machine.instance)
        return None

    def _started(self, wish: Wish, machine: Machine) -> None:
        """Say that it runs; whoever had it started has it for a while, whatever there is to do."""
        told = "It runs" if machine.state is MachineState.RUNNING else "It is starting"
        hours = f"{self._times.wished / 3600.0:g} h"
        if not self._done(wish, f"{told}, and is kept awake for {hours}."):
            return
        reason = wish.reason or "it was started by hand"
        self._store.machines.hold(
            self._pool.name,
            seconds=self._times.wished,
            reason=reason,
            made_by=wish.made_by,
            instance=machine.instance,
        )

    # ---- stop -----------------------------------------------------------------------------------------------------

    def _stop(self, wish: Wish, one: MachineNow, now: datetime) -> Decision | None:
        machine = one.machine
        if machine.state in (MachineState.STOPPING, MachineState.STOPPED):
            self._done(wish, "It is stopped." if machine.state is MachineState.STOPPED else "It is being stopped.")
        elif machine.state is not MachineState.RUNNING:
            if now - wish.made_at > PATIENCE or machine.state is MachineState.GONE:
                self._done(wish, f"Not stopped: it is {machine.state.value}.")
        elif self._store.machines.notes(machine.instance).get("wish") == wish.id:
            if machine.drain is None:
                self._done(wish, f"Not stopped. {self._why_not(machine)}")
        elif machine.drain is None:
            self._begin(wish, one, now)
        return None

    def _begin(self, wish: Wish, one: MachineNow, now: datetime) -> None:
        """Let a machine drain for somebody: by the same protocol, or as one of which nothing is heard."""
        machine = one.machine
        silent = is_silent(machine, self._pool.policy, now) or not registered(machine)
        if silent and (why := self._why_not_silent(one)) is not None:
            self._done(wish, f"Not stopped. {why}")
            return
        reason = f"{wish.made_by} asked for it{f': {wish.reason}' if wish.reason else '.'}"
        store = self._store.machines
        drain = store.begin_drain(machine.instance, reason=reason, asked_by=wish.made_by, silent=silent)
        if drain is None:
            keeps = store.keeps_on(machine.instance)
            self._done(wish, f"Not stopped. {keeps[1] if keeps is not None else ''}".strip())
            return
        store.note(machine.instance, wish=wish.id, silent=drain.token if silent else None)
        code = "asked_silent" if silent else "asked"
        store.record(
            self._pool.name,
            Decision(Action.DRAIN, code, reason, machine.instance),
            made_by=wish.made_by,
            data={"token": drain.token},
        )
        log.info("machine.drain", pool=self._pool.name, instance=machine.instance, reason=reason, asked_by=wish.made_by)

    def _why_not_silent(self, one: MachineNow) -> str | None:
        """Silence means busy. Only where settings allow it, with no lease and idle processors, an operator's word counts."""
        if not self._pool.stop_silent:
            return "Nothing is heard of its worker, so it is taken for busy; pools.NAME.stop_silent is not set."
        if one.leases:
            return "A task on it still has its lease."
        try:
            load = self._cloud.load(one.machine.instance, LOAD_SECONDS)
        except (CloudUnavailable, CloudRefused) as error:
            return f"Its processors' load cannot be read, so it is taken for busy: {error.text}"
        if load is None:
            return "EC2 has no figures of its processors' load, so it is taken for busy."
        if load >= QUIET_PERCENT:
            return f"Its processors were used up to {load:.0f} % in the last minutes: it is busy."
        return None

    def _insisted(self, facts: PoolNow, one: MachineNow, now: datetime) -> Decision:
        machine, drain = one.machine, one.machine.drain
        assert drain is not None
        if one.leases or any(hold.holds(machine.instance, now) for hold in facts.holds):
            why = "A task on it has its lease again." if one.leases else "Somebody keeps it awake."
            return Decision(Action.CANCEL_DRAIN, "works" if one.leases else "held", why, machine.instance)
        if registered(machine) and not is_silent(machine, self._pool.policy, now):
            return Decision(Action.CANCEL_DRAIN, "heard", "Its worker is heard of again.", machine.instance)
        settled = drain.since + 2 * self._pool.policy.lease
        if now < settled:
            text = "Two leases are waited for before a machine is stopped of which nothing is heard."
            return Decision(Action.NOTHING, "draining", text, machine.instance, settled)
        return Decision(Action.STOP, "asked_silent", drain.reason, machine.instance)

    def _why_not(self, machine: Machine) -> str:
        history = self._store.machines.decisions(self._pool.name, instance=machine.instance, limit=10)
        told = (Action.CANCEL_DRAIN, Action.REFUSED, Action.ALARM)
        return next((one.reason for one in history if one.action in told), "Something spoke against it.")

    def _done(self, wish: Wish, outcome: str) -> bool:
        done = self._store.machines.wish_done(wish.id, outcome)
        if done:
            log.info("wish.done", pool=self._pool.name, instance=wish.instance, kind=wish.kind.value, outcome=outcome)
        return done
