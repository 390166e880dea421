"""What machines cost, and who bears it: to the last second."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.machines import Interval
from jobs.money import Share, Total, Use, billed, by_day, money, month_of, months, saved, shares, totals

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
PRICE = Decimal("0.36")  # a ten-thousandth a second


def at(minutes: float) -> datetime:
    return datetime(2026, 11, 23, 9, tzinfo=UTC) + timedelta(minutes=minutes)


def on(start: float, end: float | None, instance: str = "i-1", price: Decimal | None = PRICE) -> Interval:
    return Interval(instance, "p", at(start), None if end is None else at(end), price)


def use(start: float, end: float, run: int, instance: str = "i-1", project: str = "ledger", user: str = "ada") -> Use:
    return Use(instance, at(start), at(end), run, project, user)


def test_a_second_is_billed_as_a_second_and_a_start_as_a_minute() -> None:
    assert billed(on(0, 1.5), NOW) == 90
    assert billed(on(0, 0.1), NOW) == 60
    assert billed(on(0, None), NOW) == 3 * 3600


def test_a_run_bears_its_boot_and_what_was_idle_after_it() -> None:
    (share,) = shares([on(0, 10)], [use(1, 8, run=7)], NOW)
    assert (share.run, share.cost) == (7, Decimal("0.06"))
    assert share.seconds == 600


def test_runs_share_by_their_time_and_evenly_while_they_run_at_once() -> None:
    found = {share.run: share.seconds for share in shares([on(0, 10)], [use(0, 8, 1), use(4, 8, 2)], NOW)}
    # Run 1 had 4 minutes alone and 2 of the 4 shared ones; run 2 had 2; 2 minutes were idle.
    assert found == {1: 450, 2: 150}


def test_time_without_any_run_is_borne_by_nobody() -> None:
    found = list(shares([on(0, 10), on(20, 30)], [use(1, 9, 1)], NOW))
    assert [(share.run, int(share.seconds)) for share in found] == [(1, 600), (None, 600)]


def test_what_ran_elsewhere_does_not_count_and_what_has_no_price_is_told() -> None:
    found = list(shares([on(0, 10, price=None)], [use(0, 10, 1, "i-2")], NOW))
    assert [(share.run, share.cost) for share in found] == [(None, None)]
    assert totals(found, lambda share: share.pool) == {"p": Total(Decimal(600), Decimal(0), Decimal(600))}


def test_sums_by_project_user_and_month() -> None:
    found = list(
        shares(
            [on(0, 10), on(20, 30)], [use(0, 10, 1), use(20, 25, 2, project="rake"), use(25, 30, 3, user="bob")], NOW
        )
    )
    assert {name: total.seconds for name, total in totals(found, lambda s: s.project).items()} == {
        "ledger": 900,
        "rake": 300,
    }
    assert {name: total.seconds for name, total in totals(found, lambda s: s.user).items()} == {"ada": 900, "bob": 300}
    assert list(totals(found, lambda s: month_of(s.at))) == ["2026-11"]


def test_months_are_cut_by_the_clock_of_the_place() -> None:
    interval = Interval("i-1", "p", datetime(2026, 11, 30, 20, tzinfo=UTC), datetime(2026, 12, 1, 2, tzinfo=UTC), PRICE)
    berlin = list(months([interval], NOW, "Europe/Berlin"))
    assert [(month_of(one.started_at, "Europe/Berlin"), int(billed(one, NOW))) for one in berlin] == [
        ("2026-11", 3 * 3600),
        ("2026-12", 3 * 3600),
    ]
    assert len(list(months([on(0, 10)], NOW))) == 1


def test_each_day_bears_what_was_billed_on_it() -> None:
    since, now = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 4, 12, tzinfo=UTC)
    over_midnight = Interval(
        "i-1", "p", datetime(2026, 11, 1, 22, tzinfo=UTC), datetime(2026, 11, 2, 3, tzinfo=UTC), PRICE
    )
    still_on = Interval("i-2", "p", datetime(2026, 11, 4, 11, tzinfo=UTC), None, PRICE)
    found = by_day([over_midnight, still_on], since, now)
    assert [(day.day, int(total.seconds) / 3600) for day, total in found] == [(1, 2), (2, 3), (3, 0), (4, 1)]
    assert sum(total.cost for _, total in found) == 6 * PRICE
    assert by_day([], since, datetime(2026, 12, 1, tzinfo=UTC))[-1][0].day == 30
    tokyo = by_day([over_midnight], datetime(2026, 10, 31, 15, tzinfo=UTC), now, "Asia/Tokyo")
    assert [(day.day, int(total.seconds) / 3600) for day, total in tokyo if total.seconds] == [(2, 5)]


def test_saved_against_always_on_and_against_half_an_hour() -> None:
    intervals = [on(0, 11), on(60, 71)]
    uses = [use(1, 11, 1), use(61, 71, 2)]
    found = saved(intervals, uses, at(0), at(180), timedelta(minutes=1))
    assert found.paid == Decimal("0.132")
    assert found.always_on == 3 * PRICE
    assert found.half_an_hour == 2 * 41 * 60 * PRICE / 3600
    near = saved([on(0, 11), on(30, 41)], [use(1, 11, 1), use(31, 41, 2)], at(0), at(180), timedelta(minutes=1))
    assert near.half_an_hour == 71 * 60 * PRICE / 3600


def test_saved_counts_what_lies_in_its_time_and_has_a_price() -> None:
    found = saved([on(-60, 60), on(0, 10, "i-2", None)], [use(-59, 59, 1)], at(0), at(90), timedelta(minutes=1))
    assert found.paid == PRICE
    assert found.always_on == PRICE * 90 / 60
    assert found.half_an_hour == PRICE * 90 / 60  # the boot lies before, and the 30 minutes end with the time
    assert saved([], [], at(0), at(90), timedelta(minutes=1)).always_on == 0


def test_amounts_are_rounded_for_people() -> None:
    assert money(Decimal("0.125")) == Decimal("0.13")


spans = st.tuples(st.integers(-50_000, 100_000), st.integers(1, 90_000))
uses = st.lists(
    st.builds(
        lambda span, run, instance: use(span[0] / 60, (span[0] + span[1]) / 60, run, instance),
        spans,
        st.integers(1, 5),
        st.sampled_from(["i-1", "i-2"]),
    ),
    max_size=12,
)
intervals = st.lists(
    st.builds(
        lambda span, instance: on(span[0] / 60, (span[0] + span[1]) / 60, instance),
        spans,
        st.sampled_from(["i-1", "i-2"]),
    ),
    max_size=6,
)


@given(intervals, uses)
def test_the_shares_are_what_was_billed(machines: list[Interval], work: list[Use]) -> None:
    found = list(shares(machines, work, NOW))
    assert sum(share.seconds for share in found) == sum(billed(one, NOW) for one in machines)
    assert all(share.seconds >= 0 for share in found)


@given(
    st.integers(0, 10_000_000),
    st.integers(0, 10_000_000),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
)
def test_cutting_by_months_changes_no_bill(start: int, length: int, zone: str) -> None:
    begun = NOW + timedelta(seconds=start)
    interval = Interval("i-1", "p", begun, begun + timedelta(seconds=length), PRICE)
    parts = list(months([interval], NOW, zone))
    assert sum(billed(part, NOW) for part in parts) == billed(interval, NOW)
    assert len({month_of(part.started_at, zone) for part in parts}) == len(parts)


@pytest.mark.parametrize("run", [None, 1])
def test_a_share_without_a_price_is_counted_apart(run: int | None) -> None:
    share = Share("i-1", "p", NOW, Decimal(5), None, run)
    assert Total().plus(share) == Total(Decimal(5), Decimal(0), Decimal(5))
