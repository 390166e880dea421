"""Causes of differences: what units that differ for the same reason have in common."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jobs.causes import Cause, Share, Span, causes, constant, merged, one_ratio
from jobs.comparing import Compared, UnitClass


def cell(a: str, b: str, column: str = "amount", **more: Any) -> dict[str, Any]:
    delta = float(b) - float(a)
    return {"change": "value", "column": column, "a": a, "b": b, "delta": delta, "key": ["1"]} | more


def result(changed: dict[str, dict[str, int]] | None = None, **more: Any) -> dict[str, Any]:
    changes = [
        {"column": column, "changed": sum(kinds.values()), "kinds": kinds} for column, kinds in (changed or {}).items()
    ]
    rows = {"changed": 1, "added": 0, "removed": 0, "same": 1}
    columns: dict[str, Any] = {"added": [], "removed": [], "types": []}
    file = {"class": "different", "format": "csv", "rule": "*/pl", "rows": rows, "columns": columns, "notes": []}
    return file | {"changes": changes} | more


def different(summary: dict[str, Any], unit: str = "t1/pl") -> Compared:
    return Compared(unit, 0, UnitClass.DIFFERENT, summary=summary)


@pytest.mark.parametrize("kind", [UnitClass.SAME, UnitClass.EQUIVALENT, UnitClass.NEW])
def test_what_does_no_harm_has_no_cause(kind: UnitClass) -> None:
    assert causes(Compared("t1/pl", 0, kind)) == ()


@pytest.mark.parametrize("kind", [UnitClass.CANDIDATE_FAILED, UnitClass.BOTH_FAILED, UnitClass.MISSING])
def test_a_class_may_be_the_cause(kind: UnitClass) -> None:
    assert causes(Compared("t1/pl", 0, kind)) == (Share(Cause("*/pl", kind.value), 1),)
    assert causes(Compared("all", 0, kind))[0].cause.pattern == "*"


def test_numbers_that_were_all_multiplied() -> None:
    cells = [cell("1.00", "1.10"), cell("200", "220"), cell("-10", "-11")]
    [share] = causes(different(result({"amount": {"value": 3}})), cells)
    assert (share.cause, share.count) == (Cause("*/pl", "value", "amount", "mixed"), 3)
    assert one_ratio(share.ratio) == 1.1
    assert constant(share.offset) is None


def test_numbers_to_which_the_same_was_added() -> None:
    [share] = causes(different(result({"amount": {"value": 2}})), [cell("1", "3"), cell("100", "102")])
    assert share.cause.title == "*/pl: amount: values went up"
    assert constant(share.offset) == 2.0
    assert one_ratio(share.ratio) is None


def test_a_number_that_was_nothing_has_no_ratio() -> None:
    [share] = causes(different(result({"amount": {"value": 1}})), [cell("0", "3")])
    assert (share.ratio, share.offset) == (None, (3.0, 3.0))


@pytest.mark.parametrize("delta", [None, "nan", "inf"])
def test_what_is_no_number_has_no_sign(delta: object) -> None:
    [share] = causes(different(result({"name": {"value": 1}})), [cell("1", "2", "name", delta=delta)])
    assert share.cause == Cause("*/pl", "value", "name")


def test_a_number_that_vanished_is_a_cause_beside_those_that_moved() -> None:
    cells = [cell("100", "100.5"), cell("200", "201"), {"change": "value", "column": "amount", "a": "1", "b": ""}]
    cells[2] |= {"delta": None, "key": ["3"]}
    moved, vanished = causes(different(result({"amount": {"value": 3}})), cells)
    assert (moved.cause, moved.count, moved.offset) == (Cause("*/pl", "value", "amount", "up"), 2, (0.5, 1.0))
    assert one_ratio(moved.ratio) == 1.005
    assert vanished == Share(Cause("*/pl", "value", "amount"), 1)
    [share] = causes(different(result({"amount": {"value": 9_000}})), cells[:2])
    assert share.count == 9_000, "only the largest are stored"


def test_rows_in_another_order_are_a_cause_beside_others() -> None:
    note = {"code": "row_order", "text": "…", "count": 1}
    found = causes(different(result({"n": {"value": 1}}, notes=[note])), [cell("1", "2", "n")])
    assert [share.cause for share in found] == [Cause("*/pl", "value", "n", "up"), Cause("*/pl", "other")]
    assert causes(different(result(notes=[note]))) == (Share(Cause("*/pl", "other"), 1),)


def test_rows_columns_and_kinds_are_causes_of_their_own() -> None:
    columns = {"added": ["rate"], "removed": ["old"], "types": [{"column": "n", "a": "int64", "b": "double"}]}
    rows = {"changed": 1, "added": 4, "removed": 2, "same": 1}
    summary = result({"at": {"format": 2, "null": 1}}, columns=columns, rows=rows)
    assert [(share.cause.what, share.cause.column, share.count) for share in causes(different(summary))] == [
        ("added_rows", None, 4),
        ("added_column", "rate", 1),
        ("removed_rows", None, 2),
        ("removed_column", "old", 1),
        ("column_type", "n", 1),
        ("format", "at", 2),
        ("null", "at", 1),
    ]


def test_files_of_one_unit_are_put_together() -> None:
    files = [result({"n": {"value": 1}}, file=name) for name in ("a.csv", "b.csv")]
    files.append(result(file="c.csv") | {"class": "same"})
    summary = {"class": "different", "results": files, "files": {"missing": ["x"], "new": []}}
    cells = [cell("1", "2", "n", file="a.csv"), cell("1", "5", "n", file="b.csv")]
    numbers, files_too = causes(different(summary), cells)
    assert (numbers.cause, numbers.count, numbers.offset) == (Cause("*/pl", "value", "n", "up"), 2, (1.0, 4.0))
    assert numbers.ratio == (pytest.approx(3.0), pytest.approx(5.0))
    assert files_too == Share(Cause("*/pl", "files"), 1)


def test_other_bytes_and_what_could_not_be_read() -> None:
    assert causes(different(result(format="bytes")))[0].cause.what == "bytes"
    unreadable = {"class": "different", "notes": [{"code": "unreadable", "text": "…", "count": 1}]}
    assert causes(different(unreadable)) == (Share(Cause("*/pl", "unreadable"), 1),)
    assert causes(different({"class": "different"})) == (Share(Cause("*/pl", "other"), 1),)


def test_a_key_is_stable_and_its_own() -> None:
    one = Cause("*/pl", "value", "amount", "up")
    assert one.key == Cause("*/pl", "value", "amount", "up").key
    others = {one.key, Cause("*/pl", "value", "amount", "down").key, Cause("*/bs", "value", "amount", "up").key}
    assert len(others) == 3


def test_shares_without_a_ratio_have_none_together() -> None:
    cause = Cause("*", "value", "n", "up")
    assert merged([Share(cause, 1, (2.0, 2.0), (1.0, 1.0)), Share(cause, 1)]) == (Share(cause, 2),)


def ratio_of(pairs: list[tuple[str, str]]) -> Span | None:
    cells = [cell(a, b) for a, b in pairs]
    [share] = causes(different(result({"amount": {"value": len(cells)}})), cells)
    return share.ratio


CENT = Decimal("0.01")
amounts = st.integers(1, 10**9).map(lambda cents: cents * CENT)
factors = st.integers(101, 3_000).map(lambda hundredths: hundredths * CENT)


def test_a_ratio_is_the_shortest_that_rounding_allows() -> None:
    """3.45 is 3.80 by 1.10145; what all amounts have in common is 1.1."""
    pairs = [("3.45", "3.80"), ("1200.00", "1320.00"), ("0.05", "0.06"), ("999.99", "1099.99")]
    span = ratio_of(pairs)
    assert one_ratio(span) == 1.1
    assert span is not None
    assert span[0] < 1.1 < span[1]
    assert one_ratio(ratio_of([*pairs, ("500.00", "550.02")])) is None, "which is no rounding"


@given(st.lists(amounts, min_size=1, max_size=20), factors, st.sampled_from([ROUND_HALF_EVEN, ROUND_HALF_UP]))
def test_what_multiplied_all_explains_all(before: list[Decimal], factor: Decimal, rounding: str) -> None:
    pairs = [(str(one), str((one * factor).quantize(CENT, rounding))) for one in before]
    assume(all(a != b for a, b in pairs))
    span = ratio_of(pairs)
    assert span is not None
    assert span[0] <= float(factor) <= span[1]
    found = one_ratio(span)
    if found is not None:
        assert len(repr(found)) <= len(repr(float(factor))), "nothing longer is told than what was done"
    if max(before) > 10_000:  # then the rounding leaves no other of as few places
        assert found == float(factor)


@given(st.lists(st.tuples(amounts, amounts), min_size=1, max_size=6))
def test_a_ratio_that_is_told_explains_each_number(pairs: list[tuple[Decimal, Decimal]]) -> None:
    assume(all(a != b for a, b in pairs))
    found = one_ratio(ratio_of([(str(a), str(b)) for a, b in pairs]))
    if found is not None:
        half = float(CENT) / 2
        assert all(abs(float(a) * found - float(b)) <= half * (1 + found) * (1 + 1e-9) + 1e-3 * half for a, b in pairs)


@given(st.lists(st.floats(0.001, 1e9), min_size=1, max_size=10), factors)
def test_numbers_that_were_not_rounded_have_their_ratio_too(before: list[float], factor: Decimal) -> None:
    pairs = [(repr(one), repr(one * float(factor))) for one in before]
    span = ratio_of(pairs)
    assert span is not None
    assert span[0] <= float(factor) <= span[1]


@given(st.floats(-1e6, 1e6), st.floats(1e-15, 1e3))
def test_the_number_told_is_in_its_span(low: float, width: float) -> None:
    found = one_ratio((low, low + width))
    assert found is None or (low <= found <= low + width and math.isfinite(found))


@pytest.mark.parametrize(
    ("span", "told"),
    [
        (None, None),
        ((1.1, 1.0), None),  # no ratio is that of all
        ((0.9973, 1.0008), None),  # 1 would do
        ((1.0, 1.01), None),
        ((1.8, 3.67), None),  # as would anything
        ((1.1, 1.1), 1.1),
        ((1.09998, 1.10002), 1.1),
        ((-1.001, -0.999), -1.0),
        ((-0.00003, 0.00003), 0.0),
        ((12_340.0, 12_351.0), 12_350.0),
    ],
)
def test_which_ratio_is_told(span: Span | None, told: float | None) -> None:
    assert one_ratio(span) == told


@pytest.mark.parametrize("pair", [("1e-400", "2"), ("3", "1e400"), ("1e-999999", "1e999999"), ("1,5", "3"), ("", "3")])
def test_what_cannot_be_divided_has_no_ratio(pair: tuple[str, str]) -> None:
    cells = [{"change": "value", "column": "amount", "a": pair[0], "b": pair[1], "delta": 1.0, "key": ["1"]}]
    [share] = causes(different(result({"amount": {"value": 1}})), cells)
    assert share.ratio is None
