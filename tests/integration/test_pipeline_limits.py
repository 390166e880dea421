"""Limits, timeouts and cancelling: each ends the container, and says what it was."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from fixtures_bench import BASE, Bench

from runner.adapters.process_watch import ProcessWatch
from runner.model import UnitState

OPEN = ProcessWatch.open


def limited(run: str, limits: str = "", timeouts: str = "run: 60s, stall: 60s") -> str:
    return f"""
run: |
  {run}
workspace: {{image: '{BASE}', limits: {{{limits}}}}}
timeouts: {{{timeouts}}}
"""


def test_b18_too_much_memory_is_the_branchs_fault_and_names_the_limit(bench: Bench) -> None:
    outcome, recorder = bench.verify(
        limited("python3 -c 'x = bytearray(300 << 20); print(len(x))'", "memory: 64m, pids: 64")
    )
    assert outcome.code == "out_of_memory"
    assert "limits.memory, 64 MiB" in outcome.why
    assert recorder.units == {"all": UnitState.FAILED}
    assert bench.left_over() == []


def tells_when_it_looks(pid: int, watch: ProcessWatch | None) -> ProcessWatch | None:
    """Make a watch leave a file in its container's /tmp at each look."""

    def look() -> None:
        assert watch is not None
        ProcessWatch.look(watch)
        with suppress(OSError):  # it has ended
            Path(f"/proc/{pid}/root/tmp/seen").touch()

    if watch is not None:
        watch.look = look  # type: ignore[method-assign]
    return watch


@pytest.fixture
def above(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put the bench's containers into a control group, of whatever version, and give the file of its limit of memory."""
    if os.geteuid() or bench.engine._api.info()["CgroupDriver"] != "cgroupfs":  # type: ignore[attr-defined]
        pytest.skip("control groups are systemd's here, or another user's")
    first = Path("/sys/fs/cgroup/memory")
    group = (first if first.is_dir() else first.parent) / f"seatrial-{bench.installation}"
    group.mkdir()
    configure = bench.engine._api.create_host_config  # type: ignore[attr-defined]
    monkeypatch.setattr(
        bench.engine._api,  # type: ignore[attr-defined]
        "create_host_config",
        lambda **more: configure(**more, cgroup_parent=f"/{group.name}"),
    )
    yield group / ("memory.limit_in_bytes" if first.is_dir() else "memory.max")
    until = time.monotonic() + 20
    while group.exists():
        with suppress(OSError):  # the engine has not cleared up yet
            group.rmdir()
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("above_it", "own", "code"),
    [(64 << 20, "1g", "host_out_of_memory"), (256 << 20, "64m", "out_of_memory"), (64 << 20, "64m", "out_of_memory")],
)
def test_memory_that_others_limit_is_not_the_branchs_fault(
    bench: Bench, above: Path, monkeypatch: pytest.MonkeyPatch, above_it: int, own: str, code: str
) -> None:
    monkeypatch.setattr(ProcessWatch, "open", lambda pid, container: tells_when_it_looks(pid, OPEN(pid, container)))
    above.write_text(str(above_it))
    fills = "until [ -e /tmp/seen ]; do sleep 0.02; done; python3 -c 'x = bytearray(300 << 20); print(len(x))'"
    outcome, recorder = bench.verify(limited(fills, f"memory: {own}, pids: 64"))
    assert outcome.code == code, outcome.why
    assert recorder.units == {"all": UnitState.FAILED if code == "out_of_memory" else UnitState.TODO}


def test_files_in_tmp_are_limited_to_half_of_the_memory(bench: Bench) -> None:
    outcome, recorder = bench.verify(
        limited(
            "for d in /tmp $HOME; do dd if=/dev/zero of=$d/full bs=1M count=300 2>&1; df --output=size -m $d; rm $d/full; done",
            "memory: 128m",
        )
    )
    assert outcome.code == "done", outcome.why
    assert recorder.said().count("No space left on device") == 2
    assert [line.strip() for line in recorder.said().splitlines() if line.strip() in ("64", "32")] == ["64", "32"]


def test_a_fork_bomb_is_held_by_the_pids_limit(bench: Bench) -> None:
    outcome, recorder = bench.verify(
        limited("i=0; while [ $i -lt 100 ]; do sleep 30 & i=$((i+1)); done; echo survived", "pids: 32")
    )
    assert "fork" in recorder.said().lower()
    assert "survived" not in recorder.said()
    assert outcome.code == "units_failed"


def test_too_much_on_disk_ends_the_run(bench: Bench) -> None:
    outcome, recorder = bench.verify(limited("head -c 20000000 /dev/zero > big; sleep 600", "disk: 10m"))
    assert outcome.code == "limit_exceeded"
    assert "limits.disk is 10 MiB" in outcome.why
    assert "limits.disk, 10 MiB, is polled every 5 s" in recorder.said()


def test_a_tree_too_deep_for_python_is_measured_and_removed(bench: Bench) -> None:
    deep = "i=0; while [ $i -lt 1100 ]; do mkdir deep; cd deep; i=$((i+1)); done; head -c 30000000 /dev/zero > big; sleep 50"
    outcome, _ = bench.verify(limited(deep, "disk: 20m"))
    assert outcome.code == "limit_exceeded"
    assert bench.left_over() == []


def test_a_file_beyond_its_limit_cannot_be_written(bench: Bench) -> None:
    outcome, recorder = bench.verify(
        limited("dd if=/dev/zero of=big bs=1M count=10; ls -s --block-size=1 big", "file: 2m, log: 2m")
    )
    assert "2097152 big" in recorder.said()
    assert outcome.code == "done"


def test_the_run_timeout_names_itself(bench: Bench) -> None:
    outcome, recorder = bench.verify(limited("while :; do date; sleep 0.2; done", timeouts="run: 2s"))
    assert outcome.code == "timed_out"
    assert "The step run did not end within 2s (timeouts)" in outcome.why
    assert bench.left_over() == []
    assert "The step run did not end" in recorder.said()


def test_silence_is_a_stall(bench: Bench) -> None:
    outcome, _ = bench.verify(limited("echo hello; sleep 50", timeouts="run: 60s, stall: 1s"))
    assert outcome.code == "stalled"
    assert "timeouts.stall" in outcome.why


def test_marks_alone_are_a_sign_of_life(bench: Bench) -> None:
    outcome, _ = bench.verify(
        limited(
            "i=0; while [ $i -lt 28 ]; do echo $i >> $SEATRIAL_CHECKPOINT; i=$((i+1)); sleep 0.25; done",
            timeouts="run: 60s, stall: 6s",
        )
    )
    assert outcome.code == "done"


def test_a_forged_steps_file_puts_no_timeout_off(bench: Bench) -> None:
    outcome, recorder = bench.verify(
        limited(
            "while :; do printf 'begin\\t00-run\\t9999999999\\nend\\t07-x\\tinf\\tnan\\nbegin\\t00-run\\tnan\\n'"
            " >> /seatrial/io/steps; echo .; sleep 0.1; done",
            timeouts="run: 2s",
        )
    )
    assert outcome.code == "timed_out"
    assert [(name, state) for name, state, _, _ in recorder.steps if name == "run"][:1] == [("run", "running")]
    assert len(recorder.steps) < 10


CANCEL = """
units: [a, b]
run: |
  trap 'echo last words; echo 1 > $SEATRIAL_OUTPUT/a.csv; echo a >> $SEATRIAL_CHECKPOINT; exit 1' TERM
  echo ready; while :; do sleep 0.1; done
"""


def test_cancel_reaches_the_script_which_can_end_in_order(bench: Bench) -> None:
    order = bench.order(CANCEL, ("a", "b"))
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for("ready")
    recorder.cancelled.set()
    outcome = running.end()
    assert outcome.code == "cancelled"
    assert "last words" in recorder.said()
    assert recorder.units == {"a": UnitState.DONE, "b": UnitState.TODO}
    assert bench.left_over() == []


def test_cancel_kills_a_script_that_does_not_listen(bench: Bench) -> None:
    order = bench.order("run: \"trap '' TERM; echo ready; while :; do sleep 0.1; done\"")
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for("ready")
    recorder.cancelled.set()
    start = time.monotonic()
    assert running.end().code == "cancelled"
    assert 4.5 < time.monotonic() - start < 45, "grace of 5 s, and what a busy engine takes to kill"
    assert bench.left_over() == []


def test_a_cancelled_script_without_units_can_be_resumed(bench: Bench) -> None:
    order = bench.order("run: 'echo 1 > $SEATRIAL_OUTPUT/1; echo one >> $SEATRIAL_CHECKPOINT; echo ready; sleep 60'")
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for("ready")
    running.wait_for(lambda: bool(recorder.tokens))
    recorder.cancelled.set()
    assert running.end().code == "cancelled"
    assert recorder.resume is not None
    assert recorder.resume[0] == "one"


@pytest.mark.parametrize("when", ["at once", "while an output of 2 GB is stored"])
def test_cancel_is_heard_at_any_time(bench: Bench, when: str) -> None:
    order = bench.order(
        "units: [a]\nrun: 'truncate -s 3G $SEATRIAL_OUTPUT/a.bin; echo a >> $SEATRIAL_CHECKPOINT; echo ready; sleep 60'",
        ("a",),
    )
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    if when != "at once":
        running.wait_for("ready")
        time.sleep(0.3)
    recorder.cancelled.set()
    start = time.monotonic()
    assert running.end(120).code == "cancelled"
    if when == "at once":
        assert time.monotonic() - start < 30  # its script takes 60
    assert bench.left_over() == []
