"""A piece of a log as a server-sent event: as text where it is text, in base64 where it is not. Pure."""

from __future__ import annotations

from binascii import b2a_base64

# The bytes of one event. Small enough for a processor's cache: larger ones were measured to be slower, not faster.
CHUNK = 65_536

# Stands for a line's end in an event's text ("unit separator"; clients that split lines as Python does leave it alone).
# A `data:` before each line, as the format has it otherwise, costs as much as all the rest of an event.
LINE_END = b"\x1f"


def portion(data: bytes) -> tuple[int, bool]:
    """Tell how many of the bytes are sent next, and whether they go as text.

    Text is UTF-8 that begins and ends at a character's boundary, has no carriage return, which would end a line of the
    event, and no LINE_END. After text that is shorter than `data` comes the beginning of a character whose rest may follow.
    """
    if b"\r" in data or LINE_END in data:
        return len(data), False
    if data.isascii():
        return len(data), True
    begun = 0  # bytes that belong to a character which began before
    while begun < min(3, len(data)) and data[begun] & 0xC0 == 0x80:
        begun += 1
    if begun:
        return begun, False
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data" and error.start > 0:
            return error.start, True
        return len(data), False
    return len(data), True


def log_event(task: int, offset: int, data: bytes, text: bool) -> tuple[bytes, bytes, bytes]:
    """Write bytes of a log as an event without its id; in parts, so that they are joined with one copy."""
    if text:
        head = b'event: log\ndata: {"task":%d,"offset":%d}\ndata: ' % (task, offset)
        return head, data.replace(b"\n", LINE_END), b"\n\n"
    head = b'event: log\ndata: {"task":%d,"offset":%d,"base64":"' % (task, offset)
    return head, b2a_base64(data, newline=False), b'"}\n\n'


def event(kind: str, data: str) -> bytes:
    """Write an event without its id; `data` is JSON in one line."""
    return f"event: {kind}\ndata: {data}\n\n".encode()
