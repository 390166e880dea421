"""A comparison as one HTML file that needs nothing else: no script, no font, no picture, nothing from outside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from jobs.cli_show import plain, size
from jobs.diff_text import amount, percent
from runner.comparison import Comparison, Difference, Outcome, OutputsComparison

# Nothing may be loaded and nothing run, whatever a branch wrote into a cell.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #1a7f37; --fair: #9a6700; --bad: #cf222e; }
@media (prefers-color-scheme: dark) { :root { --good: #3fb950; --fair: #d29922; --bad: #f85149; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } caption { text-align: left; font-weight: 600; padding: .4rem 0; }
h2 { font-size: 1.1rem; margin-top: 2rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: .2rem .7rem; text-align: left; vertical-align: top; }
td { font-family: ui-monospace, monospace; font-size: .85rem; white-space: pre-wrap; overflow-wrap: anywhere; }
td.n, th.n { text-align: right; white-space: nowrap; }
.same { color: var(--good); } .equivalent { color: var(--fair); } .different { color: var(--bad); }
del { color: var(--bad); } ins { color: var(--good); text-decoration: none; }
.quiet { opacity: .65; }
"""


def page(found: Comparison | OutputsComparison, names: tuple[str, str], limit: int) -> Iterator[str]:
    """Write the whole file, a piece at a time; at most `limit` differences of each output."""
    title = f"{found.outcome.value}: {names[0]} and {names[1]}"
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    yield f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="referrer" content="no-referrer">\n'
    yield f"<title>{_text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
    yield f'<h1><span class="{found.outcome.value}">{found.outcome.value}</span>: {_text(names[0])} and {_text(names[1])}</h1>\n'
    if isinstance(found, Comparison):
        yield from _one(found, limit)
    else:
        yield from _several(found, limit)
    yield "</main>\n</body>\n</html>\n"


def _several(found: OutputsComparison, limit: int) -> Iterator[str]:
    rows = found.rows()
    counts = [(outcome.value, found.count(outcome)) for outcome in Outcome]
    counts += [("missing", len(found.missing)), ("new", len(found.new))]
    yield _table("Files by class", ("class", "files"), counts, right=(1,))
    yield _table(
        "Rows of the files that were read",
        ("changed", "added", "removed", "same"),
        [_counts(rows.as_json())],
        right=range(4),
    )
    for title, names in (("Missing files", found.missing), ("New files", found.new)):
        if names:
            yield _table(title, ("file",), [(name,) for name in names])
    for name, comparison in sorted(found.files, key=lambda file: file[1].outcome is not Outcome.DIFFERENT):
        outcome = comparison.outcome.value
        yield f'<h2><span class="{outcome}">{outcome}</span>: {_text(name)}</h2>\n'
        yield from _one(comparison, limit)


def _one(found: Comparison, limit: int) -> Iterator[str]:
    columns = found.columns
    facts: list[tuple[str, str]] = [("rule", found.rule or "none")]
    if found.key:
        facts.append(("key", ", ".join(found.key) + (" (found)" if found.key_found else "")))
    if found.leniencies:
        facts.append(("within the rule", ", ".join(leniency.value for leniency in found.leniencies)))
    facts += [
        (word, ", ".join(names))
        for word, names in (("columns added", columns.added), ("columns removed", columns.removed))
        if names
    ]
    facts += [("columns", "reordered")] if columns.reordered else []
    facts += [("type changed", f"{name}: {a} to {b}") for name, a, b in columns.types]
    if found.sizes:
        facts.append(("sizes", " and ".join(map(size, found.sizes))))
    facts += [("note", f"{note.text}{f' ({note.count:,} times)' if note.count > 1 else ''}") for note in found.notes]
    if found.truncated:
        facts.append(("cut", found.truncated))
    yield _table("", (), facts)
    if found.format not in ("", "bytes") or found.rows.same:
        yield _table("Rows", ("changed", "added", "removed", "same"), [_counts(found.rows.as_json())], right=range(4))
    if found.changes:
        head = ("column", "changed", "kinds", "within the rule", "largest delta", "relative")
        lines = [
            (
                c.column,
                c.changed,
                ", ".join(f"{kind} {n:,}" for kind, n in c.kinds.items()),
                c.tolerated,
                amount(c.delta),
                percent(c.relative),
            )
            for c in sorted(found.changes, key=lambda change: -change.changed)
        ]
        yield _table("Columns", head, lines, right=(1, 3, 4, 5))
    if found.differences:
        shown = found.differences[:limit]
        yield from _differences(shown, found.found)


def _differences(shown: Sequence[Difference], total: int) -> Iterator[str]:
    yield '<div class="scroll"><table>\n'
    yield f"<caption>Differences, the largest first: {len(shown):,} of {total:,}</caption>\n"
    names = [("change", ""), ("key", ""), ("column", ""), ("a", ""), ("b", ""), ("delta", "n"), ("relative", "n")]
    heads = "".join(f'<th scope="col" class="{kind}">{name}</th>' for name, kind in names)
    yield f"<thead><tr>{heads}</tr></thead>\n<tbody>\n"
    for one in shown:
        key = ", ".join("(null)" if part is None else part for part in one.key)
        cells = [_cell(one.change.value), _cell(key), _cell(one.column or "")]
        lone = one.column is None
        cells += [_marked("del", one.a, lone=lone), _marked("ins", one.b, lone=lone)]
        cells += [_cell(amount(one.delta), right=True), _cell(percent(one.relative), right=True)]
        yield f"<tr>{''.join(cells)}</tr>\n"
    yield "</tbody></table></div>\n"


def _marked(tag: str, text: str | None, *, lone: bool) -> str:
    if text is None:
        return "<td></td>" if lone else '<td class="quiet">(none)</td>'
    return f"<td><{tag}>{_text(text)}</{tag}></td>" if text else '<td class="quiet">(empty)</td>'


def _counts(rows: dict[str, int]) -> list[int]:
    return [rows[word] for word in ("changed", "added", "removed", "same")]


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[int] = ()) -> str:
    """Write a table; without a title it is one of facts, each behind its name."""
    if not title:
        lines = (f'<tr><th scope="row">{_text(str(name))}</th>{_cell(text)}</tr>' for name, text in rows)
        return '<div class="scroll"><table>\n' + "\n".join(lines) + "\n</table></div>\n"
    at_right = set(right)
    names = "".join(
        f'<th scope="col"{" class=n" if at in at_right else ""}>{_text(name)}</th>' for at, name in enumerate(head)
    )
    lines = (
        "<tr>" + "".join(_cell(cell, right=at in at_right) for at, cell in enumerate(row)) + "</tr>" for row in rows
    )
    return (
        f'<div class="scroll"><table>\n<caption>{_text(title)}</caption>\n<thead><tr>{names}</tr></thead>\n<tbody>\n'
        + "\n".join(lines)
        + "\n</tbody></table></div>\n"
    )


def _text(text: str) -> str:
    """Escape a text; what would reorder or hide text is shown as its code."""
    return escape("\n".join(plain(line) for line in text.split("\n")))


def _cell(text: object, *, right: bool = False) -> str:
    shown = f"{text:,}" if isinstance(text, int) else str(text)
    return f'<td class="n">{_text(shown)}</td>' if right else f"<td>{_text(shown)}</td>"
