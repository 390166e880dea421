"""A pool that is controlled: whose machines they are, how it is run, and the times that the controller keeps."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from decimal import Decimal

from jobs.capacity_policy import Policy
from jobs.cloud import Expected, uptime


@dataclass(frozen=True)
class Controlled:
    """A pool of machines in a cloud.

    `instances`: ids that belong to it beside what carries its marker. `template`: of new machines; None: there are none.
    `slots`: of a machine whose worker is not there yet. `price`: an hour. `stop_silent`: an operator may have a machine
    stopped whose worker is silent. `installation`: told apart by it are those who launch machines in one account.
    """

    expected: Expected
    policy: Policy = field(default_factory=Policy)
    instances: tuple[str, ...] = ()
    template: str | None = None
    slots: int = 1
    price: Decimal | None = None
    stop_silent: bool = False
    installation: str = ""

    @property
    def name(self) -> str:
        return self.expected.pool


@dataclass(frozen=True)
class Times:
    """What the controller waits for, in seconds.

    `look`: EC2 is asked for all machines so often, and every `look_soon` while one is on its way; what it said is
    `stale` after so long, and nothing is drained or stopped by it. `send`: a start or stop that is not on its way after
    so long is not sent at all. `apart`: no machine is started sooner after a stop of it was asked for, by whomever: longer
    than `send` and the time-outs of a connection. `doubt`: a stop whose answer was lost, and of which EC2 shows nothing
    for so long, did not happen. `short`: what EC2 has no capacity for is not asked for again before. `seen`: the
    controller shows its presence so often. `by_hand`, `wished`: who starts a machine past us, or has it started by us,
    has it for so long; that is a hold like any other.
    """

    look: float = 60.0
    look_soon: float = 5.0
    stale: float = 150.0
    send: float = 5.0
    apart: float = 20.0
    doubt: float = 120.0
    short: float = 120.0
    seen: float = 5.0
    by_hand: float = 12 * 3600.0
    wished: float = 2 * 3600.0
    back_off: float = 1.0
    back_off_most: float = 60.0


class BackOff:
    """What failed is tried again after a while, twice as long each time; the half of it is left to chance."""

    def __init__(self, times: Times, clock: Callable[[], float] = uptime) -> None:
        self._first, self._most, self._clock = times.back_off, times.back_off_most, clock
        self._failed: dict[Hashable, tuple[int, float]] = {}  # how often, and until when to wait

    def ready(self, key: Hashable) -> bool:
        """Tell whether it may be tried now."""
        return self._clock() >= self._failed.get(key, (0, 0.0))[1]

    def times(self, key: Hashable) -> int:
        """Tell how often it failed in a row."""
        return self._failed.get(key, (0, 0.0))[0]

    def failed(self, key: Hashable, *, at_least: float = 0.0) -> None:
        """Note that it failed."""
        count = self.times(key) + 1
        wait = min(self._most, self._first * 2.0 ** (count - 1)) * random.uniform(0.5, 1.0)  # noqa: S311 - spreads
        self._failed[key] = count, self._clock() + max(wait, at_least)

    def worked(self, key: Hashable) -> None:
        """Note that it worked."""
        self._failed.pop(key, None)
