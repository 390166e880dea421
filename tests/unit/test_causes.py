"""Causes of differences: what units that differ for the same reason have in common."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.causes import Cause, Share, causes, constant, merged
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
    assert constant(share.ratio) == pytest.approx(1.1)
    assert constant(share.offset) is None


def test_numbers_to_which_the_same_was_added() -> None:
    [share] = causes(different(result({"amount": {"value": 2}})), [cell("1", "3"), cell("100", "102")])
    assert share.cause.title == "*/pl: amount: values went up"
    assert constant(share.offset) == 2.0
    assert constant(share.ratio) is None


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
    assert causes(different(result({"amount": {"value": 3}})), cells) == (
        Share(Cause("*/pl", "value", "amount", "up"), 2, (1.005, 1.005), (0.5, 1.0)),
        Share(Cause("*/pl", "value", "amount"), 1),
    )
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
    assert causes(different(summary), cells) == (
        Share(Cause("*/pl", "value", "n", "up"), 2, (2.0, 5.0), (1.0, 4.0)),
        Share(Cause("*/pl", "files"), 1),
    )


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
