"""What an attempt opens and starts is gone with it: a worker does thousands of them."""

from __future__ import annotations

import gc
import os
import threading
from collections import Counter
from pathlib import Path

from fixtures_bench import Bench

from runner.adapters.docker_engine import DockerEngine

UNITS = ("a", "b")
SPEC = """
units: [a, b]
run: 'while read -r u; do echo $u; echo $u > $SEATRIAL_OUTPUT/$u.csv; echo $u >> $SEATRIAL_CHECKPOINT; done < $SEATRIAL_UNITS'
"""


def kinds(bench: Bench) -> Counter[str]:
    """Count what this process has open by its kind; the engine's idle connections, as many as it needed at once, aside."""
    assert isinstance(bench.engine, DockerEngine)
    bench.engine.close()
    gc.collect()
    found: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[os.readlink(entry).partition(":")[0]] += 1
        except FileNotFoundError:  # that of the listing itself
            continue
    return found


def test_a07_attempts_leave_nothing_open(bench: Bench) -> None:
    assert bench.verify(SPEC, UNITS)[0].code == "done"  # what is opened once for all is open now
    files, threads = kinds(bench), threading.active_count()
    for _ in range(3):
        assert bench.verify(SPEC, UNITS)[0].code == "done"
    assert not kinds(bench) - files
    assert threading.active_count() <= threads, "one that another test left may end meanwhile"
    assert bench.left_over() == []
