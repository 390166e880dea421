"""Which file is a unit's output, what of it is stored, and whether it is still the same."""

from __future__ import annotations

import json
import os
import time
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import pytest

from jobs.adapters.file_objects import INCOMING, FileObjects
from runner.errors import Cancelled, LimitExceeded, OutputRefused, StoreUnavailable
from runner.model import Output
from runner.outputs import Outputs, Stamp


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "output"
    made.mkdir()
    return made


@pytest.fixture
def objects(tmp_path: Path) -> FileObjects:
    return FileObjects(tmp_path / "objects")


def outputs(root: Path, objects: FileObjects, *units: str, limit: int = 1_000) -> Outputs:
    return Outputs(root, objects, units, file_limit=limit)


def write(root: Path, path: str, text: str = "text") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_a_unit_has_one_file_with_any_extension(root: Path, objects: FileObjects) -> None:
    taking = outputs(root, objects, "a", "b/c", "d")
    write(root, "a.csv")
    write(root, "b/c.tar.gz")
    write(root, "d", "no extension")
    assert taking.take("a").name == "a.csv"
    found = taking.take("b/c")
    assert found.name == "c.tar.gz"
    assert found.size == 4
    with objects.open(found.digest) as file:
        assert file.read() == b"text"
    with pytest.raises(FileNotFoundError):
        taking.take("d")


def test_files_that_come_later_are_found(root: Path, objects: FileObjects) -> None:
    taking = outputs(root, objects, "a", "b")
    write(root, "a.csv")
    taking.take("a")
    with pytest.raises(FileNotFoundError):
        taking.take("b")
    write(root, "b.csv")
    taking.take("b")


def test_several_candidates_are_refused(root: Path, objects: FileObjects) -> None:
    write(root, "a.csv")
    write(root, "a.json")
    with pytest.raises(OutputRefused, match=r"several outputs of a: a\.csv, a\.json"):
        outputs(root, objects, "a").take("a")


@pytest.mark.parametrize("units", [("a", "a.b", "a.b.c"), ("a.b.c", "a.b", "a")])
def test_names_that_extend_each_other(root: Path, objects: FileObjects, units: tuple[str, ...]) -> None:
    taking = outputs(root, objects, *units)
    for unit in units:
        write(root, f"{unit}.csv", unit)
    assert {unit: taking.take(unit).name for unit in units} == {unit: f"{unit}.csv" for unit in units}


def test_a_directory_of_other_units_is_no_candidate(root: Path, objects: FileObjects) -> None:
    taking = outputs(root, objects, "t", "t.1/pl")
    write(root, "t.csv")
    write(root, "t.1/pl.csv")
    assert taking.take("t").name == "t.csv"
    assert taking.take("t.1/pl").name == "pl.csv"


def test_a_file_above_the_limit_is_refused_unread(root: Path, objects: FileObjects) -> None:
    with (root / "a.bin").open("wb") as file:
        file.truncate(5 << 30)
    with pytest.raises(LimitExceeded, match=r"5,368,709,120 bytes; limits\.file is 1,000"):
        outputs(root, objects, "a").take("a")


class Slow(FileObjects):
    """A store that tells when it syncs."""

    settled: list[str]

    def settle(self, digests: list[str]) -> None:  # type: ignore[override]
        self.settled = digests
        super().settle(digests)


def test_what_is_taken_is_synced_together(root: Path, tmp_path: Path) -> None:
    objects = Slow(tmp_path / "objects")
    taking = outputs(root, objects, "a", "b")
    write(root, "a.csv", "1")
    write(root, "b.csv", "2")
    digests = [taking.take("a").digest, taking.take("b").digest]
    taking.settle()
    assert objects.settled == digests
    taking.settle()
    assert objects.settled == []


def aged(path: Path) -> None:
    """Make a file old enough for its time stamps to be believed."""
    time.sleep(0.03)
    assert path.exists()


def test_changes_are_seen(root: Path, objects: FileObjects) -> None:
    taking = outputs(root, objects, "same", "longer", "rewritten", "gone", "replaced", "touched", "fifo")
    for unit in ("same", "longer", "rewritten", "gone", "replaced", "touched", "fifo"):
        write(root, f"{unit}.csv", "1234")
    aged(root / "same.csv")
    for unit in ["same", "longer", "rewritten", "gone", "replaced", "touched", "fifo"]:
        taking.take(unit)
    assert taking.changed() == []
    write(root, "longer.csv", "12345")
    write(root, "rewritten.csv", "4321")
    (root / "gone.csv").unlink()
    write(root, "other", "9999")
    (root / "other").rename(root / "replaced.csv")
    os.utime(root / "touched.csv")
    (root / "fifo.csv").unlink()
    os.mkfifo(root / "fifo.csv")
    assert taking.changed() == ["longer", "rewritten", "gone", "replaced", "fifo"]


def test_a_stamp_that_is_too_fresh_proves_nothing(root: Path) -> None:
    write(root, "a")
    with (root / "a").open("rb") as file:
        fresh = Stamp.of(file)
        assert fresh.racy
        assert not fresh.same(Stamp.of(file))
        aged(root / "a")
        old = Stamp.of(file)
        assert old.same(Stamp.of(file))


def test_reading_can_be_ended(root: Path, objects: FileObjects) -> None:
    taking = outputs(root, objects, "a")
    write(root, "a.csv")

    def cancelled() -> None:
        raise Cancelled

    taking.check = cancelled
    with pytest.raises(Cancelled):
        taking.take("a")
    assert taking.taken == {}


def test_a_whole_directory_and_back(root: Path, objects: FileObjects, tmp_path: Path) -> None:
    write(root, "deep/er/1.txt", "one")
    write(root, "2.bin", "two")
    (root / "empty").mkdir()
    (root / os.fsdecode(b"\xff.raw")).write_bytes(b"\xff")
    output = outputs(root, objects).take_all()
    assert (output.tree, output.size) == (True, 7)
    with objects.open(output.digest) as file:
        manifest = json.load(file)
    assert sorted(manifest) == ["2.bin", "\\xff.raw", "deep/er/1.txt"]
    target = tmp_path / "again"
    target.mkdir()
    outputs(target, objects).restore(output, (os.getuid(), os.getgid()))
    assert (target / "deep" / "er" / "1.txt").read_text() == "one"
    assert (target / "2.bin").read_text() == "two"


def test_a_manifest_leads_nowhere(root: Path, objects: FileObjects, tmp_path: Path) -> None:
    """The store is ours, and yet: a path that leads out is never written."""
    digest, _ = objects.put(BytesIO(b"x"))
    text = json.dumps({"../out": {"digest": digest, "size": 1}}).encode()
    manifest, _ = objects.put(BytesIO(text))
    with pytest.raises(OutputRefused, match="leads out"):
        outputs(root, objects).restore(Output("output", manifest, 1, tree=True), (0, 0))
    assert not (tmp_path / "out").exists()


def test_links_in_a_whole_directory_are_refused(root: Path, objects: FileObjects) -> None:
    (root / "link").symlink_to("/etc/passwd")
    with pytest.raises(OutputRefused, match="a symbolic link"):
        outputs(root, objects).take_all()


# ---- the store --------------------------------------------------------------------------------------------


def put(objects: FileObjects, data: bytes, **values: bool) -> str:
    file: BinaryIO = BytesIO(data)
    return objects.put(file, **values)[0]


def test_an_object_that_a_power_cut_left_short_is_written_anew(objects: FileObjects) -> None:
    digest = put(objects, b"whole", durable=False)
    os.truncate(objects._path(digest), 0)
    assert put(objects, b"whole") == digest
    with objects.open(digest) as file:
        assert file.read() == b"whole"


def test_settling_takes_many_at_once_and_the_same_twice(objects: FileObjects) -> None:
    digests = [put(objects, b"%d" % number, durable=False) for number in range(40)]
    objects.settle(digests + digests)
    objects.settle(digests[:1])
    objects.settle([])


def test_a_file_of_the_store_that_was_removed_is_not_an_output_that_is_missing(
    root: Path, objects: FileObjects, tmp_path: Path
) -> None:
    def tidied() -> None:
        for path in (tmp_path / "objects" / INCOMING).iterdir():
            path.unlink()

    write(root, "a.csv")
    taking = outputs(root, objects, "a")
    taking.check = tidied
    with pytest.raises(StoreUnavailable, match="object store"):
        taking.take("a")
    taking.check = lambda: None
    taken = taking.take("a")
    objects.remove([taken.digest], untouched_since=time.time() + 60)
    with pytest.raises(StoreUnavailable, match="object store"):
        taking.settle()
