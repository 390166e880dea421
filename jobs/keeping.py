"""What a host may part with of its own: facts and policy into removals with their reasons. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from runner.quantities import format_duration

DAY = 86_400.0
# An image or a tree comes back by itself when it is needed again, so what nobody asked for in a month may go.
IDLE_SECONDS = 30 * DAY
# Below the mark, the least recently used go first, and what was used a moment ago stays: it is likely to be needed.
LEAST_IDLE_SECONDS = 600.0
# The host begins to part with things while there is still room for work: at so many times its floor.
MARK = 2


@dataclass(frozen=True)
class Kept:
    """A thing of ours on a host: an image or a tree. `used_at` in seconds since 1970."""

    name: str
    used_at: float
    needed: bool = False


@dataclass(frozen=True)
class Removal:
    """What may go, and why. `pressed`: only for as long as the host is below its mark."""

    name: str
    used_at: float
    why: str
    pressed: bool


@dataclass(frozen=True)
class Done:
    """One thing that was removed, and why; `run` and `task`: whose it was, where it was of one."""

    what: str
    name: str
    why: str
    run: int | None = None
    task: int | None = None


def to_remove(kept: Iterable[Kept], now: float, *, lacking: str | None) -> list[Removal]:
    """Choose what may go, least recently used first. `lacking`: what the host has too little of, None when it has room.

    What a living run needs stays, and so does all that was used after it: a layer's base is used with the layer.
    """
    oldest_first = sorted(kept, key=lambda one: (one.used_at, one.name))
    needed_since = min((one.used_at for one in oldest_first if one.needed), default=float("inf"))
    found = []
    for one in oldest_first:
        idle = now - one.used_at
        if one.needed or one.used_at >= needed_since:
            break
        if idle > IDLE_SECONDS:
            found.append(Removal(one.name, one.used_at, f"not used for {format_duration(idle)}", pressed=False))
        elif lacking is not None and idle > LEAST_IDLE_SECONDS:
            why = f"not used for {format_duration(idle)}, and the host runs short: {lacking}"
            found.append(Removal(one.name, one.used_at, why, pressed=True))
    return found


def images_to_retire(
    standing: Iterable[str], used: Mapping[str, tuple[bool, float]], now: float, *, lacking: str | None
) -> list[Removal]:
    """Choose among the built images that stand here. `used`: (needed by a living run, last use) by name.

    One that no record of ours names may be another installation's: it stays.
    """
    ours = [Kept(name, used[name][1]) for name in standing if name in used and not used[name][0]]
    return to_remove(ours, now, lacking=lacking)


def may_go_for_good(retired_at: float, oldest_claim: float | None) -> bool:
    """Tell whether no task that runs here can still mean to use an image which was retired at that time.

    `oldest_claim`: when the longest-running attempt on this host began; None when there is none. A task that was
    claimed later did not find the image any more, and has another one made.
    """
    return oldest_claim is None or oldest_claim > retired_at
