"""Read YAML text into plain values, and know on which line each of them stands.

The subset is what a file of settings needs: YAML 1.2 core scalars (`no` is text), no tags, no directives, no
merge keys, one document. Anchors and aliases work within a limit. What is refused is named with its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from ruamel.yaml.reader import ReaderError

from runner.errors import Problem

MAX_BYTES = 256 * 1024
# A spec of the largest size that makes sense, an explicit list of ten thousand units, stays far below.
MAX_VALUES = 50_000
MAX_DEPTH = 20

# The way from the top of a document to a value in it: keys, and positions in lists.
Steps = tuple[str | int, ...]

_NULL = {"", "~", "null", "Null", "NULL"}
_TRUE = {"true", "True", "TRUE"}
_FALSE = {"false", "False", "FALSE"}
# Neither a process argument nor UTF-8 can hold these; YAML's escapes can.
_UNFIT = re.compile("[\0\ud800-\udfff]")
# int() refuses more than 4,300 digits; no number here needs more than 30 characters, longer ones stay text.
_INT = re.compile(r"[-+]?[0-9]{1,30}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]{1,30}|[0-9]{1,30}(?:\.[0-9]{0,30})?)(?:[eE][-+]?[0-9]{1,3})?")
_SPECIAL = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}


class YamlRefused(Exception):
    """The text cannot be read as YAML of the kind that is allowed."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class Document:
    """A YAML text as dicts, tuples and scalars, with the place of each."""

    def __init__(self, text: str | bytes) -> None:
        """Read; raises YamlRefused. Duplicate keys are collected in `problems`, the first value is kept."""
        self.problems: list[Problem] = []
        self._places: dict[Steps, tuple[int, int]] = {}
        self._anchors: dict[str, tuple[Any, int] | None] = {}
        self._values = 0
        try:
            self._events: Iterator[Event] = YAML(typ="safe", pure=True).parse(_checked(text))
            self.data = self._document()
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            what = error.problem or error.context or "cannot be read"
            raise YamlRefused(_syntax(what, (mark.line, mark.column) if mark else None)) from error
        except ReaderError as error:
            raise YamlRefused(_syntax(f"the character U+{error.character:04X} is not allowed", None)) from error

    def place(self, path: Steps) -> tuple[int | None, int | None]:
        """Give line and column (from 1) of a key or list item, or of the nearest thing around it."""
        while path and path not in self._places:
            path = path[:-1]
        return self._places.get(path, (None, None))

    def _document(self) -> Any:
        data: Any = None
        documents = 0
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _refuse(event, "a second document begins here; only one is allowed: remove the `---`")
                if event.version or event.tags:
                    raise _refuse(event, "directives are not allowed: remove the line that begins with %")
            elif isinstance(event, (MappingStartEvent, SequenceStartEvent, ScalarEvent, AliasEvent)):
                data = self._value(event, ())
            elif isinstance(event, (DocumentEndEvent, StreamEndEvent)):
                continue
        return data

    def _value(self, event: Event, path: Steps) -> Any:
        self._count(event, 1)
        if isinstance(event, AliasEvent):
            return self._alias(event)
        assert isinstance(event, (ScalarEvent, CollectionStartEvent))
        if event.ctag is not None:
            raise _refuse(event, f"tags are not allowed: remove `{shortened(str(event.ctag))}`")
        before = self._values
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        value: Any
        if isinstance(event, ScalarEvent):
            self._fit(event)
            value = _plain(event.value) if event.implicit[0] else event.value
        elif len(path) >= MAX_DEPTH:
            raise _refuse(event, f"nested too deeply: at most {MAX_DEPTH} levels are allowed")
        elif isinstance(event, MappingStartEvent):
            value = self._mapping(path)
        else:
            value = self._sequence(path)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, self._values - before + 1)
        return value

    def _mapping(self, path: Steps) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            if not isinstance(event, ScalarEvent) or event.ctag is not None:
                raise _refuse(event, "a key must be a plain word")
            self._fit(event)
            key = event.value
            if key == "<<" and event.implicit[0]:
                raise _refuse(event, "merge keys (`<<`) are not allowed: write the keys out")
            place = (event.start_mark.line + 1, event.start_mark.column + 1)
            if key in mapping:
                message = f"the key is there twice, first on line {lines[key]}: keep one of them"
                self.problems.append(Problem(dotted((*path, key)), message, None, *place))
                self._value(next(self._events), (*path, key, "duplicate"))
                continue
            self._places[*path, key] = place
            lines[key] = place[0]
            mapping[key] = self._value(next(self._events), (*path, key))
        return mapping

    def _sequence(self, path: Steps) -> tuple[Any, ...]:
        items: list[Any] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            here = (*path, len(items))
            self._places[here] = (event.start_mark.line + 1, event.start_mark.column + 1)
            items.append(self._value(event, here))
        return tuple(items)

    def _alias(self, event: AliasEvent) -> Any:
        if event.anchor not in self._anchors:
            raise _refuse(event, f"there is no anchor `&{shortened(event.anchor)}` before this line")
        if (found := self._anchors[event.anchor]) is None:
            raise _refuse(event, f"`*{shortened(event.anchor)}` is part of what it stands for")
        value, size = found
        self._count(event, size)
        return value

    def _fit(self, event: ScalarEvent) -> None:
        if unfit := _UNFIT.search(event.value):
            raise _refuse(event, f"the character U+{ord(unfit[0]):04X} is not allowed: leave out its escape sequence")

    def _count(self, event: Event, values: int) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise _refuse(event, f"too many values, those of aliases counted: at most {MAX_VALUES:,} are allowed")


def shortened(text: str, limit: int = 80) -> str:
    """Cut a text that is shown in a message, and say so by an ellipsis."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def dotted(path: Steps) -> str:
    """Write a path as people do: `compare.rules[0].match`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _checked(text: str | bytes) -> str:
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if len(raw) > MAX_BYTES:
        message = f"is too large: at most {MAX_BYTES // 1024} KiB are allowed"
        raise YamlRefused(Problem("(file)", message, f"{len(raw):,} bytes"))
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise YamlRefused(Problem("(file)", "is not UTF-8: save the file as UTF-8", None, line)) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise YamlRefused(Problem("(file)", "holds a NUL byte, so it is not a text file", None, line))
    return text.removeprefix("\ufeff")


def _plain(text: str) -> Any:
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) or text.lower() in _SPECIAL:
        return float(_SPECIAL.get(text.lower(), text))
    return text


def _syntax(what: str, place: tuple[int, int] | None) -> Problem:
    line, column = (place[0] + 1, place[1] + 1) if place else (None, None)
    return Problem("(syntax)", f"is not YAML: {what}", None, line, column)


def _refuse(event: Event, message: str) -> YamlRefused:
    return YamlRefused(Problem("(syntax)", message, None, event.start_mark.line + 1, event.start_mark.column + 1))
