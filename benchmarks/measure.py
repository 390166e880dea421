"""How things are measured: in pairs, interleaved, in one run; what is told is the median of the pairs' ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A line of the table. `aim` is met when `good`; `value` is a ratio to the floor unless it says otherwise."""

    work: str
    floor: str
    value: str
    aim: str
    good: bool
    detail: str = ""


def timed(work: Callable[[], object]) -> float:
    """Give the seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def pairs(
    floor: Callable[[], object], work: Callable[[], object], *, rounds: int, warm: int = 1
) -> tuple[float, float]:
    """Give (median ratio work / floor, median seconds of the work), measured one after the other in turns."""
    for _ in range(warm):
        floor()
        work()
    ratios, seconds = [], []
    for number in range(rounds):
        if number % 2:
            mine, base = timed(work), timed(floor)
        else:
            base, mine = timed(floor), timed(work)
        ratios.append(mine / base)
        seconds.append(mine)
    return statistics.median(ratios), statistics.median(seconds)


def ratio_row(work: str, floor: str, measured: tuple[float, float], aim: float, detail: str = "") -> Row:
    """Make the line of a ratio."""
    ratio, seconds = measured
    told = f"{seconds * 1000:,.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:,.2f} ms"
    return Row(work, floor, f"{ratio:.3g}×", f"≤ {aim:g}×", ratio <= aim, "; ".join(filter(None, (told, detail))))


def percentile(values: list[float], part: float) -> float:
    """Give the value below which `part` (0 to 1) of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
