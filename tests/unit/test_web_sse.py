"""Pieces of logs as events: whatever the bytes are and however they are cut, a client gets back exactly them."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from web.sse import LINE_END, event, log_event, portion


def received(events: bytes) -> bytes:
    """Read log events as a client does: lines end with CR, LF or both; a space after the colon is not data."""
    found = b""
    for block in events.removesuffix(b"\n\n").split(b"\n\nevent: "):
        assert b"\r" not in block
        lines = [line for line in block.split(b"\n") if line.startswith(b"data:")]
        head, *text = [line.removeprefix(b"data:").removeprefix(b" ") for line in lines]
        told = json.loads(head)
        assert (told["task"], told["offset"]) == (7, len(found))
        found += base64.b64decode(told["base64"]) if "base64" in told else b"\n".join(text).replace(LINE_END, b"\n")
    return found


def sent(data: bytes) -> bytes:
    events, at = b"", 0
    while at < len(data):
        size, text = portion(data[at:])
        assert size > 0
        events += b"".join(log_event(7, at, data[at : at + size], text))
        at += size
    return events


@given(st.one_of(st.binary(min_size=1), st.text(min_size=1).map(lambda text: text.encode("utf-8", "surrogatepass"))))
@example(b"\n\n")
@example(b" led by a blank\n  two\n")
@example(b"data: {}\n\nevent: end\ndata: {}\n\n")
@example(b"\x1f\n\x1f")
@example("\u2028 \x85 \x0b \x1c \0 are no ends of lines\n".encode())
def test_every_byte_comes_back(data: bytes) -> None:
    assert received(sent(data)) == data


@given(st.text(alphabet=st.characters(exclude_characters="\r\x1f", exclude_categories=["Cs"]), min_size=1))
def test_text_goes_as_text(text: str) -> None:
    data = text.encode()
    assert portion(data) == (len(data), True)
    assert b"base64" not in log_event(7, 0, data, True)[0]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"plain\n", (6, True)),
        ("größer".encode()[:3], (2, True)),  # an ö whose second half is to come
        ("größer".encode()[3:], (1, False)),  # and that half
        ("🚢".encode()[:3], (3, False)),
        ("🚢".encode()[1:], (3, False)),
        (b"ok \xff\xfe\n", (6, False)),
        (b"\x80" * 9, (3, False)),
        (b"50 %\r100 %\n", (11, False)),
        (b"a\x1fb\n", (4, False)),
    ],
)
def test_what_is_sent_next(data: bytes, expected: tuple[int, bool]) -> None:
    assert portion(data) == expected


def test_other_events_are_one_line() -> None:
    assert event("end", "{}") == b"event: end\ndata: {}\n\n"
