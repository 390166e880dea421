"""Where a viewer stands in a run: the last event seen and a byte offset in each task's log. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from runner.errors import RequestError
from web.schemas import MAX_ID

_PLACE = r"(?:[0-9a-f]{1,16}-)?[0-9a-f]{1,16}"
_SHAPE = re.compile(rf"^(\d{{1,19}})~({_PLACE}(?:\.{_PLACE})*)?$", re.ASCII)
# As it was written once; an open page or a script may still hold one.
_LONG = re.compile(r"^(\d{1,19});((?:\d{1,19}:\d{1,19})(?:,\d{1,19}:\d{1,19})*)?$", re.ASCII)


@dataclass
class Cursor:
    """A place in a run; opaque to clients. Tasks that it does not name are at their beginning."""

    event: int = 0
    offsets: dict[int, int] = field(default_factory=dict)

    def __str__(self) -> str:
        """Write it so short that those of a thousand tasks fit into a request line, and without what is quoted there.

        After the event come the offsets in the order of the tasks, in hexadecimal digits, each with how far its task's
        number is from the one before, unless that is 1. What is at its beginning is left out.
        """
        places, before = [], 0
        for task, offset in sorted(self.offsets.items()):
            if offset:
                places.append(f"{offset:x}" if task == before + 1 else f"{task - before:x}-{offset:x}")
                before = task
        return f"{self.event}~{'.'.join(places)}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read what `str` wrote; raises RequestError for anything else."""
        text = text.strip()
        if match := _SHAPE.match(text):
            cursor, task = cls(int(match[1])), 0
            for place in match[2].split(".") if match[2] else []:
                gap, _, offset = place.rpartition("-")
                task += int(gap or "1", 16)
                cursor.offsets[task] = int(offset, 16)
        elif match := _LONG.match(text):
            pairs = [place.split(":") for place in match[2].split(",")] if match[2] else []
            cursor = cls(int(match[1]), {int(task): int(offset) for task, offset in pairs})
        else:
            raise _refused(text)
        if max([cursor.event, *cursor.offsets, *cursor.offsets.values()]) > MAX_ID:
            raise _refused(text)
        return cursor


def _refused(text: str) -> RequestError:
    return RequestError(
        "That is not a cursor of this stream.",
        field="Last-Event-ID",
        value=text[:200],
        remedy="Give the id of an event of this stream, or none to begin at the beginning.",
    )
