"""Sizes and durations as people write them: `512m`, `1.5g`, `90s`, `1h30m`."""

from __future__ import annotations

import math
import re
from fractions import Fraction

SIZE_HINT = "write it as 512m, 4g or 1.5t (k, m, g, t are powers of 1,024), or as a whole number of bytes"
DURATION_HINT = "write it as 90s, 20m, 6h, 1h30m or 100ms"

_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) ?(?:([kmgt])i?b?|b)?", re.IGNORECASE)
_SIZE_FACTORS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

_DURATION = re.compile(
    r"(?:(?P<d>N)d)? ?(?:(?P<h>N)h)? ?(?:(?P<m>N)m(?!s))? ?(?:(?P<s>N)s)? ?(?:(?P<ms>N)ms)?".replace(
        "N", r"[0-9]{1,15}(?:\.[0-9]{1,9})?"
    )
)
_BARE_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
_SECONDS = {
    "d": Fraction(86_400),
    "h": Fraction(3_600),
    "m": Fraction(60),
    "s": Fraction(1),
    "ms": Fraction(1, 1_000),
}


class QuantityError(ValueError):
    """The text is not a size or a duration; the message says what would be."""


def parse_size(text: str | int) -> int:
    """Give the size in bytes, parts of a byte dropped; raises QuantityError."""
    if isinstance(text, int) and not isinstance(text, bool):
        if text < 0:
            raise QuantityError(f"a size cannot be negative; {SIZE_HINT}")
        return text
    match = _SIZE.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise QuantityError(f"is not a size; {SIZE_HINT}")
    return int(Fraction(match[1]) * _SIZE_FACTORS[(match[2] or "").lower()])


def parse_duration(text: str) -> float:
    """Give the duration in seconds; raises QuantityError, for a number without a unit too."""
    if isinstance(text, (int, float)) or (isinstance(text, str) and _BARE_NUMBER.fullmatch(text.strip())):
        raise QuantityError(f"has no unit; {DURATION_HINT}")
    match = _DURATION.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None or not any(match.groups()):
        raise QuantityError(f"is not a duration; {DURATION_HINT}")
    return float(sum(Fraction(number) * _SECONDS[unit] for unit, number in match.groupdict().items() if number))


def format_size(size: int) -> str:
    """Write a size for people, three digits at most before a unit: `0 B`, `512 MiB`, `1.5 GiB`."""
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1_023.5:
            break
        value, unit = value / 1_024, larger
    return f"{value:.1f} {unit}".replace(".0 ", " ") if unit != "B" and abs(value) < 99.95 else f"{value:.0f} {unit}"


def format_duration(seconds: float) -> str:
    """Write a duration for people, in its two largest units: `450ms`, `3.2s`, `12m 5s`, `6h`, `2d 3h`.

    A negative one, as two clocks can make it, is shown as `0s`; raises ValueError for NaN and infinity.
    """
    if not math.isfinite(seconds):
        raise ValueError(f"not a finite number of seconds: {seconds}")
    if seconds < 0.000_5:
        return "0s"
    if seconds < 0.999_5:
        return f"{seconds * 1_000:.0f}ms"
    if seconds < 9.95:
        return f"{seconds:.1f}s".replace(".0s", "s")
    # Rounded at the unit that is shown last, so that 59 m 59.6 s becomes 1h and never 59m 60s.
    for large, small, ratio in (("m", "s", 60), ("h", "m", 60), ("d", "h", 24)):
        whole = round(seconds / float(_SECONDS[small]))
        if large == "d" or whole < ratio * (24 if large == "h" else 60):
            break
    first, rest = divmod(whole, ratio)
    return " ".join(part for part in (f"{first}{large}" if first else "", f"{rest}{small}" if rest else "") if part)
