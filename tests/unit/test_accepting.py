"""Accepted groups: which units they explain, and what a person may ask for."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobs.accepting import Acceptance, AcceptanceRefused, Asked, Standing, check_acceptable, explained, is_cut
from jobs.causes import Cause, Share
from jobs.run import Comparison, Verdict, verdict_of
from runner.model import Reason

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
TAX = Cause("*/pl", "value", "tax", "up")
CODE = Cause("*/pl", "added_column", "code")
ONE = Acceptance(1, "accounts", TAX.key, TAX, "n", "r", 7, "rin", NOW, NOW + timedelta(days=90), ratio=1.005)


def share(cause: Cause, ratio: float | None = None, offset: float | None = None) -> Share:
    return Share(cause, 1, ratio and (ratio, ratio), offset and (offset, offset))


def test_a_unit_is_explained_when_all_its_causes_are() -> None:
    held = {TAX.key: [replace(ONE, ratio=None)]}
    tax, code = {TAX.key: share(TAX)}, {CODE.key: share(CODE)}
    assert explained(tax, held, cut=False)
    assert not explained(tax, held, cut=True), "what was cut off is not known"
    assert not explained(tax | code, held, cut=False)
    assert not explained({}, held, cut=False)
    assert not explained(tax, {}, cut=False)


@pytest.mark.parametrize(
    ("found", "covered"),
    [
        (share(TAX, 1.005), True),
        (share(TAX, 1.0055), True),  # what rounding to cents makes of it
        (share(TAX, 1.05), False),
        (share(TAX), False),
        (Share(TAX, 2, (1.005, 1.5), None), False),
    ],
)
def test_a_ratio_is_part_of_what_was_accepted(found: Share, covered: bool) -> None:
    assert explained({TAX.key: found}, {TAX.key: [ONE]}, cut=False) is covered


def test_an_offset_will_do_where_both_were_constant() -> None:
    both = replace(ONE, offset=0.5)
    assert both.covers(share(TAX, 3.0, 0.5))
    assert both.covers(share(TAX, 1.005, 8.0))
    assert not both.covers(share(TAX, 3.0, 8.0))


def test_a_cut_comparison_is_seen_in_any_file() -> None:
    assert not is_cut({})
    assert is_cut({"truncated": "stopped after 300 s"})
    assert is_cut({"results": [{"truncated": None}, {"truncated": "the 2 largest"}]})
    assert not is_cut({"results": [{"truncated": None}]})


def test_how_an_acceptance_stands() -> None:
    wish = Asked("n", "r", "2027-02-28").wish(NOW)
    assert str(replace(ONE, expires_at=wish.expires_at).last_day) == "2027-02-28"
    assert ONE.standing(NOW) is Standing.LIVE
    assert ONE.standing(ONE.expires_at) is Standing.EXPIRED
    assert replace(ONE, withdrawn_at=NOW).standing(ONE.expires_at) is Standing.WITHDRAWN


@pytest.mark.parametrize(
    ("expires", "until"),
    [
        (None, NOW + timedelta(days=90)),
        ("", NOW + timedelta(days=90)),
        (30, NOW + timedelta(days=30)),
        (" 30D ", NOW + timedelta(days=30)),
        ("2026-11-22", datetime(2026, 11, 23, tzinfo=UTC)),
        ("2027-02-28", datetime(2027, 3, 1, tzinfo=UTC)),
    ],
)
def test_until_when(expires: Any, until: datetime) -> None:
    wish = Asked(" New \n rate ", " why\nso ", expires).wish(NOW)
    assert (wish.name, wish.reason, wish.expires_at) == ("New rate", "why\nso", until)


@pytest.mark.parametrize(
    ("asked", "key", "words"),
    [
        (Asked("", "r"), "name", "is required"),
        (Asked("n", " \n"), "reason", "is required"),
        (Asked("n" * 101, "r"), "name", "has 101 characters, of 100 at most"),
        (Asked("n", "r" * 2_001), "reason", "has 2001 characters"),
        (Asked("n\x00", "r"), "name", "control characters"),
        (Asked("n", "r", "2026-11-21"), "expires", "is in the past"),
        (Asked("n", "r", "2036-11-21"), "expires", "more than 3650 days ahead"),
        (Asked("n", "r", "0d"), "expires", "is not between 1 and 3650 days"),
        (Asked("n", "r", 4_000), "expires", "is not between 1 and 3650 days"),
        (Asked("n", "r", "-3"), "expires", "is neither days nor a date"),
        (Asked("n", "r", "soon"), "expires", "is neither days nor a date"),
        (Asked("n", "r", "2026-02-30"), "expires", "is neither days nor a date"),
        (Asked("n", "r", "９0"), "expires", "is neither days nor a date"),
    ],
)
def test_each_bad_field_is_named_with_its_value_and_remedy(asked: Asked, key: str, words: str) -> None:
    with pytest.raises(AcceptanceRefused) as refused:
        asked.wish(NOW)
    [problem] = refused.value.problems
    assert problem.key == key
    assert words in problem.message


def test_all_bad_fields_are_named_at_once() -> None:
    with pytest.raises(AcceptanceRefused) as refused:
        Asked("", "", "never").wish(NOW)
    assert [problem.key for problem in refused.value.problems] == ["name", "reason", "expires"]
    assert Asked(" ", "", " ").empty
    assert not Asked("", "", 3).empty


@pytest.mark.parametrize("what", ["candidate_failed", "unreadable"])
def test_what_does_not_say_what_happened_cannot_be_accepted(what: str) -> None:
    with pytest.raises(AcceptanceRefused, match="cannot be accepted"):
        check_acceptable("k", Cause("*/pl", what))


def test_the_verdict_of_accepted_units() -> None:
    assert verdict_of(Comparison(different=3, accepted=3)) is Verdict.PASSED
    assert verdict_of(Comparison(different=3, accepted=2)) is Verdict.DIFFERENT
    assert verdict_of(Comparison(different=3, accepted=3, stopped=Reason("fail_fast", ""))) is Verdict.DIFFERENT
    assert verdict_of(Comparison()) is Verdict.PASSED
