"""Hours of a schedule: what a window is, by the clock on the wall of a place, also where clocks are changed."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.schedule import Schedule, Window

BERLIN = ZoneInfo("Europe/Berlin")
HOURS = Schedule((Window.parse("mon-fri 08:00-18:00", 2),), "Europe/Berlin")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).astimezone(UTC)


@pytest.mark.parametrize(
    ("text", "days", "back"),
    [
        ("mon-fri 08:00-18:00", {0, 1, 2, 3, 4}, "mon-fri 08:00-18:00"),
        ("SAT, sun 0:00 - 24:00", {5, 6}, "sat,sun 00:00-24:00"),
        ("daily 22:00-06:00", set(range(7)), "daily 22:00-06:00"),
        ("fri-mon 10:00-11:00", {4, 5, 6, 0}, "mon,fri,sat,sun 10:00-11:00"),
        ("tue 10:00-11:30", {1}, "tue 10:00-11:30"),
    ],
)
def test_windows_are_read_and_written(text: str, days: set[int], back: str) -> None:
    window = Window.parse(text)
    assert window.days == days
    assert str(window) == back
    assert Window.parse(back) == window


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "is no window"),
        ("08:00-18:00", "is no window"),
        ("mon-fri", "is no window"),
        ("mon-fri 8-18", "is no window"),
        ("mon 25:00-26:00", "25:00 is no time of a day"),
        ("mon 08:60-09:00", "08:60 is no time of a day"),
        ("monday 08:00-09:00", "'monday' is no day"),
        ("mon,,tue 08:00-09:00", "'' is no day"),
    ],
)
def test_what_is_no_window_is_said(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        Window.parse(text)


def test_what_is_no_time_zone_is_said() -> None:
    with pytest.raises(ValueError, match="there is no time zone 'Europe/Bonn'"):
        Schedule((), "Europe/Bonn")


def test_a_window_holds_by_the_clock_on_the_wall() -> None:
    assert HOURS.keep(at("2026-11-23 07:59")) is None
    assert HOURS.keep(at("2026-11-23 08:00")) == 2
    assert HOURS.keep(at("2026-11-23 17:59")) == 2
    assert HOURS.keep(at("2026-11-23 18:00")) is None
    assert HOURS.keep(at("2026-11-28 12:00")) is None  # a Saturday
    assert HOURS.keep(at("2026-07-01 08:00")) == 2  # an hour earlier in UTC than in winter


def test_ahead_and_until() -> None:
    lead = timedelta(minutes=5)
    assert HOURS.ahead(at("2026-11-23 07:54"), lead) == 0
    assert HOURS.ahead(at("2026-11-23 07:55"), lead) == 2
    assert HOURS.until(at("2026-11-23 12:00")) == at("2026-11-23 18:00")
    assert HOURS.until(at("2026-11-27 18:00")) == at("2026-11-30 08:00")
    assert Schedule().until(at("2026-11-23 12:00")) is None
    always = Schedule((Window.parse("daily 00:00-24:00"),))
    assert always.until(at("2026-11-23 12:00")) is None


def test_a_window_goes_on_over_midnight_and_belongs_to_the_day_it_began() -> None:
    nights = Schedule((Window.parse("fri 22:00-06:00", 0),), "Europe/Berlin")
    assert nights.keep(at("2026-11-27 23:00")) == 0
    assert nights.keep(at("2026-11-28 05:59")) == 0
    assert nights.keep(at("2026-11-28 06:00")) is None
    assert nights.keep(at("2026-11-27 05:00")) is None


def test_where_windows_lie_on_each_other_the_largest_counts() -> None:
    both = Schedule((Window.parse("daily 00:00-24:00", 0), Window.parse("mon 09:00-10:00", 3)))
    assert both.keep(datetime(2026, 11, 23, 9, 30, tzinfo=UTC)) == 3
    assert both.keep(datetime(2026, 11, 23, 10, 0, tzinfo=UTC)) == 0
    assert both.until(datetime(2026, 11, 23, 8, 0, tzinfo=UTC)) == datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


def test_the_hour_that_the_clocks_skip_and_the_one_that_comes_twice() -> None:
    window = Window.parse("sun 02:30-05:00")
    start, end = window.span(date(2026, 3, 29), BERLIN)  # there is no 02:30
    assert (start, end) == (datetime(2026, 3, 29, 1, 30, tzinfo=UTC), datetime(2026, 3, 29, 3, tzinfo=UTC))
    early = Window.parse("sun 00:00-02:30")
    start, end = early.span(date(2026, 10, 25), BERLIN)  # 02:30 comes twice: the second
    assert end - start == timedelta(hours=3, minutes=30)
    late = Window.parse("sun 02:30-05:00")
    start, end = late.span(date(2026, 10, 25), BERLIN)  # the first
    assert end - start == timedelta(hours=3, minutes=30)
    ends = Window.parse("sun 01:00-02:30")
    start, end = ends.span(date(2026, 3, 29), BERLIN)
    assert start < end


epoch = datetime(2026, 1, 1, tzinfo=UTC)
moments = st.integers(0, 730 * 86400).map(lambda seconds: epoch + timedelta(seconds=seconds))
zones = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"])
clocks = st.times().map(lambda found: found.replace(second=0, microsecond=0))
windows = st.builds(Window, st.frozensets(st.integers(0, 6), min_size=1), clocks, clocks, st.integers(0, 3))
schedules = st.builds(lambda found, zone: Schedule(tuple(found), zone), st.lists(windows, max_size=3), zones)


@given(schedules, moments)
def test_until_is_the_next_change(schedule: Schedule, now: datetime) -> None:
    until = schedule.until(now)
    if until is None:
        until = now + timedelta(days=7)
    else:
        assert until > now
        assert schedule.keep(until) != schedule.keep(now)
    for part in (0.01, 0.37, 0.99):
        assert schedule.keep(now + part * (until - now)) == schedule.keep(now)


@given(schedules, moments)
def test_ahead_is_never_less_than_what_is_kept(schedule: Schedule, now: datetime) -> None:
    assert schedule.ahead(now, timedelta(minutes=2)) >= (schedule.keep(now) or 0)
    assert schedule.ahead(now, timedelta(0)) == (schedule.keep(now) or 0)


@given(windows)
def test_a_window_is_read_as_it_is_written(window: Window) -> None:
    assert Window.parse(str(window), window.running) == window
