"""What a policy would have cost, and made people wait: the decisions of `capacity.decide` over arrivals that are known.

The model: one machine, one task at a time, first in first out; work waits while the machine boots; billed a second from the
request to start it to its stop, a minute at least for each start; a stop takes no time. The clairvoyant bound is the same model
with a policy that knows the next submission: it stays on exactly when the gap is no longer than a boot, else it stops at once.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta

from jobs.capacity import Policy, decide
from jobs.idle_policy import REMEMBERED, Idle, IdleKind
from jobs.machines import Action, Machine, MachineNow, MachineState, PoolNow
from jobs.schedule import Schedule, Window

WEEK = 7 * 86400.0
MINIMUM = 60.0  # seconds billed for a start, at least
OWN = "this pool"  # the name of its own policy among others
MONDAY = datetime(2024, 1, 1, tzinfo=UTC)  # second 0 of a week


@dataclass(frozen=True)
class Submit:
    """Work that comes in at a second of its week, and takes some seconds."""

    at: float
    duration: float


@dataclass(frozen=True)
class Week:
    """The arrivals of a week, and when forms for a new run were opened, in seconds since Monday 00:00."""

    number: int
    submits: tuple[Submit, ...]
    forms: tuple[float, ...] = ()
    monday: datetime = MONDAY


@dataclass(frozen=True)
class Outcome:
    """What a week came to: seconds billed, starts, and for each run how long it waited for a boot."""

    billed: float
    starts: int
    boot_waits: tuple[float, ...]


@dataclass(frozen=True)
class Score:
    """A policy over all weeks. `ratio`: billed over the bound's, median of the weeks; `wait`: mean seconds waited for a boot."""

    name: str
    ratio: float
    wait: float
    hours: float
    starts: int


def compare(weeks: Sequence[Week], policies: Mapping[str, Policy]) -> tuple[Score, ...]:
    """Score policies, and first the bound itself, by the boot time that each policy gives."""
    if not any(week.submits for week in weeks):
        raise ValueError("there is no run in this time")
    boot = next(iter(policies.values())).boot if policies else Policy().boot
    bounds = [bound(week, boot.total_seconds()) for week in weeks]
    scores = [_score("clairvoyant bound", bounds, bounds)]
    for name, policy in policies.items():
        floor = bounds if policy.boot == boot else [bound(week, policy.boot.total_seconds()) for week in weeks]
        scores.append(_score(name, list(outcomes(weeks, policy)), floor))
    return tuple(scores)


def outcomes(weeks: Sequence[Week], policy: Policy) -> Iterator[Outcome]:
    """Simulate weeks one after the other; what a policy learns in one it knows in the next."""
    gaps: deque[float] = deque(maxlen=REMEMBERED)
    for week in weeks:
        yield _Simulation(week, policy, gaps).run()


def bound(week: Week, boot: float) -> Outcome:
    """Give what a policy would come to that knows the next submission; no other is cheaper where a boot takes a minute."""
    spans: list[tuple[float, float]] = []  # (asked to start, stopped)
    waits = []
    for submit in week.submits:
        if spans and submit.at - spans[-1][1] <= boot:
            begun, free = spans.pop()
        else:
            begun, free = submit.at, submit.at + boot
        waits.append(max(0.0, begun + boot - submit.at))
        spans.append((begun, max(free, submit.at) + submit.duration))
    billed = sum(max(MINIMUM, stopped - begun) for begun, stopped in spans)
    return Outcome(billed, len(spans), tuple(waits))


def usual(policy: Policy) -> dict[str, Policy]:
    """Give the policies that a pool's own is held against; hours are by its own clock."""
    bare = replace(policy, min_running=0, minimum_run=timedelta(0), prewarm=timedelta(0), schedule=Schedule())
    never = Idle(IdleKind.FIXED, None)
    nights = Schedule((Window(frozenset(range(7)), time(20), time(6), running=0),), policy.schedule.zone)
    half_an_hour = Idle(IdleKind.FIXED, timedelta(minutes=30))
    break_even = replace(bare, idle=Idle(IdleKind.BREAK_EVEN))
    learned = replace(bare, idle=Idle(IdleKind.LEARNED))
    prewarm = policy.prewarm or Policy().prewarm
    found = {
        "always on": replace(bare, min_running=1, idle=never),
        "stopped at night": replace(bare, idle=never, schedule=nights),
        "fixed 30 min": replace(bare, idle=half_an_hour),
        "break-even": break_even,
        "break-even, pre-warmed": replace(break_even, prewarm=prewarm),
        "learned": learned,
        "learned, pre-warmed": replace(learned, prewarm=prewarm),
    }
    return found | {OWN: policy}


class _Simulation:
    """A week under a policy: time jumps to whatever comes next, and `decide` is asked there."""

    def __init__(self, week: Week, policy: Policy, gaps: deque[float]) -> None:
        self.week, self.policy, self.gaps = week, policy, gaps
        self.boot = policy.boot.total_seconds()
        self.now = 0.0
        self.submits = deque(week.submits)
        self.forms = deque(week.forms)
        self.form: datetime | None = None  # the newest
        self.told_gaps = tuple(gaps)
        self.queue: deque[Submit] = deque()
        self.started: float | None = None  # when it was asked to start, while it is on
        self.task_ends: float | None = None
        self.idle_since: float | None = None  # of the machine, while it is on
        self.quiet_since: float | None = None  # of the pool: nothing runs or waits
        self.billed, self.starts, self.waits = 0.0, 0, list[float]()

    def run(self) -> Outcome:
        while True:
            self._arrive()
            self._work()
            wake = self._decide()
            coming = [self.submits[0].at if self.submits else None, self.forms[0] if self.forms else None]
            coming += [self.task_ends, wake]
            if self.started is not None and self.now < self.started + self.boot:
                coming.append(self.started + self.boot)
            after = min((at for at in coming if at is not None and at > self.now), default=None)
            if after is None or (after >= WEEK and not self._at_work()):
                break
            self.now = after
        if self.started is not None:
            self._stop(max(self.now, WEEK))
        return Outcome(self.billed, self.starts, tuple(self.waits))

    def _at_work(self) -> bool:
        return bool(self.submits or self.queue or self.task_ends)

    def _arrive(self) -> None:
        """Take in what has come by now, and notice when a quiet time ends."""
        while self.forms and self.forms[0] <= self.now:
            at = self.forms.popleft()
            self.form = self._clock(at)
            if self.quiet_since is not None:  # an opened form ends a gap, and the next begins with it
                self._gap(at - self.quiet_since)
                self.quiet_since = at
        while self.submits and self.submits[0].at <= self.now:
            self.queue.append(self.submits.popleft())
            if self.quiet_since is not None:
                self._gap(self.queue[-1].at - self.quiet_since)
                self.quiet_since = None

    def _gap(self, seconds: float) -> None:
        if seconds > 0:
            self.gaps.append(seconds)
            self.told_gaps = tuple(self.gaps)

    def _work(self) -> None:
        if self.task_ends is not None and self.task_ends <= self.now:
            self.task_ends, self.idle_since = None, self.now
            self.quiet_since = None if self.queue else self.now
        if self.started is None or self.task_ends is not None or not self.queue:
            return
        ready = self.started + self.boot
        if self.now >= ready:
            submit = self.queue.popleft()
            self.waits.append(max(0.0, ready - submit.at))
            self.task_ends, self.idle_since = self.now + submit.duration, None

    def _decide(self) -> float | None:
        """Do what is decided; give when it would be decided otherwise though nothing happens."""
        untils = []
        for _ in range(3):  # a stop may be followed by a start, never by a stop again
            now = self._clock(self.now)
            decisions = decide(self._pool(now), self.policy, now)
            untils = [decision.until for decision in decisions]
            actions = {decision.action for decision in decisions}
            if Action.START in actions:
                self.started, self.idle_since, self.starts = self.now, None, self.starts + 1
            elif Action.DRAIN in actions:
                self._stop(self.now)
            else:
                break
        edge = self.policy.schedule.until(self._clock(self.now)) if self.policy.schedule.windows else None
        if edge is not None:
            untils += [edge, edge - self.policy.boot]
        later = [(until - self.week.monday).total_seconds() for until in untils if until is not None]
        return min((at for at in later if at > self.now), default=None)

    def _stop(self, at: float) -> None:
        assert self.started is not None
        self.billed += max(MINIMUM, at - self.started)
        self.started = self.idle_since = None

    def _clock(self, at: float) -> datetime:
        return self.week.monday + timedelta(seconds=at)

    def _pool(self, now: datetime) -> PoolNow:
        if self.started is None:
            off = Machine("i-0", "simulated", MachineState.STOPPED, self.week.monday)
            return self._told(MachineNow(off, slots=1))
        begun, ready = self._clock(self.started), self._clock(self.started + self.boot)
        up = now >= ready
        machine = Machine(
            "i-0",
            "simulated",
            MachineState.RUNNING if up else MachineState.PENDING,
            begun,
            host="simulated",
            registered_at=ready if up else None,
            seen_at=now if up else None,
            started_at=begun,
        )
        if self.task_ends is not None:
            return self._told(MachineNow(machine, leases=1, slots=1))
        idle = ready if self.idle_since is None else self._clock(self.idle_since)
        return self._told(MachineNow(machine, slots=1, idle_since=idle if up else None))

    def _told(self, machine: MachineNow) -> PoolNow:
        forms = () if self.form is None else (self.form,)
        return PoolNow("simulated", (machine,), len(self.queue), forms=forms, gaps=self.told_gaps)


def _score(name: str, found: Sequence[Outcome], floor: Sequence[Outcome]) -> Score:
    ratios = [mine.billed / least.billed for mine, least in zip(found, floor, strict=True) if least.billed]
    waits = [wait for outcome in found for wait in outcome.boot_waits]
    hours = sum(outcome.billed for outcome in found) / 3600
    return Score(name, statistics.median(ratios), statistics.fmean(waits), hours, sum(o.starts for o in found))
