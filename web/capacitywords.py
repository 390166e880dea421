"""Machines, money and a day's load as people read them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from jobs.idle_policy import Idle, IdleKind, seconds_words
from jobs.machine_disk import advice as advice  # the page asks for it here
from jobs.machines import Action, MachineState
from jobs.money import money
from jobs.pools import Cost, MachineStatus, Month, PoolMachines
from jobs.usage import Span
from web.words import THIN, plural

WIDTH, HEIGHT = 960, 100
A_LOT = 1_000  # per cent, from which on they tell nothing


@dataclass(frozen=True)
class Standing:
    """A machine's state: the icon's kind and a word."""

    kind: str
    word: str


def standing(found: MachineStatus) -> Standing:
    """Name how a machine stands."""
    machine = found.now.machine
    if machine.refused is not None:
        return Standing("errored", "Left alone")
    match machine.state:
        case MachineState.PENDING:
            return Standing("queued", "Starting")
        case MachineState.STOPPING:
            return Standing("cancelled", "Stopping")
        case MachineState.STOPPED:
            return Standing("cancelled", "Stopped")
        case MachineState.UNKNOWN:
            return Standing("queued", "Unknown")
    if found.now.leases or found.now.busy:
        return Standing("running", "Works" if found.now.leases else "In use")
    if machine.drain is not None:
        return Standing("interrupted", "Draining")
    if found.decision.code == "booting":
        return Standing("queued", "Starting")
    return Standing("errored", "Silent") if found.decision.code == "silent" else Standing("passed", "Ready")


def does(found: MachineStatus) -> str:
    """Say what a machine does, beside the state itself."""
    told = [plural(found.now.leases, "task")] if found.now.leases else []
    return ", ".join([*told, *found.now.busy])


def may_stop(found: MachineStatus) -> bool:
    """Tell whether a stop that is asked for now has a chance."""
    machine, now = found.now.machine, found.now
    idle = machine.state is MachineState.RUNNING and not now.leases and not now.busy and found.hold is None
    return idle and machine.refused is None and found.decision.code not in ("queued", "due", "booting", "silent")


def may_start(found: MachineStatus) -> bool:
    return found.now.machine.state is MachineState.STOPPED and found.now.machine.refused is None


def an_hour(price: Decimal | None, currency: str) -> str:
    """Write what a machine costs in an hour: ` USD 0.38/h`; nothing where that is not known."""
    return "" if price is None else f"{currency} {price.normalize():f}/h"


def amount(value: Decimal, currency: str) -> str:
    """Write an amount of money: USD 1 204.50."""
    return f"{currency} {money(value):,}".replace(",", THIN)


def cost(found: Month | Cost) -> str:
    """Say what a month, or a run, has cost so far."""
    time = f"{found.total.seconds / 3600:,.1f} h".replace(",", THIN)
    if found.total.seconds < 3600:
        time = seconds_words(timedelta(seconds=float(found.total.seconds)))
    if found.total.unpriced and not found.total.cost:
        return f"{time} of machines; their price is not known"
    more = f", and {found.total.unpriced / 3600:.1f} h without a price" if found.total.unpriced else ""
    return f"{amount(found.total.cost, found.currency)} for {time}{more}"


def held_against(paid: Decimal, other: Decimal, currency: str) -> str:
    """Say what was saved against another rule, or was lost."""
    if other <= 0:
        return "nothing to compare with yet"
    if money(other) == money(paid):
        return "the same"
    share = abs(other - paid) / other * 100
    part = f" ({share:.0f} %)" if share < A_LOT else ""
    if paid > other:
        return f"{amount(paid - other, currency)} more{part}"
    return f"{amount(other - paid, currency)} less{part}"


def policy(found: PoolMachines) -> str:
    """Say how a pool is run, in a line."""
    pool = found.settings
    idle = str(Idle(IdleKind(pool.idle_policy), None if pool.idle is None else timedelta(seconds=pool.idle)))
    parts = [f"{pool.min_running} to {plural(pool.max_running, 'machine')}", f"idle ones stop {idle}"]
    if pool.prewarm:
        parts.append(f"an opened form keeps one ready for {seconds_words(timedelta(seconds=pool.prewarm))}")
    return "; ".join(parts).replace("stop never", "are never stopped") + "."


@dataclass(frozen=True)
class Load:
    """A day's machines as two areas in a box of WIDTH by HEIGHT: those that ran, and those that were needed."""

    running: str
    needed: str
    most: int
    words: str


def load(spans: Sequence[Span]) -> Load | None:
    """Draw how many machines ran and how many were needed; None where none ran."""
    top = max((span.running for span in spans), default=0.0)
    if top <= 0:
        return None
    most = max(1, -int(-top // 1))
    hours = (spans[1].at - spans[0].at).total_seconds() / 3_600
    ran, needed = (sum(getattr(span, name) for span in spans) * hours for name in ("running", "needed"))
    words = f"In the last 24 hours machines ran for {ran:.1f} h and worked for {needed:.1f} h of that."
    return Load(_area([s.running for s in spans], most), _area([s.needed for s in spans], most), most, words)


def _area(values: Sequence[float], most: int) -> str:
    step = WIDTH / len(values)
    path, level = [f"M0 {HEIGHT}"], 0.0
    for number, value in enumerate(values):
        if value != level:
            path.append(f"H{number * step:g}V{HEIGHT - value / most * HEIGHT:.1f}")
            level = value
    return "".join([*path, f"H{WIDTH}V{HEIGHT}Z"])


@dataclass(frozen=True)
class Bar:
    """A day's cost as a rectangle in a box of WIDTH by HEIGHT, and in words."""

    x: float
    width: float
    height: float
    words: str


@dataclass(frozen=True)
class Days:
    """What a month cost day by day; `most`: its dearest day. `first`, `last`: how they are called."""

    bars: tuple[Bar, ...]
    most: str
    first: str
    last: str
    words: str


def days(month: Month) -> Days | None:
    """Draw what each day of a month cost; None where nothing has a price."""
    most, dearest = max((total.cost, day) for day, total in month.by_day)
    if most <= 0:
        return None
    step = WIDTH / len(month.by_day)
    bars = tuple(
        Bar(
            x=round(number * step + step * 0.08, 1),
            width=round(step * 0.84, 1),
            height=round(float(total.cost / most) * HEIGHT, 1),
            words=f"{day:%-d %B}: {amount(total.cost, month.currency)}",
        )
        for number, (day, total) in enumerate(month.by_day)
    )
    top = amount(most, month.currency)
    words = f"Cost of each day of {month.by_day[0][0]:%B}; the dearest was {dearest:%-d %B} with {top}."
    first, last = (f"{day:%-d %b}" for day in (month.by_day[0][0], month.by_day[-1][0]))
    return Days(bars, top, first, last, words)


ACTIONS = {
    Action.START: "Start",
    Action.DRAIN: "Drain",
    Action.CANCEL_DRAIN: "Stay on",
    Action.STOP: "Stop",
    Action.HOLD: "Hold",
    Action.GROW: "New machine",
    Action.NOTHING: "No change",
    Action.ALARM: "Alarm",
    Action.REFUSED: "Refused",
}


def when_else(found: MachineStatus) -> datetime | None:
    """Tell when it would be decided otherwise, for a machine that is on."""
    return found.decision.until if found.now.machine.state is MachineState.RUNNING else None
