"""Whole compare runs: legs in parallel, a reused baseline, and how soon a difference is on the page."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from benchmarks.measure import Row, pairs, percentile, ratio_row
from benchmarks.runs import processes
from benchmarks.server import Server, commit, serving

UNITS = 12
LOOPS = 30_000_000  # of a unit: one or two seconds
ROUNDS = 3
APPEARING = 40  # units whose way to the page is followed

CPU = """version: 1
# {leg}
workspace: {{image: 'seatrial/base:bookworm'}}
units: [{units}]
run: |
  while read unit; do
    python3 -c 'sum(i * i for i in range({loops}))'
    echo x > "$SEATRIAL_OUTPUT/$unit.csv"
    echo "$unit" >> "$SEATRIAL_CHECKPOINT"
  done < "$SEATRIAL_UNITS"
"""

# Each unit writes when it was done, just before it says so: no two are the same, and each names its own beginning.
STAMPED = """version: 1
# {leg}
workspace: {{image: 'seatrial/base:bookworm'}}
units: [{units}]
run: |
  while read unit; do
    sleep 0.3
    printf 'id,at\\n1,%s\\n' "$(date +%s.%N)" > "$SEATRIAL_OUTPUT/$unit.csv"
    echo "$unit" >> "$SEATRIAL_CHECKPOINT"
  done < "$SEATRIAL_UNITS"
"""


def rows(root: Path) -> Iterator[Row]:
    """Measure."""
    yield from _whole(root / "whole")
    shutil.rmtree(root / "whole", ignore_errors=True)
    yield _appearing(root / "appearing")


def _branches(server: Server, text: str, count: int, **more: object) -> None:
    """Make a released and a candidate branch of two commits."""
    units = ", ".join(f"u{number:03}" for number in range(count))
    for leg in ("released", "candidate"):
        commit(server.repository, leg, text.format(leg=leg, units=units, **more))


def _whole(root: Path) -> Iterator[Row]:
    with ExitStack() as stack:
        one = stack.enter_context(serving(root / "one", slots=1))
        two = stack.enter_context(serving(root / "two", slots=2))
        for server in (one, two):
            _branches(server, CPU, UNITS, loops=LOOPS)

        def leg_after_leg() -> None:
            for ref in ("released", "candidate"):
                one.wait(one.submit(ref), every=0.05)

        def compared(*, reuse: bool) -> dict[str, Any]:
            run = two.submit("candidate", baseline="released", options={"reuse": reuse})
            ended = two.wait(run, every=0.05)
            taken = [(leg["reused"] or {}).get("units", 0) for leg in ended["legs"] if leg["name"] == "baseline"]
            assert taken == [UNITS if reuse else 0], ended["legs"]
            return ended

        machine, _ = pairs(lambda: processes(1), lambda: processes(2), rounds=3, warm=0)
        detail = f"two processes on this machine, without Seatrial: {machine:.2f}×"
        # What the others take over is there before the first of them.
        both = pairs(leg_after_leg, lambda: compared(reuse=False), rounds=ROUNDS)
        work, floor = f"a compare run of {UNITS} CPU-bound units, 2 workers", "one leg after the other, 1 worker"
        yield ratio_row(f"{work}, both legs at once", floor, both, 0.55, detail)
        half = pairs(leg_after_leg, lambda: compared(reuse=True), rounds=ROUNDS, warm=0)
        yield ratio_row(f"{work}, with a reused baseline", floor, half, 0.3, detail)


# Notes when which count of differences stands on the page, by the clock that the units write from, too.
WATCH = """() => {
  globalThis.seen = [];
  const look = () => {
    const count = Number((document.querySelector('#chip-differing b')?.textContent ?? '').replace(/\\D/g, ''));
    const last = globalThis.seen.at(-1)?.[1] ?? 0;
    if (count > last) globalThis.seen.push([Date.now() / 1000, count]);
  };
  new MutationObserver(look).observe(document.body, {subtree: true, childList: true, characterData: true});
  look();
}"""


def _appearing(root: Path) -> Row:
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert browser_path is not None, "no chromium here: make browser"
    with serving(root) as server, sync_playwright() as playwright:
        _branches(server, STAMPED, APPEARING)
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--headless", "--no-sandbox"])
        waits: list[float] = []
        firsts: list[float] = []
        for number in range(ROUNDS + 1):
            run = server.submit("candidate", baseline="released", options={"reuse": False})
            page = browser.new_page(base_url=server.url)
            page.goto(f"/runs/{run}?tab=differences")
            page.evaluate(WATCH)
            server.wait(run, every=0.5, verdict="different")
            seen = _seen(page)
            page.close()
            if number == 0:  # which also makes the trees
                continue
            begun = _both_done(server, run)
            shown = [next(at for at, count in seen if count > place) for place in range(APPEARING)]
            took = [at - since for at, since in zip(shown, begun, strict=True)]
            waits += took
            firsts.append(took[0])
        browser.close()
    p95 = percentile(waits, 0.95)
    return Row(
        "a difference on the page after both legs have the unit",
        "",
        f"p95 {p95:.2f} s",
        "p95 < 2 s",
        p95 < 2.0,
        f"p50 {percentile(waits, 0.5):.2f} s of {len(waits)} in a browser; the first of a run: {max(firsts):.2f} s at most",
    )


def _seen(page: Page) -> list[tuple[float, int]]:
    """Give when which count was on the page, up to the last one."""
    deadline = time.monotonic() + 30
    while True:
        seen: list[tuple[float, int]] = page.evaluate("globalThis.seen")
        if seen and seen[-1][1] == APPEARING:
            return seen
        assert time.monotonic() < deadline, seen
        page.wait_for_timeout(50)


def _both_done(server: Server, run: int) -> list[float]:
    """Give when the later leg wrote each unit, earliest first."""
    begun = []
    for number in range(APPEARING):
        found = server.client.get(f"/api/v1/runs/{run}/diffs/u{number:03}").json()
        [cell] = found["differences"]
        begun.append(max(float(cell["a"]), float(cell["b"])))
    assert max(begun) <= time.time()
    return sorted(begun)
