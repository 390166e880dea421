"""What an attempt opens and starts is gone with it: a worker does thousands of them."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

from fixtures_bench import Bench

UNITS = ("a", "b")
SPEC = """
units: [a, b]
run: 'while read -r u; do echo $u; echo $u > $SEATRIAL_OUTPUT/$u.csv; echo $u >> $SEATRIAL_CHECKPOINT; done < $SEATRIAL_UNITS'
"""


def kinds() -> list[str]:
    """Name what this process has open, without the numbers that differ each time."""
    gc.collect()
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(os.readlink(entry).partition(":")[0])
        except FileNotFoundError:  # that of the listing itself
            continue
    return sorted(found)


def test_a07_attempts_leave_nothing_open(bench: Bench) -> None:
    assert bench.verify(SPEC, UNITS)[0].code == "done"  # what is opened once for all is open now
    files, threads = kinds(), threading.active_count()
    for _ in range(3):
        assert bench.verify(SPEC, UNITS)[0].code == "done"
    assert kinds() == files
    assert threading.active_count() == threads
    assert bench.left_over() == []
