"""Comparisons: many small pairs beside `diff -rq`, a pair of a million rows beside datacompy and csv-diff, 1 GB beside cmp."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Row, pairs, ratio_row
from runner.compare import Output
from runner.compare_rules import RuleBook
from runner.compare_tree import compare_outputs, compare_trees
from runner.spec_rule import Rule, Tolerance

PAIRS, SMALL_ROWS = 20_000, 50
ROWS, LARGE_ROWS = 1_000_000, 11_500_000
CHANGED = 100
TOOLS = Path(".venv/bench/bin/python")
RULE = Rule(match="*", key=("id",), tolerance=Tolerance(absolute=0.005))
HEAD = "id,account,month,section,code,name,qty,price,net,tax,gross,note\n"

# Each is a program of its own, timed from its start to its end; it prints what it found and its largest memory, to
# which two processes are added that may work for it at the same time.
PEAK = """
import resource
children = 2 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(children + next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM")))
"""
OURS = f"""
import sys
from pathlib import Path
from runner.compare import Output, compare
from runner.spec_rule import Rule, Tolerance
rule = Rule(match="*", key=("id",), tolerance=Tolerance(absolute=0.005))
found = compare(Output.of(Path(sys.argv[1])), Output.of(Path(sys.argv[2])), rule)
print(found.rows.changed, found.rows.added, found.rows.removed)
{PEAK}
"""
DATACOMPY = f"""
import sys
import pandas, datacompy
a, b = (pandas.read_csv(path) for path in sys.argv[1:])
found = datacompy.PandasCompare(a, b, join_columns=["id"], abs_tol=0.005)
print(len(found.all_mismatch()), len(found.df2_unq_rows), len(found.df1_unq_rows))
{PEAK}
"""
DATACOMPY_POLARS = f"""
import sys
import polars, datacompy
a, b = (polars.read_csv(path) for path in sys.argv[1:])
found = datacompy.PolarsCompare(a, b, join_columns=["id"], abs_tol=0.005)
print(len(found.all_mismatch()), len(found.df2_unq_rows), len(found.df1_unq_rows))
{PEAK}
"""
CSV_DIFF = f"""
import sys
import csv_diff
a, b = (csv_diff.load_csv(open(path), key="id") for path in sys.argv[1:])
found = csv_diff.compare(a, b)
print(len(found["changed"]), len(found["added"]), len(found["removed"]))
{PEAK}
"""


def rows(root: Path) -> Iterator[Row]:
    """Measure."""
    yield from _small(root / "small")
    shutil.rmtree(root / "small")
    yield from _million(root)
    yield from _gigabyte(root)


# ---- many small pairs -------------------------------------------------------------------------------------


def _small(root: Path) -> Iterator[Row]:
    a, b = root / "a", root / "b"
    ledgers: tuple[dict[str, Output], dict[str, Output]] = ({}, {})
    chance = random.Random(3)
    for number in range(PAIRS):
        name = f"tenant_{number // 20:04}/report_{number % 20:02}.csv"
        lines = [_line(number * SMALL_ROWS + n, chance) for n in range(SMALL_ROWS)]
        for side, ledger in zip((a, b), ledgers, strict=True):
            if side is b and number % 100 == 0:
                lines[17] = _with_other_amount(lines[17], chance)
            path = side / name
            path.parent.mkdir(parents=True, exist_ok=True)
            content = (HEAD + "".join(lines)).encode()
            path.write_bytes(content)
            ledger[name] = Output(path, name, hashlib.sha256(content).hexdigest())

    def diff() -> None:
        subprocess.run(["diff", "-rq", a, b], check=False, stdout=subprocess.DEVNULL)

    def by_digests() -> None:
        found = compare_outputs(*ledgers, lambda _: RULE)
        assert (len(found.files), found.same) == (PAIRS // 100, PAIRS - PAIRS // 100)

    def by_trees() -> None:
        found = compare_trees(a, b, RuleBook([RULE]))
        assert (len(found.files), found.same) == (PAIRS // 100, PAIRS - PAIRS // 100)

    work = f"{PAIRS:,} pairs of {SMALL_ROWS}-row CSVs, 1 % differing"
    yield ratio_row(f"{work}, with the ledger's digests", "diff -rq", pairs(diff, by_digests, rounds=7), 0.35)
    yield ratio_row(f"{work}, two foreign trees", "diff -rq", pairs(diff, by_trees, rounds=7), 1.5)


# ---- one large pair ---------------------------------------------------------------------------------------


def _line(number: int, chance: random.Random) -> str:
    price, quantity = chance.random() * 1000, number % 97
    return (
        f"{number},{number % 5000:05d},2024-{number % 12 + 1:02d},S{number % 7},{number % 311},name of {number % 1000},"
        f"{quantity},{price:.2f},{price * quantity:.2f},{price * quantity * 0.1:.2f},{price * quantity * 1.1:.4f},"
        f"note {number % 13} text\n"
    )


def _with_other_amount(line: str, chance: random.Random) -> str:
    cells = line.split(",")
    cells[8] = f"{float(cells[8]) + 1 + chance.random():.2f}"
    return ",".join(cells)


def make_pair(root: Path, count: int) -> tuple[Path, Path, Path]:
    """Write a table, the same with 100 changed cells, and that in another order."""
    files = root / "a.csv", root / "b.csv", root / "shuffled.csv"
    chance = random.Random(7)
    changed = set(chance.sample(range(count), CHANGED))
    block = 500_000
    starts = list(range(0, count, block))
    a, b, shuffled = (path.open("w") for path in files)
    with a, b, shuffled:
        for file in (a, b, shuffled):
            file.write(HEAD)
        held: list[str] = []
        for start in starts:
            upto = min(count, start + block)
            lines = [_line(n, chance) for n in range(start, upto)]
            a.writelines(lines)
            for n in sorted(changed & set(range(start, upto))):
                lines[n - start] = _with_other_amount(lines[n - start], chance)
            b.writelines(lines)
            # Far enough out of order that no two neighbours stay so, in the memory of some blocks.
            held += lines
            chance.shuffle(held)
            shuffled.writelines(held[block:])
            del held[block:]
        shuffled.writelines(held)
    return files


def run(python: str | Path, program: str, a: Path, b: Path) -> tuple[float, float, str]:
    """Run a program on two files; give its seconds, its largest memory in MB, and what it found."""
    # Compiled modules are kept for the next time, as they are wherever a tool is installed.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [python, "-W", "ignore", "-c", program, a, b]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    seconds = time.perf_counter() - start
    *_, found, peak = done.stdout.split("\n")[:-1]
    return seconds, int(peak) / 1024, found


def _million(root: Path) -> Iterator[Row]:
    a, b, shuffled = make_pair(root, ROWS)
    tools = [
        ("datacompy on pandas", DATACOMPY),
        ("datacompy on polars", DATACOMPY_POLARS),
        ("csv-diff", CSV_DIFF),
    ]
    for python, program in ((sys.executable, OURS), *((TOOLS, program) for _, program in tools)):
        run(python, program, a, a)  # what is to be compiled is compiled now
    for other, order in ((b, "in the same order"), (shuffled, "shuffled")):
        ours: list[tuple[float, float]] = []
        theirs: dict[str, list[tuple[float, float, str]]] = {name: [] for name, _ in tools}
        for _ in range(3):
            seconds, memory, found = run(sys.executable, OURS, a, other)
            assert found == f"{CHANGED} 0 0", found
            ours.append((seconds, memory))
            for name, program in tools:
                theirs[name].append(run(TOOLS, program, a, other))
        mine = statistics.median(one[1] for one in ours)
        for name, runs in theirs.items():
            ratio = statistics.median(own[0] / one[0] for own, one in zip(ours, runs, strict=True))
            memory = statistics.median(one[1] for one in runs)
            seconds = statistics.median(one[0] for one in runs)
            yield Row(
                f"1 M rows × 12 columns, {CHANGED} changed cells, {order}",
                name,
                f"{ratio:.3g}×",
                "≤ 0.2× and less memory",
                ratio <= 0.2 and mine < memory,
                f"{statistics.median(one[0] for one in ours):.2f} s, {mine:,.0f} MB against {seconds:.2f} s, "
                f"{memory:,.0f} MB; it found {runs[0][2]} changed, added, removed",
            )
    for path in (a, b, shuffled):
        path.unlink()


def _gigabyte(root: Path) -> Iterator[Row]:
    a, b, shuffled = make_pair(root, LARGE_ROWS)
    copy = root / "copy.csv"
    shutil.copyfile(a, copy)
    size = a.stat().st_size / 1e9
    for other, order in ((b, "in the same order"), (shuffled, "shuffled")):
        ratios, seconds, memories = [], [], []
        for _ in range(3):
            start = time.perf_counter()
            subprocess.run(["cmp", a, copy], check=True)
            floor = time.perf_counter() - start
            took, memory, found = run(sys.executable, OURS, a, other)
            assert found == f"{CHANGED} 0 0", found
            ratios.append(took / floor)
            seconds.append(took)
            memories.append(memory)
        ratio, memory = statistics.median(ratios), max(memories)
        yield Row(
            f"two files of {size:.2f} GB, {LARGE_ROWS:,} rows × 12 columns, {CHANGED} changed cells, {order}",
            "cmp on an equal pair",
            f"{ratio:.3g}×",
            "≤ 10× in ≤ 1 GB",
            ratio <= 10 and memory <= 1_000,
            f"{statistics.median(seconds):.2f} s, {memory:,.0f} MB",
        )
