"""Where a viewer stands in a run: the last event seen and a byte offset in each task's log. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from runner.errors import RequestError
from web.schemas import MAX_ID

_SHAPE = re.compile(r"^(\d{1,19});((?:\d{1,19}:\d{1,19})(?:,\d{1,19}:\d{1,19})*)?$", re.ASCII)


@dataclass
class Cursor:
    """A place in a run; opaque to clients. Tasks that it does not name are at their beginning."""

    event: int = 0
    offsets: dict[int, int] = field(default_factory=dict)

    def __str__(self) -> str:
        places = ",".join(f"{task}:{offset}" for task, offset in sorted(self.offsets.items()))
        return f"{self.event};{places}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read what `str` wrote; raises RequestError for anything else."""
        match = _SHAPE.match(text.strip())
        if match is None:
            raise _refused(text)
        pairs = [place.split(":") for place in match[2].split(",")] if match[2] else []
        cursor = cls(int(match[1]), {int(task): int(offset) for task, offset in pairs})
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
