"""Groups of differences: which of them a person would take for one."""

from __future__ import annotations

import pytest

from jobs.causes import Bounds, Cause, one_ratio
from jobs.grouping import Group, together


def group(sign: str | None, units: int, ratios: Bounds | None, offsets: Bounds | None, column: str = "amount") -> Group:
    return Group(Cause("*/pl", "value", column, sign), units, units * 2, ratios, offsets)


# What the planted defect of the ledger example makes of six income statements.
UP = group("up", 1, (0.9973, 1.0008), (0.25, 0.25))
DOWN = group("down", 1, (0.9991, 1.0024), (-0.2, -0.2))
MIXED = group("mixed", 4, (0.979, 1.008), (-0.28, 0.49))


def test_a_column_that_moves_both_ways_is_one_cause() -> None:
    [one] = together([MIXED, UP, DOWN])
    assert (one.cause.sign, one.units, one.count, one.ratio, one.offset) == ("any", 6, 12, None, None)
    assert [part.cause.sign for part in one.parts] == ["mixed", "up", "down"]
    assert one.keys == (MIXED.key, UP.key, DOWN.key)
    assert one.key not in one.keys, "the parts keep theirs"
    assert one.cause.title == "*/pl: amount: values went up or down"


def test_one_ratio_is_one_cause_whichever_way_it_goes() -> None:
    """Amounts below nothing go down where others go up."""
    [one] = together([group("up", 9, (1.1, 1.101), (1.0, 9.0)), group("down", 2, (1.099, 1.1), (-3.0, -2.0))])
    assert one.ratio == pytest.approx(1.1, abs=1e-3)
    assert (one.units, one.offset) == (11, None)


@pytest.mark.parametrize(
    "apart",
    [
        [UP, DOWN],  # nothing says that they belong together
        [MIXED, group("up", 38, (1.005, 1.0051), (0.5, 70.0))],  # +0.5 % in 38 units is a finding
        [MIXED, group("down", 2, None, (-3.0, -3.0))],
        [MIXED, group("up", 1, None, None, column="tax")],
        [group(None, 3, None, None), group(None, 2, None, None, column="name")],
    ],
)
def test_what_stays_apart(apart: list[Group]) -> None:
    assert together(apart) == sorted(apart, key=lambda one: (-one.units, one.key))


def test_a_ratio_does_not_make_some_larger_and_others_smaller() -> None:
    assert one_ratio((0.9973, 1.0008)) is None, "though both are near to one"
    assert one_ratio((1.1, 1.1005)) == pytest.approx(1.10025)
    assert one_ratio(None) is None
