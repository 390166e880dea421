"""Following a container: steps in their order, limits, what its end means; by the engine in memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from fixtures_bench import BASE, Bench, Inside, ScriptedEngine

from runner.disk import DiskLimit, DiskWatch, host_is_full
from runner.model import UnitState
from runner.quota import Used
from runner.steps import StepReader

Maker = Callable[[Callable[[Inside], int | None]], Bench]
COMMANDS = ("00-setup", "01-setup", "02-units")


def reader(io: Path, text: str = "", told: int = 0, position: int = 0, began: float | None = None) -> StepReader:
    (io / "steps").write_text(text)
    return StepReader(io, COMMANDS, told, position, began)


def test_steps_come_once_and_in_their_order(tmp_path: Path) -> None:
    text = "begin\t00-setup\t1.00\nend\t00-setup\t2.25\t0\nbegin\t01-setup\t2.30\nend\t01-setup\t3.30\t7\n"
    steps = reader(tmp_path, text)
    events = steps.read()
    assert [(event.name, event.state, event.seconds, event.code) for event in events] == [
        ("setup", "running", None, None),
        ("setup", "done", 1.25, 0),
        ("setup", "running", None, None),
        ("setup", "failed", 1.0, 7),
    ]
    assert steps.name == "setup"
    assert steps.read() == []
    steps.close()


@pytest.mark.parametrize(
    "line",
    [
        "end\t00-setup\t1\t0", "begin\t01-setup\t1", "begin\t07-run\t1", "begin", "", "begin\t00-setup", "nonsense\t1\t2\t3",
        "end\t02-units\t1\t0", "x" * 10_000, "begin\t../x\t1",
    ],
)  # fmt: skip
def test_lines_out_of_turn_are_left_out(tmp_path: Path, line: str) -> None:
    steps = reader(tmp_path, f"{line}\nbegin\t00-setup\t1\n")
    assert [event.state for event in steps.read()] == ["running"]
    steps.close()


@pytest.mark.parametrize("uptime", ["1e12", "inf", "nan", "-5", "x", ""])
def test_times_that_cannot_be_are_not_believed(tmp_path: Path, uptime: str) -> None:
    steps = reader(tmp_path, f"begin\t00-setup\t{uptime}\nend\t00-setup\t{uptime}\t0\n")
    begin, end = steps.read()
    assert begin.began is not None
    assert math.isfinite(begin.began)
    assert end.seconds is not None
    assert 0 <= end.seconds < 30
    assert abs(steps.began_at() - time.monotonic()) < 30
    steps.close()


def test_a_reader_goes_on_where_another_one_was(tmp_path: Path) -> None:
    text = "begin\t00-setup\t1.00\nend\t00-setup\t2.00\t0\nbegin\t01-setup\t2.00\n"
    first = reader(tmp_path, text)
    last = first.read()[-1]
    second = StepReader(tmp_path, COMMANDS, last.told, last.position, last.began)
    assert second.read() == []
    assert second.name == "setup"
    with (tmp_path / "steps").open("a") as file:
        file.write("end\t01-setup\t4.00\t0\n")
    [event] = second.read()
    assert (event.state, event.seconds) == ("done", 2.0)
    first.close()
    second.close()


# ---- how it ended -----------------------------------------------------------------------------------------


def ended(
    scripted: Maker, code: int | None, *, oom: bool = False, exit_file: str | None = None
) -> tuple[str, str, Bench]:
    def script(inside: Inside) -> None:
        inside.finish("a")
        if exit_file is not None:
            (inside.place("/seatrial/io") / "exit").write_text(exit_file)
        assert isinstance(bench.engine, ScriptedEngine)
        if code is not None:
            bench.engine.end(inside.container.name, code, oom=oom)

    bench = scripted(script)
    outcome, recorder = bench.verify("units: [a, b]\nrun: x", ("a", "b"))
    assert recorder.units["a"] is UnitState.DONE, "what it had finished is kept, however it ended"
    return outcome.code, outcome.why, bench


@pytest.mark.parametrize(
    ("code", "oom", "exit_file", "expected"),
    [
        (0, False, "0 \n", "incomplete"),
        (0, False, None, "incomplete"),
        (75, False, None, "resume_requested"),
        (137, False, None, "container_lost"),
        (143, False, None, "container_lost"),
        (255, False, None, "container_lost"),
        (255, False, "255 \n", "units_failed"),
        (143, False, "143 stopped\n", "container_lost"),
        (137, True, None, "out_of_memory"),
        (1, True, "1 \n", "out_of_memory"),
        (0, True, "0 \n", "incomplete"),
        (75, False, "75 \n", "resume_requested"),
        (0, False, "256 \n", "incomplete"),
        (75, False, "0", "resume_requested"),
    ],
)
def test_what_an_end_means(scripted: Maker, code: int, oom: bool, exit_file: str | None, expected: str) -> None:
    found, why, bench = ended(scripted, code, oom=oom, exit_file=exit_file)
    assert found == expected, why
    assert bench.left_over() == []


@pytest.mark.parametrize("exit_file", [None, "1 \n"])
@pytest.mark.parametrize(("kept", "expected"), [(True, "host_out_of_memory"), (False, "out_of_memory")])
def test_only_who_reached_its_own_limit_of_memory_is_blamed(
    scripted: Maker, kept: bool, expected: str, exit_file: str | None
) -> None:
    class Seen:
        def gone(self, _: float) -> bool:
            return bench.engine.inspect(name).status != "running"  # type: ignore[union-attr]

        def look(self) -> None:
            if exit_file is not None:
                (inside.place("/seatrial/io") / "exit").write_text(exit_file)
            bench.engine.end(name, 137, oom=True)  # type: ignore[attr-defined]

        def kept_its_memory(self) -> bool:
            return kept

        def close(self) -> None:
            pass

    def script(made: Inside) -> None:
        nonlocal inside, name
        inside, name = made, made.container.name

    inside, name = Inside.__new__(Inside), ""
    bench = scripted(script)
    bench.engine.watch = lambda _: Seen()  # type: ignore[method-assign]
    spec = f"units: [a]\nrun: x\nworkspace: {{image: '{BASE}', limits: {{memory: 64m}}}}"
    outcome, recorder = bench.verify(spec, ("a",))
    assert outcome.code == expected
    assert "limits.memory, 64 MiB" in outcome.why
    assert recorder.units == {"a": UnitState.TODO if kept else UnitState.FAILED}


def test_without_a_container_there_is_nothing_to_wait_for(scripted: Maker) -> None:
    def script(inside: Inside) -> None:
        bench.engine.remove(inside.container.name)

    bench = scripted(script)
    outcome, _ = bench.verify("run: x")
    assert outcome.code == "container_lost"
    assert outcome.seconds < 20


@pytest.mark.parametrize(
    ("timeouts", "code"),
    [("run: 1s, stall: 60s", "timed_out"), ("run: 60s, stall: 1s", "stalled")],
)
def test_time_runs_out(scripted: Maker, timeouts: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def script(inside: Inside) -> None:
        with (inside.place("/seatrial/io") / "steps").open("a") as file:
            file.write("begin\t00-run\t99999999999\n")

    now = time.monotonic
    start = now()
    monkeypatch.setattr("runner.follow.time.monotonic", lambda: start + (now() - start) * 20)
    outcome, recorder = scripted(script).verify(f"run: x\nworkspace: {{image: '{BASE}'}}\ntimeouts: {{{timeouts}}}")
    assert outcome.code == code
    assert recorder.units == {"all": UnitState.FAILED}


def test_a_disk_watch_answers_when_the_walk_has_ended(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    watch = DiskWatch(tmp_path)
    watch._next = 0.0
    until = time.monotonic() + 60
    while (used := watch.poll()) is None and time.monotonic() < until:
        time.sleep(0.005)
    assert used is not None
    assert 100_000 <= used.size < 200_000
    assert used.files == 2, "the directory and the file"
    assert watch.poll() is None, "not again for a while"
    watch._next = 0.0
    watch.poll()
    watch.close()
    watch.close()


@pytest.mark.parametrize(
    ("blocks", "files", "files_left", "full"),
    [
        (1 << 20, 1_000_000, 500_000, False),
        (100, 1_000_000, 500_000, True),
        (1 << 20, 1_000_000, 1_000, True),
        (1 << 20, 0, 0, False),
    ],
)
def test_a_disk_is_full_without_bytes_or_without_inodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int, files: int, files_left: int, full: bool
) -> None:
    found = SimpleNamespace(f_bavail=blocks, f_frsize=4_096, f_files=files, f_favail=files_left)
    monkeypatch.setattr("runner.disk.os.statvfs", lambda path: found)
    assert host_is_full(tmp_path) is full


def test_without_a_quota_files_are_counted_by_asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.quota.FILES", 3)
    for name in ("a", "b", "c"):
        (tmp_path / name).touch()
    limit = DiskLimit(tmp_path, 20_000, None)
    limit._watch._next = 0.0
    until = time.monotonic() + 60
    while (error := limit.passed()) is None and time.monotonic() < until:
        time.sleep(0.005)
    assert "made 4 files; limits.disk, 19.5 KiB, allows 3" in str(error)
    limit.close()


def test_what_a_short_script_wrote_is_told_at_its_end(scripted: Maker) -> None:
    def script(inside: Inside) -> int:
        (inside.place("/seatrial/io") / "much").write_bytes(b"x" * 3_000_000)
        inside.finish("a")
        return 0

    outcome, recorder = scripted(script).verify("units: [a]\nrun: x", ("a",))
    assert outcome.code == "done", outcome.why
    [(state, wrote)] = recorder.wrote
    assert state == "ended"
    assert 3_000_000 <= wrote.size < 4_000_000
    assert wrote.files >= 6


def test_what_a_long_script_writes_is_told_while_it_runs_when_it_grew(
    scripted: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = Used(1 << 50, 3)  # ends it
    found = iter([Used(5, 5), None, Used(9, 3), Used(4, 2), most])
    monkeypatch.setattr(DiskWatch, "poll", lambda self: next(found, None))
    outcome, recorder = scripted(lambda inside: None).verify("units: [a]\nrun: x", ("a",))
    assert outcome.code == "limit_exceeded"
    assert recorder.wrote == [("running", Used(5, 5)), ("running", Used(9, 5)), ("ended", Used(1 << 50, 5))]


def test_what_is_written_last_counts_as_well(tmp_path: Path) -> None:
    limit = DiskLimit(tmp_path, 1 << 40, None)
    limit.peak = Used(5, 50)
    (tmp_path / "output").write_bytes(b"x" * 100_000)
    limit.ended()
    limit.close()
    assert 100_000 <= limit.peak.size < 200_000
    assert limit.peak.files == 50


def test_a_walk_that_takes_long_is_not_waited_for_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.disk._WALKS", (["sh", "-c", "exec sleep 60"],))
    watch = DiskWatch(tmp_path)
    assert watch.ask(patience=0.05) is None
    watch.close()
