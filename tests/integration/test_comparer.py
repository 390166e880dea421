"""The comparer with its real child: what it records, and what becomes of a pair whose comparison is killed."""

from __future__ import annotations

import importlib
import io
import os
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from hands import Hands

from jobs.adapters.file_objects import FileObjects
from jobs.adapters.sql_store import Store
from jobs.compare_child import Child, Request, answer
from jobs.comparer import AWAY_SECONDS, MOST_AWAY_SECONDS, Comparer, PutOff
from jobs.comparing import Compared, Pair, Side, UnitClass
from jobs.flag import Flag
from jobs.heartbeats import COMPARER
from jobs.new_run import NewLeg
from jobs.overview import EVERY_UNIT
from jobs.run import Verdict
from runner.model import Output, UnitResult, UnitState

SPEC = """\
version: 1
workspace: {image: debian}
units: [a, b]
run: bin/export
compare: {rules: [{match: '*', key: [id], tolerance: {absolute: 0.01}}]}
"""
REAL = f"exec {shlex.quote(sys.executable)} -m jobs.compare_child"
KILLED = "read line; kill -9 $$"
Done = Callable[..., Compared]


@pytest.fixture
def hands(tmp_path: Path, migrated: Path) -> Hands:
    store = tmp_path / "seatrial.db"
    store.write_bytes(migrated.read_bytes())
    return Hands(Store.open(f"sqlite:///{store}"))


@pytest.fixture
def compared(hands: Hands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Done:
    """Do a compare run of two units whose baselines are given, and give what became of the first one.

    With `mend` the first pass cannot compare them, and those after it can.
    """

    def do(
        candidate: str,
        *,
        child: Child | None = None,
        baseline: str = "id,n\n1,1.00\n",
        spool: Path = tmp_path,
        mend: Callable[[], None] | None = None,
    ) -> Compared:
        objects = FileObjects(tmp_path / "objects")
        legs = [NewLeg(name, "r", "c" * 40, "s", "a", "f", SPEC, "d") for name in ("baseline", "candidate")]
        new = hands.new()
        run = hands.store.runs.add(type(new)(**vars(new) | {"legs": tuple(legs)}), key=None, body="")[0].id
        for claim in (hands.take(), hands.take()):
            hands.prepared(claim, ["a", "b"], batches=1)
        for claim in (hands.take(), hands.take()):
            texts = {"a": baseline if claim.task.leg == "baseline" else candidate, "b": "id,n\n2,2\n"}
            results = []
            for unit, text in texts.items():
                digest, size = objects.put(io.BytesIO(text.encode()))
                results.append(UnitResult(unit, UnitState.DONE, Output(f"{unit}.csv", digest, size)))
            hands.store.ledger.mark(claim.task.id, claim.task.attempt, results, None)
            hands.end(claim)
        comparer = Comparer(hands.store, objects, spool, child=child)
        try:
            if mend is not None:
                assert not comparer.pass_once()
                assert comparer.put_off == 1
                assert hands.store.compare_views.by_position(run, EVERY_UNIT, after=-1, limit=9) == []
                mend()
                assert not comparer.pass_once()
                assert comparer.put_off == 1, "it rests a moment"
                comparer.show_presence()
                assert hands.store.heartbeats.signs().put_off[run].startswith("unit a: ")
                now = time.monotonic()
                monkeypatch.setattr("jobs.comparer.time", SimpleNamespace(monotonic=lambda: now + AWAY_SECONDS))
            assert not comparer.pass_once()
            assert not comparer.pass_once()
            assert not comparer.put_off
            comparer.show_presence()
            assert hands.store.heartbeats.signs().put_off == {}
        finally:
            comparer._child.close()
        found = hands.run(run)
        first, second = hands.store.compare_views.by_position(run, EVERY_UNIT, after=-1, limit=9)
        assert second.kind is UnitClass.SAME
        assert found.verdict is (Verdict.DIFFERENT if first.kind is UnitClass.DIFFERENT else Verdict.PASSED)
        return first

    return do


def test_within_the_rules(compared: Done) -> None:
    assert compared("id,n\n1,1.005\n").kind is UnitClass.EQUIVALENT


def test_outside_of_the_rules(compared: Done) -> None:
    found = compared("id,n\n1,1.5\n")
    assert (found.kind, found.changed, found.largest) == (UnitClass.DIFFERENT, 1, 0.5)
    assert found.rows is not None


def test_a_child_that_is_killed_once_is_asked_again(compared: Done, tmp_path: Path) -> None:
    mark = shlex.quote(str(tmp_path / "mark"))
    child = Child(("sh", "-c", f"[ -e {mark} ] && {REAL}; touch {mark}; {KILLED}"))
    assert compared("id,n\n1,1.005\n", child=child).kind is UnitClass.EQUIVALENT


def test_a_pair_that_kills_its_child_is_recorded_with_its_reason(compared: Done) -> None:
    found = compared("id,n\n1,1.005\n", child=Child(("sh", "-c", KILLED)))
    assert found.kind is UnitClass.DIFFERENT
    [note] = found.summary["notes"]
    assert note["code"] == "unreadable"
    assert "more memory or time than a comparison may have" in note["text"]


def test_a_child_without_an_answer_is_no_harm_to_the_next_pair(compared: Done) -> None:
    assert compared("id,n\n1,1.005\n", child=Child(("true",))).kind is UnitClass.DIFFERENT


@pytest.mark.parametrize("end", ["exit 1", "kill -INT $$", "kill -TERM $$"])
def test_a_child_that_cannot_begin_or_is_stopped_is_no_verdict(compared: Done, tmp_path: Path, end: str) -> None:
    mark = tmp_path / "mark"
    child = Child(("sh", "-c", f"[ -e {shlex.quote(str(mark))} ] && {REAL}; {end}"))
    assert compared("id,n\n1,1.005\n", child=child, mend=mark.touch).kind is UnitClass.EQUIVALENT


def test_a_spool_that_cannot_be_written_is_no_verdict(compared: Done, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.touch()
    assert compared('id,n\n1,1.00\n2,x"y\n', spool=spool, mend=spool.unlink).changed == 1
    assert list(spool.iterdir()) == []


def test_a_run_that_is_put_off_rests_ever_longer(hands: Hands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, tried = 0.0, []
    monkeypatch.setattr("jobs.comparer.time", SimpleNamespace(monotonic=lambda: now))
    comparer = Comparer(hands.store, FileObjects(tmp_path / "objects"), tmp_path)
    monkeypatch.setattr(type(hands.store.compare), "open_runs", lambda _: [7])
    monkeypatch.setattr(type(hands.store.compare), "ready", lambda *_: [])
    monkeypatch.setattr(comparer, "_compare", lambda *_: tried.append(now))
    while len(tried) < 12:
        comparer.pass_once()
        now += 1.0
    rests = [later - before for before, later in pairwise(tried)]
    assert rests[:4] == [AWAY_SECONDS * factor for factor in (1, 2, 4, 8)]
    assert rests[-1] == MOST_AWAY_SECONDS


def test_an_error_of_a_pair_does_not_end_the_comparer(compared: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("jobs.comparer.with_causes", fail)
    assert compared("id,n\n1,1.005\n", mend=monkeypatch.undo).kind is UnitClass.EQUIVALENT


def test_the_comparer_shows_that_it_lives(hands: Hands, tmp_path: Path) -> None:
    comparer = Comparer(hands.store, FileObjects(tmp_path / "objects"), tmp_path)
    assert hands.store.heartbeats.signs().is_silent(COMPARER)
    comparer.stop.set()
    comparer.work()
    assert not hands.store.heartbeats.signs().is_silent(COMPARER)


def test_a_child_that_ends_while_the_comparer_stops_is_no_verdict(
    hands: Hands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparer = Comparer(hands.store, FileObjects(tmp_path / "objects"), tmp_path, child=Child(("sh", "-c", KILLED)))
    request = Request("a", False, (), {}, {}, 1.0, 1, str(tmp_path))
    monkeypatch.setattr(comparer, "_request", lambda *_: nullcontext(request))
    comparer.stop.set()
    with pytest.raises(PutOff):
        comparer._answer(1, Pair("a", 0, None, None))


def test_a_stop_ends_a_comparison_that_is_under_way_and_is_no_verdict(
    compared: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, mended = tmp_path / "begun", tmp_path / "mended"
    stop = Flag()
    monkeypatch.setattr(stop, "is_set", begun.exists)
    monkeypatch.setattr("jobs.comparer.Flag", lambda: stop)
    child = Child(("sh", "-c", f"[ -e {mended} ] && {REAL}; touch {begun}; exec sleep 30"))
    began = time.monotonic()

    def mend() -> None:
        assert time.monotonic() - began < 20, "the child was waited for"
        begun.unlink()
        mended.touch()

    assert compared("id,n\n1,1.005\n", child=child, mend=mend).kind is UnitClass.EQUIVALENT


def test_a_stop_ends_the_copying_of_an_output(hands: Hands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comparer = Comparer(hands.store, FileObjects(tmp_path / "objects"), tmp_path)

    class Stopping(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            comparer.stop.set()
            return super().read(1)

    monkeypatch.setattr(FileObjects, "open", lambda *_, **__: Stopping(b"id,n\n"))
    sides = [Side(UnitState.DONE, Output("a.csv", digit * 64, 1)) for digit in "12"]
    try:
        with pytest.raises(PutOff, match="the comparer ends"):
            comparer._answer(1, Pair("a", 0, *sides))
    finally:
        comparer._child.close()


ALONE = """
import sys
from jobs.compare_child import Child
print(Child(("sleep", "600"))._start().pid, flush=True)
sys.stdin.read()
"""


def test_a_child_ends_with_a_comparer_that_is_killed() -> None:
    words = [sys.executable, "-c", ALONE]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as comparer:
        assert comparer.stdout is not None
        child = os.pidfd_open(int(comparer.stdout.readline()))
        comparer.kill()
    try:
        ended, _, _ = select.select([child], [], [], 20.0)
        assert ended, "it outlives its comparer"
    finally:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(child, signal.SIGKILL)
        os.close(child)


def test_an_output_that_was_removed_from_the_store_is_no_verdict(hands: Hands, tmp_path: Path) -> None:
    comparer = Comparer(hands.store, FileObjects(tmp_path / "objects"), tmp_path)
    sides = [Side(UnitState.DONE, Output("a.csv", digit * 64, 1)) for digit in "12"]
    try:
        with pytest.raises(PutOff, match=r"111111111111… was removed from the store"):
            comparer._answer(1, Pair("a", 0, *sides))
    finally:
        comparer._child.close()


@pytest.mark.parametrize(
    ("error", "told"),
    [(OSError(28, "full"), "away"), (ImportError("x"), "away"), (IndexError("x"), "unreadable")],
)
def test_a_child_answers_what_it_did_not_expect(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, told: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    importlib.import_module("runner.compare_tree")  # which would keep the other one, if it were imported first now
    monkeypatch.setattr("runner.compare.compare", fail)
    request = vars(Request("a", False, (), {"a": ("a", "1")}, {"a": ("b", "2")}, 1.0, 1, str(tmp_path)))
    assert list(answer(request)) == [told]


@pytest.mark.parametrize(("manifest", "why"), [("x" * 41, "longer than 40 bytes"), ("{", "damaged")])
def test_a_list_of_files_that_cannot_be_read(
    hands: Hands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manifest: str, why: str
) -> None:
    monkeypatch.setattr("jobs.comparer.MANIFEST_BYTES", 40)
    objects = FileObjects(tmp_path / "objects")
    digest, size = objects.put(io.BytesIO(manifest.encode()))
    side = Side(UnitState.DONE, Output("a", digest, size, tree=True))
    found = Comparer(hands.store, objects, tmp_path)._compare_outputs(1, Pair("a", 0, side, side))
    assert found.kind is UnitClass.DIFFERENT
    assert why in found.summary["notes"][0]["text"]
