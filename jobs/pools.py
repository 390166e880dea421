"""What people do with pools of machines: look, ask for a start or a stop, keep awake. Everything asked for is a wish.

Nothing here reaches the cloud: the controller reads the wishes and carries them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from jobs.adapters.sql_machines import SqlMachines
from jobs.adapters.sql_store import Store
from jobs.capacity import decide
from jobs.idle_policy import seconds_words
from jobs.machines import (
    Action,
    Arrivals,
    Decision,
    Hold,
    Interval,
    MachineNow,
    MachineState,
    PoolNow,
    Recorded,
    Watch,
    Wish,
    WishKind,
)
from jobs.money import Saved, Share, Total, Use, by_day, months, saved, shares, totals
from jobs.pool_policy import policy_of
from jobs.pool_settings import PoolSettings
from jobs.run import Run
from jobs.settings import Settings
from jobs.usage import Span, usage
from runner.errors import Conflict, NotFound, RequestError
from runner.quantities import QuantityError, parse_duration

WATCHED_SECONDS = 60.0  # a controller shows itself every few seconds
SHORTEST_HOLD, LONGEST_HOLD = 60.0, 7 * 86_400.0
HISTORY = timedelta(hours=24)
PIECES = 96
KEPT = timedelta(seconds=15)
REASON_LIMIT = 500
ANSWERED, ANSWERED_FOR = 5, timedelta(minutes=30)  # wishes of which the page still tells what came


@dataclass(frozen=True)
class MachineStatus:
    """A machine, what would be decided on it now, and what is wrong with it."""

    now: MachineNow
    decision: Decision
    alarms: tuple[Decision, ...]
    hold: Hold | None


@dataclass(frozen=True)
class PoolMachines:
    """A pool of machines as it stands.

    `news` are decisions on the pool itself, such as that nothing can be started. `wishes`: open ones, and those that were
    answered lately.
    """

    settings: PoolSettings
    facts: PoolNow
    at: datetime
    machines: tuple[MachineStatus, ...]
    news: tuple[Decision, ...]
    wishes: tuple[Wish, ...]
    watch: Watch | None

    @property
    def watched(self) -> bool:
        """Tell whether a controller looked after it lately: without one nothing is started or stopped."""
        return self.watch is not None and (self.at - self.watch.seen_at).total_seconds() < WATCHED_SECONDS


@dataclass(frozen=True)
class Month:
    """What a pool cost from the beginning of a month, or to its end, and who it was for."""

    since: datetime
    until: datetime
    currency: str
    total: Total
    saved: Saved | None
    by_project: tuple[tuple[str | None, Total], ...]
    by_user: tuple[tuple[str | None, Total], ...]
    by_run: tuple[tuple[int | None, Total], ...]
    by_day: tuple[tuple[date, Total], ...]  # every day so far, by the clock of the pool's time zone


@dataclass(frozen=True)
class Cost:
    """What a run cost: billed seconds and money."""

    total: Total
    currency: str


class Pools:
    """Pools whose machines are started and stopped. Raises NotFound for a pool that there is not, Conflict for others."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._machines: SqlMachines = store.machines
        self._months: dict[str, Month] = {}  # the pages ask for this one again and again

    # ---- look -----------------------------------------------------------------------------------------------

    def pool_machines(self, pool: str) -> PoolMachines | None:
        """Give the machines of a pool; None for one of machines that are there anyway."""
        known = self._pool(pool)
        if not known.is_ec2:
            return None
        facts = self._machines.now(pool, slots=known.slots)
        at = self._machines.time()
        decided = decide(facts, policy_of(known, lease=self._settings.server.lease), at)
        alarms = [one for one in decided if one.action is Action.ALARM]
        mine = {one.instance: one for one in decided if one.action is not Action.ALARM}
        return PoolMachines(
            settings=known,
            facts=facts,
            at=at,
            machines=tuple(
                MachineStatus(
                    now=one,
                    decision=mine[one.machine.instance],
                    alarms=tuple(alarm for alarm in alarms if alarm.instance == one.machine.instance),
                    hold=_longest(facts.holds, one.machine.instance, at),
                )
                for one in facts.machines
                if one.machine.state is not MachineState.GONE
            ),
            news=tuple(one for one in decided if one.instance is None),
            wishes=self._wishes(pool, at),
            watch=next((one for one in self._machines.watches() if one.pool == pool), None),
        )

    def _wishes(self, pool: str, at: datetime) -> tuple[Wish, ...]:
        """List what was asked for: all that is open, and of the last minutes what came of it, newest first."""
        answered = [one for one in self._machines.wishes(pool, limit=ANSWERED) if one.done_at is not None]
        lately = [one for one in answered if one.done_at is not None and at - one.done_at < ANSWERED_FOR]
        return (*reversed(self._machines.open_wishes(pool)), *lately)

    def pool_decisions(
        self, pool: str, *, instance: str | None = None, before: int | None = None, limit: int = 50
    ) -> list[Recorded]:
        """List what was decided on a pool or one of its machines, newest first."""
        self._pool(pool)
        return self._machines.decisions(pool, instance=instance, before=before, limit=limit)

    def pool_arrivals(self, pool: str, limit: int) -> Arrivals:
        """Give the newest runs of a pool, and when forms for new ones were opened, oldest first."""
        self._pool(pool)
        return self._machines.arrived(pool, limit)

    def pool_usage(self, pool: str) -> list[Span]:
        """Tell how many machines of a pool ran, and were needed, in the last 24 hours."""
        self._ec2(pool)
        now = self._machines.time()
        intervals = self._machines.intervals(pool, since=now - HISTORY)
        return usage(intervals, self._machines.uses(pool, since=now - HISTORY), now - HISTORY, now, PIECES)

    # ---- money ----------------------------------------------------------------------------------------------

    def pool_month(self, pool: str, month: str | None = None) -> Month:
        """Give what a pool cost in a month (2026-11; None: this one), by the clock of its time zone."""
        known = self._ec2(pool)
        now = self._machines.time()
        kept = self._months.get(pool) if month is None else None
        if kept is not None and timedelta(0) <= now - kept.until < KEPT:
            return kept
        since, until = _month(month, known.time_zone, now)
        end = min(until, now)
        intervals, uses = self._books(pool, since, end, known)
        found = list(shares(intervals, uses, end))
        total = Total()
        for share in found:
            total = total.plus(share)
        held = None
        if any(one.price is not None for one in intervals):
            # A pool that began in this month is not held against what it would have cost before.
            first = max(since, self._machines.first_interval(pool) or since)
            held = saved(intervals, uses, first, end, timedelta(seconds=known.boot))
        told = Month(
            since=since,
            until=end,
            currency=known.currency,
            total=total,
            saved=held,
            by_project=tuple(totals(found, lambda share: share.project).items()),
            by_user=tuple(totals(found, lambda share: share.user).items()),
            by_run=tuple(totals(found, lambda share: share.run).items()),
            by_day=by_day(intervals, since, end, known.time_zone),
        )
        if month is None:
            self._months[pool] = told
        return told

    def pool_ledger(self, pool: str, month: str | None = None) -> list[Share]:
        """List every billed interval of a month, divided among the runs that were done in it, oldest first."""
        known = self._ec2(pool)
        now = self._machines.time()
        since, until = _month(month, known.time_zone, now)
        intervals, uses = self._books(pool, since, min(until, now), known)
        return list(shares(intervals, uses, min(until, now)))

    def run_cost(self, run: Run) -> Cost | None:
        """Tell what a run cost so far: its part of what its machines were billed; None where it ran on no such machine."""
        known = self._settings.pools.get(run.pool)
        if known is None or not known.is_ec2:
            return None
        now = self._machines.time()
        touching = self._machines.intervals(run.pool, since=run.created_at, until=run.finished_at)
        if not touching:
            return None
        uses = self._machines.uses(run.pool, since=min(one.started_at for one in touching))
        total = Total()
        for share in shares(touching, uses, now):
            if share.run == run.id:
                total = total.plus(share)
        return Cost(total, known.currency) if total.seconds else None

    def pool_alarms(self) -> list[str]:
        """List in words what is wrong with machines."""
        found = [(name, self.pool_machines(name)) for name, pool in sorted(self._settings.pools.items()) if pool.is_ec2]
        return [
            f"Pool {name}, {one.now.machine.instance}: {alarm.reason}"
            for name, pool in found
            if pool is not None
            for one in pool.machines
            for alarm in one.alarms
        ]

    def _books(
        self, pool: str, since: datetime, until: datetime, known: PoolSettings
    ) -> tuple[list[Interval], list[Use]]:
        """Give the intervals of a month, cut at its ends, and what was done in them."""
        touching = self._machines.intervals(pool, since=since, until=until)
        cut = [one for one in months(touching, until, known.time_zone) if since <= one.started_at < until]
        return cut, self._machines.uses(pool, since=since)

    # ---- ask ------------------------------------------------------------------------------------------------

    def start_machine(self, pool: str, instance: str | None = None, *, user: str, reason: str = "") -> Wish:
        """Ask for a machine of a pool to be started, any one when none is named. Raises Conflict for one that runs."""
        self._ec2(pool)
        reason = _reason(reason)
        if instance is not None:
            machine = self._machine(pool, instance).machine
            if machine.refused is not None:
                raise _refused("instance", instance, f"Seatrial leaves {instance} alone: {machine.refused}")
            if machine.state.billed:
                raise _refused("instance", instance, f"{instance} is {machine.state} already.")
        return self._machines.wish(pool, WishKind.START, made_by=user, instance=instance, reason=reason)

    def stop_machine(self, pool: str, instance: str, *, user: str, reason: str = "") -> Wish:
        """Ask for a machine to be stopped now, by the same steps as one that is idle. Raises Conflict for a busy one."""
        known = self._ec2(pool)
        reason = _reason(reason)
        self._machine(pool, instance)
        keeps = self._machines.keeps_on(instance)
        if keeps is not None and not (keeps[0] == "unregistered" and known.stop_silent):
            remedy = "Release the hold first." if keeps[0] == "held" else "A busy machine is never stopped."
            raise _refused("instance", instance, f"{instance} is not stopped: {keeps[1]}", remedy)
        return self._machines.wish(pool, WishKind.STOP, made_by=user, instance=instance, reason=reason)

    def hold_pool(self, pool: str, instance: str | None = None, *, duration: str, user: str, reason: str = "") -> Hold:
        """Keep a pool, or one machine of it, awake for a duration (`2h`), 1 minute to 7 days."""
        self._ec2(pool)
        reason = _reason(reason)
        if instance is not None:
            self._machine(pool, instance)
        hold = self._machines.hold(pool, seconds=_duration(duration), reason=reason, made_by=user, instance=instance)
        self._note(
            pool, hold, "hold_made", f"{user} keeps {_what(hold)} awake until {hold.until:%Y-%m-%d %H:%M} UTC", user
        )
        return hold

    def release_hold(self, hold: int, *, user: str) -> Hold:
        """End a hold before its time."""
        before = next((one for one in self._machines.holds() if one.id == hold), None)
        found = self._machines.release(hold, by=user)
        if before is not None:
            self._note(found.pool, found, "hold_released", f"{user} keeps {_what(found)} awake no more", user)
        return found

    def form_opened(self, project: str, *, user: str) -> None:
        """Note that somebody is about to submit a run, so that a machine may boot meanwhile."""
        known = self._settings.projects.get(project)
        pool = None if known is None else self._settings.pools.get(known.pool)
        if known is not None and pool is not None and pool.is_ec2 and pool.prewarm is not None:
            self._machines.form_opened(known.pool, made_by=user)

    # ---- inside ---------------------------------------------------------------------------------------------

    def _pool(self, pool: str) -> PoolSettings:
        known = self._settings.pools.get(pool)
        if known is None:
            pools = ", ".join(sorted(self._settings.pools))
            remedy = f"Known are: {pools}."
            raise NotFound(f"There is no pool {pool[:80]!r}.", field="pool", value=pool[:80], remedy=remedy)
        return known

    def _ec2(self, pool: str) -> PoolSettings:
        known = self._pool(pool)
        if not known.is_ec2:
            text = f"The machines of pool {pool} are there anyway: Seatrial starts and stops none of them."
            raise _refused("pool", pool, text, f'It does for a pool with provider = "ec2" in [pools.{pool}].')
        return known

    def _machine(self, pool: str, instance: str) -> MachineNow:
        known = {one.machine.instance: one for one in self._machines.now(pool).machines}
        if instance not in known:
            text = f"Pool {pool} has no machine {instance[:80]!r}."
            remedy = f"Known are: {', '.join(known)}." if known else "None is known yet."
            raise NotFound(text, field="instance", value=instance[:80], remedy=remedy)
        return known[instance]

    def _note(self, pool: str, hold: Hold, code: str, text: str, user: str) -> None:
        reason = f"{text}: {hold.reason}" if hold.reason else f"{text}."
        said = Decision(Action.HOLD, code, reason, hold.instance, hold.until)
        self._machines.record(pool, said, made_by=user, data={"hold": hold.id})


def _what(hold: Hold) -> str:
    return "this machine" if hold.instance else "the pool"


def _longest(holds: Sequence[Hold], instance: str, at: datetime) -> Hold | None:
    mine = [hold for hold in holds if hold.holds(instance, at)]
    return max(mine, key=lambda hold: hold.until, default=None)


def _duration(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except QuantityError as error:
        problem = str(error)
    else:
        if SHORTEST_HOLD <= seconds <= LONGEST_HOLD:
            return seconds
        problem = f"is {seconds_words(timedelta(seconds=seconds))}; allowed is 1m to 7d"
    raise RequestError(f"The duration {problem}.", field="duration", value=text[:80], remedy="Write it as 2h or 90m.")


def _reason(text: str) -> str:
    text = " ".join(text.split())
    if len(text) > REASON_LIMIT or not text.isprintable():
        message = f"A reason is one line of up to {REASON_LIMIT} characters."
        raise RequestError(message, field="reason", value=text[:80], remedy="Shorten it.")
    return text


def _refused(field: str, value: str, text: str, remedy: str = "") -> Conflict:
    return Conflict(text, field=field, value=value, remedy=remedy or "See the capacity page for what it does now.")


def _month(text: str | None, zone: str, now: datetime) -> tuple[datetime, datetime]:
    """Give the first moment of a month and that of the next one; raises RequestError."""
    local = now.astimezone(ZoneInfo(zone))
    year, month = local.year, local.month
    if text is not None:
        try:
            wanted = datetime.strptime(text, "%Y-%m")  # noqa: DTZ007 - only its year and month are used
        except ValueError:
            remedy = "Write it as 2026-11."
            raise RequestError("This is no month.", field="month", value=text[:20], remedy=remedy) from None
        year, month = wanted.year, wanted.month
    following = (year + 1, 1) if month == 12 else (year, month + 1)
    first = datetime(year, month, 1, tzinfo=ZoneInfo(zone))
    if first > now:
        raise RequestError(
            "This month has not begun.", field="month", value=text, remedy="Leave it out for this month."
        )
    return first, datetime(*following, 1, tzinfo=ZoneInfo(zone))
