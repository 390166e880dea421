"""What a pair of units comes to, and what a compare run comes to from its pairs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from runner.model import BASELINE_AGAIN, Output, UnitState

if TYPE_CHECKING:
    from jobs.causes import Share
    from jobs.noise import Noise


class UnitClass(StrEnum):
    """What became of a unit on the two legs."""

    SAME = "same"  # the same bytes
    EQUIVALENT = "equivalent"  # within the rules
    DIFFERENT = "different"
    BASELINE_FAILED = "baseline_failed"
    CANDIDATE_FAILED = "candidate_failed"
    BOTH_FAILED = "both_failed"
    MISSING = "missing"  # the candidate does not list it
    NEW = "new"  # the baseline does not list it


# What has the same figures on both legs, and what no existing report is. A unit that failed on both legs proves nothing.
HARMLESS = frozenset({UnitClass.SAME, UnitClass.EQUIVALENT, UnitClass.NEW})
HARMFUL = tuple(kind for kind in UnitClass if kind not in HARMLESS)
FAILED = (UnitClass.BASELINE_FAILED, UnitClass.CANDIDATE_FAILED, UnitClass.BOTH_FAILED)


@dataclass(frozen=True)
class Side:
    """A unit on one leg."""

    state: UnitState
    output: Output | None = None


@dataclass(frozen=True)
class Pair:
    """A unit of a compare run as both legs have it; None where a leg does not list it.

    `again`: as the baseline's second run has it, when there is one.
    """

    unit: str
    position: int
    baseline: Side | None
    candidate: Side | None
    again: Side | None = None


@dataclass(frozen=True)
class Compared:
    """What is recorded of a unit. `summary`: what the comparison of its outputs found (see runner.comparison).

    `rows` is the digest of the object that holds the stored differences. `seconds` is how long the comparison
    took, `causes`: why it differs (not there when it is read back). `accepted`: it differs, and all its causes are accepted.
    `noise`: what moves in it between two runs of the baseline (not there either); `noisy`: that is all that differs.
    """

    unit: str
    position: int
    kind: UnitClass
    changed: int = 0
    largest: float | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)
    rows: str | None = None
    seconds: float = 0.0
    causes: tuple[Share, ...] = ()
    accepted: bool = False
    noise: Noise | None = None
    noisy: bool = False

    @property
    def harmful(self) -> bool:
        """Tell whether it speaks against the candidate."""
        return self.kind not in HARMLESS and not self.noisy


def classify(pair: Pair) -> UnitClass | None:
    """Give the class that needs no file to be read; None when the outputs have to be compared.

    A unit that is still to do counts as failed: ask only for pairs on which nothing goes on any more.
    """
    a, b = pair.baseline, pair.candidate
    if a is None:
        return UnitClass.NEW
    if b is None:
        return UnitClass.MISSING
    a_done, b_done = a.state is UnitState.DONE, b.state is UnitState.DONE
    if not a_done and not b_done:
        return UnitClass.BOTH_FAILED
    if not a_done:
        return UnitClass.BASELINE_FAILED
    if not b_done:
        return UnitClass.CANDIDATE_FAILED
    if _content(a.output) == _content(b.output):
        return UnitClass.SAME
    return None


def second_run(pair: Pair) -> Pair | None:
    """Give the baseline's two runs of a unit as a pair; None when they have nothing that could be unlike."""
    a, b = pair.baseline, pair.again
    if a is None or b is None or a.state is not UnitState.DONE or b.state is not UnitState.DONE:
        return None
    return None if _content(a.output) == _content(b.output) else Pair(pair.unit, pair.position, a, b)


def is_still_so(pair: Pair, present: Mapping[str, Side], *, over: bool) -> bool:
    """Tell whether a pair still is what it was when it was read; `present`: the unit by leg.

    `over`: nothing of the run goes on any more, so a unit that is still to do will stay so.
    """
    sides = {"baseline": pair.baseline, "candidate": pair.candidate}
    if any((side is None) != (leg not in present) for leg, side in sides.items()):
        return False
    if pair.baseline is None or pair.candidate is None:
        return True
    if (pair.again is None) != (BASELINE_AGAIN not in present):
        return False
    for leg, side in (sides | ({} if pair.again is None else {BASELINE_AGAIN: pair.again})).items():
        now = present[leg]
        if side is None or side.state is not now.state or _content(side.output) != _content(now.output):
            return False
        if now.state is UnitState.TODO and not over:
            return False
    return True


def _content(output: Output | None) -> tuple[str, bool] | None:
    return (output.digest, output.tree) if output is not None else None
