"""How the command line writes things."""

from __future__ import annotations

import pytest

from jobs.api_client import check_url, problem_words
from jobs.cli_files import offered_name
from jobs.cli_runs import _unit_line
from jobs.cli_show import attempt_row, columns, counted, duration, folded, headline, moment, plain, size
from runner.errors import RequestError


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("feature/Ünïcode ✓", "feature/Ünïcode ✓"),
        ("\x1b[2Jgone\x07", "\\x1b[2Jgone\\x07"),
        ("a\nb\tc\r\x9b", "a\\x0ab\\x09c\\x0d\\x9b"),
        ("right\u202eto left\u2028", "right\\u202eto left\\u2028"),
        (None, ""),
    ],
)
def test_text_of_others_cannot_move_the_cursor(text: str | None, seen: str) -> None:
    assert plain(text) == seen


def test_lines_of_a_text_are_indented_and_cannot_move_the_cursor_either() -> None:
    assert folded("a\nb\x1b[2J\r\n\nc", "  ") == "a\n  b\\x1b[2J\\x0d\n  \n  c"
    assert (folded("a", "  "), folded(None, "  ")) == ("a", "")


def test_why_a_unit_failed_is_told_in_lines_of_its_own() -> None:
    unit = {"state": "failed", "seconds": 1.0, "output": None, "leg": "candidate", "unit": "a\nb", "text": "no\nrows"}
    assert _unit_line(unit, several=False).splitlines() == [
        "failed     1.0 s             a\\x0ab  no",
        "    rows",
    ]


def test_columns_are_as_wide_as_their_widest_cell_and_nothing_is_cut() -> None:
    lines = columns(("A", "B"), [("x" * 30, 1), ("y", "z" * 200)])
    assert lines == ["A".ljust(30) + "  B", "x" * 30 + "  1", "y".ljust(30) + "  " + "z" * 200]


def test_figures() -> None:
    assert [duration(s) for s in (None, 0.25, 59.94, 252, 90_000)] == [
        "",
        "0.2 s",
        "59.9 s",
        "0:04:12",
        "1 day, 1:00:00",
    ]
    assert [size(c) for c in (0, 1023, 1536, 3 << 30)] == ["0 B", "1023 B", "1.5 KiB", "3.0 GiB"]
    assert (moment("2026-11-21T23:43:14.494Z"), moment(None)) == ("2026-11-21 23:43:14", "")
    assert counted({"total": None, "done": 0, "failed": 0}) == "-"
    assert counted({"total": 40, "done": 11, "failed": 1}) == "11/40, 1 failed", "as the pages say it"


def test_the_headline_tells_state_and_reason() -> None:
    run = {"id": 7, "state": "failed", "verdict": None, "cancel_requested": False}
    run["reason"] = {"code": "units_failed", "text": "1 unit\x1b failed"}
    assert headline(run) == "Run 7 is failed: 1 unit\\x1b failed (units_failed)"
    run |= {"state": "running", "reason": None, "cancel_requested": True}
    assert headline(run) == "Run 7 is running, cancel asked for"


def test_a_problem_document_names_field_value_and_remedy_and_says_nothing_twice() -> None:
    one = {"key": "project", "message": "There is no project 'x'.", "value": "x", "remedy": "Add it."}
    single = {"detail": "There is no project 'x'.", "errors": [one]}
    assert problem_words(single) == "There is no project 'x'.\n  project: x\n  Add it."
    many = {
        "detail": "seatrial.yml is not valid.",
        "errors": [
            {"key": "run", "message": "is required", "line": 1},
            {"key": "version", "message": "must be 1", "value": "2", "line": 2, "remedy": "Write 1."},
        ],
    }
    assert problem_words(many).splitlines()[1:] == [
        "  line 1: run: is required",
        "  line 2: version: must be 1 (given: 2)",
        "  Write 1.",
    ]
    assert problem_words({"title": "Not Found"}) == "Not Found"


@pytest.mark.parametrize(
    "url", ["", "foo", "ftp://x", "http://", "http://x:99999", "http://[", "http://x?y", "http://x#y"]
)
def test_a_wrong_server_address_is_refused(url: str) -> None:
    with pytest.raises(RequestError, match="is not the address of a server"):
        check_url(url)


def test_a_server_address_loses_its_last_slash() -> None:
    assert check_url("http://127.0.0.1:8321/") == "http://127.0.0.1:8321"


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("attachment; filename=\"a.csv\"; filename*=UTF-8''a%20b.csv", "a b.csv"),
        ("attachment; filename*=UTF-8''..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("attachment; filename*=UTF-8''..", "output"),
        ("attachment; filename*=UTF-8''a%00b", "output"),
        ("", "output"),
    ],
)
def test_an_offered_file_name_never_leaves_the_directory(header: str, name: str) -> None:
    assert offered_name(header) == name


def test_an_attempt_tells_who_made_it_what_it_did_and_why_it_ended() -> None:
    attempt = {
        "task": 3,
        "attempt": 2,
        "worker": "vm-local-1-1",
        "host": "vm",
        "started_at": "2026-11-23T06:17:18.475Z",
        "ended_at": "2026-11-23T06:18:33.475Z",
        "outcome": "interrupted",
        "reason": {"code": "worker_lost", "text": "The worker process died."},
        "work": {"text": "9 finished units kept"},
    }
    row = ("batch 1", 2, "vm-local-1-1", "vm", "2026-11-23 06:17:18", "0:01:15", "interrupted", "9 finished units kept")
    assert attempt_row(attempt, {3: "batch 1"}) == (*row, "worker_lost: The worker process died.")
    going = attempt_row(attempt | {"ended_at": None, "outcome": None, "reason": None}, {})
    assert (going[0], *going[5:7], going[8]) == (3, "", "running", "")
