"""The records that are left of large files: hashed in processes of their own, which may fail or be left alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import compare_hashes
from runner.compare_budget import BudgetSpent
from runner.compare_hashes import anti_join_large, hash_both, unequal
from runner.compare_records import Left, Source
from runner.compare_text import Dialect, Malformed

ROWS = [b"%d,text %d" % (n, n % 7) for n in range(400)]


def source(records: list[bytes]) -> Source:
    """Write records with line ends that make all of them be hashed."""
    content = b"".join(record + b"\r" for record in records)
    return Source(BytesIO(content), Dialect("csv", newline=b"\r"), 0, len(content), keep_blank=False)


def joined(a: list[bytes], b: list[bytes], spool: Path, check: Callable[[], None] = lambda: None) -> Left:
    return anti_join_large(source(a), source(b), lambda: spool, check)


def rest(left: Left) -> tuple[list[bytes], list[bytes]]:
    a, b = ([record for batch, _ in side.batches() for record in batch] for side in (left.a, left.b))
    return a, b


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take small files for large ones, and see that no process is left behind."""
    started: list[int] = []
    fork = os.fork

    def remembered() -> int:
        started.append(fork())
        return started[-1]

    monkeypatch.setattr(compare_hashes, "SMALL", 0)
    monkeypatch.setattr(os, "fork", remembered)
    yield
    for process in started:
        with pytest.raises(ChildProcessError):
            os.waitpid(process, os.WNOHANG)


def others() -> list[bytes]:
    records = [b"9,changed" if record == ROWS[9] else record for record in ROWS] + [ROWS[3], ROWS[3]]
    random.Random(1).shuffle(records)
    return records


def check_others(left: Left) -> None:
    a, b = rest(left)
    # Of a record that stands more often on one side all are left, as none of them can be told from the others.
    assert (a, sorted(b)) == ([ROWS[3], ROWS[9]], sorted([ROWS[3]] * 3 + [b"9,changed"]))
    assert (left.kept, left.reordered) == (len(ROWS) - 2, True)


@pytest.mark.parametrize("at_once", [1 << 26, 100, 3])
def test_what_is_left_whatever_is_sorted_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(compare_hashes, "AT_ONCE", at_once)
    monkeypatch.setattr(compare_hashes, "_BLOCK", 64)
    check_others(joined(ROWS, others(), tmp_path))


def test_no_more_processes_are_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> int:
        raise BlockingIOError

    monkeypatch.setattr(os, "fork", refused)
    check_others(joined(ROWS, others(), tmp_path))


@pytest.mark.parametrize("end", [lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: os._exit(3), lambda: 1 / 0])
def test_a_process_that_fails(tmp_path: Path, end: Callable[[], object]) -> None:
    ours = os.getpid()

    def check() -> None:
        if os.getpid() != ours:
            end()

    check_others(joined(ROWS, others(), tmp_path, check))


def test_what_is_malformed_is_told_by_this_process(tmp_path: Path) -> None:
    with pytest.raises(Malformed):
        joined(ROWS, [b'1,odd "quote" here'], tmp_path)
    with pytest.raises(Malformed):
        joined([b'1,odd "quote" here'], ROWS, tmp_path)


def test_time_is_over_while_they_work(tmp_path: Path) -> None:
    def check() -> None:
        raise BudgetSpent

    with pytest.raises(BudgetSpent):
        hash_both(source(ROWS), source(ROWS), tmp_path, check)


def test_one_side_has_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_hashes, "AT_ONCE", 3)
    assert rest(joined([], ROWS, tmp_path)) == ([], ROWS)
    assert rest(joined([b"", b""], [b""], tmp_path)) == ([], [])


def test_blank_lines_are_counted_by_the_processes(tmp_path: Path) -> None:
    a, b = source([*ROWS[:5], b"", b""]), source(ROWS)
    hash_both(a, b, tmp_path, lambda: None)
    assert (a.blank, b.blank) == (2, 0)


def test_the_same_order_is_seen_across_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.compare_text.Pieces.__init__.__defaults__", (256,))
    a = [b"first", *ROWS]
    b = [record for record in ROWS if record != ROWS[200]]
    left = joined(a, b, tmp_path)
    assert (rest(left), left.kept, left.reordered) == (([b"first", ROWS[200]], []), len(b), False)
    assert [ranks for _, ranks in left.a.batches()] == [[0], [200]]


HASHES = st.lists(st.sampled_from([0, 1, 2, 3, 1 << 40, (1 << 64) - 1]), max_size=30)


@given(HASHES, HASHES, st.integers(1, 9))
def test_unequal_are_those_that_do_not_stand_equally_often(a: list[int], b: list[int], stretch: int) -> None:
    counts = Counter(a), Counter(b)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare_hashes, "_STRETCH", stretch)
        sides = (np.array(sorted(side), np.uint64) for side in (a, b))
        found = [value for part in unequal(*sides) for value in part.tolist()]
    assert found == sorted(value for value in {*a, *b} if counts[0][value] != counts[1][value])


ABANDONED = """
import sys, time
from io import BytesIO
from pathlib import Path
from runner.compare_hashes import Apart
from runner.compare_records import Source
from runner.compare_text import Dialect
class Endless(Source):
    def pieces(self):
        while True:
            yield from super().pieces()
Apart(Endless(BytesIO(b"1,a\\n"), Dialect("csv"), 0, 4, keep_blank=False), Path(sys.argv[1]), lambda: time.sleep(0.01))
print("started", flush=True)
time.sleep(600)
"""


def test_a_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ABANDONED, str(tmp_path / "a.hashes")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"started\n"
        program.kill()
        assert program.stdout.read() == b""  # nobody holds the other end any more
