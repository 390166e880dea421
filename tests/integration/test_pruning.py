"""Retention at work: beside workers that store, by two at once, and killed at any moment."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from fixtures_s3 import S3Server
from hands import Hands
from sqlalchemy import text

from jobs.adapters.file_objects import FileObjects
from jobs.adapters.s3_bucket import Bucket
from jobs.adapters.s3_objects import S3Objects
from jobs.adapters.sql_store import Store
from jobs.cli import main
from jobs.keeping import Done
from jobs.pruning import OBJECTS_SECONDS, PRESSED_SECONDS, Pruning
from jobs.retention import Rule, Rules
from jobs.run import TaskState
from jobs.shelf import OWNER, Shelf
from runner.errors import Conflict
from runner.model import Output, Reason, UnitResult, UnitState
from runner.quota import Used
from runner.room import Short

DAY = 86_400.0
BAD = Reason("units_failed", "no")


def rules(keep: float) -> Rules:
    return Rules(Rule(keep, "server.keep_outputs"), Rule(None, "server.keep_runs"))


def due(stamp: Path, *, ago: float = 2 * DAY) -> Path:
    stamp.touch()
    os.utime(stamp, (time.time() - ago,) * 2)
    return stamp


def dangling(store: Store, objects: Shelf) -> list[str]:
    """Give what the records refer to and the store of objects does not have."""
    return [digest for digest, _ in store.keeping.references() if not objects.has(digest)]


def put(objects: Shelf, data: bytes) -> Output:
    digest, size = objects.put(io.BytesIO(data), durable=False, later=True)
    objects.settle([digest])
    return Output("x.csv", digest, size)


def old_run(hands: Hands, objects: Shelf, data: list[bytes], *, days: float = 100.0, project: str = "accounts") -> int:
    """Give a run whose outputs are past their time."""
    run, claim = hands.preparing(project=project)
    hands.prepared(claim, [f"u{number}" for number in range(len(data))], batches=1)
    claim = hands.take()
    results = [UnitResult(f"u{n}", UnitState.DONE, put(objects, one)) for n, one in enumerate(data)]
    hands.store.ledger.mark(claim.task.id, claim.task.attempt, results, None)
    hands.log(claim, b"line\n" * 100)
    hands.end(claim)
    hands.clean(run)
    with hands.store.database.write() as connection:
        words = {"s": days * DAY, "run": run}
        connection.execute(text("UPDATE runs SET finished_at = finished_at - :s WHERE id = :run"), words)
    return run


def grow_old(root: Path) -> None:
    for path in root.glob("??/*"):
        os.utime(path, (time.time() - 2 * DAY,) * 2)


def test_workers_store_what_two_sweepers_part_with(shared_hands: Hands, tmp_path: Path) -> None:
    """Runs come and go within seconds, and have most of their outputs alike; nothing that is recorded is lost."""
    hands, root = shared_hands, tmp_path / "objects"
    hands.worker()
    pool = [b"output %d" % number for number in range(100)]
    end, failures, removed = time.monotonic() + 12.0, [], []

    def sweep(number: int) -> None:
        one = Pruning(
            hands.store,
            FileObjects(root),
            lambda _: rules(0.5),
            tmp_path / f"swept{number}",
            grace=4.0,
            steady=0.0,
        )
        while time.monotonic() < end:
            due(tmp_path / f"swept{number}")
            removed.extend(one.tidy())

    def work(number: int) -> None:
        objects, chance = FileObjects(root, touch=1.0), random.Random(number)
        while time.monotonic() < end:
            with turn:
                run, claim = hands.verifying(["a", "b", "c"])
            for unit in claim.units:
                output = put(objects, chance.choice(pool))
                time.sleep(chance.random() * 0.1)  # on its way into the records
                result = UnitResult(unit, UnitState.DONE, output)
                hands.store.ledger.mark(claim.task.id, claim.task.attempt, [result], None)
                if not objects.has(output.digest):
                    failures.append((run, unit))
            hands.end(claim)
            hands.clean(run)

    turn = threading.Lock()
    threads = [threading.Thread(target=sweep, args=(n,)) for n in range(2)]
    threads += [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert dangling(hands.store, FileObjects(root)) == []
    assert sum(done.what == "outputs" for done in removed) == len({d.name for d in removed if d.what == "outputs"}) > 3
    assert any(done.what == "objects" for done in removed)


SWEEP = """
import sys, time
from pathlib import Path
from jobs.adapters.file_objects import FileObjects
from jobs.adapters import sql_retention
from jobs.adapters.sql_store import Store
from jobs.pruning import Pruning
from jobs.retention import Rule, Rules
sql_retention.PIECE = 5
url, root, stamp = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
rules = Rules(Rule(90 * 86400.0, "server.keep_outputs"), Rule(None, "server.keep_runs"))
one = Pruning(Store.open(url), FileObjects(root), lambda _: rules, stamp, steady=0.0)
print("ready", flush=True)
for done in one.tidy():
    print(done.what, flush=True)
"""


def test_a_sweeper_that_is_killed_leaves_garbage_at_most(
    request: pytest.FixtureRequest, tmp_path: Path, migrated: Path
) -> None:
    file = tmp_path / "seatrial.db"
    file.write_bytes(migrated.read_bytes())
    hands, root, stamp = Hands(Store.open(f"sqlite:///{file}")), tmp_path / "objects", tmp_path / "swept"
    request.addfinalizer(hands.store.close)
    hands.worker()
    objects = FileObjects(root)
    chance = random.Random(7)
    kept = old_run(hands, objects, [b"%d" % number for number in range(0, 300, 3)], days=1)
    runs = [old_run(hands, objects, [b"%d" % (number * 20 + n) for n in range(20)]) for number in range(15)]
    grow_old(root)
    words = [sys.executable, "-c", SWEEP, f"sqlite:///{file}", str(root), str(due(stamp))]
    killed = 0
    for _ in range(12):
        sweeper = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert sweeper.stdout is not None
        assert sweeper.stdout.readline() == b"ready\n"
        time.sleep(chance.random() * 0.25)
        sweeper.send_signal(signal.SIGKILL)
        sweeper.communicate()
        killed += sweeper.returncode == -signal.SIGKILL
        assert dangling(hands.store, objects) == []
    assert killed > 3
    due(stamp)
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, timeout=60)
    assert dangling(hands.store, objects) == []
    assert all(hands.run(run).removed is not None for run in runs)
    assert {one.digest for one in objects.walk()} == {unit.output.digest for unit in hands.units(kept) if unit.output}
    assert not hands.store.retention.shred()
    assert all(not hands.store.inside.log_chunks(task.id, 0, 1000) for run in runs for task in hands.tasks(run))
    assert hands.store.inside.log_chunks(hands.tasks(kept)[1].id, 0, 1000)


def test_objects_go_once_a_day_and_sooner_where_the_host_runs_short(tmp_path: Path) -> None:
    store = Store.in_memory()
    objects, stamp, short = FileObjects(tmp_path / "objects"), tmp_path / "home" / ".swept", [""]
    one = Pruning(store, objects, lambda _: rules(DAY), stamp, lacking=lambda: short[0] or None, steady=0.0)

    def garbage() -> None:
        put(objects, b"nobody's")
        grow_old(tmp_path / "objects")

    garbage()
    assert list(one.tidy()) == [], "an installation that is new has nothing to part with"
    due(stamp, ago=OBJECTS_SECONDS - 60)
    assert list(one.tidy()) == []
    due(stamp, ago=OBJECTS_SECONDS + 60)
    assert [(done.what, done.name) for done in one.tidy()] == [("objects", "1, 8 B")]
    garbage()
    assert list(one.tidy()) == []
    due(stamp, ago=PRESSED_SECONDS + 60)
    assert list(one.tidy()) == []
    short[0] = "1 MiB free"
    assert [done.what for done in one.tidy()] == ["objects"]
    put(objects, b"young")
    due(stamp)
    assert list(one.tidy()) == [], "what was stored within a day stays, however short the host runs"


def test_where_room_is_short_outputs_go_before_their_time_until_there_is_enough(tmp_path: Path) -> None:
    """Those that were used longest ago first, none that is pinned or not old enough, and each says why."""
    store = Store.in_memory()
    hands, objects, stamp = Hands(store), FileObjects(tmp_path / "objects"), tmp_path / ".swept"
    young, *old, last = [
        old_run(hands, objects, [b"%d" % days * 500, b"%d." % days * 500], days=days) for days in (5, 20, 40, 30, 11)
    ]
    pinned = old_run(hands, objects, [b"pinned"], days=80, project="pinned")
    grow_old(tmp_path / "objects")
    kept = {"pinned": Rules(Rule(None, "projects.pinned.keep_outputs"), Rule(None, "server.keep_runs"))}
    lacks: list[Short] = []
    one = Pruning(
        store,
        objects,
        lambda project: kept.get(project, rules(90 * DAY)),
        stamp,
        lacking=lambda: lacks[0].text if lacks else None,
        short=lambda: lacks[0] if lacks else None,
        at_least=10 * DAY,
        steady=0.0,
    )

    def went() -> list[int]:
        due(stamp, ago=PRESSED_SECONDS + 60)
        would = [done.name for done in one.preview() if done.what == "outputs"]
        done = [found for found in one.tidy() if found.what == "outputs"]
        assert [found.name for found in done] == would
        return [int(found.name) for found in done]

    assert went() == []
    lacks.append(Short("1 GiB free for the object store (/srv), the reserve is 2 GiB", Used(3_100, 0)))
    before = len(list(objects.walk()))
    assert went() == [old[1], old[2]], "a run holds some 2,500 bytes and 500 of log"
    assert len(list(objects.walk())) == before - 4, "their objects go right after"
    removed = hands.run(old[1]).removed
    assert removed is not None
    assert removed.why == (
        "for want of room (1 GiB free for the object store (/srv), the reserve is 2 GiB), "
        "10d after the run's end (server.keep_outputs_at_least)"
    )
    [event] = hands.events(old[1], "outputs_removed")
    assert event.data["why"] == removed.why
    lacks[0] = replace(lacks[0], used=Used(1 << 40, 0))
    assert went() == [old[0]]
    assert went() == []
    assert all(hands.run(run).removed is None for run in (young, last, pinned))


def test_without_the_setting_or_with_objects_of_others_no_output_goes_before_its_time(tmp_path: Path) -> None:
    hands, objects = Hands(Store.in_memory()), FileObjects(tmp_path / "objects")
    runs = [old_run(hands, objects, [b"1", b"2"], days=50) for _ in range(2)]
    grow_old(tmp_path / "objects")
    lacks = Short("1 GiB free", Used(1 << 40, 0))

    def tidied(at_least: float | None) -> list[str]:
        stamp = due(tmp_path / ".swept")
        one = Pruning(
            hands.store, objects, lambda _: rules(90 * DAY), stamp, short=lambda: lacks, at_least=at_least, steady=0.0
        )
        return [done.name for done in one.tidy() if done.what == "outputs"]

    assert tidied(None) == []
    (tmp_path / "objects" / OWNER).write_text("others")
    assert tidied(DAY) == []
    assert all(hands.run(run).removed is None for run in runs)


def test_a_sweeper_that_has_just_begun_leaves_objects_alone(tmp_path: Path) -> None:
    objects = FileObjects(tmp_path / "objects")
    put(objects, b"nobody's")
    grow_old(tmp_path / "objects")
    one = Pruning(Store.in_memory(), objects, lambda _: rules(DAY), due(tmp_path / "swept"))
    assert list(one.tidy()) == []


def test_records_that_are_new_take_nothing_of_others_for_garbage(
    tmp_path: Path, migrated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    objects, hands = FileObjects(tmp_path / "objects"), Hands(Store.in_memory())
    old_run(hands, objects, [b"1", b"2"], days=1)
    put(objects, b"nobody's")
    grow_old(tmp_path / "objects")
    stamp = due(tmp_path / "swept")
    first = Pruning(hands.store, objects, lambda _: rules(90 * DAY), stamp, steady=0.0)
    assert [done.name for done in first.tidy()] == ["1, 8 B"]
    new = Store.in_memory()
    other = Pruning(new, objects, lambda _: rules(90 * DAY), due(stamp), steady=0.0)
    assert list(other.tidy()) == []
    assert [(done.what, done.name) for done in other.preview()] == [("objects", "stay")]
    assert len(list(objects.walk())) == 2
    assert "pruning.not_ours" in capsys.readouterr().out
    assert new.retention.archive() == new.retention.archive() != hands.store.retention.archive()


def test_a_manifest_that_cannot_be_read_keeps_all_objects(tmp_path: Path) -> None:
    hands = Hands(Store.in_memory())
    objects = FileObjects(tmp_path / "objects")
    _, claim = hands.verifying(["a"])
    broken = put(objects, b"{half of a manif")
    output = Output("all", broken.digest, 1, tree=True)
    hands.store.ledger.mark(claim.task.id, claim.task.attempt, [UnitResult("a", UnitState.DONE, output)], None)
    put(objects, b"maybe one of its entries")
    grow_old(tmp_path / "objects")
    one = Pruning(hands.store, objects, lambda _: rules(DAY), due(tmp_path / "swept"), steady=0.0)
    assert list(one.tidy()) == []
    assert len(list(objects.walk())) == 2


def test_it_works_on_s3_too(
    request: pytest.FixtureRequest, tmp_path: Path, s3_server: S3Server, s3_bucket: str
) -> None:
    hands = Hands(Store.open(f"sqlite:///{tmp_path / 'seatrial.db'}"))
    request.addfinalizer(hands.store.close)
    objects = S3Objects(Bucket(s3_bucket, "x/", endpoint_url=s3_server.url), spool=tmp_path / "spool", touch=0.0)
    hands.worker()
    old_run(hands, objects, [b"alike", b"only the old one's"])
    kept = old_run(hands, objects, [b"alike"], days=1)
    stamp = due(tmp_path / "swept")
    one = Pruning(hands.store, objects, lambda _: rules(90 * DAY), stamp, grace=-10.0, steady=0.0)
    assert [done.what for done in one.tidy()] == ["outputs", "objects"]
    assert {found.digest for found in objects.walk()} == {
        unit.output.digest for unit in hands.units(kept) if unit.output
    }
    assert dangling(hands.store, objects) == []


def test_a_store_of_objects_that_is_away_does_not_keep_runs(tmp_path: Path, s3_credentials: dict[str, str]) -> None:
    hands = Hands(Store.open(f"sqlite:///{tmp_path / 'seatrial.db'}"))
    run = old_run(hands, FileObjects(tmp_path / "objects"), [b"1"])
    away = S3Objects(Bucket("nowhere", endpoint_url="http://127.0.0.1:1"))
    one = Pruning(hands.store, away, lambda _: rules(90 * DAY), due(tmp_path / "swept"), steady=0.0)
    assert [(done.what, done.name) for done in one.tidy()] == [("outputs", str(run))]
    assert list(one.tidy()) == []
    hands.store.close()


def test_resume_and_removal_at_once_leave_one_of_them(shared_hands: Hands) -> None:
    hands = shared_hands
    hands.worker()
    for _ in range(8):
        run, claim = hands.verifying(["a"])
        hands.end(claim, TaskState.FAILED, BAD)
        hands.clean(run)
        gate, resumed = threading.Barrier(2), []

        def resume(run: int = run, gate: threading.Barrier = gate, resumed: list[bool] = resumed) -> None:
            gate.wait()
            try:
                hands.store.runs.resume(run, "mio")
                resumed.append(True)
            except Conflict:
                resumed.append(False)

        thread = threading.Thread(target=resume)
        thread.start()
        gate.wait()
        removed = hands.store.retention.remove_outputs(run, before=time.time() + 60, why="tested")
        thread.join()
        assert [removed] != resumed, "exactly one of them"
        assert (hands.run(run).removed is not None) is removed
        if not removed:
            hands.store.runs.cancel(run, "mio")


def test_the_command_line_tells_what_would_go(tmp_path: Path) -> None:
    config = tmp_path / "seatrial.toml"
    config.write_text(f'[server]\nhome = "{tmp_path}"\nkeep_outputs = "30d"\n')
    words = ["--config", str(config), "sweeper", "--dry-run"]
    told = CliRunner().invoke(main, words)
    assert (told.exit_code, told.output) == (0, "Nothing is past its time.\n")
    hands = Hands(Store.open(f"sqlite:///{tmp_path / 'seatrial.db'}"))
    objects = FileObjects(tmp_path / "objects")
    run = old_run(hands, objects, [b"1"], days=31)
    put(objects, b"nobody's")
    grow_old(tmp_path / "objects")
    told = CliRunner().invoke(main, words)
    lines = [line.split(maxsplit=2) for line in told.output.splitlines()]
    assert lines[0] == ["outputs", str(run), "30d after the run's end (server.keep_outputs)"]
    assert told.output.splitlines()[1].split("  ")[0] == "objects"
    assert "1, 8 B" in told.output
    assert hands.run(run).removed is None
    assert len(list(objects.walk())) == 2
    hands.store.close()


def test_the_command_line_tells_what_was_removed(tmp_path: Path) -> None:
    config = tmp_path / "seatrial.toml"
    config.write_text(f'[server]\nhome = "{tmp_path}"\n')
    words = ["--config", str(config), "sweeper", "--log"]
    told = CliRunner().invoke(main, words)
    assert (told.exit_code, told.output) == (0, "Nothing was removed yet.\n")
    store = Store.open(f"sqlite:///{tmp_path / 'seatrial.db'}")
    store.keeping.note("h1", Done("tree", "accounts/1", "not used for 40d"))
    store.close()
    head, line = CliRunner().invoke(main, words).output.splitlines()
    assert head.split() == ["AT", "(UTC)", "HOST", "WHAT", "NAME", "WHY"]
    assert line.endswith("  h1    tree  accounts/1  not used for 40d")
