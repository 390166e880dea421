"""Small pictures as plain numbers for templates to draw: no script, and the same figures stand beside them. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.latency import Timed, is_slower
from jobs.overview import Bin
from web.diffwords import amount
from web.words import duration

WIDTH, HEIGHT = 640, 150
BASE = 120  # where bars stand
SIDE = 420  # of the square of a scatter
EDGE = 44


@dataclass(frozen=True)
class Bar:
    """A bar for one power of ten; heights in the drawing's own units, rises above falls."""

    x: float
    width: float
    rises: float
    falls: float
    label: str
    words: str


def bars(bins: Sequence[Bin]) -> list[Bar]:
    """Place the bars of a distribution."""
    if not bins:
        return []
    most = max(one.rises + one.falls for one in bins)
    step = WIDTH / len(bins)
    found = []
    for at, one in enumerate(bins):
        scale = (BASE - 16) / most
        text = f"{amount(one.low)} to {amount(one.high)}"
        found.append(
            Bar(
                x=at * step + step * 0.12,
                width=min(step * 0.76, 64.0),
                rises=one.rises * scale,
                falls=one.falls * scale,
                label=_short(one.low) if one.low else f"<{_short(one.high)}",
                words=f"{text}: {one.rises} up, {one.falls} down",
            )
        )
    return found


def _short(value: float) -> str:
    return f"{value:.4g}" if 1e-4 <= value < 1e5 else f"{value:.0e}"


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    slower: bool
    words: str


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Scatter:
    """Durations on two logarithmic axes of the same scale: baseline across, candidate up.

    `equal`: (x1 y1 x2 y2) of the line where nothing became slower; `limit`: the path above which it is (see is_slower).
    """

    points: list[Point]
    ticks: list[Tick]
    equal: tuple[float, float, float, float]
    limit: str


def scatter(found: Sequence[Timed], ratio: float, floor: float) -> Scatter | None:
    """Place the durations of some units."""
    positive = [one for one in found if one.baseline > 0 and one.candidate > 0]
    if not positive:
        return None
    low = max(min(min(one.baseline, one.candidate) for one in positive), 1e-3)
    high = max(max(max(one.baseline, one.candidate) for one in positive), low * 10)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    room = SIDE - EDGE - 12

    def place(seconds: float) -> float:
        share = (math.log10(max(seconds, 10.0**first)) - first) / max(1, last - first)
        return min(1.0, max(0.0, share)) * room

    points = [
        Point(
            round(EDGE + place(one.baseline), 1),
            round(SIDE - EDGE - place(one.candidate), 1),
            is_slower(one.baseline, one.candidate, ratio=ratio, floor=floor),
            f"{one.unit}: {duration(one.baseline)} → {duration(one.candidate)}",
        )
        for one in positive
    ]
    # A dot drawn over another says nothing more; those that are slower come last, so that they are seen.
    unique = {(point.x, point.y): point for point in sorted(points, key=lambda point: point.slower)}
    ticks = [Tick(place(10.0**power), _seconds(10.0**power)) for power in range(first, last + 1)]
    top, bottom = SIDE - EDGE - room, SIDE - EDGE

    def at(seconds: float) -> float:
        return (math.log10(max(seconds, 1e-9)) - first) / max(1, last - first) * room

    bend, level = round(EDGE + at(floor / ratio), 1), round(bottom - at(floor), 1)
    return Scatter(
        points=sorted(unique.values(), key=lambda point: point.slower),
        ticks=ticks,
        equal=(EDGE, bottom, EDGE + room, top),
        limit=f"M{min(bend, EDGE)} {level}H{bend}l{2 * SIDE} {-2 * SIDE}",
    )


def _seconds(value: float) -> str:
    if value < 1:
        return f"{value * 1000:g} ms"
    return f"{value:g} s" if value < 1_000 else f"{value / 60:.0f} min"
