"""Measure what an interruption costs, beside plain RQ, and put the table into docs/reliability.md.

python tests/chaos/scoreboard.py [--scale 0.05] [ROW ...]

Rows: the methods that `figures` names, and `plain`. Only all of them in full are written into the page.
An error ends it, and leaves the page alone.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import plain_rq
from chaos_figures import LEASE, Board
from fixtures_postgres import Proxy, end_server, make_sample, start_server

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- scoreboard: begin -->", "<!-- scoreboard: end -->"


@dataclass(frozen=True)
class Figure:
    """A row of the table. `measure` gives what is shown."""

    name: str
    aim: str
    measure: Callable[[], str]


def figures(board: Board) -> list[Figure]:
    """List the rows in the order in which they are measured."""
    return [
        Figure("takeover after SIGKILL of a worker slot: first new committed line of the script, p50 / max",
               "< 2 s / < 5 s", board.takeover_of_a_slot),
        Figure(f"the same when its supervisor died too (lease alone, {LEASE:.0f} s)",
               f"< {LEASE + 1:.0f} s / < {LEASE + 3:.0f} s", board.takeover_of_a_worker),
        Figure("runs lost, with random faults", "0", board.lost),
        Figure("effects applied twice", "0", board.twice),
        Figure("log gaps / duplicates in 10^6 lines", "0 / 0", board.lines),
        Figure("units repeated", "≤ units in flight", board.repeated),
        Figure("resume of a leg with 100,000 finished units, over one with none: claim → container started", "≤ +1 s",
               board.resume),
        Figure("a run whose connections are cut every 40 to 60 s, over an undisturbed one", "≤ 1.15×", board.cuts),
        Figure("resident memory and open files of all processes that live through it", "flat ± 5 %", board.flat),
        Figure("left behind after everything", "0", board.left),
    ]  # fmt: skip


def main(wanted: list[str], scale: float) -> None:
    """Measure the rows that are wanted, or all; `plain` among them: those of plain RQ too."""
    postgres = start_server("pg-scores")
    shown: dict[str, str] = {}
    try:
        with Proxy(postgres.port) as link:
            board = Board(scale, make_sample(postgres), link)
            rows = figures(board)
            plain = plain_rq.Figures(board.count(100, 10))
            for figure in rows:
                name = figure.measure.__name__
                # Those before it are times, and are measured alone.
                if name == "lost" and (not wanted or "plain" in wanted):
                    plain.start()
                if wanted and name not in wanted:
                    continue
                began = time.monotonic()
                shown[name] = figure.measure()
                print(f"{figure.name}: {shown[name]}   [{time.monotonic() - began:.0f} s]", flush=True)
                while board.remarks:
                    print("   ", board.remarks.pop(0), flush=True)
            beside = plain.give()
    finally:
        end_server(postgres)
    cells = [(row, row.measure.__name__) for row in rows]
    table = [f"| {row.name} | {row.aim} | {shown.get(name, '–')} | {beside.get(name, '–')} |" for row, name in cells]
    print("\n".join(table))
    if not wanted and scale == 1.0:
        write(table)


def write(rows: list[str]) -> None:
    """Put the table in its place in the page."""
    head = ["| figure | aim | Seatrial | plain RQ |", "|---|---|---|---|"]
    when = f"Measured {datetime.now(UTC):%Y-%m-%d} on {os.cpu_count()} cores, Python {platform.python_version()}."
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text("\n".join([before + BEGIN, "", *head, *rows, "", when, "", END]) + after, "utf-8")


if __name__ == "__main__":
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("rows", nargs="*", metavar="ROW")
    words.add_argument("--scale", type=float, default=1.0)
    asked = words.parse_args()
    main(asked.rows, asked.scale)
