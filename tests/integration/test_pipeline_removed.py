"""What a container works in is removed from the host while it runs: an interruption of the world's, never a verdict."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fixtures_bench import Bench

from runner.model import TaskKind, UnitState

# The second unit breaks when what it needs goes; the first attempt alone says when it is there.
UNITS = """
units: [a, b]
run: |
  while read -r u; do
    if [ $u = b ] && [ "$SEATRIAL_ATTEMPT" = 1 ]; then
      echo >$SEATRIAL_OUTPUT/waits; echo ready
      while [ -e $SEATRIAL_OUTPUT/waits ]; do sleep 0.05; done
      %s
    fi
    echo x >$SEATRIAL_OUTPUT/$u.csv
    echo $u >>$SEATRIAL_CHECKPOINT
  done <$SEATRIAL_UNITS
"""


def removed(path: Path, aside: Path) -> None:
    """Remove a directory that is being written to: out of its place at once, then what is in it."""
    path.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def directory(bench: Bench, name: str) -> Path:
    return bench.root / "executions" / bench.container() / name


@pytest.mark.parametrize("ends", ["exit 3", "exit 0"])
@pytest.mark.parametrize("what", ["output", ""])
def test_a_workspace_that_was_removed_is_no_fault_of_the_branch(bench: Bench, what: str, ends: str) -> None:
    order = bench.order(UNITS % ends, ("a", "b"))
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for("ready\n")
    removed(directory(bench, what), bench.root / "aside")
    outcome = running.end()
    assert outcome.code == "container_lost", (outcome.why, recorder.said())
    assert "was removed from" in outcome.why
    assert UnitState.FAILED not in recorder.units.values()
    again = bench.run(bench.again(order, recorder), recorder)
    assert again.code == "done", (again.why, recorder.said())
    assert bench.left_over() == []


def test_a_tree_that_was_removed_is_no_fault_of_the_branch(bench: Bench) -> None:
    (bench.tree / "file").write_text("content")
    order = bench.order(UNITS % "exit 3", ("a", "b"))
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for("ready\n")
    shutil.rmtree(bench.tree)
    (directory(bench, "output") / "waits").unlink()
    outcome = running.end()
    assert outcome.code == "container_lost", (outcome.why, recorder.said())
    assert str(bench.tree) in outcome.why


def test_a_preparation_whose_workspace_was_removed_is_no_fault_of_the_branch(bench: Bench) -> None:
    listing = (
        "echo >$SEATRIAL_OUTPUT/waits; echo ready >&2; while [ -e $SEATRIAL_OUTPUT/waits ]; do sleep 0.05; done; echo a"
    )
    order = bench.order(f"units: '{listing}'\nrun: 'true'", kind=TaskKind.PREPARE)
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for("ready\n")
    removed(directory(bench, ""), bench.root / "aside")
    outcome = running.end()
    assert outcome.code == "container_lost", (outcome.why, recorder.said())
