"""A log by its lines: windows, totals and search agree with the bytes, however they arrive."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from web import loglines
from web.loglines import BLOCK, LINE_LIMIT, READ, LogIndex, LogIndexes


class Bytes:
    """A log that can grow; gives at most `most` bytes at once, as chunks in a store do."""

    def __init__(self, data: bytes = b"", most: int = 10_000_000) -> None:
        self.data = data
        self.most = most
        self.read = 0

    def log(self, task: int, *, offset: int = 0, limit: int = BLOCK) -> bytes:
        piece = self.data[offset : offset + min(limit, self.most)]
        self.read += len(piece)
        return piece


def test_an_empty_log() -> None:
    window = LogIndex(Bytes(), 1).window(1, 10)
    assert (window.lines, window.total, window.size, window.open) == ((), 0, 0, False)


def test_lines_count_from_one_and_know_their_bytes() -> None:
    window = LogIndex(Bytes(b"a\n\nccc"), 1).window(1, 10)
    assert [(line.n, line.offset, line.text) for line in window.lines] == [(1, 0, "a"), (2, 2, ""), (3, 3, "ccc")]
    assert (window.total, window.next_offset, window.open) == (3, 6, True)


def test_a_window_in_the_middle_and_from_the_end() -> None:
    data = b"".join(b"line %d\n" % n for n in range(1, 100_001))
    index = LogIndex(Bytes(data), 1)
    assert [line.text for line in index.window(50_000, 2).lines] == ["line 50000", "line 50001"]
    tail = index.window(-2, 10)
    assert [line.text for line in tail.lines] == ["line 99999", "line 100000"]
    assert (tail.total, tail.next_offset, tail.open) == (100_000, len(data), False)
    assert index.window(100_001, 5).lines == ()


@pytest.mark.parametrize("seed", range(8))
def test_any_window_agrees_with_a_plain_split(seed: int) -> None:
    rng = random.Random(seed)
    lines = [bytes(rng.choices(b"abc\r\xff", k=rng.choice([0, 1, 40, 3_000]))) for _ in range(rng.choice([5, 400]))]
    data = b"\n".join(lines)
    reader = Bytes(most=rng.choice([7, 1_000, 10_000_000]) if len(data) < 20_000 else 10_000_000)
    index = LogIndex(reader, 1)
    while len(reader.data) < len(data):  # it grows while it is read
        reader.data = data[: len(reader.data) + rng.randint(1, max(1, len(data) // 3))]
        index.total()
    expected = data.split(b"\n")
    expected = expected[:-1] if not expected[-1] else expected
    assert index.total() == len(expected)
    for _ in range(20):
        start = rng.randint(1, len(expected))
        found = index.window(start, 7).lines
        assert [line.text for line in found] == [e.decode("utf-8", "replace") for e in expected[start - 1 : start + 6]]
        assert all(data[line.offset :].startswith(expected[line.n - 1]) for line in found)


def test_a_growing_log_is_read_once() -> None:
    reader = Bytes(b"x\n" * 500_000)
    index = LogIndex(reader, 1)
    index.total()
    once = reader.read
    reader.data += b"more\n"
    assert index.total() == 500_001
    assert reader.read - once < BLOCK


def test_a_line_of_50_mb_is_cut_and_says_so() -> None:
    reader = Bytes(b"before\n" + b"y" * 50_000_000 + b"\nafter\n")
    window = LogIndex(reader, 1).window(1, 10)
    assert [line.n for line in window.lines] == [1, 2, 3]
    assert (len(window.lines[1].text), window.lines[1].cut) == (LINE_LIMIT, 50_000_000 - LINE_LIMIT)
    assert window.lines[2].text == "after"


def test_search_ignores_case_and_colours() -> None:
    data = b"ok\n\x1b[31mFail\x1b[0mure here\nfine\nFAILURE again\n"
    hits = LogIndex(Bytes(data), 1).search("failure", 1, 10)
    assert ([hit.n for hit in hits.hits], hits.next, hits.total) == ([2, 4], None, 4)


def test_search_goes_on_where_it_stopped() -> None:
    index = LogIndex(Bytes(b"hit\n" * 10), 1)
    first = index.search("hit", 1, 4)
    assert ([hit.n for hit in first.hits], first.next) == ([1, 2, 3, 4], 5)
    assert first.next is not None
    assert [hit.n for hit in index.search("hit", first.next, 100).hits] == [5, 6, 7, 8, 9, 10]
    assert index.search("hit", 11, 5).hits == ()


MARK = "seatrial: unit a failed"


@pytest.mark.parametrize("most", [10_000_000, 300_000])
def test_the_newest_line_of_many_is_found_without_reading_the_log_twice(most: int) -> None:
    near = f"not {MARK}\n{MARK} twice\n".encode()
    reader = Bytes(f"{MARK}\n".encode() * (4 * READ // 24) + near * 1_000, most)
    index = LogIndex(reader, 1)
    index.total()
    once = reader.read
    assert index.last(MARK) == 4 * READ // 24
    assert reader.read - once <= len(reader.data)


def test_a_line_that_was_looked_for_is_not_looked_for_again_before_the_log_grows() -> None:
    reader = Bytes(f"{MARK}\n".encode() + b"x\n" * 1_000_000)
    index = LogIndex(reader, 1)
    assert index.last(MARK) == 1
    once = reader.read
    assert index.last(MARK) == 1
    assert reader.read - once < BLOCK
    reader.data += f"{MARK}\n".encode()
    assert index.last(MARK) == 1_000_002


def test_several_who_look_for_the_same_line_at_once_have_it_read_once() -> None:
    reader = Bytes(f"{MARK}\n".encode() + b"x\n" * 2_000_000)
    index = LogIndex(reader, 1)
    index.total()
    once = reader.read
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(index.last, [MARK] * 8)) == [1] * 8
    assert reader.read - once <= len(reader.data)


@pytest.mark.parametrize("shift", range(-len(MARK) - 3, 3))
def test_a_line_across_the_end_of_a_piece_is_found(shift: int) -> None:
    data = b"\n" * (READ + shift) + f"{MARK}\n".encode() + b"more\n" * 10
    assert LogIndex(Bytes(data), 1).last(MARK) == READ + shift + 1


@pytest.mark.parametrize(
    ("data", "number"),
    [
        ("", None),
        ("seatrial: unit a failed", 1),
        ("seatrial: unit a failed\n", 1),
        ("x\nseatrial: unit a failed\ny\n", 2),
        ("x\n50 %\rseatrial: unit a failed\n", 2),
        ("\rseatrial: unit a failed", 1),
        ("seatrial: unit a failed\ny\nseatrial: unit a failed\nz", 3),
        ("x seatrial: unit a failed\nseatrial: unit a failed twice\nseatrial: unit A failed\n", None),
    ],
)
def test_the_newest_of_the_lines_that_are_the_text(data: str, number: int | None) -> None:
    assert LogIndex(Bytes(data.encode()), 1).last(MARK) == number


def test_a_line_further_from_the_end_than_the_limit_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loglines, "SEARCH_LIMIT", 2 * READ)
    reader = Bytes(f"{MARK}\n".encode() + b"x\n" * READ)
    index = LogIndex(reader, 1)
    index.total()
    once = reader.read
    assert index.last(MARK) is None
    assert reader.read - once <= 2 * READ
    reader.data += f"{MARK}\n".encode()
    assert index.last(MARK) == READ + 2


def test_few_indexes_are_kept() -> None:
    indexes = LogIndexes(Bytes(b"a\n"))
    first = indexes.of(1)
    assert indexes.of(1) is first
    for task in range(2, 400):
        indexes.of(task)
    assert indexes.of(1) is not first
