"""Whether a candidate is slower than its baseline, unit by unit. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


def is_slower(baseline: float, candidate: float, *, ratio: float, floor: float) -> bool:
    """Tell whether a unit's candidate is slower: more than `ratio` times its baseline, and `floor` seconds at least."""
    return candidate >= floor and candidate > ratio * baseline


@dataclass(frozen=True)
class Timed:
    """How many seconds a unit took on both legs, and in earlier runs of the project (`history`)."""

    unit: str
    baseline: float
    candidate: float
    history: tuple[float, ...] = ()

    @property
    def ratio(self) -> float | None:
        """Give candidate / baseline; None when the baseline took no time that could be measured."""
        return self.candidate / self.baseline if self.baseline > 0 else None

    @property
    def within_noise(self) -> bool:
        """Tell whether the unit took as long before: then the branch may not be the reason."""
        return any(seconds >= self.candidate for seconds in self.history)


@dataclass(frozen=True)
class LegTimes:
    """Where and when a leg's units ran: hosts, the first start in seconds since 1970, and all their seconds."""

    name: str
    hosts: tuple[str, ...]
    started_at: float | None
    seconds: float
    reused_from: int | None = None


@dataclass(frozen=True)
class Latency:
    """How long the units took that both legs finished, and whose times are known.

    `ratio` and `floor` say what is slower (see `is_slower`); `slower` are the costliest of `count`, with their history.
    `units` were timed, in `baseline` and `candidate` seconds altogether. `cautions`: why not to trust it blindly.
    """

    ratio: float
    floor: float
    legs: tuple[LegTimes, ...]
    units: int
    baseline: float
    candidate: float
    count: int
    slower: tuple[Timed, ...]
    cautions: tuple[str, ...]


def cautions(legs: Sequence[LegTimes], *, untimed: int = 0) -> tuple[str, ...]:
    """Say what makes durations of two legs hard to compare. `untimed`: how many units were left out for want of one."""
    by_name: Mapping[str, LegTimes] = {leg.name: leg for leg in legs}
    baseline, candidate = by_name.get("baseline"), by_name.get("candidate")
    if baseline is None or candidate is None:
        return ()
    found = []
    if untimed:
        found.append(
            f"{untimed:,} {'unit is' if untimed == 1 else 'units are'} left out: nobody watched a leg when it was finished, so "
            "the time that it took is not known."
        )
    if baseline.reused_from is not None:
        found.append(f"Units of the baseline were timed in run {baseline.reused_from}, not beside the candidate.")
    if _differ(baseline.hosts, candidate.hosts):
        found.append(
            f"The legs ran on different machines: the baseline on {_named(baseline.hosts)}, the candidate on "
            f"{_named(candidate.hosts)}."
        )
    return tuple(found)


def _differ(one: Collection[str], other: Collection[str]) -> bool:
    return bool(one) and bool(other) and set(one) != set(other)


def _named(hosts: Sequence[str]) -> str:
    return ", ".join(sorted(hosts))
