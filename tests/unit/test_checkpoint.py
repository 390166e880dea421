"""The checkpoint file: whatever bytes come, in whatever pieces."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.checkpoint import LINE_BYTES, NAMED, CheckpointParser, Mark
from runner.model import UnitState

KNOWN = frozenset({"a", "b", "tenant_1/pl"})


def parse(*pieces: bytes, known: frozenset[str] | None = KNOWN) -> tuple[list[Mark], list[str], CheckpointParser]:
    parser = CheckpointParser(known)
    marks = [mark for piece in pieces for mark in parser.feed(piece)]
    parser.finish()
    return marks, parser.take_problems(), parser


def test_marks_in_their_order_with_their_offsets() -> None:
    marks, problems, _ = parse(b"a\ntenant_1/pl\r\nb\tfailed\tno\tway\n")
    assert marks == [
        Mark("a", UnitState.DONE, "", 2),
        Mark("tenant_1/pl", UnitState.DONE, "", 15),
        Mark("b", UnitState.FAILED, "no\tway", 31),
    ]
    assert problems == []


def test_half_a_line_waits_for_its_rest() -> None:
    marks, problems, _ = parse(b"ten", b"ant_1", b"/pl", b"\n")
    assert [mark.unit for mark in marks] == ["tenant_1/pl"]
    assert problems == []


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"c\n", "no such unit in SEATRIAL_UNITS: 'c'"),
        (b"a\na\n", "marked twice: 'a'"),
        (b"a", "the last line has no newline and does not count: 'a'"),
        (b"a\x00\n", "NUL"),
        (b"\xff\xfe\n", "not UTF-8"),
        (b"a\tdubious\n", "after a unit comes nothing or `failed`"),
        (b"x" * (LINE_BYTES + 1) + b"\n", "more than 65,536 bytes"),
        (b" a\n", "no such unit"),
    ],
)
def test_what_is_wrong_is_named_and_stops_nothing(data: bytes, problem: str) -> None:
    marks, problems, _ = parse(
        data.removesuffix(b"a") if data == b"a" else data, b"b\n" if data.endswith(b"\n") else b"a"
    )
    assert any(problem in text for text in problems), problems
    if data.endswith(b"\n"):
        assert marks[-1].unit == "b"


def test_a_long_line_in_pieces_costs_no_memory_and_is_left_out_whole() -> None:
    marks, problems, parser = parse(*[b"y" * 40_000] * 10, b"tail\na\n")
    assert [mark.unit for mark in marks] == ["a"]
    assert len(problems) == 1
    assert len(parser._rest) == 0
    assert marks[0].end == 400_000 + 7


def test_many_wrong_lines_are_counted_and_some_named() -> None:
    _, problems, _ = parse(b"nobody\n" * 1000)
    assert len(problems) == NAMED + 2
    assert problems[-1] == "checkpoint: 1,000 lines are wrong in all"


def test_a_script_without_units_may_write_any_token() -> None:
    marks, problems, parser = parse(b"page 7\tof 9\npage 7\tof 9\n\n", known=None)
    assert [mark.unit for mark in marks] == ["page 7\tof 9"] * 2
    assert problems == []
    assert not parser._seen, "tokens are not remembered: there may be millions"


def test_begin_again_after_a_truncation() -> None:
    parser = CheckpointParser(KNOWN)
    parser.feed(b"a\nhal")
    parser.restart()
    assert [(mark.unit, mark.end) for mark in parser.feed(b"b\n")] == [("b", 2)]


@given(st.lists(st.binary(max_size=200), max_size=20), st.booleans())
def test_pieces_make_no_difference(pieces: list[bytes], free: bool) -> None:
    data = b"\n".join(pieces) + b"\na\nb\n"
    known = None if free else KNOWN
    cuts = sorted(random.Random(len(data)).sample(range(len(data)), min(5, len(data))))
    parts = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert parse(data, known=known)[0] == parse(*parts, known=known)[0]
    for mark in parse(data, known=known)[0]:
        assert data[mark.end - 1 : mark.end] == b"\n"
