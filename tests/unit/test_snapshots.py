"""Which snapshots may go, and which one a leg is made from."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from jobs.settings_model import KeptSnapshots
from jobs.snapshots import SnapshotKept, Uses, find, past, refuse_to_remove, wanted_snapshot
from runner.model import Base

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def base(days: int, name: str = "") -> Base:
    return Base("books", f"seatrial_base_books_{days}", f"id{days}", "app", NOW - timedelta(days=days), 1, name)


FOUND = [base(1), base(5), base(20, "month-end"), base(40)]


@pytest.mark.parametrize(
    ("keep", "uses", "gone"),
    [
        (KeptSnapshots(), Uses(), []),
        (KeptSnapshots(count=2), Uses(), ["month-end", "id40"]),
        (KeptSnapshots(count=9), Uses(), []),
        (KeptSnapshots(count=1), Uses(live={"id5": [7]}), ["month-end", "id40"]),
        (KeptSnapshots(count=1), Uses(runs={"id5": [7]}), ["id5", "month-end", "id40"]),
        (KeptSnapshots(count=1), Uses(wanted={"month-end": [7]}), ["id5", "id40"]),
        (KeptSnapshots(count=1), Uses(wanted={"id40": [7]}), ["id5", "month-end"]),
        (KeptSnapshots(seconds=30 * 86_400.0), Uses(), ["id40"]),
        (KeptSnapshots(seconds=3_600.0), Uses(), ["id5", "month-end", "id40"]),
    ],
)
def test_neither_the_newest_goes_nor_one_that_a_live_run_needs(
    keep: KeptSnapshots, uses: Uses, gone: list[str]
) -> None:
    assert [one.name for one in past(FOUND, keep, uses, NOW)] == gone


def test_removal_is_refused_with_the_reason() -> None:
    with pytest.raises(SnapshotKept, match="is the newest snapshot of books"):
        refuse_to_remove(FOUND[0], FOUND, Uses())
    with pytest.raises(SnapshotKept, match="month-end is used by runs that have not ended: 7, 9"):
        refuse_to_remove(FOUND[2], FOUND, Uses(live={"id20": [9]}, wanted={"month-end": [7]}))
    refuse_to_remove(FOUND[2], FOUND, Uses(runs={"id20": [9]}))


def test_a_snapshot_is_found_by_name_and_by_data_id() -> None:
    assert find(FOUND, "month-end") == find(FOUND, "id20") == FOUND[2]
    assert find(FOUND, "gone") is None


@pytest.mark.parametrize(
    ("options", "leg", "name"),
    [
        ({}, "candidate", None),
        ({"snapshot": "a"}, "candidate", "a"),
        ({"snapshot": "a"}, "baseline", "a"),
        ({"snapshot": "a", "baseline_database": "old"}, "baseline", None),
        ({"snapshot": "a", "baseline_database": "old", "baseline_snapshot": "b"}, "baseline", "b"),
        ({"baseline_database": "old", "baseline_snapshot": "b"}, "candidate", None),
    ],
)
def test_a_leg_has_the_snapshot_of_its_source(options: dict[str, object], leg: str, name: str | None) -> None:
    assert wanted_snapshot(options, leg) == name
