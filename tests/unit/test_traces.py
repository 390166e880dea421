"""Arrivals are read from files, and made of what a server remembers."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.arrivals import weeks as made_up
from jobs.simulate import Submit, Week
from jobs.traces import TraceError, history, read_trace, write_trace

TRACES = Path(__file__).parents[2] / "examples" / "traces"
HEAD = "week,event,at_s,duration_s\n"


def read(tmp_path: Path, text: str | bytes) -> tuple[Week, ...]:
    file = tmp_path / "trace.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_trace(file)


def test_a_trace_is_read_by_weeks_in_the_order_of_time(tmp_path: Path) -> None:
    text = HEAD + "1,submit,20.5,3\n0,submit,9,1.5\n0,form_opened,8,\n1,submit,10,2\n2,form_opened,3,\n"
    assert read(tmp_path, text) == (
        Week(0, (Submit(9, 1.5),), (8,)),
        Week(1, (Submit(10, 2), Submit(20.5, 3))),
        Week(2, (), (3,)),
    )


@pytest.mark.parametrize(
    ("rows", "wrong"),
    [
        ("0,submit,1\n", ":2: 3 cells, and there are 4 columns"),
        ("x,submit,1,1\n", ":2: week must be a number from 0 to 9999, and is 'x'"),
        ("0,started,1,1\n", ":2: event must be submit or form_opened, and is 'started'"),
        ("0,submit,1,\n", ":2: duration_s must be seconds from 0 to 31,536,000, and is ''"),
        ("0,submit,nan,1\n", ":2: at_s must be seconds from 0 to 608,400, and is 'nan'"),
        ("0,submit,-1,1\n", ":2: at_s must be"),
        ("0,submit,700000,1\n", ":2: at_s must be"),
        ("0,form_opened,1,1\n", ":2: duration_s is for submit"),
        ("0,submit,1,1\n\n", ":3: 0 cells"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, rows: str, wrong: str) -> None:
    with pytest.raises(TraceError) as error:
        read(tmp_path, HEAD + rows)
    assert wrong in str(error.value)


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ("", ":1: the first line must be week,event,at_s,duration_s"),
        ("week;event;at_s;duration_s\n", ":1: the first line must be"),
        (HEAD.encode() + b"\xff\xfe,submit,1,1\n", "is no CSV in UTF-8"),
        (HEAD + '0,"submit,1,1\n' + "x" * 200_000, "is no CSV in UTF-8"),
    ],
)
def test_what_is_no_trace_is_said(tmp_path: Path, content: str | bytes, wrong: str) -> None:
    with pytest.raises(TraceError, match=wrong):
        read(tmp_path, content)


def test_a_trace_is_written_as_it_is_read(tmp_path: Path) -> None:
    for name in ("rate-0.3", "rate-3"):
        write_trace(tmp_path / "again.csv", read_trace(TRACES / f"{name}.csv"))
        assert read_trace(tmp_path / "again.csv") == read_trace(TRACES / f"{name}.csv")


def test_made_up_arrivals_are_the_same_by_the_same_seed_and_look_like_the_traces() -> None:
    assert made_up(1.0, 7) == made_up(1.0, 7)
    assert made_up(1.0, 7) != made_up(1.0, 8)
    found, known = made_up(3.0, 1), read_trace(TRACES / "rate-3.csv")
    for count in (lambda week: len(week.submits), lambda week: len(week.forms)):
        mine, theirs = sum(map(count, found)), sum(map(count, known))
        assert abs(mine - theirs) < 0.15 * theirs


def test_a_history_is_made_of_runs_that_have_ended() -> None:
    runs: list[dict[str, str | None]] = [
        {
            "created_at": "2026-11-23T08:00:00Z",
            "started_at": "2026-11-23T08:01:00Z",
            "finished_at": "2026-11-23T08:11:00Z",
        },
        {"created_at": "2026-11-23T09:00:00Z", "started_at": None, "finished_at": "2026-11-23T09:11:00Z"},
        {"created_at": "2026-11-23T09:30:00Z", "started_at": "2026-11-23T09:30:00Z", "finished_at": None},
        {
            "created_at": "2026-11-22T22:59:59Z",
            "started_at": "2026-11-22T23:00:00Z",
            "finished_at": "2026-11-22T23:00:01Z",
        },
    ]
    forms = ["2026-11-23T07:59:00Z", "2026-09-01T00:00:00Z"]
    first, second = history(runs, forms, "Europe/Berlin")
    assert first.monday == datetime(2026, 11, 15, 23, tzinfo=UTC)
    assert first.submits == (Submit(7 * 86400 - 1, 1),)
    assert second.monday == datetime(2026, 11, 22, 23, tzinfo=UTC)
    assert second.submits == (Submit(9 * 3600, 600),)
    assert (first.forms, second.forms) == ((), (9 * 3600 - 60,))
    assert history([]) == ()
