"""Legs in words, and the verdict of a run with noise."""

from __future__ import annotations

import pytest

from jobs.comparing import UnitClass
from web import diffwords, legwords


@pytest.mark.parametrize(
    ("counts", "noisy", "words"),
    [
        ({}, 0, "there was no unit to compare"),
        ({"same": 2}, 0, "2 units have the same figures, byte for byte"),
        ({"same": 1, "different": 1}, 1, "1 unit has the same figures, byte for byte; 1 unit differs only"),
        ({"different": 2}, 2, "2 units differ only as two runs of the baseline do"),
        (
            {"different": 3, "missing": 1},
            2,
            "2 of 4 units: 1 different, 1 missing on the candidate; 2 units differ only",
        ),
        ({"new": 2}, 0, "no unit is on both legs; 2 new on the candidate"),
        ({"different": 1, "new": 1}, 1, "1 unit differs only as two runs of the baseline do; 1 new on the candidate"),
    ],
)
def test_the_verdict_names_noise(counts: dict[str, int], noisy: int, words: str) -> None:
    found = diffwords.verdict({UnitClass(kind): count for kind, count in counts.items()}, noisy=noisy)
    assert found.startswith(words)


def test_legs_have_names_that_people_read() -> None:
    assert [legwords.title(name) for name in ("baseline", "baseline_again", "candidate")] == [
        "baseline",
        "baseline again",
        "candidate",
    ]
