"""A comparison as text for a terminal: the summary first, then columns, then the largest differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.text import Text

from jobs.cli_show import plain, size
from runner.comparison import Change, Comparison, Difference, Outcome, OutputsComparison

COLOURS = {Outcome.SAME: "green", Outcome.EQUIVALENT: "yellow", Outcome.DIFFERENT: "red"}
# A cell that is longer is cut on the screen; JSON and HTML have all that is kept.
WIDEST = 40
_KINDS = (Change.VALUE, Change.TYPE, Change.NULL, Change.FORMAT)


def file_lines(comparison: Comparison, names: tuple[str, str], limit: int) -> Iterator[Text]:
    """Write the comparison of two files."""
    yield Text.assemble(_outcome(comparison.outcome), f": {plain(names[0])} and {plain(names[1])}")
    yield from _summary(comparison)
    if comparison.changes:
        yield Text()
        yield from _columns(comparison)
    if comparison.differences:
        yield Text()
        yield from _differences([("", difference) for difference in comparison.differences], comparison.found, limit)


def tree_lines(found: OutputsComparison, names: tuple[str, str], limit: int) -> Iterator[Text]:
    """Write the comparison of two directories."""
    yield Text.assemble(_outcome(found.outcome), f": {plain(names[0])} and {plain(names[1])}")
    counts = [f"{found.count(outcome):,} {outcome.value}" for outcome in Outcome]
    counts += [f"{len(found.missing):,} missing", f"{len(found.new):,} new"]
    yield _told("files", ", ".join(counts))
    rows = found.rows()
    if found.files:
        yield _told("rows", _rows(rows.changed, rows.added, rows.removed, rows.same, "in files that were read"))
    for word, paths in (("missing", found.missing), ("new", found.new)):
        yield from (Text.assemble("  ", (word, "red"), f"  {plain(path)}") for path in paths[:limit])
        if len(paths) > limit:
            yield Text(f"  and {len(paths) - limit:,} more {word} files")
    ordered = sorted(found.files, key=lambda file: file[1].outcome is not Outcome.DIFFERENT)
    if ordered:
        yield Text()
        head = ("CLASS", "CHANGED", "ADDED", "REMOVED", "SAME", "LARGEST DELTA", "FILE", "WHY")
        lines = [
            (c.outcome.value, c.rows.changed, c.rows.added, c.rows.removed, c.rows.same, _largest(c), name, _why(c))
            for name, c in ordered[:limit]
        ]
        yield from table(head, lines, right=(1, 2, 3, 4, 5))
        if len(ordered) > limit:
            yield Text(f"  and {len(ordered) - limit:,} more files; --limit shows more")
    differences = sorted(found.each(), key=lambda item: item[1].weight(), reverse=True)
    if differences:
        yield Text()
        yield from _differences(differences, sum(c.found for _, c in found.files), limit)


def table(head: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[int] = ()) -> Iterator[Text]:
    """Write columns, wide characters counted as they are shown."""
    cells = [list(head), *([shortened(cell) for cell in row] for row in rows)]
    widths = [max(cell_len(row[at]) for row in cells) for at in range(len(head))]
    for number, row in enumerate(cells):
        parts = []
        for at, cell in enumerate(row):
            gap = " " * (widths[at] - cell_len(cell))
            parts.append(gap + cell if at in right else cell + gap)
        yield Text("  " + "  ".join(parts).rstrip(), style="bold" if not number else "")


def shortened(cell: object) -> str:
    """Make a cell fit for the screen."""
    text = plain(f"{cell:,}" if isinstance(cell, int) else cell)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def amount(value: float | None) -> str:
    """Write a delta."""
    if value is None:
        return ""
    return f"{value:,.10g}"


def percent(value: float | None) -> str:
    """Write a relative difference."""
    return "" if value is None else f"{value:.3%}" if value >= 1e-5 or not value else f"{value:.1e}"


def _outcome(outcome: Outcome) -> tuple[str, str]:
    return outcome.value, f"bold {COLOURS[outcome]}"


def _told(word: str, text: str) -> Text:
    return Text.assemble("  ", (f"{word:<10}", "dim"), text)


def _rows(changed: int, added: int, removed: int, same: int, where: str = "") -> str:
    return f"{changed:,} changed, {added:,} added, {removed:,} removed, {same:,} same {where}".rstrip()


def _summary(comparison: Comparison) -> Iterator[Text]:
    rows, columns = comparison.rows, comparison.columns
    if comparison.format not in ("", "bytes") or rows.same:
        yield _told("rows", _rows(rows.changed, rows.added, rows.removed, rows.same))
    parts = [
        f"{word}: {', '.join(map(plain, names))}"
        for word, names in (("added", columns.added), ("removed", columns.removed))
        if names
    ]
    parts += ["reordered"] if columns.reordered else []
    parts += [f"{plain(name)} was {a}, is {b}" for name, a, b in columns.types]
    if parts:
        yield _told("columns", "; ".join(parts))
    if comparison.key:
        found = " (found)" if comparison.key_found else ""
        yield _told("key", ", ".join(map(plain, comparison.key)) + found)
    if comparison.rule is not None:
        yield _told("rule", plain(comparison.rule))
    if comparison.leniencies:
        yield _told("within", "the rule: " + ", ".join(leniency.value for leniency in comparison.leniencies))
    if comparison.sizes:
        yield _told("sizes", " and ".join(map(size, comparison.sizes)))
    for note in comparison.notes:
        times = f" ({note.count:,} times)" if note.count > 1 else ""
        yield Text.assemble("  ", (f"{'note':<10}", "yellow"), plain(note.text) + times)
    if comparison.truncated:
        yield Text.assemble("  ", (f"{'cut':<10}", "bold red"), comparison.truncated)


def _columns(comparison: Comparison) -> Iterator[Text]:
    head = ("COLUMN", "CHANGED", *(kind.value.upper() for kind in _KINDS), "WITHIN RULE", "LARGEST DELTA", "RELATIVE")
    rows = [
        (
            c.column,
            c.changed,
            *(c.kinds.get(kind.value, 0) for kind in _KINDS),
            c.tolerated,
            amount(c.delta),
            percent(c.relative),
        )
        for c in sorted(comparison.changes, key=lambda change: -change.changed)
    ]
    yield from table(head, rows, right=range(1, len(head)))


def _differences(found: Sequence[tuple[str, Difference]], total: int, limit: int) -> Iterator[Text]:
    shown = found[:limit]
    several = any(name for name, _ in shown)
    yield Text(f"  Largest differences, {len(shown):,} of {total:,}:" if total > len(shown) else "  Differences:")
    head = ["CHANGE", "KEY", "COLUMN", "A", "B", "DELTA", "RELATIVE"]
    rows = [[d.change.value, " ".join(map(str, d.key)), d.column or "", *_cells(d), *_sizes(d)] for _, d in shown]
    if several:
        head.insert(0, "FILE")
        for (name, _), row in zip(shown, rows, strict=True):
            row.insert(0, name)
    yield from table(head, rows, right=(len(head) - 1, len(head) - 2))


def _cells(difference: Difference) -> tuple[str, str]:
    """Write both cells; of a row that one side lacks nothing stands there."""
    lone = difference.column is None
    a, b = (("" if lone else "(none)") if text is None else text or "(empty)" for text in (difference.a, difference.b))
    return a, b


def _sizes(difference: Difference) -> tuple[str, str]:
    return amount(difference.delta), percent(difference.relative)


def _largest(comparison: Comparison) -> str:
    return amount(max((c.delta for c in comparison.changes if c.delta is not None), default=None))


def _why(comparison: Comparison) -> str:
    if comparison.outcome is Outcome.EQUIVALENT:
        return ", ".join(leniency.value for leniency in comparison.leniencies)
    columns = comparison.columns
    parts = [f"+{name}" for name in columns.added] + [f"-{name}" for name in columns.removed]
    parts += [change.column for change in comparison.changes if change.changed]
    return ", ".join(parts) or ", ".join(note.code for note in comparison.notes)
