"""How the deltas of a unit are parted into bars, whatever their sizes."""

from __future__ import annotations

import sys

import pytest

from jobs.overview import distribution
from web.charts import bars

LARGEST = sys.float_info.max


def parted(*deltas: float) -> list[tuple[float, float, int, int]]:
    """Part deltas into bars, and draw them; give those that are not empty."""
    found = distribution([{"delta": delta} for delta in deltas])
    assert len(bars(found)) == len(found)
    assert sum(one.rises + one.falls for one in found) == len(deltas)
    return [(one.low, one.high, one.rises, one.falls) for one in found if one.rises + one.falls]


def test_sizes_far_apart_get_a_bar_for_each_power_of_ten() -> None:
    assert parted(0.5, -0.5, 20.0, 3_000.0) == [(0.1, 1.0, 1, 1), (10.0, 100.0, 1, 0), (1_000.0, 10_000.0, 1, 0)]


def test_sizes_near_each_other_are_parted_evenly() -> None:
    assert parted(12.0, 13.5, -24.0) == [(12.0, 13.0, 1, 0), (13.0, 14.0, 1, 0), (23.0, 24.0, 0, 1)]


@pytest.mark.parametrize(
    ("deltas", "shown"),
    [
        ((1.0, LARGEST), [(0.0, 1e296, 1, 0), (1e308, LARGEST, 1, 0)]),
        ((1e307, -1e308, 1e303), [(1e303, 1e304, 1, 0), (1e307, 1e308, 1, 0), (1e308, LARGEST, 0, 1)]),
        ((5e-324, LARGEST), [(0.0, 1e296, 1, 0), (1e308, LARGEST, 1, 0)]),
        ((LARGEST,), [(LARGEST, LARGEST, 1, 0)]),
    ],
)
def test_the_largest_numbers_have_their_bars(
    deltas: tuple[float, ...], shown: list[tuple[float, float, int, int]]
) -> None:
    assert parted(*deltas) == shown


def test_the_largest_numbers_near_each_other_have_their_bars() -> None:
    assert [(rises, falls) for _, _, rises, falls in parted(1e308, -LARGEST)] == [(1, 0), (0, 1)]
    assert all(high <= LARGEST for _, high, _, _ in parted(1e308, -LARGEST))
