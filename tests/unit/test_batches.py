"""How units are divided into batches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.batches import BATCH_SECONDS, divide

names = st.lists(st.text(min_size=1, max_size=3), unique=True, max_size=40)


@given(names, st.dictionaries(st.text(min_size=1, max_size=3), st.floats(0, 10_000)), st.integers(0, 9), st.booleans())
def test_each_unit_is_in_one_batch_and_none_is_empty(
    units: list[str], durations: dict[str, float], slots: int, can_split: bool
) -> None:
    batches = divide(units, durations, slots=slots, can_split=can_split)
    assert sorted(unit for batch in batches for unit in batch) == sorted(units)
    assert all(batches)
    for batch in batches:
        assert [unit for unit in units if unit in batch] == list(batch)


def test_no_units_are_no_batches() -> None:
    assert divide([], {}, slots=2) == []


def test_what_cannot_be_split_is_one_batch() -> None:
    assert divide(["a", "b"], {}, slots=2, can_split=False) == [("a", "b")]
    assert divide(["a"], {"a": 9_999.0}, slots=8) == [("a",)]


@pytest.mark.parametrize(
    ("number", "slots", "sizes"),
    [(4, 2, [2, 2]), (7, 2, [4, 3]), (8, 2, [2, 2, 2, 2]), (100, 2, [25] * 4), (3, 8, [1] * 3)],
)
def test_a_first_run_is_split_evenly(number: int, slots: int, sizes: list[int]) -> None:
    assert [len(batch) for batch in divide([f"u{n}" for n in range(number)], {}, slots=slots)] == sizes


def test_known_durations_balance_the_slots_and_the_longest_comes_first() -> None:
    durations = {"a": 8.0, "b": 5.0, "c": 4.0, "d": 1.0}
    assert divide("abcd", durations, slots=2) == [("a", "d"), ("b", "c")]
    batches = divide("abcd", durations | {"c": 1.0}, slots=2)
    assert batches[0] == ("a",)


def test_a_batch_is_about_ten_minutes() -> None:
    units = [f"u{n:03}" for n in range(300)]
    batches = divide(units, dict.fromkeys(units, 60.0), slots=2)
    assert len(batches) == 30
    assert {60.0 * len(batch) for batch in batches} == {BATCH_SECONDS}


def test_an_unknown_unit_is_taken_as_the_median() -> None:
    durations = {"a": 1.0, "b": 10.0, "c": 100.0}
    batches = divide("abcxy", durations, slots=2)
    assert batches == [("c",), ("a", "b", "x", "y")]


def test_durations_of_nothing_do_no_harm() -> None:
    assert sorted(map(len, divide("abcd", dict.fromkeys("abcd", 0.0), slots=2))) == [2, 2]
    assert divide("ab", {"gone": 5.0}, slots=2) == [("a",), ("b",)]


def test_some_go_first_in_batches_of_their_own() -> None:
    durations = {"a": 8.0, "b": 5.0, "c": 4.0, "d": 1.0}
    assert divide("abcd", durations, slots=2, first={"d", "gone"}) == [("d",), ("b", "c"), ("a",)]
    assert divide("abcd", durations, slots=2, first={"gone"}) == divide("abcd", durations, slots=2)
    assert divide("abcd", durations, slots=2, first=set("abcd")) == divide("abcd", durations, slots=2)
