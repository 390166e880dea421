"""Made-up arrivals of runs, by the model of examples/traces: seeded, so that each of them can be made again."""

from __future__ import annotations

import math
import random

from jobs.simulate import WEEK, Submit, Week

HOUR = 3600.0


def weeks(rate: float, seed: int, count: int = 10) -> tuple[Week, ...]:
    """Make weeks with `rate` runs an hour in office hours."""
    dice = random.Random(f"{seed}/{rate}")
    return tuple(_week(number, rate, dice) for number in range(count))


def _week(number: int, rate: float, dice: random.Random) -> Week:
    submits = [Submit(at, _duration(dice)) for at in _times(rate, dice)]
    forms = [max(0.0, submit.at - dice.uniform(15, 90)) for submit in submits]
    forms += _times(rate / 4, dice)  # these lead to nothing
    return Week(number, tuple(submits), tuple(sorted(forms)))


def _times(rate: float, dice: random.Random) -> list[float]:
    """Draw the times of a Poisson process by thinning: candidates at the highest rate, of which a part is kept."""
    found: list[float] = []
    at = 0.0
    while True:
        at += dice.expovariate(rate / HOUR)
        if at >= WEEK:
            return found
        if dice.random() < _share(at):
            found.append(at)


def _share(at: float) -> float:
    """Give the rate at a second of the week as a share of that in office hours."""
    day, hour = divmod(at / HOUR, 24)
    if day >= 5:
        return 0.03
    if 9 <= hour < 18:
        return 1.0
    return 0.1 if 7 <= hour < 9 or 18 <= hour < 22 else 0.02


def _duration(dice: random.Random) -> float:
    return min(4 * HOUR, max(120.0, dice.lognormvariate(math.log(900), 1.1)))
