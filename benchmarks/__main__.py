"""`python -m benchmarks [NAME …]`: measure, print each group's table, keep it in docs/benchmarks.md with date and machine."""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import capacity, compare, compare_pages, compare_runs, databases, ledger, logs, pages, runs, trees
from benchmarks.measure import Row

GROUPS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "runs": runs.rows,
    "trees": trees.rows,
    "logs": logs.rows,
    "databases": databases.rows,
    "ledger": ledger.rows,
    "pages": pages.rows,
    "compare": compare.rows,
    "compare_runs": compare_runs.rows,
    "compare_pages": compare_pages.rows,
    "capacity": capacity.rows,
}
KEPT = Path(__file__).parent.parent / "docs" / "benchmarks.md"
MARK = "<!-- measured below: written by `make bench` -->"


def main(names: list[str]) -> None:
    """Measure the named groups, or all, and keep each one's table as soon as it is measured."""
    for name in names or GROUPS:
        root = Path(tempfile.mkdtemp(prefix=f"seatrial-bench-{name}-", dir="/var/tmp"))
        root.chmod(0o755)
        found: list[Row] = []
        try:
            for row in GROUPS[name](root):
                print(f"{row.work}: {row.value} (aim {row.aim}) {row.detail}", flush=True)
                found.append(row)
        finally:
            shutil.rmtree(root, ignore_errors=True)
        table = render(found)
        print("\n" + table, flush=True)
        keep(name, table)


def keep(name: str, table: str) -> None:
    """Put a group's table into its place in the page."""
    head, _, rest = KEPT.read_text("utf-8").partition(MARK)
    parts = dict(re.findall(r"^## (\w+)\n\n(.*?)(?=^## |\Z)", rest, re.MULTILINE | re.DOTALL)) | {name: table + "\n"}
    told = [f"## {one}\n\n{parts[one].strip()}\n" for one in GROUPS if one in parts]
    KEPT.write_text("\n".join([head + MARK + "\n", *told]), "utf-8")


def render(found: list[Row]) -> str:
    """Write the table."""
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    lines = [f"Measured on {datetime.now(UTC):%Y-%m-%d} ({machine}).", ""]
    lines += ["| work | floor (1.0) | measured | aim | met | detail |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {r.work} | {r.floor} | {r.value} | {r.aim} | {'yes' if r.good else '**no**'} | {r.detail} |" for r in found
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure against the floors.")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"all, or some of: {', '.join(GROUPS)}")
    asked = parser.parse_args().groups
    if unknown := [name for name in asked if name not in GROUPS]:
        parser.error(f"no group {unknown[0]!r}; the groups are {', '.join(GROUPS)}")
    main(asked)
