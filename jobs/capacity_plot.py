"""What policies cost and how long they make people wait, as one HTML file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from jobs.diff_html import POLICY
from jobs.simulate import OWN, Score

STYLE = """
:root {
  color-scheme: light dark;
  --page: #fff; --text: #1a1f26; --dim: #58626f; --line: #d9dde3; --own: #0a5cb0; --floor: #187034;
}
@media (prefers-color-scheme: dark) {
  :root { --page: #14171b; --text: #e4e7eb; --dim: #9ba5b2; --line: #323842; --own: #6cb2f5; --floor: #5fc27e; }
}
body {
  background: var(--page); color: var(--text); font: 15px/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums;
  margin: 2rem auto; max-width: 60rem; padding: 0 1rem;
}
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2.5rem; } p { max-width: 44rem; } .dim { color: var(--dim); }
.scroll { overflow-x: auto; } svg { display: block; min-width: 36rem; width: 100%; }
svg text { fill: var(--text); font-size: 13px; } svg .dim { fill: var(--dim); } svg line { stroke: var(--line); }
circle { fill: var(--dim); } .floor circle { fill: var(--floor); }
.own circle { fill: none; stroke: var(--own); stroke-width: 3; } tr.own td { font-weight: 600; color: var(--own); }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .6rem; text-align: left; }
th { font-weight: 600; vertical-align: bottom; } .n { text-align: right; } td { white-space: nowrap; }
"""
WIDTH, HEIGHT = 720, 340
LEFT, RIGHT, TOP, BOTTOM = 64, 696, 20, 284
TICKS = (0, 0.01, 0.05, 0.2, 1, 4, 19, 99)  # above the bound
# Where the scale turns from even to logarithmic: differences of less than a hundredth are noise.
BEND = 0.01
NEAR = 14  # dots closer than this have one label


@dataclass(frozen=True)
class Panel:
    """The scores of one trace. `weeks`: over how many; `note`: what is to be known of it."""

    title: str
    scores: Sequence[Score]
    weeks: int
    note: str = ""


def page(panels: Sequence[Panel]) -> Iterator[str]:
    """Write the whole file, a piece at a time."""
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    yield f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield f"<title>Cost and waiting of idle policies</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
    yield "<h1>Cost and waiting of idle policies</h1>\n"
    yield (
        '<p class="dim">Each dot is a policy: to the left is cheap, below is quick. The clairvoyant bound knows the next run '
        "and pays for no second that it could save. Cost is the median of the weeks, waiting the mean of the runs.</p>\n"
    )
    for panel in panels:
        yield f"<section>\n<h2>{escape(panel.title)}: {_weeks(panel.weeks)}</h2>\n"
        if panel.note:
            yield f'<p class="dim">{escape(panel.note)}</p>\n'
        yield '<div class="scroll" tabindex="0" role="group" aria-label="Plot">\n'
        yield from _plot(panel)
        yield '</div>\n<div class="scroll" tabindex="0" role="group" aria-label="Table">\n'
        yield from _table(panel)
        yield "</div>\n</section>\n"
    yield "</main>\n</body>\n</html>\n"


def _plot(panel: Panel) -> Iterator[str]:
    scores = panel.scores
    right = max(score.ratio for score in scores) - 1
    last = next((at for at, tick in enumerate(TICKS) if tick >= right), len(TICKS) - 1)
    ticks = TICKS[: max(last, 2) + 1]
    longest = max(10.0, *(score.wait for score in scores))
    step = next(size for size in (2, 5, 10, 20, 60, 300, 1200, 1e9) if longest / size <= 6)
    top = step * math.ceil(longest / step)

    def across(excess: float) -> float:
        share = math.log1p(max(0.0, excess) / BEND) / math.log1p(max(ticks[-1], right) / BEND)
        return LEFT + 24 + share * (RIGHT - LEFT - 48)

    def up(wait: float) -> float:
        return BOTTOM - wait / top * (BOTTOM - TOP)

    told = "; ".join(f"{score.name}: {excess_words(score)}, {score.wait:.1f} s" for score in scores)
    yield f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(told)}">\n'
    for number in range(math.ceil(longest / step) + 1):
        y = up(number * step)
        yield f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="dim" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{number * step:g} s</text>\n'
    for tick in ticks:
        x = across(tick)
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{BOTTOM}"/>'
        yield f'<text class="dim" x="{x:.1f}" y="{BOTTOM + 20}" text-anchor="middle">{_tick(tick)}</text>\n'
    middle = (LEFT + RIGHT) / 2
    yield f'<text class="dim" x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">cost against the clairvoyant bound</text>\n'
    turned = f'transform="translate(14 {(TOP + BOTTOM) / 2}) rotate(-90)"'
    yield f'<text class="dim" {turned} text-anchor="middle">mean wait for a boot</text>\n'
    dots = [(across(score.ratio - 1), up(score.wait), number, score) for number, score in enumerate(scores, start=1)]
    for x, y, number, score in sorted(dots, key=lambda dot: (dot[2] == 1, dot[2])):  # the bound lies above
        kind = "own" if score.name == OWN else "floor" if number == 1 else "other"
        yield f'<g class="{kind}"><circle cx="{x:.1f}" cy="{y:.1f}" r="{9 if kind == "own" else 5}"/></g>\n'
    for x, y, numbers in _labels([(x, y, number) for x, y, number, _ in dots]):
        side, anchor = (-13, "end") if x > RIGHT - 60 else (13, "start")
        yield f'<text x="{x + side:.1f}" y="{y - 9:.1f}" text-anchor="{anchor}">{numbers}</text>\n'
    yield "</svg>\n"


def _labels(dots: Sequence[tuple[float, float, int]]) -> Iterator[tuple[float, float, str]]:
    """Give each group of dots that lie close together one label with all their numbers."""
    groups: list[list[tuple[float, float, int]]] = []
    for dot in dots:
        near = next((g for g in groups if any(math.dist(dot[:2], one[:2]) < NEAR for one in g)), None)
        if near is None:
            groups.append([dot])
        else:
            near.append(dot)
    for group in groups:
        yield max(x for x, _, _ in group), min(y for _, y, _ in group), ", ".join(str(number) for _, _, number in group)


def _table(panel: Panel) -> Iterator[str]:
    yield '<table>\n<thead><tr><th class="n">no.</th><th>policy</th><th class="n">cost against the bound</th>'
    yield '<th class="n">mean wait for a boot</th><th class="n">hours a week</th>'
    yield '<th class="n">starts a week</th></tr></thead>\n<tbody>\n'
    for number, score in enumerate(panel.scores, start=1):
        own = ' class="own"' if score.name == OWN else ""
        cells = (
            excess_words(score),
            f"{score.wait:.1f} s",
            f"{score.hours / panel.weeks:.1f}",
            f"{score.starts / panel.weeks:.1f}",
        )
        rest = "".join(f'<td class="n">{cell}</td>' for cell in cells)
        yield f'<tr{own}><td class="n">{number}</td><td>{escape(score.name)}</td>{rest}</tr>\n'
    yield "</tbody>\n</table>\n"


def excess_words(score: Score) -> str:
    """Say by how much a policy is above the bound: +1.7 %, or a multiple from the double on."""
    return f"{score.ratio:.1f}×" if score.ratio >= 2 else f"+{score.ratio - 1:.1%}".replace("%", " %")


def _tick(excess: float) -> str:
    return f"{1 + excess:.0f}×" if excess >= 1 else f"+{excess:.0%}".replace("%", " %")


def _weeks(count: int) -> str:
    return "1 week" if count == 1 else f"{count} weeks"
