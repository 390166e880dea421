"""What the doctor says of a host's floor."""

from __future__ import annotations

import pytest

from jobs.doctor import Level
from jobs.doctor_room import judge_room


@pytest.mark.parametrize(
    ("floor", "mark", "level", "text"),
    [
        (None, None, Level.OK, "more than 2 times the reserve is free"),
        (None, "1.5 GiB free", Level.WARNING, "images and trees that nobody needs are removed: 1.5 GiB free"),
        ("12 MiB free", "12 MiB free", Level.PROBLEM, "this host takes no new work: 12 MiB free"),
    ],
)
def test_a_floor_is_judged(floor: str | None, mark: str | None, level: Level, text: str) -> None:
    found = judge_room(floor, mark)
    assert (found.level, found.text) == (level, text)
    assert bool(found.remedy) == (level is not Level.OK)
