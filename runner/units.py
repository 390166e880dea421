"""Units of work: read what a branch says they are, and choose among them."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import translate

from runner.errors import Problem, UnitsError
from runner.spec_yaml import shortened

MAX_CHARACTERS = 512
MAX_SEGMENT = 255
# A unit's output is `<unit>.<extension>`, so its last segment leaves room for one in a file's name.
MAX_LAST_SEGMENT = 240
MAX_PATTERN = 4_096
UNIT_BYTES = 256  # on the average, its line end counted: more than any list has that is not made of blank lines

# Controls, line separators, marks that reorder text, halves of characters, and the backslash.
_REFUSED = re.compile("[\\x00-\\x1f\\x7f-\\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\\\\]")
_ODD_SEGMENT = re.compile(r"(?:^|/)\.{0,2}(?:/|$)")
_REMEDY = "write names such as tenant_042/pl, one a line"


class UnitFilterError(UnitsError):
    """The filter leaves no units to do."""

    code = "units_filter_empty"


def list_bytes(limit: int) -> int:
    """Give how many bytes a list of so many units may have: it is read into memory whole."""
    return max(1 << 20, min(limit * UNIT_BYTES, 512 << 20))


def parse_units(data: bytes, *, limit: int) -> tuple[str, ...]:
    """Read the output of the `units:` command, one unit a line; blank lines are left out.

    Raises UnitsError, which names the first line that is wrong, its value and what to do about it.
    """
    if len(data) > (allowed := list_bytes(limit)):
        raise UnitsError(
            f"The list of units has more than {allowed:,} bytes; {limit:,} units (workspace.limits.units) take less: "
            "print shorter names and no blank lines, or raise the limit."
        )
    return check_units(_lines(data), limit=limit)


def _lines(data: bytes) -> Iterator[tuple[int, str]]:
    """Give the lines that are not blank, one by one: their number may be anything."""
    for number, line in enumerate(io.BytesIO(data), 1):
        if name := line.removesuffix(b"\n"):
            try:
                yield number, name.decode("utf-8")
            except UnicodeDecodeError as error:
                bad = name.decode("utf-8", "backslashreplace")
                raise _error("is not UTF-8: print unit names as UTF-8", bad, number) from error


def check_units(units: Iterable[tuple[int, str]], *, limit: int) -> tuple[str, ...]:
    """Give the units of (line, unit) pairs in their order; raises UnitsError as `parse_units` does."""
    seen: dict[str, int] = {}
    for line, unit in units:
        if message := unit_problem(unit):
            raise _error(message, unit, line)
        if unit in seen:
            raise _error(f"is listed twice, first on line {seen[unit]}: print each unit once", unit, line)
        if len(seen) >= limit:
            allowed = f"{limit:,} units (workspace.limits.units)"
            raise _error(f"is one more than the {allowed} that are allowed: raise the limit or list fewer", unit, line)
        seen[unit] = line
    if not seen:
        message = "is empty: print at least one unit, or leave `units` out of seatrial.yml for a script that is one"
        raise UnitsError(f"The list of units {message}.", problems=(Problem("units", message),))
    return tuple(seen)


def unit_problem(unit: str) -> str | None:
    """Say what is wrong with a unit's name and what to write instead, or None."""
    if not unit or len(unit) > MAX_CHARACTERS:
        return f"has {len(unit):,} characters: 1 to {MAX_CHARACTERS} are allowed; shorten it"
    if refused := _REFUSED.search(unit):
        name = "a backslash" if refused[0] == "\\" else _character(refused[0])
        return f"holds {name}: {'write / between segments' if refused[0] == chr(92) else _REMEDY}"
    if unit.startswith("/"):
        return "is an absolute path: leave out the leading /"
    if _ODD_SEGMENT.search(unit):
        return f"has an empty, `.` or `..` segment: {_REMEDY}"
    if unit != unit.strip():
        return "begins or ends with white space: print the name alone"
    if len(unit) > MAX_LAST_SEGMENT or not unit.isascii():
        sizes = [len(segment.encode()) for segment in unit.split("/")]
        if max(sizes) > MAX_SEGMENT or sizes[-1] > MAX_LAST_SEGMENT:
            allowed = f"{MAX_SEGMENT} bytes are allowed, {MAX_LAST_SEGMENT} in the last one"
            return f"has a segment that is too long: {allowed}; shorten it"
    return None


def filter_units(units: Sequence[str], pattern: str | None) -> tuple[str, ...]:
    """Choose the units that match a filter, in their order; no filter chooses all.

    `pattern`: globs with commas between them (`tenant_00?/*,*/pl`; `*` also matches `/`); one that begins
    with `!` leaves out what it matches, from all units when it stands alone. Raises UnitFilterError when
    nothing is left.
    """
    globs = [part.strip() for part in (pattern or "").split(",") if part.strip(" !")]
    if not globs:
        return tuple(units)
    if len(pattern or "") > MAX_PATTERN:
        raise _filter_error(f"is too long: at most {MAX_PATTERN:,} characters are allowed", pattern or "")
    wanted = _any([part for part in globs if not part.startswith("!")])
    unwanted = _any([part[1:].strip() for part in globs if part.startswith("!")])
    chosen = tuple(
        unit
        for unit in units
        if (wanted is None or wanted.match(unit)) and not (unwanted is not None and unwanted.match(unit))
    )
    if not chosen:
        example = f", the first is {shortened(repr(units[0]))}" if units else ""
        raise _filter_error(
            f"matches none of the {len(units):,} units{example}: change it or leave it empty", pattern or ""
        )
    return chosen


def _any(globs: list[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(translate(part) for part in globs)) if globs else None


def _character(character: str) -> str:
    return f"the control character U+{ord(character):04X}" + (
        f" ({unicodedata.name(character).lower()})" if unicodedata.name(character, "") else ""
    )


def _error(message: str, unit: str, line: int) -> UnitsError:
    problem = Problem("units", message, shortened(repr(unit)), line)
    return UnitsError(
        f"The list of units is not valid: line {line}: {shortened(repr(unit))} {message}.",
        problems=(problem,),
    )


def _filter_error(message: str, pattern: str) -> UnitFilterError:
    given = shortened(repr(pattern))
    return UnitFilterError(f"The unit filter {given} {message}.", problems=(Problem("units", message, given),))
