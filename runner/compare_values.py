"""Two cells whose texts differ: close enough, written otherwise, or another value."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Context, Decimal
from functools import lru_cache
from typing import NamedTuple

from runner.comparison import Change, Leniency

# An empty text, as it stands in CSV and JSON; in CSV a cell without anything is null.
EMPTY = '""'
# What exports write for "nothing". None is a cell that is not there at all.
NULLS = frozenset({None, "", EMPTY, "NULL", "null", "Null", "\\N", "None", "nil"})

# Leading zeros make it a code, not a number: 007 and 7 are different. More digits than these are text as well.
_PLAIN = re.compile(r"-?(?:(?:0|[1-9][0-9]{0,299})(?:\.[0-9]{1,300})?|\.[0-9]{1,300})(?:[eE][+-]?[0-9]{1,4})?")
_GROUPED = re.compile(r"-?[1-9][0-9]{0,2}(?:,[0-9]{3}){1,99}(?:\.[0-9]{1,300})?")
_WORDS = {
    "nan": "NaN",
    "inf": "Infinity",
    "+inf": "Infinity",
    "-inf": "-Infinity",
    "infinity": "Infinity",
    "+infinity": "Infinity",
    "-infinity": "-Infinity",
}
_LONGEST = 1_000
_DATE = re.compile(
    r"([0-9]{4})([-/.]?)([0-9]{1,2})\2([0-9]{1,2})"
    r"(?:[T ]([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?[ ]?(Z|UTC|[+-][0-9]{2}(?::?[0-9]{2})?)?)?"
)
# No trap: what is no number any more (inf - inf) is NaN, not an exception.
_MATHS = Context(prec=40, Emax=999_999, Emin=-999_999, traps=[])


class Number(NamedTuple):
    """A number and the marks it is written with: separators, a plus, full-width digits, spaces around."""

    value: Decimal
    marks: str


class Judged(NamedTuple):
    """How two cells differ; with `leniency` they are equal within the rule. `delta` is b - a."""

    change: Change
    leniency: Leniency | None = None
    delta: float | None = None
    relative: float | None = None


@dataclass(frozen=True)
class Limits:
    """How far a column's numbers may be apart, and which forms do not matter (numbers, dates, nulls, text)."""

    absolute: Decimal = Decimal(0)
    relative: Decimal = Decimal(0)
    lenient: frozenset[str] = frozenset()

    @property
    def tolerant(self) -> bool:
        """Whether numbers are compared as numbers."""
        return bool(self.absolute or self.relative)


def judge(a: str | None, b: str | None, limits: Limits) -> Judged:
    """Tell how two cells with different texts differ."""
    if a in NULLS or b in NULLS:
        if a in NULLS and b in NULLS:
            return Judged(Change.NULL, Leniency.NULL_FORMAT if "nulls" in limits.lenient else None)
        return Judged(Change.VALUE)
    assert a is not None
    assert b is not None
    first, second = read_number(a), read_number(b)
    if first is not None and second is not None:
        return _numbers(first, second, limits)
    if first is None or second is None:
        before, after = read_date(a), read_date(b)
        if before is not None and after is not None:
            if before == after:
                return Judged(Change.FORMAT, Leniency.DATE_FORMAT if "dates" in limits.lenient else None)
            return Judged(Change.VALUE)
        if _tidy(a) == _tidy(b):
            return Judged(Change.FORMAT, Leniency.TEXT_FORMAT if "text" in limits.lenient else None)
        if (first is None) is not (second is None) or (before is None) is not (after is None):
            return Judged(Change.TYPE)
    return Judged(Change.VALUE)


def judge_json(a: str | None, b: str | None, limits: Limits) -> Judged:
    """Do the same with cells that are JSON texts, where types are written: 1 is not "1"."""
    if a is None or b is None or a in NULLS or b in NULLS:
        return judge(a, b, limits)
    if _kind(a) != _kind(b):
        return Judged(Change.TYPE)
    return judge(a[1:-1], b[1:-1], limits) if _kind(a) == "text" else judge(a, b, limits)


def judge_of(format: str) -> Callable[[str | None, str | None, Limits], Judged]:  # noqa: A002 - it is the word
    """Give the judge of a format's cells."""
    return judge_json if format == "jsonl" else judge


@lru_cache(maxsize=1 << 14)
def read_number(text: str) -> Number | None:
    """Read a number in a form that programs write; None when it is none."""
    if len(text) > _LONGEST:
        return None
    if text and _PLAIN.fullmatch(text):
        return Number(Decimal(text), "")
    bare, marks = text.strip(), ""
    if bare != text:
        marks += " "
    if not bare.isascii():
        folded = unicodedata.normalize("NFKC", bare).replace("\u2212", "-")
        if folded == bare or not folded.isascii():
            return None
        bare, marks = folded, marks + "w"
    if bare[:1] == "+":
        bare, marks = bare[1:], marks + "+"
    if _GROUPED.fullmatch(bare):
        bare, marks = bare.replace(",", ""), marks + ","
    if bare and _PLAIN.fullmatch(bare):
        return Number(Decimal(bare), marks)
    word = _WORDS.get(bare.lower()) if len(bare) <= len("-infinity") else None
    return Number(Decimal(word), marks) if word else None


def read_date(text: str) -> tuple[bool, datetime, str] | None:
    """Read a date or time, year first; (whether it has a zone, the moment, what of its fraction is finer) or None."""
    if not 8 <= len(text) <= 40 or not (found := _DATE.fullmatch(text.strip())):
        return None
    year, mark, month, day, hour, minute, second, fraction, zone = found.groups()
    if not mark and len(month + day) != 4:
        return None
    try:
        moment = datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=UTC
        )
    except ValueError:
        return None
    moment = moment.replace(microsecond=int((fraction or "").ljust(6, "0")[:6] or 0))
    if zone and zone[0] in "+-":
        digits = zone[1:].replace(":", "").ljust(4, "0")
        offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
        if offset >= timedelta(hours=24):
            return None
        try:
            moment = moment.replace(tzinfo=timezone(-offset if zone[0] == "-" else offset)).astimezone(UTC)
        except OverflowError:
            return None
    return bool(zone), moment, (fraction or "")[6:].rstrip("0")


def plain_form(text: str | None) -> str | None:
    """Give a cell in one form for all that mean the same, by which keys find each other."""
    if text is None or text in NULLS:
        return None
    if text.isascii() and (text.isalpha() or (text.isdigit() and (text[0] != "0" or text == "0"))):
        return text
    number = read_number(text)
    if number is not None and number.value.is_finite():
        value = number.value
        whole = abs(value.adjusted()) < _LONGEST and value == value.to_integral_value()
        return str(int(value)) if whole else str(value.normalize(_MATHS))
    date = read_date(text)
    return date[1].isoformat() + date[2] if date is not None else _tidy(text)


def _numbers(a: Number, b: Number, limits: Limits) -> Judged:
    if a.value.is_nan() or b.value.is_nan():
        if a.value.is_nan() and b.value.is_nan():
            return Judged(Change.FORMAT, Leniency.NUMBER_FORMAT if "numbers" in limits.lenient else None)
        return Judged(Change.VALUE)
    alike = a.marks == b.marks or "numbers" in limits.lenient
    if a.value == b.value:
        allowed = alike and (limits.tolerant or "numbers" in limits.lenient)
        return Judged(Change.FORMAT, Leniency.NUMBER_FORMAT if allowed else None, 0.0, 0.0)
    delta = _MATHS.subtract(b.value, a.value)
    size = abs(delta)
    larger = max(abs(a.value), abs(b.value))
    relative = _MATHS.divide(size, larger)
    within = size.is_finite() and (size <= limits.absolute or size <= _MATHS.multiply(limits.relative, larger))
    leniency = Leniency.TOLERANCE if alike and within else None
    return Judged(Change.VALUE, leniency, float(delta), None if relative.is_nan() else float(relative))


def _tidy(text: str) -> str:
    """Drop spaces around and differences between Unicode's forms of the same text."""
    return unicodedata.normalize("NFKC", text).strip()


def _kind(text: str) -> str:
    first = text[0]
    return "text" if first == '"' else "table" if first in "{[" else "word" if first in "tfn" else "number"
