"""Two cells: what kind of difference they have, and what a rule overlooks."""

from __future__ import annotations

from decimal import Decimal

import pytest

from runner.compare_values import Limits, judge, judge_json, plain_form, read_date, read_number
from runner.comparison import Change, Leniency

STRICT = Limits()
NEAR = Limits(absolute=Decimal("0.005"))


@pytest.mark.parametrize(
    ("a", "b", "change"),
    [
        ("1.0", "1.00", Change.FORMAT),
        ("1e3", "1000", Change.FORMAT),
        ("-0", "0", Change.FORMAT),
        (".5", "0.5", Change.FORMAT),
        ("1,234.5", "1234.5", Change.FORMAT),
        ("1,234.5", "1234.6", Change.VALUE),
        ("１２３", "123", Change.FORMAT),
        ("１２３", "124", Change.VALUE),
        ("+7", "7", Change.FORMAT),
        ("NaN", "nan", Change.FORMAT),
        ("NaN", "1", Change.VALUE),
        ("inf", "Infinity", Change.FORMAT),
        ("1e999", "inf", Change.VALUE),
        ("1e999", "1e998", Change.VALUE),
        ("007", "7", Change.TYPE),
        ("1", "one", Change.TYPE),
        ("one", "2024-01-02", Change.TYPE),
        ("one", "two", Change.VALUE),
        ("", "NULL", Change.NULL),
        ("", '""', Change.NULL),
        (None, "", Change.NULL),
        ("\\N", "None", Change.NULL),
        ("", "0", Change.VALUE),
        ("2024-01-02", "2024/1/2", Change.FORMAT),
        ("2024-01-02", "20240102", Change.FORMAT),
        ("2024-01-02", "2024-01-02 00:00:00", Change.FORMAT),
        ("2024-01-02T09:00:00+09:00", "2024-01-02 00:00:00Z", Change.FORMAT),
        ("2024-01-02 00:00:00", "2024-01-02 00:00:00Z", Change.VALUE),
        ("2024-01-02", "2024-01-03", Change.VALUE),
        ("2024-13-45", "2024-13-46", Change.VALUE),
        ("a ", "a", Change.FORMAT),
        ("ｱ", "ア", Change.FORMAT),
        ("5" * 5_000, "5" * 4_999 + "6", Change.VALUE),
    ],
)
def test_the_kind_of_a_difference_is_the_same_in_both_directions(a: str | None, b: str | None, change: Change) -> None:
    for first, second in ((a, b), (b, a)):
        judged = judge(first, second, STRICT)
        assert (judged.change, judged.leniency) == (change, None)


@pytest.mark.parametrize(
    ("a", "b", "limits", "leniency"),
    [
        ("1.000", "1.005", NEAR, Leniency.TOLERANCE),
        ("1.000", "1.0051", NEAR, None),
        ("0.1", "0.105", NEAR, Leniency.TOLERANCE),
        ("1.0", "1.00", NEAR, Leniency.NUMBER_FORMAT),
        ("100", "101", Limits(relative=Decimal("0.01")), Leniency.TOLERANCE),
        ("-100", "101", Limits(relative=Decimal("0.01")), None),
        ("1e999", "inf", Limits(absolute=Decimal(1), relative=Decimal(1)), None),
        ("inf", "-inf", Limits(absolute=Decimal(1)), None),
        ("nan", "1", NEAR, None),
        ("1,234.50", "1234.50", NEAR, None),
        ("1,234.50", "1,234.501", NEAR, Leniency.TOLERANCE),
        ("1,234.50", "1234.50", Limits(lenient=frozenset({"numbers"})), Leniency.NUMBER_FORMAT),
        ("007", "7", NEAR, None),
        ("", "0", NEAR, None),
        ("1.0", "1.00", Limits(lenient=frozenset({"numbers"})), Leniency.NUMBER_FORMAT),
        ("1.0", "1.01", Limits(lenient=frozenset({"numbers"})), None),
        ("2024-01-02", "2024/01/02", Limits(lenient=frozenset({"dates"})), Leniency.DATE_FORMAT),
        ("", "NULL", Limits(lenient=frozenset({"nulls"})), Leniency.NULL_FORMAT),
        ("a", "a ", Limits(lenient=frozenset({"text"})), Leniency.TEXT_FORMAT),
    ],
)
def test_what_a_rule_overlooks(a: str, b: str, limits: Limits, leniency: Leniency | None) -> None:
    assert judge(a, b, limits).leniency is leniency
    assert judge(b, a, limits).leniency is leniency


def test_sizes_are_exact_and_have_a_sign() -> None:
    judged = judge("1.10", "1.25", STRICT)
    assert (judged.delta, judged.relative) == (0.15, 0.12)
    assert judge("1.25", "1.10", STRICT).delta == -0.15
    assert judge("0", "5", STRICT).relative == 1
    assert judge("1", "inf", STRICT).delta == float("inf")
    assert judge("10000000000000000.01", "10000000000000000.02", STRICT).delta == 0.01


def test_types_of_json_are_written() -> None:
    assert judge_json("1", '"1"', STRICT).change is Change.TYPE
    assert judge_json("true", '"true"', STRICT).change is Change.TYPE
    assert judge_json("null", '""', STRICT).change is Change.NULL
    assert judge_json(None, "null", STRICT).change is Change.NULL
    assert judge_json('"1.0"', '"1.00"', STRICT).change is Change.FORMAT
    assert judge_json("[1]", "[2]", STRICT).change is Change.VALUE
    assert judge_json("1.0", "1.001", NEAR).leniency is Leniency.TOLERANCE


@pytest.mark.parametrize(
    "text", ["", "-", ".", "1.", "1_000", "0x10", "1,23", "12,34,567", "٣", "1e12345", "--1", "1e"]
)
def test_what_is_no_number(text: str) -> None:
    assert read_number(text) is None


@pytest.mark.parametrize(
    "text", ["2024-1-1x", "2024-02-30", "12024-01-01", "2024-0101", "0000-01-01", "2024-01-01 25:00"]
)
def test_what_is_no_date(text: str) -> None:
    assert read_date(text) is None


def test_a_billionth_of_a_second_is_another_moment() -> None:
    lenient = Limits(lenient=frozenset({"dates"}))
    one, other = "2024-01-01 00:00:00.123456789", "2024-01-01 00:00:00.123456000"
    assert judge(one, other, lenient).change is Change.VALUE
    assert judge(other, "2024/01/01T00:00:00.123456", lenient).leniency is Leniency.DATE_FORMAT
    assert plain_form(one) != plain_form(other)


def test_dates_at_the_ends_of_time() -> None:
    assert read_date("0001-01-01 00:00:00+09:00") is None
    assert read_date("2024-01-01 00:00:00+99:00") is None


def test_keys_in_one_form() -> None:
    assert plain_form("1.0") == plain_form("1.00") == plain_form("１")
    assert plain_form("2024-01-02") == plain_form("2024/1/2")
    assert plain_form("") == plain_form("NULL") == plain_form(None)
    assert plain_form("007") != plain_form("7")
