"""The content-addressed store."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobs.adapters.file_objects import FileObjects


@pytest.fixture
def objects(tmp_path: Path) -> FileObjects:
    return FileObjects(tmp_path / "objects")


def files(root: Path) -> list[Path]:
    return sorted(path for path in (root / "objects").rglob("*") if path.is_file())


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 5_000_001])
@pytest.mark.parametrize("durable", [True, False])
def test_what_was_put_is_read_back(objects: FileObjects, size: int, durable: bool) -> None:
    data = os.urandom(size)
    digest, stored = objects.put(io.BytesIO(data), durable=durable)
    assert (digest, stored) == (hashlib.sha256(data).hexdigest(), size)
    assert objects.has(digest)
    for offset in (0, 1, size // 2, size, size + 10):
        with objects.open(digest, offset=offset) as file:
            assert file.read() == data[offset:]


def test_the_same_bytes_are_stored_once(objects: FileObjects, tmp_path: Path) -> None:
    made = {objects.put(io.BytesIO(b"same"), durable=durable) for durable in (True, False, True)}
    assert len(made) == 1
    assert len(files(tmp_path)) == 1


def test_twenty_who_store_the_same_at_once_store_it_once(objects: FileObjects, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    with ThreadPoolExecutor(20) as pool:
        made = set(pool.map(lambda _: objects.put(io.BytesIO(data), durable=False), range(60)))
    assert len(made) == len(files(tmp_path)) == 1


@pytest.mark.parametrize("name", ["", "ab", "../../etc/passwd", "/etc/passwd", "AB" * 32, "g" * 64, "a" * 63 + "\n"])
def test_a_name_that_is_no_digest_is_not_there(objects: FileObjects, name: str) -> None:
    with pytest.raises(KeyError):
        objects.open(name)
    with pytest.raises(KeyError):
        objects.has(name)


def test_what_was_never_put_is_not_there(objects: FileObjects) -> None:
    assert objects.has("ab" * 32) is False
    with pytest.raises(KeyError):
        objects.open("ab" * 32)


class Broken(io.BytesIO):
    """Gives some bytes, then fails."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > 0:
            raise OSError("the disk is gone")
        return super().read(10)


def test_a_source_that_breaks_leaves_nothing(objects: FileObjects, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="gone"):
        objects.put(Broken(b"x" * 100))
    assert files(tmp_path) == []


def test_an_object_that_a_power_cut_left_short_is_mended(objects: FileObjects, tmp_path: Path) -> None:
    digest, _ = objects.put(io.BytesIO(b"whole"))
    (path,) = files(tmp_path)
    path.write_bytes(b"")
    objects.put(io.BytesIO(b"whole"))
    with objects.open(digest) as file:
        assert file.read() == b"whole"


def test_many_are_settled_at_once(objects: FileObjects) -> None:
    digests = [objects.put(io.BytesIO(b"%d" % number), durable=False)[0] for number in range(40)]
    objects.settle([*digests, *digests])
    objects.settle([])


WRITE = """
import sys, time
from pathlib import Path
from jobs.adapters.file_objects import FileObjects

class Slow:
    sent = 0
    def read(self, size):
        self.sent += 1
        if self.sent == 3:
            print("half", flush=True)
            time.sleep(60)
        return b"x" * 1000
FileObjects(Path(sys.argv[1])).put(Slow())
"""


def test_a_killed_writer_leaves_no_object_and_its_rest_goes_in_a_day(objects: FileObjects, tmp_path: Path) -> None:
    words = [sys.executable, "-c", WRITE, str(tmp_path / "objects")]
    writer = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"half\n"
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    (rest,) = files(tmp_path)
    assert rest.parent.name == "incoming"
    FileObjects(tmp_path / "objects").put(io.BytesIO(b"young rests stay"))
    assert rest.exists()
    os.utime(rest, (time.time() - 90_000,) * 2)
    FileObjects(tmp_path / "objects").put(io.BytesIO(b"old ones go"))
    assert not rest.exists()
