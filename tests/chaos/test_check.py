"""The checker finds what it is there for: each invariant, broken once, is named."""

from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from chaos_check import LOST, TWICE, Evidence, Json, RunEvidence, among, given_up, violations
from chaos_figures import mixture, runs_of
from chaos_left import mounts, sockets
from defences_table import DEFENCES
from fixtures_server import role_of

ROOT = Path(__file__).parents[2]
LOG = b"~ c1 1 begin u/1\n~ c1 2 end u/1\n~ c1 3 fin\n"


def claim(attempt: int) -> Json:
    return {"kind": "claim", "task": 7, "attempt": attempt, "data": {}}


def step(attempt: int, to: str) -> Json:
    return {"kind": "task", "task": 7, "attempt": attempt, "data": {"to": to}}


GOOD = RunEvidence(
    run={
        "state": "done",
        "reason": None,
        "units": {"total": 1, "done": 1, "failed": 0},
        "tasks": [{"id": 7, "state": "done", "log_size": len(LOG)}],
    },
    states=("done",),
    outputs={"u/1": "aa"},
    digests={"u/1": "aa"},
    events=[claim(1), step(1, "interrupted"), claim(2), step(2, "done")],
    attempts=[
        {"task": 7, "attempt": 1, "started_at": "T1", "ended_at": "T2", "log_offset": 0},
        {"task": 7, "attempt": 2, "started_at": "T2", "ended_at": "T3", "log_offset": 9},
    ],
    logs={7: LOG},
    seen=[{"state": "running", "done": 0, "failed": 0}, {"state": "done", "done": 1, "failed": 0}],
)
ENGINE = [("create", "x", 7), ("start", "x", 7), ("die", "x", 7), ("destroy", "x", 7)]


def trial(run: RunEvidence = GOOD, **more: object) -> Evidence:
    return Evidence(**{"accepted": [1], "runs": {1: run}, "engine": ENGINE, **more})  # type: ignore[arg-type]


def wrote(
    attempt: int, *, current: int | None = None, size: int = 9, state: str = "running", accepted: bool = True
) -> Json:
    return {"task": 7, "attempt": attempt, "current": current or attempt, "state": state, "log_size": size,
            "accepted": accepted, "what": "append_log", "pid": 1}  # fmt: skip


def with_log(log: bytes) -> RunEvidence:
    run = {**GOOD.run, "tasks": [{"id": 7, "state": "done", "log_size": len(log)}]}
    return replace(GOOD, run=run, logs={7: log})


def test_a_good_trial_has_no_violation() -> None:
    writes = [wrote(1, size=0), wrote(1), wrote(1, current=2, accepted=False), wrote(2), wrote(2, size=12)]
    assert violations(trial(writes=writes)) == []


@pytest.mark.parametrize(
    ("evidence", "invariant"),
    [
        (trial(accepted=[1, 2]), "ends_once"),
        (trial(replace(GOOD, run={**GOOD.run, "state": "running"})), "ends_once"),
        (trial(replace(GOOD, seen=[{"state": "failed", "done": 0, "failed": 0}])), "ends_once"),
        (trial(replace(GOOD, events=[*GOOD.events, step(2, "failed")])), "ends_once"),
        (trial(replace(GOOD, attempts=GOOD.attempts[1:])), "one_attempt_at_a_time"),
        (trial(replace(GOOD, attempts=[{**GOOD.attempts[0], "ended_at": "T4"}, GOOD.attempts[1]])), "one_attempt_at_a"),
        (trial(replace(GOOD, events=[claim(1), claim(2), step(1, "done")])), "one_attempt_at_a_time"),
        (trial(writes=[wrote(1, current=2)]), "one_writer_at_a_time"),
        (trial(writes=[wrote(1, state="interrupted")]), "one_writer_at_a_time"),
        (trial(writes=[wrote(2), wrote(1)]), "one_writer_at_a_time"),
        (trial(writes=[wrote(1), wrote(2, size=8)]), "logs_only_grow"),
        (trial(writes=[wrote(2, size=1_000)]), "logs_only_grow"),
        (trial(engine=[("start", "x", 7), ("start", "y", 7)]), "one_container_at_a_time"),
        (trial(engine=[("create", "x", 7), ("create", "x", 7)]), "one_container_at_a_time"),
        (trial(with_log(LOG.replace(b"~ c1 2 end u/1\n", b""))), "logs_are_whole"),
        (trial(with_log(LOG.replace(b"~ c1 2", b"~ c1 1 begin u/1\n~ c1 2"))), "logs_are_whole"),
        (trial(with_log(LOG.replace(b"~ c1 3 fin\n", b""))), "logs_are_whole"),
        (trial(with_log(b"~ c1 1 a\n~ c2 1 b\n~ c1 2 fin\n")), "logs_are_whole"),
        (trial(replace(GOOD, logs={7: LOG[:-1]})), "logs_are_whole"),
        (trial(replace(GOOD, seen=[*GOOD.seen, {"state": "done", "done": 0, "failed": 0}])), "marks_only_rise"),
        (trial(with_log(b"~ c1 1 begin u/1\n~ c1 2 begin u/1\n~ c1 3 fin\n")), "nothing_done_twice"),
        (trial(replace(GOOD, states=("failed",))), "true_verdicts"),
        (trial(replace(GOOD, digests={"u/1": "bb"})), "true_verdicts"),
        (trial(replace(GOOD, failed=1)), "true_verdicts"),
        (trial(replace(GOOD, run={**GOOD.run, "different": 1})), "true_verdicts"),
        (trial(left=["container x"]), "nothing_left"),
        (trial(texts={"a log": b"..hunter2.."}, canaries=[b"hunter2"]), "no_secret_shown"),
    ],
)
def test_each_invariant_is_seen_to_break(evidence: Evidence, invariant: str) -> None:
    assert any(text.startswith(invariant) for text in violations(evidence)), violations(evidence)


@pytest.mark.parametrize(
    ("words", "role"),
    [
        ([], ""),
        (["", ""], ""),
        (["/usr/bin/valkey-server *:0"], "valkey"),
        (["gunicorn: master [seatrial web]"], "web"),
        (["seatrial worker --pool local"], "supervisor"),
        (["python", "-m", "jobs.cli", "up"], "up"),
    ],
)
def test_a_process_is_known_by_its_command_line(words: list[str], role: str) -> None:
    """One that begins or ends just now has none."""
    assert role_of(words) == role


@pytest.mark.parametrize(
    ("evidence", "lost", "twice"),
    [
        (trial(), False, False),
        (trial(accepted=[1, 2]), True, False),
        (trial(replace(GOOD, run={**GOOD.run, "state": "interrupted"})), True, False),
        (trial(replace(GOOD, digests={})), True, False),
        (trial(with_log(LOG.replace(b"~ c1 2", b"~ c1 1 begin u/1\n~ c1 2"))), False, True),
        (trial(with_log(LOG + LOG.replace(b"c1", b"c2").replace(b"~ c2 2", b"~ c1 2"))), False, True),
        (trial(engine=[("start", "x", 7), ("start", "y", 7)]), False, True),
        (trial(replace(GOOD, events=[claim(1), claim(2), step(1, "interrupted"), step(2, "done")])), False, True),
    ],
)
def test_what_was_lost_and_what_was_done_twice_is_counted(evidence: Evidence, lost: bool, twice: bool) -> None:
    """A line that was taken twice, two containers at once, a stale write: each is more than none on the scoreboard."""
    found = violations(evidence)
    assert (bool(among(LOST, found)), bool(among(TWICE, found))) == (lost, twice), found


def test_a_run_that_was_given_up_is_told_apart() -> None:
    reason = {"code": "needs_attention", "text": "Needs attention: interrupted 3 times"}
    evidence = trial(replace(GOOD, run={**GOOD.run, "state": "errored", "reason": reason}))
    assert given_up(evidence) == [1]
    assert given_up(trial()) == []


def test_each_run_of_the_mixture_is_known_beforehand() -> None:
    works = mixture(40)
    assert len(works) == 40
    assert {work.states for work in works} == {("done",), ("failed",)}
    assert any("database" in work.files["seatrial.yml"].decode() for work in works)
    assert sum(bool(work.outputs) for work in works) == 36
    assert sum(work.compared for work in works) == 4


def test_only_runs_that_a_violation_names_are_counted() -> None:
    evidence = trial(accepted=[1, 2, 3])
    assert runs_of(violations(evidence), evidence) == {2, 3}


def test_what_is_mounted_or_open_below_a_directory_is_seen(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "s"))
        assert list(sockets(tmp_path)) == [f"socket {tmp_path / 's'}"]
    assert list(sockets(tmp_path)) == []
    assert list(mounts(tmp_path)) == []
    assert "mount /proc" in list(mounts(Path("/")))


def test_each_defence_names_a_test_that_there_is() -> None:
    """Parameters and all: a name that is not found proves nothing of the row."""
    words = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    found = subprocess.run(
        [*words, *sorted({defence.test for defence in DEFENCES})], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
