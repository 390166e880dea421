"""What to do with the machines of a pool: a pure function of facts, policy and time. Each decision says why."""

from __future__ import annotations

from datetime import datetime, timedelta

from jobs.capacity_policy import Policy
from jobs.idle_policy import seconds_words
from jobs.machines import Action, Decision, Drain, Hold, Machine, MachineNow, MachineState, PoolNow
from jobs.zombies import alarms, is_silent, is_up, never_registered, registered

FILLING_IN = timedelta(seconds=30)  # a form, after a boot that it has caused
LEAVING = timedelta(minutes=10)  # what the cloud takes so soon does no more for the pool
_ZERO = timedelta(0)

__all__ = ["Policy", "decide", "grow_kind"]


def decide(pool: PoolNow, policy: Policy, now: datetime) -> tuple[Decision, ...]:
    """Decide on a pool: one decision for each machine that is there, then those on the pool itself, and alarms.

    A machine with a lease, without a sign of life, of unknown state, refused, or held is never drained or stopped. START
    and GROW may be refused by the cloud; the next pass, with `short` told, decides on another one.
    """
    return _Pass(pool, policy, now).decisions()


def grow_kind(policy: Policy, pool: PoolNow, now: datetime) -> str | None:
    """Tell of which type to launch: the first to be had; "" is the template's own; None: nothing can be launched."""
    kinds = policy.grow_kinds or ("",)
    return next((kind for kind in kinds if not _short(pool, now, kind)), None) if policy.grow else None


class _Pass:
    """One look at a pool: what is wanted is worked out first, then each machine is decided on."""

    def __init__(self, pool: PoolNow, policy: Policy, now: datetime) -> None:
        self.pool, self.policy, self.now = pool, policy, now
        self.ours = [m for m in pool.machines if m.machine.refused is None]
        self.on = [m for m in self.ours if m.machine.state.billed]
        self.kept = policy.schedule.keep(now)
        self.target = max(policy.min_running, policy.schedule.ahead(now, policy.boot))
        self.due = min(pool.due, default=None)
        self.formed = self._formed()
        self.idle = self._idle_time()
        self.starts: dict[str, Decision] = {}
        self.news: list[Decision] = []
        staying = sum(1 for m in self.on if m.machine.drain is None and not self._leaves(m))
        self.spare = staying - self.target  # so many may be drained
        self._start_what_is_wanted()

    def decisions(self) -> tuple[Decision, ...]:
        # Of the idle ones those that are idle longest go first; decisions keep the order of the machines.
        order = sorted(self.pool.machines, key=lambda m: (m.idle_since or self.now, m.machine.instance))
        found = {m.machine.instance: self._one(m) for m in order}
        told = [found[m.machine.instance] for m in self.pool.machines]
        return (
            *told,
            *self.news,
            *(alarm for m in self.pool.machines for alarm in alarms(m.machine, self.policy, self.now)),
        )

    # What is wanted

    def _formed(self) -> datetime | None:
        """Give until when an opened form keeps a machine ready, if one does: never so short that it has hardly booted."""
        if self.kept == 0 or not self.pool.forms or self.policy.prewarm <= _ZERO:
            return None
        until = max(self.pool.forms) + max(self.policy.prewarm, self.policy.boot + FILLING_IN)
        return until if until > self.now else None

    def _idle_time(self) -> timedelta | None:
        return _ZERO if self.kept == 0 else self.policy.idle.after(self.policy.boot, self.pool.gaps)

    def _due_soon(self) -> bool:
        return self.due is not None and self.due <= self.now + self.policy.boot

    def _start_what_is_wanted(self) -> None:
        """Choose the machines to start, so that slots suffice for what waits and enough machines run."""
        coming, free = 0, 0
        for m in self.on:
            if not self._stays(m):
                continue
            if is_up(m.machine, self.policy, self.now):
                free += max(0, m.slots - m.leases)
            elif not registered(m.machine) and not never_registered(m.machine, self.policy, self.now):
                coming += max(1, m.slots)
        code, why, slots = self._wanted_slots()
        missing = slots - free - coming
        running = sum(1 for m in self.on if not self._leaves(m))
        below = self.target - running
        if missing <= 0 and below <= 0:
            return
        if missing <= 0:
            code, why = self._target_words()
        stopped = [m for m in self.ours if m.machine.state is MachineState.STOPPED]
        able = [m for m in stopped if not _short(self.pool, self.now, m.machine.instance, m.machine.kind)]
        able.sort(key=lambda m: (-max(1, m.slots), m.machine.instance))
        while (missing > 0 or below > 0) and able and self._below_maximum(running):
            m = able.pop(0)
            self.starts[m.machine.instance] = Decision(Action.START, code, why, m.machine.instance)
            missing, below, running = missing - max(1, m.slots), below - 1, running + 1
        if missing > 0 or below > 0:
            self._what_else(code, why, missing, running, out_of_capacity=len(stopped) > len(self.starts))

    def _stays(self, m: MachineNow) -> bool:
        """Tell whether a machine does not drain, or will not any more after this pass, and is not taken by the cloud."""
        drain = m.machine.drain
        if self._leaves(m):
            return False
        if drain is None or self.pool.queued or self._due_soon():
            return True
        return drain.asked_by == "policy" and self.formed is not None

    def _leaves(self, m: MachineNow) -> bool:
        notice = m.machine.notice
        return notice is not None and notice.at <= self.now + LEAVING

    def _wanted_slots(self) -> tuple[str, str, int]:
        queued = self.pool.queued
        soon = sum(1 for due in self.pool.due if due <= self.now + self.policy.boot)
        if queued:
            return "queued", f"{_count(queued, 'task')} of this pool {_is(queued)} waiting.", queued + soon
        if soon:
            return "due", f"{_count(soon, 'task')} of this pool {_is(soon)} due within the boot time.", soon
        if self.formed:
            return "form", "Somebody has opened the form for a new run.", 1
        return "", "", 0

    def _target_words(self) -> tuple[str, str]:
        if self.target > self.policy.min_running:
            hours = "The schedule keeps" if self.kept else "Hours open soon in which the schedule keeps"
            return "schedule", f"{hours} {_count(self.target, 'machine')} running."
        return "min_running", f"The pool keeps at least {_count(self.target, 'machine')} running."

    def _what_else(self, code: str, why: str, missing: int, running: int, *, out_of_capacity: bool) -> None:
        """Say what becomes of what no stopped machine can take: one that is stopping, a new one, or waiting."""
        if not self._below_maximum(running):
            limit = f"{_count(self.policy.max_running or 0, 'machine')} running is the most that this pool may have."
            self.news.append(Decision(Action.NOTHING, "max_running", f"{why} {limit}"))
            return
        if any(m.machine.state is MachineState.STOPPING for m in self.ours):
            self.news.append(
                Decision(
                    Action.NOTHING, "stopping", f"{why} A machine that is stopping is started when it has stopped."
                )
            )
            return
        kind = grow_kind(self.policy, self.pool, self.now)
        if kind is not None:
            of = f" of type {kind}" if kind else ""
            self.news.append(Decision(Action.GROW, code, f"{why} One more machine{of} is launched from the template."))
        elif out_of_capacity or (self.policy.grow and self.pool.short):
            names = ", ".join(sorted(name for name, until in self.pool.short.items() if until > self.now))
            again = min((until for until in self.pool.short.values() if until > self.now), default=None)
            text = f"{why} EC2 has no capacity for {names}; it is asked again."
            self.news.append(Decision(Action.NOTHING, "no_capacity", text, until=again))
        elif missing > 0:
            self.news.append(Decision(Action.NOTHING, "no_machine", f"{why} All machines of this pool are on."))

    def _below_maximum(self, running: int) -> bool:
        return self.policy.max_running is None or running < self.policy.max_running

    # What is done with each machine

    def _one(self, m: MachineNow) -> Decision:
        machine = m.machine
        if machine.refused is not None:
            return self._nothing(m, "refused", f"Seatrial leaves this machine alone: {machine.refused}")
        match machine.state:
            case MachineState.GONE:
                return self._nothing(m, "gone", "The machine does not exist any more.")
            case MachineState.UNKNOWN:
                return self._nothing(m, "unknown", "EC2 has not said what the machine does: it is taken for busy.")
            case MachineState.STOPPED:
                started = self.starts.get(machine.instance)
                return started or self._nothing(m, "stopped", "Stopped: nothing is waiting for it.")
            case MachineState.STOPPING:
                return self._nothing(m, "stopping", "The machine is stopping.")
            case MachineState.PENDING:
                return self._nothing(m, "booting", self._booting_words(machine))
            case MachineState.RUNNING:
                return self._running(m)

    def _running(self, m: MachineNow) -> Decision:
        machine = m.machine
        if not registered(machine):
            return self._keep(m, "booting", self._booting_words(machine))
        if is_silent(machine, self.policy, self.now):
            return self._keep(m, "silent", "Nothing was heard of its worker lately: it is taken for busy.")
        if m.leases:
            return self._keep(m, "works", f"It does {_count(m.leases, 'task')}.")
        if m.busy:
            return self._keep(m, "busy", f"It is in use: {', '.join(m.busy)}.")
        if self.pool.queued:
            queued = self.pool.queued
            return self._keep(m, "queued", f"{_count(queued, 'task')} of this pool {_is(queued)} waiting.")
        if self._due_soon():
            return self._keep(m, "due", "A task of this pool is due within the boot time.", self.due)
        hold = self._hold(m)
        if machine.drain is not None:
            return self._draining(m, machine.drain, hold)
        return self._idle(m, hold)

    def _draining(self, m: MachineNow, drain: Drain, hold: Hold | None) -> Decision:
        """Go on with the stop protocol of a machine on which nothing is known to run."""
        instance = m.machine.instance
        if hold is not None:
            return Decision(Action.CANCEL_DRAIN, "held", _hold_words(hold), instance, hold.until)
        if self.spare < 0 and not self._over_maximum():
            self.spare += 1
            return Decision(Action.CANCEL_DRAIN, *self._target_words(), instance)
        if drain.asked_by == "policy" and self.formed:
            return Decision(
                Action.CANCEL_DRAIN, "form", "Somebody has opened the form for a new run.", instance, self.formed
            )
        settled = drain.since + 2 * self.policy.lease
        answer = drain.answer if drain.answer is not None and drain.answer.token == drain.token else None
        if answer is not None and answer.busy:
            return Decision(Action.CANCEL_DRAIN, "answered_busy", f"It is in use: {', '.join(answer.busy)}.", instance)
        if self.now < settled:
            return self._nothing(m, "draining", "It takes no work; two leases are waited for.", settled)
        if answer is None or answer.at < settled:
            late = settled + self.policy.answer
            if self.now < late:
                return self._nothing(m, "draining", "It takes no work, and is asked whether it is busy.", late)
            text = "The machine did not say whether it is busy: it is taken for busy."
            return Decision(Action.CANCEL_DRAIN, "no_answer", text, instance)
        return Decision(Action.STOP, "drained", drain.reason, instance)

    def _idle(self, m: MachineNow, hold: Hold | None) -> Decision:
        """Drain an idle machine when its time is over and nothing speaks for it."""
        since = self._idle_since(m)
        idle = self._idle_words(since)
        leaves = self._leaves(m)
        over = self._over_maximum() and not leaves
        at_once = over or leaves
        until = self._until(m, since, at_once=at_once)
        if until is None:
            return self._nothing(m, "never", f"{idle} This pool's machines are never stopped for being idle.")
        if self.now < until[0]:
            return self._nothing(m, until[1], f"{idle} {until[2]}", until[0])
        if hold is not None:
            return Decision(Action.HOLD, "held", _hold_words(hold), m.machine.instance, hold.until)
        if self.spare <= 0 and not at_once:
            code, why = self._target_words()
            return self._nothing(m, code, why, self.policy.schedule.until(self.now) if code == "schedule" else None)
        self.spare -= 0 if leaves else 1
        return Decision(
            Action.DRAIN, "max_running" if over else "idle", self._drain_words(m, idle, over), m.machine.instance
        )

    def _until(self, m: MachineNow, since: datetime, *, at_once: bool) -> tuple[datetime, str, str] | None:
        """Tell until when an idle machine stays on, with code and words; None: for ever."""
        idle = _ZERO if at_once else self.idle
        if idle is None:
            return None
        found = [(since + idle, "idle_time", f"It is stopped {seconds_words(idle)} after its last work.")]
        if not at_once and m.machine.started_at is not None:
            least = m.machine.started_at + self.policy.minimum_run
            found.append((least, "minimum_run", f"It runs for at least {seconds_words(self.policy.minimum_run)}."))
        if not at_once and self.formed:
            found.append((self.formed, "form", "Somebody has opened the form for a new run."))
        if m.kept_at is not None:
            text = "It was busy, or silent, when it was asked last."
            found.append((m.kept_at + self.policy.ask_again, "asked", text))
        return max(found, key=lambda one: one[0])

    def _idle_since(self, m: MachineNow) -> datetime:
        """Give since when a machine is idle: not before it had booted."""
        started, heard = m.machine.started_at, m.machine.registered_at
        if started is None:
            return m.idle_since or self.now
        booted = heard if heard is not None and heard >= started else started + self.policy.boot
        return max(booted, m.idle_since or booted)

    def _hold(self, m: MachineNow) -> Hold | None:
        holds = [hold for hold in self.pool.holds if hold.holds(m.machine.instance, self.now)]
        return max(holds, key=lambda hold: hold.until, default=None)

    def _over_maximum(self) -> bool:
        limit = self.policy.max_running
        return limit is not None and self.spare + self.target > limit

    def _keep(self, m: MachineNow, code: str, why: str, until: datetime | None = None) -> Decision:
        """Leave a machine on; one that was draining takes work again."""
        action = Action.NOTHING if m.machine.drain is None else Action.CANCEL_DRAIN
        return Decision(action, code, why, m.machine.instance, until)

    def _nothing(self, m: MachineNow, code: str, why: str, until: datetime | None = None) -> Decision:
        return Decision(Action.NOTHING, code, why, m.machine.instance, until)

    # Words and alarms

    def _idle_words(self, since: datetime) -> str:
        return f"Idle for {seconds_words(max(_ZERO, self.now - since))}."

    def _drain_words(self, m: MachineNow, idle: str, over: bool) -> str:
        if over:
            return f"{idle} More machines run than the {self.policy.max_running} that this pool may have."
        if m.machine.notice is not None and self._leaves(m):
            notice = m.machine.notice
            return f"{idle} The cloud takes it soon: {(notice.text or notice.kind).rstrip('.')}."
        if self.kept == 0:
            return f"{idle} Off hours: what is idle is stopped at once."
        return f"{idle} Nothing waits for it and nobody holds it."

    def _booting_words(self, machine: Machine) -> str:
        since = "" if machine.started_at is None else f", {seconds_words(self.now - machine.started_at)} so far"
        return f"The machine is starting{since}."


def _short(pool: PoolNow, now: datetime, *names: str) -> bool:
    return any(now < pool.short[name] for name in names if name in pool.short)


def _hold_words(hold: Hold) -> str:
    return f"{hold.made_by} keeps it awake: {hold.reason}" if hold.reason else f"{hold.made_by} keeps it awake."


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"
