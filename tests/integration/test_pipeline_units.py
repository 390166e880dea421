"""Units, marks, exit codes: a branch's scripts in real containers, from the first mark to the verdict."""

from __future__ import annotations

import pytest
from fixtures_bench import Bench

from runner.model import TaskKind, UnitState

EACH = """
units: [a, b/c, d]
run: |
  while read -r unit; do
    mkdir -p "$SEATRIAL_OUTPUT/$(dirname "$unit")"
    echo "output of $unit" > "$SEATRIAL_OUTPUT/$unit.csv"
    echo "$unit" >> "$SEATRIAL_CHECKPOINT"
  done < "$SEATRIAL_UNITS"
"""
UNITS = ("a", "b/c", "d")


def test_units_that_are_marked_are_done_with_their_bytes(bench: Bench) -> None:
    outcome, recorder = bench.verify(EACH, UNITS)
    assert outcome.code == "done"
    assert set(recorder.units.values()) == {UnitState.DONE}
    assert bench.bytes_of(recorder.results["b/c"]) == b"output of b/c\n"
    assert recorder.executions == {1: ("ended", 0)}
    assert bench.left_over() == []
    names = [(name, state) for name, state, _, _ in recorder.steps]
    assert names[-2:] == [("run", "running"), ("run", "done")]
    assert "limits.disk, 10 GiB, is polled every 5 s" in recorder.said()


def test_exit_0_with_units_missing_is_incomplete(bench: Bench) -> None:
    outcome, recorder = bench.verify(
        """
units: [a, b]
run: |
  echo 1 > $SEATRIAL_OUTPUT/a.csv; echo a >> $SEATRIAL_CHECKPOINT
""",
        ("a", "b"),
    )
    assert outcome.code == "incomplete"
    assert "1 unit not finished: b" in outcome.why
    assert recorder.units == {"a": UnitState.DONE, "b": UnitState.TODO}
    assert bench.left_over() == []


def test_an_error_fails_the_first_unfinished_unit_and_the_rest_go_on(bench: Bench) -> None:
    outcome, recorder = bench.verify(
        """
units: [a, b, c]
run: |
  while read -r unit; do
    if [ $unit = b ]; then seq 1 30; exit 3; fi
    echo $unit > $SEATRIAL_OUTPUT/$unit.csv; echo $unit >> $SEATRIAL_CHECKPOINT
  done < $SEATRIAL_UNITS
""",
        ("a", "b", "c"),
    )
    assert outcome.code == "units_failed"
    assert recorder.units == {"a": UnitState.DONE, "b": UnitState.FAILED, "c": UnitState.DONE}
    text = recorder.results["b"].text
    assert text.startswith("The script ended with exit code 3.")
    assert text.splitlines()[1:] == [str(number) for number in range(11, 31)], "its last 20 lines"
    assert recorder.executions == {1: ("ended", 3), 2: ("ended", 0)}
    assert "going on with 1 unit in a new container" in recorder.said()


def test_three_containers_at_most(bench: Bench) -> None:
    outcome, recorder = bench.verify("units: [a, b, c, d, e]\nrun: exit 9", ("a", "b", "c", "d", "e"))
    assert outcome.code == "incomplete"
    assert "2 units not run: the script ended with an error 3 times: d, e" in outcome.why
    assert [state.value for state in recorder.units.values()] == ["failed"] * 3 + ["todo"] * 2
    assert recorder.executions == {1: ("ended", 9), 2: ("ended", 9), 3: ("ended", 9)}


def test_an_error_after_all_units_is_no_success(bench: Bench) -> None:
    outcome, recorder = bench.verify(EACH + "  echo oh no; exit 4\n", UNITS)
    assert outcome.code == "step_failed"
    assert "exit code 4" in outcome.why
    assert "oh no" in outcome.why
    assert set(recorder.units.values()) == {UnitState.DONE}


def test_exit_75_asks_to_be_resumed(bench: Bench) -> None:
    outcome, recorder = bench.verify(
        """
units: [a, b]
run: |
  echo 1 > $SEATRIAL_OUTPUT/a.csv; echo a >> $SEATRIAL_CHECKPOINT; echo come back; exit 75
""",
        ("a", "b"),
    )
    assert outcome.code == "resume_requested"
    assert "come back" in outcome.why
    assert recorder.units == {"a": UnitState.DONE, "b": UnitState.TODO}
    assert bench.left_over() == []


def test_a_mark_may_say_that_a_unit_failed(bench: Bench) -> None:
    outcome, recorder = bench.verify(
        """
units: [a, b]
run: |
  printf 'a\\tfailed\\tbalance is off by 3\\n' >> $SEATRIAL_CHECKPOINT
  printf 'b\\tfailed\\n' >> $SEATRIAL_CHECKPOINT
""",
        ("a", "b"),
    )
    assert outcome.code == "units_failed"
    assert recorder.results["a"].text == "balance is off by 3"
    assert recorder.results["b"].text == "The script marked it as failed."


def test_units_that_failed_in_an_earlier_attempt_are_not_forgotten(bench: Bench) -> None:
    order = bench.order(EACH, UNITS, failed=("z",))
    outcome = bench.run(order, bench.recorder(order))
    assert outcome.code == "units_failed"
    assert "z" in outcome.why


def test_no_units_left_start_no_container(bench: Bench) -> None:
    order = bench.order(EACH, ())
    recorder = bench.recorder(order)
    assert bench.run(order, recorder).code == "done"
    assert recorder.executions == {}


def test_the_script_sees_the_contract(bench: Bench) -> None:
    (bench.tree / "hello.txt").write_text("from the commit\n")
    outcome, recorder = bench.verify(
        """
run: |
  pwd; cat hello.txt; env | grep -E '^(SEATRIAL|HOME|PG|DATABASE)' | sort; echo "stdin: $(wc -c)"
  cat $SEATRIAL_UNITS 2>/dev/null; echo > written && ls; id -u
"""
    )
    assert outcome.code == "done"
    said = recorder.said()
    for line in (
        "/seatrial/src",
        "from the commit",
        "HOME=/home/seatrial",
        "SEATRIAL_ATTEMPT=1",
        f"SEATRIAL_COMMIT={'a' * 40}",
        "SEATRIAL_LEG=candidate",
        "SEATRIAL_OUTPUT=/seatrial/output",
        "SEATRIAL_RUN=1",
        "stdin: 0",
        "written",
    ):
        assert line in said.splitlines(), said
    assert "SEATRIAL_UNITS" not in said
    assert "DATABASE_URL" not in said
    assert not (bench.tree / "written").exists()


# ---- preparation ------------------------------------------------------------------------------------------


def test_prepare_runs_setup_and_lists_units(bench: Bench) -> None:
    order = bench.order(
        """
setup: ["echo set up > /seatrial/src/made", "cat made"]
migrate: ["echo migrating"]
units: "cat made >&2; printf 'x\\ny/z\\n'"
run: "true"
""",
        kind=TaskKind.PREPARE,
        migrate=True,
    )
    recorder = bench.recorder(order)
    outcome = bench.run(order, recorder)
    assert outcome.prepared is not None
    assert outcome.prepared.units == ("x", "y/z")
    done = [(name, state) for name, state, _, _ in recorder.steps if state != "running"]
    assert done == [(name, "done") for name in ("checkout", "image", "setup", "setup", "migrate", "units", "plan")]
    assert recorder.said().count("set up\n") == 2
    assert bench.left_over() == []


def test_a_baseline_is_not_migrated_and_a_setup_that_fails_says_so(bench: Bench) -> None:
    order = bench.order(
        'setup: ["echo broken; exit 5"]\nmigrate: ["echo migrating"]\nrun: "true"', kind=TaskKind.PREPARE
    )
    recorder = bench.recorder(order)
    outcome = bench.run(order, recorder)
    assert outcome.code == "step_failed"
    assert "The step setup ended with exit code 5." in outcome.why
    assert "broken" in outcome.why
    assert "migrating" not in recorder.said()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("true", "is empty"),
        ("echo ../up", "`..`"),
        ("printf 'a\\\\na\\\\n'", "listed twice"),
        ("rm $PWD/../io/units; mkfifo /seatrial/io/units", "FIFO"),
        ("rm /seatrial/io/units; ln -s /etc/passwd /seatrial/io/units", "symbolic link"),
        ("rm /seatrial/io/units", "left no list"),
    ],
)
def test_a_bad_list_of_units_is_refused(bench: Bench, command: str, message: str) -> None:
    order = bench.order(f"units: \"{command}\"\nrun: 'true'", kind=TaskKind.PREPARE)
    outcome = bench.run(order, bench.recorder(order))
    assert outcome.code in ("units_invalid", "output_refused")
    assert message in outcome.why
    assert bench.left_over() == []
