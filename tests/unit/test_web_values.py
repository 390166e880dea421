"""Words, states, previews, cursors, terminal text, archives: what pages and API are made of."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from jobs.attempts import Work
from jobs.run import Leg, Run, RunState, Task, TaskState, UnitCounts, Verdict
from runner.errors import RequestError
from runner.model import Output, Reason, TaskKind
from web import archive, links, present, words
from web.ansi import plain
from web.cursor import Cursor
from web.preview import ROWS, preview
from web.schemas import EstimateOut

NOW = datetime(2026, 11, 21, 14, 0, tzinfo=UTC)
LEG = Leg(
    "candidate", "feature/x", "4f2c9e1a" * 5, "Round", "Mio", "seatrial.yml", "d", None, None, None, prepared=True
)
RUN = Run(
    214,
    "accounts",
    (LEG,),
    RunState.RUNNING,
    None,
    None,
    UnitCounts(1920, 1204, 0),
    3,
    "mio",
    "",
    0,
    None,
    None,
    "local",
    cancel_requested=False,
    created_at=NOW,
    started_at=NOW,
    finished_at=None,
)


def task(kind: TaskKind = TaskKind.VERIFY, state: TaskState = TaskState.RUNNING, batch: int = 1) -> Task:
    return Task(
        batch + 1,
        214,
        "candidate",
        kind,
        batch,
        state,
        1,
        1,
        "local",
        "host-a",
        "w",
        None,
        0,
        10,
        4,
        1,
        0,
        NOW,
        NOW,
        NOW,
        None,
    )


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, ""),
        (-1, "0.00 s"),
        (0.03, "0.03 s"),
        (4.26, "4.3 s"),
        (41.2, "41 s"),
        (59.7, "1 min 00 s"),
        (252, "4 min 12 s"),
        (3_840, "1 h 04 min"),
        (190_000, "2 d 04 h"),
    ],
)
def test_durations(seconds: float | None, said: str) -> None:
    assert words.duration(seconds) == said


def test_figures() -> None:
    assert words.number(1_234_567) == "1\u202f234\u202f567"
    assert words.plural(1, "unit") == "1 unit"
    assert words.plural(3, "batch") == "3 batches"
    assert [words.size(n) for n in (0, 999, 4 << 30, 1_434, 256 << 20)] == [
        "0 B",
        "999 B",
        "4 GiB",
        "1.4 KiB",
        "256 MiB",
    ]
    assert words.ago(NOW - timedelta(hours=3), NOW) == "3 h ago"
    assert words.soon(NOW + timedelta(seconds=4), NOW) == "in 4 s"
    assert words.soon(NOW - timedelta(seconds=4), NOW) == "any moment"


def test_a_resume_button_says_what_is_left() -> None:
    failed = replace(
        RUN, state=RunState.FAILED, units=UnitCounts(1920, 1204, 4), reason=Reason("units_failed", "4 units failed.")
    )
    assert [button.label for button in present.buttons(failed)] == [
        "Resume — 716 units left",
        "Run 4f2c9e1a4f again",
    ]
    assert [button.form for button in present.buttons(RUN)] == ["cancel"]
    assert present.buttons(replace(RUN, cancel_requested=True)) == []


def test_an_interruption_says_why_and_what_is_safe() -> None:
    cut = replace(RUN, state=RunState.INTERRUPTED, reason=Reason("database_lost", "The connection dropped at 14:02."))
    head = present.head(cut, [task(state=TaskState.INTERRUPTED)], [], None, None)
    assert head.because == "The connection dropped at 14:02."
    assert head.banner is not None
    assert head.banner.retry_at == NOW
    assert "1\u202f204 of 1\u202f920 units are safe: only what was in flight is repeated." in head.banner.text
    assert head.badge.kind == "interrupted"


def test_a_running_run_says_what_it_does() -> None:
    head = present.head(RUN, [task(TaskKind.PREPARE, TaskState.DONE, 0), task()], [], None, None)
    assert head.because == "batch 1 of 1"
    assert head.title == "Running 62 % · run 214 · feature/x"
    preparing = present.head(RUN, [task(TaskKind.PREPARE)], [], None, None)
    assert preparing.because == "preparing the workspace"


def test_a_preparation_that_was_cut_off_begins_again() -> None:
    cut = replace(RUN, state=RunState.INTERRUPTED)
    banner = present.banner(cut, [task(TaskKind.PREPARE, TaskState.INTERRUPTED, 0)])
    assert banner is not None
    assert "The preparation begins again from its start." in banner.text


def test_an_attempt_says_what_it_repeated() -> None:
    batch, prepare = task(), task(TaskKind.PREPARE)
    adopted = Work(kept=8, finished=4, void=0, adopted=True, begun_again=False)
    assert present.work(adopted, batch) == (
        "8 finished units kept; took over the container, which had gone on: nothing repeated; finished 4 units"
    )
    again = Work(kept=8, finished=0, void=1, adopted=False, begun_again=True)
    assert present.work(again, batch) == (
        "8 finished units kept; what was in flight began again; 1 unit taken back and repeated"
    )
    assert present.work(Work(0, 0, 0, adopted=False, begun_again=True), prepare) == "began the preparation again"
    assert present.work(Work(0, 0, 0, adopted=False, begun_again=False), batch) == ""


def test_an_attempt_tells_units_that_failed_from_those_that_it_finished() -> None:
    some = Work(kept=0, finished=10, void=0, adopted=False, begun_again=False, failed=1)
    assert present.work(some, task()) == "finished 9 units; 1 unit failed"
    only = Work(kept=9, finished=1, void=0, adopted=False, begun_again=False, failed=1)
    assert present.work(only, task()) == "9 finished units kept; 1 unit failed"


def test_runs_in_a_sentence_are_links() -> None:
    assert words.with_runs("busy with #12 and #15.") == (
        'busy with <a href="/runs/12">#12</a> and <a href="/runs/15">#15</a>.'
    )
    assert words.with_runs("<b>'#x' a#1") == "&lt;b&gt;&#39;#x&#39; a#1"


def test_states_differ_in_word_and_look() -> None:
    badges = [*present.BADGES.values(), present.DIFFERENT]
    assert len({badge.kind for badge in badges}) == len({badge.word for badge in badges}) == len(badges)
    assert present.badge(replace(RUN, state=RunState.DONE, verdict=Verdict.DIFFERENT)).word == "Different"
    assert present.badge(replace(RUN, cancel_requested=True)).word == "Cancelling"


def test_units_without_a_list_have_no_share() -> None:
    assert present.progress(UnitCounts()).total is None
    assert present.progress(UnitCounts(0)).done_share == 0


def test_a_leg_without_a_list_is_not_taken_for_done() -> None:
    """All units of the baseline were taken over, and the candidate has not listed its own."""
    over = replace(
        LEG, name="baseline", prepared=True, reused={"run": 2, "differs": [], "units": 40, "seconds_saved": 42}
    )
    run = replace(RUN, legs=(over, replace(LEG, prepared=False)), units=UnitCounts(40, 40, 0))
    head = present.head(run, [task(TaskKind.PREPARE)], [], None, None)
    assert head.progress.words == "40 units finished, those of the candidate not listed yet"
    assert (head.progress.done_share, head.title) == (50, "Running · run 214 · feature/x")
    assert not any("left" in fact for fact in head.facts)
    again = present.head(replace(run, state=RunState.FAILED), [task(TaskKind.PREPARE)], [], None, None)
    assert again.buttons[0].label == "Resume — begins with the preparation"
    # Its batches stand although what it was prepared with is gone.
    resumed = present.head(replace(run, units=UnitCounts(80, 40, 0)), [task()], [], None, None)
    assert resumed.progress.words == "40 of 80 units on 2 legs"


def test_a_banner_tells_of_each_task_in_a_sentence_of_its_own() -> None:
    run = replace(RUN, state=RunState.INTERRUPTED, units=UnitCounts(40, 12, 0))
    waiting = [replace(task(state=TaskState.INTERRUPTED, batch=n), attempt=4, host="vm") for n in (1, 2)]
    found = present.banner(run, waiting)
    assert found is not None
    assert found.text == (
        "That will be attempt 5 of batch 1; attempt 4 was on vm. 1 more task waits for a next try too. "
        "12 of 40 units are safe: only what was in flight is repeated."
    )


def test_a_clock_has_the_date_of_another_day() -> None:
    assert words.clock(NOW, NOW + timedelta(hours=2)) == "14:00:00 UTC"
    assert words.clock(NOW, NOW + timedelta(days=1)) == "2026-11-21 14:00:00 UTC"


def test_a_few_seconds_are_rough_enough() -> None:
    soon = EstimateOut(seconds_left=4.0, units_per_minute=57.0, basis="from this run's finished units")
    assert "a few seconds left" in present.head(RUN, [task()], [], soon, None).facts


def test_a_csv_is_shown_as_a_table() -> None:
    look = preview("pl.csv", b"account;amount\n1;=1+1\n2;<b>\n", 27)
    assert (look.kind, look.header, look.rows) == ("table", ["account", "amount"], [["1", "=1+1"], ["2", "<b>"]])
    long = b"n\n" + b"1\n" * 5_000
    assert (len(preview("n.csv", long, len(long)).rows), preview("n.csv", long, len(long)).cut) == (ROWS, True)


def test_other_outputs_are_shown_as_text_or_not_at_all() -> None:
    assert preview("x.csv", b"", 0).kind == "empty"
    assert preview("x.bin", b"\x00\x01", 2).kind == "binary"
    assert preview("x.txt", b"caf\xe9\n", 5).text == "caf\ufffd\n"
    assert preview("x.csv", b'"open\r' + b"x" * 200_000, 200_006).kind in ("text", "table")


@pytest.mark.parametrize(
    ("cursor", "text"),
    [
        (Cursor(), "0~"),
        (Cursor(7, {1: 5}), "7~5"),
        (Cursor(7, {3: 65_536}), "7~3-10000"),
        (Cursor(0, {300: 1_024, 301: 31, 303: 9}), "0~12c-400.1f.2-9"),
        (Cursor(2**63 - 1, {2**63 - 1: 2**63 - 1}), "9223372036854775807~7fffffffffffffff-7fffffffffffffff"),
    ],
)
def test_a_cursor_survives_its_text(cursor: Cursor, text: str) -> None:
    assert str(cursor) == text
    assert Cursor.parse(text) == cursor


def test_a_cursor_leaves_out_what_is_at_its_beginning() -> None:
    assert str(Cursor(7, {1: 0, 2: 0, 3: 4})) == "7~3-4"


def test_a_cursor_as_it_was_written_once_is_understood() -> None:
    assert Cursor.parse("7;1:0,3:65536") == Cursor(7, {1: 0, 3: 65_536})
    assert Cursor.parse("0;") == Cursor()


def test_a_cursor_of_a_thousand_tasks_fits_into_a_request_line() -> None:
    cursor = Cursor(10**9, {10**6 + task: 1_000_000 + task for task in range(1_000)})
    assert len(quote(str(cursor), safe="")) < 8_000
    assert Cursor.parse(str(cursor)) == cursor


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "1", "1;2", "1;2:", "-1;", "1;1:1,", "1;1:99999999999999999999", "²;"),
        *("1~-", "1~1-", "1~-1", "1~1.", "1~.1", "1~1-1-1", "1~A", "~1", "1~1;", "1~1_0", "1~9000000000000000"),
        "1~7fffffffffffffff-1.1",
    ],
)
def test_a_broken_cursor_is_refused(text: str) -> None:
    with pytest.raises(RequestError) as refused:
        Cursor.parse(text)
    assert refused.value.field == "Last-Event-ID"


def test_terminal_text_as_plain_text() -> None:
    assert plain("\x1b[1;31mred\x1b[0m plain\ttab") == "red plain\ttab"
    assert plain(" 10%\r 50%\r100% done\r") == "100% done"
    assert plain("a\x1b]8;;javascript:alert(1)\x07b\x1b]8;;\x07c\x1b]52;c;aGk=\x07d\x00e") == "abcde"


def test_addresses_quote_what_a_path_cannot_hold() -> None:
    assert links.unit(1, "candidate", "a b/ü?#%") == "/runs/1/units/candidate/a%20b/%C3%BC%3F%23%25"
    assert links.log_line(214, 3, 120) == "/runs/214?tab=log&task=3#L120"
    assert links.query(text="a&b=c", ref=None, user="") == "?text=a%26b%3Dc"


def entries() -> Iterator[archive.Entry]:
    for name in ("a", "b"):
        yield archive.Entry(f"candidate/{name}.csv", 600_000, lambda name=name: io.BytesIO(name.encode() * 600_000))  # type: ignore[misc]


def test_archives_hold_every_byte() -> None:
    zipped = zipfile.ZipFile(io.BytesIO(b"".join(archive.zipped(entries()))))
    assert zipped.testzip() is None
    assert zipped.read("candidate/b.csv") == b"b" * 600_000
    with tarfile.open(fileobj=io.BytesIO(b"".join(archive.tarred(entries())))) as tar:
        assert tar.getnames() == ["candidate/a.csv", "candidate/b.csv"]
        found = tar.extractfile("candidate/a.csv")
        assert found is not None
        assert found.read() == b"a" * 600_000


def test_an_archive_never_ends_well_when_an_object_is_short() -> None:
    short = [archive.Entry("x", 10, lambda: io.BytesIO(b"12345"))]
    with pytest.raises(OSError, match="5 bytes are missing"):
        list(archive.tarred(short))


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../b", "a\x00b"])
def test_an_archive_refuses_paths_that_leave_it(path: str) -> None:
    manifest = io.BytesIO(json.dumps({path: {"digest": "d", "size": 1}}).encode())
    with pytest.raises(ValueError, match="not a path"):
        list(archive.tree_entries("candidate/all", manifest, lambda _: io.BytesIO(b"x")))


def contents(entries: list[archive.Entry]) -> dict[str, bytes]:
    """Write the entries to both kinds of archive; give what either holds, by path."""
    zipped = zipfile.ZipFile(io.BytesIO(b"".join(archive.zipped(entries))))
    found = {name: zipped.read(name) for name in zipped.namelist()}
    with tarfile.open(fileobj=io.BytesIO(b"".join(archive.tarred(entries)))) as tar:
        assert tar.getnames() == zipped.namelist()
    return found


def test_a_backslash_in_a_name_breaks_no_archive() -> None:
    names = ["a%5Cb.csv", "a\\b.csv", "plain.csv", "..\\up.csv", "\\x92\\xa0.csv", "a%5Cb (2).csv"]
    manifest = json.dumps({name: {"digest": name, "size": len(name)} for name in names}).encode()
    output = Output("all", "manifest", 1, tree=True)
    files = {"manifest": manifest} | {name: name.encode() for name in names}
    found = contents(list(archive.entries_of("candidate", "all", output, lambda digest: io.BytesIO(files[digest]))))
    assert found == {
        "candidate/all/..%5Cup.csv": b"..\\up.csv",
        "candidate/all/%5Cx92%5Cxa0.csv": b"\\x92\\xa0.csv",
        "candidate/all/a%5Cb (2).csv": b"a%5Cb (2).csv",
        "candidate/all/a%5Cb.csv": b"a%5Cb.csv",
        "candidate/all/a%5Cb (3).csv": b"a\\b.csv",
        "candidate/all/plain.csv": b"plain.csv",
    }


def test_an_extension_with_a_backslash_breaks_no_archive() -> None:
    output = Output("pl.c\\v", "d", 1)
    assert contents(list(archive.entries_of("candidate", "t/pl", output, lambda _: io.BytesIO(b"x")))) == {
        "candidate/t/pl.c%5Cv": b"x"
    }


def test_an_output_is_named_after_its_unit() -> None:
    entry = next(archive.entries_of("candidate", "t/pl", Output("whatever.csv", "d", 1), lambda _: io.BytesIO(b"x")))
    assert entry.path == "candidate/t/pl.csv"
