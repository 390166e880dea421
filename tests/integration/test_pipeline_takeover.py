"""Workers come and go, containers stay: nothing is lost, nothing done twice; and what ended from outside is no verdict."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from fixtures_bench import BASE, GATE, Bench, MemoryRecorder

from runner.adapters.docker_engine import DockerEngine
from runner.errors import ContainerFoundDead, Fenced
from runner.model import TaskKind, UnitResult, UnitState
from runner.workspace import Workspace

UNITS = tuple("abcdef")
# Its last unit waits for the test.
SLOW = f"""
units: [a, b, c, d, e, f]
run: |
  n=0
  while read -r u; do
    [ $u != f ] || {GATE}
    for i in 1 2 3 4 5 6 7 8 9 10; do n=$((n+1)); echo "line $n"; sleep 0.02; done
    echo $u > $SEATRIAL_OUTPUT/$u.csv; echo $u >> $SEATRIAL_CHECKPOINT
  done < $SEATRIAL_UNITS
  exit ${{CODE:-0}}
"""


def lines(recorder: MemoryRecorder) -> list[int]:
    return [int(line.split()[1]) for line in recorder.said().splitlines() if line.startswith("line ")]


@pytest.mark.parametrize("how", ["drained", "fenced"])
def test_a_container_that_was_left_is_followed_on(bench: Bench, how: str) -> None:
    order = bench.order(SLOW, UNITS)
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for("line 15\n")
    getattr(recorder, how).set()
    assert running.end().code == how
    state = bench.engine.inspect(bench.container())
    assert state is not None
    assert state.running, "it goes on without a worker"
    bench.open_gate()
    outcome = bench.run(bench.again(order, recorder), recorder)
    assert outcome.code == "done", outcome.why
    assert lines(recorder) == list(range(1, 61)), "no gap, no duplicate"
    assert set(recorder.units.values()) == {UnitState.DONE}
    assert recorder.executions == {1: ("ended", 0)}
    assert recorder.said().count("── run\n") == 1
    assert "attempt 2 goes on with" in recorder.said()
    assert bench.left_over() == []


def test_many_takeovers_leave_no_gap(bench: Bench) -> None:
    order = bench.order(SLOW, UNITS)
    recorder = bench.recorder(order)
    for number in range(1, 7):
        running = bench.begin(order, recorder)
        running.wait_for(f"line {number * 8}\n")
        recorder.drained.set()
        assert running.end().code == "drained"
        order = bench.again(order, recorder)
    bench.open_gate()
    assert bench.run(order, recorder).code == "done"
    assert lines(recorder) == list(range(1, 61))
    assert recorder.executions == {1: ("ended", 0)}


@pytest.mark.parametrize("code", [0, 3, 75])
def test_b06_one_that_ended_meanwhile_is_taken_once(bench: Bench, code: int) -> None:
    order = bench.order(SLOW.replace("${CODE:-0}", str(code)), UNITS)
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for("line 5\n")
    recorder.drained.set()
    running.end()
    bench.open_gate()
    until = time.monotonic() + 20
    while (state := bench.engine.inspect(bench.container())) is not None and state.running:
        assert time.monotonic() < until
        time.sleep(0.05)
    outcome = bench.run(bench.again(order, recorder), recorder)
    assert outcome.code == {0: "done", 3: "step_failed", 75: "resume_requested"}[code]
    assert lines(recorder) == list(range(1, 61))
    assert set(recorder.units.values()) == {UnitState.DONE}
    assert recorder.executions[1] == ("ended", code)
    assert bench.left_over() == []


def test_a_mark_that_its_worker_died_over_is_taken_by_the_next(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal had it, the store not yet."""
    order = bench.order(SLOW, UNITS)
    recorder = bench.recorder(order)
    written = recorder.mark

    def dies(results: Sequence[UnitResult], *, source: tuple[int, int] | None = None) -> None:
        if any(result.unit == "c" for result in results):
            raise Fenced("killed before the store had it")
        written(results, source=source)

    monkeypatch.setattr(recorder, "mark", dies)
    assert bench.run(order, recorder).code == "fenced"
    monkeypatch.undo()
    order = bench.again(order, recorder)
    assert "c" in order.units
    bench.open_gate()
    outcome = bench.run(order, recorder)
    assert outcome.code == "done", outcome.why
    assert set(recorder.units.values()) == {UnitState.DONE}
    assert recorder.executions == {1: ("ended", 0)}, "no second container"


@pytest.mark.parametrize("code", [0, 3])
def test_one_whose_units_are_all_marked_is_followed_to_its_end(bench: Bench, code: int) -> None:
    order = bench.order(
        f"""
units: [a, b]
run: |
  for u in a b; do echo $u > $SEATRIAL_OUTPUT/$u.csv; echo $u >> $SEATRIAL_CHECKPOINT; done
  for i in 1 2 3 4 5; do echo "line $i"; done
  {GATE}
  for i in 6 7 8 9 10; do echo "line $i"; done
  exit {code}
""",
        ("a", "b"),
    )
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for("line 2\n")
    running.wait_for(lambda: set(recorder.units.values()) == {UnitState.DONE})
    recorder.drained.set()
    running.end()
    order = bench.again(order, recorder)
    assert order.units == ()
    bench.open_gate()
    outcome = bench.run(order, recorder)
    assert outcome.code == {0: "done", 3: "step_failed"}[code]
    assert lines(recorder) == list(range(1, 11))
    assert recorder.executions == {1: ("ended", code)}, "no second container"
    assert bench.left_over() == []


def test_the_timeout_of_a_step_goes_on_over_a_takeover(bench: Bench) -> None:
    order = bench.order(
        f"run: 'while :; do echo .; sleep 0.1; done'\nworkspace: {{image: '{BASE}'}}\ntimeouts: {{run: 5s}}"
    )
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for(".\n" * 30)
    recorder.drained.set()
    running.end()
    assert bench.run(bench.again(order, recorder), recorder).code == "timed_out"
    assert recorder.said().count(".\n") < 70, "it would be 80, had the five seconds begun anew"


def test_marks_taken_before_a_takeover_are_still_voided_and_failures_remembered(bench: Bench) -> None:
    order = bench.order(
        f"""
units: [a, b, c]
run: |
  O=$SEATRIAL_OUTPUT; C=$SEATRIAL_CHECKPOINT
  if [ $(wc -l < $SEATRIAL_UNITS) = 3 ]; then
    echo 1 > $O/a.csv; echo a >> $C; printf 'b\\tfailed\\twrong\\n' >> $C; {GATE}; echo 2 > $O/a.csv
  else
    echo again > $O/a.csv; echo a >> $C
  fi
  echo 3 > $O/c.csv; echo c >> $C
""",
        ("a", "b", "c"),
    )
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for(lambda: recorder.units["b"] is UnitState.FAILED)
    recorder.drained.set()
    running.end()
    order = bench.again(order, recorder)
    bench.open_gate()
    outcome = bench.run(order, recorder)
    assert recorder.voided == [("a", "its output was changed after its mark")]
    assert outcome.code == "units_failed"
    assert bench.bytes_of(recorder.results["a"]) == b"again\n"


def test_a_prepare_is_followed_on_too(bench: Bench) -> None:
    order = bench.order(
        f'setup: ["echo one", "echo two; {GATE}"]\nunits: "echo three >&2; echo u"\nrun: "true"',
        kind=TaskKind.PREPARE,
    )
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for("two\n")
    recorder.drained.set()
    running.end()
    bench.open_gate()
    outcome = bench.run(bench.again(order, recorder), recorder)
    assert outcome.prepared is not None
    assert outcome.prepared.units == ("u",)
    ended = [name for name, state, _, _ in recorder.steps if state == "done" and name in ("setup", "units")]
    assert ended == ["setup", "setup", "units"], "each once"
    for word in ("one\n", "two\n", "three\n"):
        assert recorder.said().count(word) == 1


# ---- from outside -----------------------------------------------------------------------------------------


def outside(bench: Bench, *command: str) -> tuple[str, str, MemoryRecorder]:
    order = bench.order(SLOW, UNITS)
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for("line 25\n")
    subprocess.run(["docker", *command, bench.container()], check=True, capture_output=True)
    outcome = running.end()
    assert recorder.units["a"] is UnitState.DONE
    assert recorder.units["b"] is UnitState.DONE
    assert UnitState.FAILED not in recorder.units.values()
    assert bench.left_over() == []
    return outcome.code, outcome.why, recorder


def test_killed_from_outside_is_an_interruption(bench: Bench) -> None:
    code, why, _ = outside(bench, "kill")
    assert code == "container_lost"
    assert "killed from outside" in why


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_one_that_was_killed_before_it_was_taken_over_is_the_loss_of_the_attempt_before(bench: Bench, how: str) -> None:
    order = bench.order(SLOW, UNITS)
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for("line 5\n")
    recorder.drained.set()
    running.end()
    subprocess.run(["docker", how, bench.container()], check=True, capture_output=True)
    found = bench.run(bench.again(order, recorder), recorder).error
    assert isinstance(found, ContainerFoundDead), found
    assert bench.left_over() == []
    assert bench.run(bench.again(order, recorder), recorder).code == "done"


def test_stopped_from_outside_is_an_interruption(bench: Bench) -> None:
    code, why, _ = outside(bench, "stop")
    assert code == "container_lost"
    assert "stopped from outside" in why


def test_removed_from_outside_is_an_interruption(bench: Bench) -> None:
    code, why, _ = outside(bench, "rm", "-f")
    assert code == "container_lost"
    assert "removed from outside" in why


def test_the_volume_of_a_container_that_was_removed_from_outside_is_removed(bench: Bench) -> None:
    """`docker rm -f` leaves it; nothing else takes it away."""
    order = bench.order(SLOW, UNITS)
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for("line 5\n")
    assert bench.engine.remove_volumes(installation=bench.installation) == [], "it is in use"
    subprocess.run(["docker", "rm", "-f", bench.container()], check=True, capture_output=True)
    assert running.end().code == "container_lost"
    [volume] = bench.engine.remove_volumes(installation=bench.installation)
    assert len(volume) == 64
    assert bench.engine.remove_volumes(installation=bench.installation) == []


def test_what_a_container_that_vanished_had_finished_is_not_run_again(bench: Bench) -> None:
    order = bench.order(SLOW, UNITS)
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for("line 5\n")
    recorder.drained.set()
    running.end()
    marks = Workspace(bench.runtime.executions / bench.container()).io / "checkpoint"
    while len(marks.read_bytes().splitlines()) < 3:  # it finishes units that nobody takes
        time.sleep(0.02)
    bench.engine.remove(bench.container())
    outcome = bench.run(bench.again(order, recorder), recorder)
    assert outcome.code == "done", outcome.why
    assert "the container that was left is gone" in recorder.said()
    assert recorder.executions[1][0] == "ended"
    assert recorder.executions[2] == ("ended", 0)
    assert len(lines(recorder)) < 120 - 20, "finished units were taken from its files"
    assert bench.left_over() == []


def test_a_script_without_units_goes_on_after_its_container_vanished(bench: Bench) -> None:
    order = bench.order(
        "run: 'echo 1 > $SEATRIAL_OUTPUT/1; echo one >> $SEATRIAL_CHECKPOINT; echo ready; sleep 60'\n"
        "resume: 'echo from $SEATRIAL_RESUME_FROM; ls $SEATRIAL_OUTPUT'"
    )
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for("ready")
    recorder.drained.set()
    running.end()
    bench.engine.remove(bench.container())
    outcome = bench.run(bench.again(order, recorder), recorder)
    assert outcome.code == "done", outcome.why
    assert "from one\n1\n" in recorder.said()


def test_b05_one_that_was_created_and_never_started_is_replaced(bench: Bench) -> None:
    order = bench.order(SLOW, UNITS)
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for("line 1\n")
    recorder.fenced.set()
    running.end()
    bench.engine.remove(bench.container())
    subprocess.run(
        [
            "docker",
            "create",
            "--name",
            bench.container(),
            "--label",
            f"seatrial.installation={bench.installation}",
            BASE,
        ],
        check=True,
        capture_output=True,
    )
    outcome = bench.run(bench.again(order, recorder), recorder)
    assert outcome.code == "done", outcome.why
    assert recorder.executions[2] == ("ended", 0)
    assert bench.left_over() == []


def test_a_stale_worker_takes_nothing_away(bench: Bench) -> None:
    """One that was stopped for longer than its lease sees the exit, but may not write: the files stay for its successor."""
    order = bench.order("run: 'echo ready; " + GATE + "; echo done'")
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for("ready")
    recorder.fenced.set()
    assert running.end().code == "fenced"
    assert (bench.runtime.executions / bench.container()).is_dir()
    bench.open_gate()
    assert bench.run(bench.again(order, recorder), recorder).code == "done"


# ---- by the branch itself ---------------------------------------------------------------------------------


def test_the_branch_cannot_kill_the_wrapper(bench: Bench) -> None:
    outcome, recorder = bench.verify("run: 'kill -9 1; kill -STOP 1; sleep 0.3; echo still here'")
    assert outcome.code == "done"
    assert "still here" in recorder.said()


def test_a_script_that_kills_its_group_does_not_end_the_wrapper(bench: Bench) -> None:
    outcome, recorder = bench.verify("run: 'sleep 50 & echo begun; kill 0; echo never'")
    assert outcome.code == "units_failed"
    assert f"exit code {128 + signal.SIGTERM}" in recorder.results["all"].text


def test_a_script_that_kills_all_is_an_interruption_and_no_hang(bench: Bench) -> None:
    outcome, _ = bench.verify("run: 'kill -TERM 1; sleep 50'")
    assert outcome.code == "container_lost"
    assert outcome.seconds < 10


def test_orphans_are_reaped(bench: Bench) -> None:
    outcome, recorder = bench.verify(
        'run: \'for i in $(seq 50); do sh -c "sleep 0.01 &"; done; sleep 0.5; cat /proc/[0-9]*/stat | grep -c " Z "\''
    )
    assert "\n0\n" in recorder.said(), recorder.said()
    assert outcome.code in ("done", "units_failed")  # grep -c of nothing is exit 1


@pytest.mark.parametrize("exists", ["seatrial/no-such-image:1", "localhost:1/no/such:1"])
def test_an_image_that_is_missing_says_what_to_do(bench: Bench, exists: str) -> None:
    outcome, _ = bench.verify(f"run: 'true'\nworkspace: {{image: '{exists}'}}")
    assert outcome.code == "registry_unavailable"
    assert exists in outcome.why
    assert "Build or load it here" in outcome.why


def test_an_image_without_a_shell_is_unusable(bench: Bench, docker_engine: DockerEngine, tmp_path: Path) -> None:
    (bench.tree / "hello").write_text("hello")
    (bench.tree / "Dockerfile").write_text("FROM scratch\nCOPY hello /hello\n")
    outcome, _ = bench.verify("run: 'true'\nworkspace: {build: {dockerfile: Dockerfile}}")
    assert outcome.code == "image_unusable"
    assert "cannot run a shell" in outcome.why
    assert bench.left_over() == []
