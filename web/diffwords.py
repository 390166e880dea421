"""Classes, changes and verdicts of compare runs in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jobs.comparing import HARMFUL, HARMLESS, Compared, UnitClass
from web.present import Badge
from web.words import number, plural

if TYPE_CHECKING:
    from jobs.accepting import Acceptance
    from jobs.causes import Cause
    from jobs.grouping import Group
    from jobs.run import Run

_K = UnitClass
MINUS = "\u2212"

# The look is chosen by the class itself; these are the words, for one unit and for many.
CLASSES: Mapping[UnitClass, str] = {
    _K.DIFFERENT: "Different",
    _K.CANDIDATE_FAILED: "Failed on the candidate",
    _K.BASELINE_FAILED: "Failed on the baseline",
    _K.BOTH_FAILED: "Failed on both",
    _K.MISSING: "Missing",
    _K.NEW: "New",
    _K.EQUIVALENT: "Equivalent",
    _K.SAME: "Same",
}
_COUNTED: Mapping[UnitClass, str] = {
    _K.DIFFERENT: "different",
    _K.CANDIDATE_FAILED: "failed on the candidate",
    _K.BASELINE_FAILED: "failed on the baseline",
    _K.BOTH_FAILED: "failed on both legs",
    _K.MISSING: "missing on the candidate",
    _K.NEW: "new on the candidate",
    _K.EQUIVALENT: "within the rules",
    _K.SAME: "the same bytes",
}
# The icon of a badge and a page's title stand for a class by these.
_KINDS: Mapping[UnitClass, str] = {
    _K.DIFFERENT: "different",
    _K.CANDIDATE_FAILED: "failed",
    _K.BASELINE_FAILED: "failed",
    _K.BOTH_FAILED: "failed",
    _K.MISSING: "errored",
    _K.NEW: "running",
    _K.EQUIVALENT: "passed",
    _K.SAME: "passed",
}

LENIENCIES: Mapping[str, str] = {
    "encoding": "another encoding",
    "bom": "a byte order mark",
    "line_ends": "other line ends",
    "blank_lines": "blank lines",
    "final_newline": "a newline at the end",
    "delimiter": "another delimiter",
    "writing": "the same values, written otherwise",
    "row_order": "another order of rows",
    "column_order": "another order of columns",
    "ignored_columns": "ignored columns",
    "tolerance": "numbers within the tolerance",
    "number_format": "numbers written otherwise",
    "date_format": "dates written otherwise",
    "null_format": "null and empty",
    "text_format": "text written otherwise",
}

CHANGES: Mapping[str, str] = {
    "value": "Value",
    "type": "Type",
    "null": "Null or empty",
    "format": "Format",
    "removed": "Row removed",
    "added": "Row added",
}


def badge(kind: UnitClass) -> Badge:
    """Give the badge of a class."""
    return Badge(_KINDS[kind], CLASSES[kind])


def counted(counts: Mapping[UnitClass, int], kinds: Sequence[UnitClass]) -> str:
    """List how many units are of each of these classes: 10 different, 2 failed on the candidate."""
    return ", ".join(f"{number(counts[kind])} {_COUNTED[kind]}" for kind in kinds if counts.get(kind))


def verdict(counts: Mapping[UnitClass, int], run: Run | None = None, noisy: int = 0) -> str:
    """Say in one sentence what a compare run came to.

    `run` tells how many units are accepted; `noisy` ones are different by noise alone.
    """
    total = sum(counts.values())
    counts = {**counts, _K.DIFFERENT: counts.get(_K.DIFFERENT, 0) - noisy}
    does = "differs" if noisy == 1 else "differ"
    rest = f"{plural(noisy, 'unit')} {does} only as two runs of the baseline do" if noisy else ""
    harmful = sum(counts.get(kind, 0) for kind in HARMFUL)
    if harmful:
        kinds = [kind for kind in CLASSES if kind in HARMFUL]
        words = f"{number(harmful)} of {plural(total, 'unit')}: {counted(counts, kinds)}"
        if run is not None and run.units_accepted:
            all_are = run.units_accepted >= harmful
            words = f"with {accepted(run)}; {words}" if all_are else f"{words}; of these, {accepted(run)}"
        return f"{words}; {rest}" if rest else words
    if not total:
        return "there was no unit to compare"
    new = f"{number(counts[_K.NEW])} new on the candidate" if counts.get(_K.NEW) else ""
    parts = [_alike(counts), rest, new]
    if not parts[0] and not rest:
        parts[0] = "no unit is on both legs"
    return "; ".join(part for part in parts if part)


def _alike(counts: Mapping[UnitClass, int]) -> str:
    """Say how many units have the same figures; empty when none has."""
    alike = counts.get(_K.SAME, 0) + counts.get(_K.EQUIVALENT, 0)
    if not alike:
        return ""
    words = f"{plural(alike, 'unit')} {'has' if alike == 1 else 'have'} the same figures"
    if not counts.get(_K.EQUIVALENT):
        return f"{words}, byte for byte"
    return f"{words}: {counted(counts, (_K.SAME, _K.EQUIVALENT))}"


def accepted(run: Run) -> str:
    """Say how much of a compare run is accepted: 40 units accepted in 2 groups."""
    return f"{plural(run.units_accepted, 'unit')} accepted in {plural(run.groups_accepted, 'group')}"


def change(found: Group | Acceptance) -> str:
    """Write the one number that explains a group of numbers: +0.5 %, or by 12.5; empty where there is none."""
    parts = []
    if found.ratio is not None:
        parts.append(f"{'+' if found.ratio >= 1 else MINUS}{percent(abs(found.ratio - 1))}")
    if found.offset is not None:
        parts.append(f"by {delta(found.offset)}")
    return " or ".join(parts)


def counted_in(cause: Cause) -> str:
    """Name what a cause counts: rows, files or cells."""
    return {"added_rows": "row", "removed_rows": "row", "files": "file"}.get(cause.what, "cell")


def parts(found: Group) -> str:
    """Say which way the numbers of a group's units went: 4 units both ways, 1 only up; empty where it is one cause."""
    ways = {"mixed": "both ways", "up": "only up", "down": "only down"}
    return ", ".join(f"{plural(one.units, 'unit')} {ways[one.cause.sign or '']}" for one in found.parts)


def proof(counts: Mapping[UnitClass, int]) -> str:
    """Say what it rests on that nothing differs."""
    same, alike = counts.get(_K.SAME, 0), counts.get(_K.EQUIVALENT, 0)
    parts = []
    if same:
        parts.append(f"{plural(same, 'unit')}: the same bytes, so no file was read.")
    if alike:
        parts.append(f"{plural(alike, 'unit')}: read, and within the rules.")
    return " ".join(parts)


def why(found: Compared) -> str:
    """Say in words why a unit has its class."""
    summary = found.summary
    if found.kind is _K.SAME:
        return "Both outputs are the same bytes, so no file was read."
    if found.kind is _K.MISSING:
        return "Only the baseline lists this unit: the candidate does not make it any more."
    if found.kind is _K.NEW:
        return "Only the candidate lists this unit, so there is nothing that it could be compared with."
    if found.kind is _K.BOTH_FAILED:
        return "It failed on both legs, which proves nothing about the candidate."
    if found.kind is _K.CANDIDATE_FAILED:
        return "The baseline has an output, and the candidate failed."
    if found.kind is _K.BASELINE_FAILED:
        return "The baseline failed, so there is nothing that the candidate's output could be compared with."
    rule = rule_words(summary)
    overlooked = ", ".join(LENIENCIES.get(one, one) for one in leniencies(summary))
    if found.kind is _K.EQUIVALENT:
        return f"The bytes differ, the figures do not: {overlooked or 'the rows are the same'}. {rule}"
    noise = (
        " All of that moves between two runs of the baseline too, so it is left out of the verdict."
        if found.noisy
        else ""
    )
    return f"{rows_words(summary) or 'The bytes differ.'} {rule}{noise}"


def rule_words(summary: Mapping[str, Any]) -> str:
    """Say which rule held."""
    rules = sorted({str(file["rule"]) for file in files(summary) if file.get("rule")})
    if not rules:
        return "No rule matches it: rows are compared without any tolerance."
    return f"By the rule {' and '.join(rules)}." if len(rules) == 1 else f"By the rules {', '.join(rules)}."


def rows_words(summary: Mapping[str, Any]) -> str:
    """Count what became of the rows; empty where no rows were read."""
    rows = summary.get("rows") or {}
    parts = [f"{plural(rows[what], 'row')} {what}" for what in ("changed", "added", "removed") if rows.get(what)]
    lone = summary.get("files", {})
    parts += [f"{plural(len(lone[what]), 'file')} {what}" for what in ("missing", "new") if lone.get(what)]
    changed = _columns(summary)
    if not parts and not changed:
        return ""
    text = "; ".join(part for part in (", ".join(parts), changed) if part)
    if rows.get("same"):
        text += f"; {plural(rows['same'], 'row')} the same"
    return text + "."


def _columns(summary: Mapping[str, Any]) -> str:
    words = []
    for what in ("added", "removed"):
        names = [name for file in files(summary) for name in file.get("columns", {}).get(what, ())]
        if names:
            words.append(f"column{'s' if len(names) > 1 else ''} {what}: {', '.join(names[:5])}")
    words += [
        f"{one['column']} was {one['a']}, is {one['b']}"
        for file in files(summary)
        for one in file.get("columns", {}).get("types", ())
    ]
    return "; ".join(words)


def files(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Give what was found in each file of a unit's output."""
    return list(summary.get("results", [summary]))


def leniencies(summary: Mapping[str, Any]) -> list[str]:
    """Name what had to be overlooked, each once."""
    return list(dict.fromkeys(one for file in files(summary) for one in file.get("leniencies", ())))


def harmless(kind: UnitClass) -> bool:
    """Tell whether a class speaks for the candidate."""
    return kind in HARMLESS


def delta(value: Any) -> str:
    """Write a delta with its sign, grouped: +1 250.5, −0.005."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return ("+" if value > 0 else "\u2212" if value < 0 else "") + amount(abs(value))


def amount(value: float | None) -> str:
    """Write a size, grouped, with as many digits as matter."""
    if value is None:
        return ""
    if value and (value < 1e-6 or value >= 1e15):
        return f"{value:.4g}"
    text = f"{value:,.10g}" if "e" not in f"{value:.10g}" else f"{value:,.6f}".rstrip("0").rstrip(".")
    return text.replace(",", "\u202f")


def percent(value: Any) -> str:
    """Write a relative difference."""
    if value is None or isinstance(value, str):
        return str(value or "")
    share = value * 100
    if share and share < 0.001:
        return f"{share:.1e}\u202f%"
    return f"{share:.3g}\u202f%" if share < 1_000 else f"{amount(round(share))}\u202f%"


def marked(a: str | None, b: str | None) -> tuple[tuple[str, str, str], tuple[str, str, str]]:
    """Part two texts into what both begin with, what differs, and what both end with."""
    one, other = a or "", b or ""
    head = 0
    while head < min(len(one), len(other)) and one[head] == other[head]:
        head += 1
    tail = 0
    numbers = _is_number(one) and _is_number(other)  # the last digits of two numbers are alike by chance
    while not numbers and tail < min(len(one), len(other)) - head and one[-1 - tail] == other[-1 - tail]:
        tail += 1
    return (
        (one[:head], one[head : len(one) - tail], one[len(one) - tail :]),
        (other[:head], other[head : len(other) - tail], other[len(other) - tail :]),
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
