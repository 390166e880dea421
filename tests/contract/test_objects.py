"""The content-addressed store: in a directory, and on a store that speaks S3."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from fixtures_s3 import S3Server

from jobs.adapters.file_objects import INCOMING, FileObjects
from jobs.adapters.s3_bucket import Bucket
from jobs.adapters.s3_objects import S3Objects
from runner.passing import remove_left
from runner.ports import Objects

PART = 5 << 20  # the least that S3 takes


@dataclass(frozen=True)
class Kept:
    """A store and a look behind its back: the names of all that it holds, whatever it is."""

    objects: Objects
    names: Callable[[], list[str]]


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


@pytest.fixture(params=["file", "s3"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    if request.param == "file":
        root = tmp_path / "objects"
        return Kept(FileObjects(root), lambda: [str(path.relative_to(root)) for path in files(root)])
    server: S3Server = request.getfixturevalue("s3_server")
    name: str = request.getfixturevalue("s3_bucket")
    place = Bucket(name, "sea/trial/", endpoint_url=server.url)
    return Kept(
        S3Objects(place, spool=tmp_path / "spool", part=PART),
        lambda: [
            *(key.removeprefix("sea/trial/") for key in server.keys(name)),
            *server.uploads(name),
            *(str(path) for path in files(tmp_path)),
        ],
    )


@pytest.fixture
def objects(kept: Kept) -> Objects:
    return kept.objects


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, PART, 2 * PART + 1])
@pytest.mark.parametrize("durable", [True, False])
def test_what_was_put_is_read_back(kept: Kept, size: int, durable: bool) -> None:
    data = os.urandom(size)
    objects = kept.objects
    digest, stored = objects.put(io.BytesIO(data), durable=durable)
    assert (digest, stored) == (hashlib.sha256(data).hexdigest(), size)
    assert objects.has(digest)
    for offset in (0, 1, size // 2, size, size + 10):
        with objects.open(digest, offset=offset) as file:
            assert file.read() == data[offset:]
    assert kept.names() == [f"{digest[:2]}/{digest}"]


def test_a_reader_may_go_back_and_forth(objects: Objects) -> None:
    data = os.urandom(3_000_000)
    digest, _ = objects.put(io.BytesIO(data))
    with objects.open(digest, offset=7) as file:
        assert file.tell() == 7
        assert file.read(10) == data[7:17]
        assert file.seek(2_500_000) == 2_500_000
        assert file.read(10) == data[2_500_000:2_500_010]
        assert file.seek(-5, io.SEEK_END) == len(data) - 5
        assert file.read() == data[-5:]
        assert file.seek(0) == 0
        assert hashlib.file_digest(file, "sha256").hexdigest() == digest


def test_the_same_bytes_are_stored_once(kept: Kept) -> None:
    made = {kept.objects.put(io.BytesIO(b"same"), durable=durable) for durable in (True, False, True)}
    assert len(made) == 1
    assert len(kept.names()) == 1


@pytest.mark.parametrize("size", [300_000, PART + 1])
def test_twenty_who_store_the_same_at_once_store_it_once(kept: Kept, size: int) -> None:
    data = os.urandom(size)
    with ThreadPoolExecutor(20) as pool:
        made = set(pool.map(lambda _: kept.objects.put(io.BytesIO(data), durable=False), range(60)))
    assert len(made) == len(kept.names()) == 1


@pytest.mark.parametrize("name", ["", "ab", "../../etc/passwd", "/etc/passwd", "AB" * 32, "g" * 64, "a" * 63 + "\n"])
def test_a_name_that_is_no_digest_is_not_there(objects: Objects, name: str) -> None:
    with pytest.raises(KeyError):
        objects.open(name)
    with pytest.raises(KeyError):
        objects.has(name)


def test_what_was_never_put_is_not_there(objects: Objects) -> None:
    assert objects.has("ab" * 32) is False
    for offset in (0, 5):
        with pytest.raises(KeyError):
            objects.open("ab" * 32, offset=offset)


class Broken(io.BytesIO):
    """Gives some bytes, then fails."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > 0:
            raise OSError("the disk is gone")
        return super().read(10)


def test_a_source_that_breaks_leaves_nothing(kept: Kept) -> None:
    with pytest.raises(OSError, match="gone"):
        kept.objects.put(Broken(b"x" * 100))
    assert kept.names() == []


@pytest.mark.parametrize("later", [True, False])
def test_many_are_settled_at_once(kept: Kept, later: bool) -> None:
    put = [b"%d" % (number % 150) for number in range(200)]
    digests = [kept.objects.put(io.BytesIO(data), durable=False, later=later)[0] for data in put]
    kept.objects.settle([*digests, *digests])
    kept.objects.settle([])
    kept.objects.settle(digests)
    assert len(kept.names()) == 150
    for data, digest in zip(put, digests, strict=True):
        with kept.objects.open(digest) as file:
            assert file.read() == data


def test_a_large_one_may_come_later_too(kept: Kept) -> None:
    data = os.urandom(PART + 1)
    digest, _ = kept.objects.put(io.BytesIO(data), durable=False, later=True)
    kept.objects.settle([digest])
    assert kept.objects.has(digest)


# ---- in a directory ----


def test_an_object_that_a_power_cut_left_short_is_mended(tmp_path: Path) -> None:
    objects = FileObjects(tmp_path)
    digest, _ = objects.put(io.BytesIO(b"whole"))
    (path,) = files(tmp_path)
    path.write_bytes(b"")
    objects.put(io.BytesIO(b"whole"))
    with objects.open(digest) as file:
        assert file.read() == b"whole"


WRITE = """
import sys, time
from pathlib import Path
from jobs.adapters.file_objects import INCOMING, FileObjects

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


def test_a_killed_writer_leaves_no_object_and_a_rest_that_is_known_as_such(tmp_path: Path) -> None:
    objects = tmp_path / "objects"
    writers = [subprocess.Popen([sys.executable, "-c", WRITE, str(objects)], stdout=subprocess.PIPE) for _ in range(2)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"half\n"
    before = set(files(tmp_path))
    killed, lives = writers
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    [rest] = remove_left(objects / INCOMING)
    assert {rest} < before
    assert before - {rest} == set(files(tmp_path))
    lives.kill()
    lives.communicate()


PUT = """
import io, sys
from pathlib import Path
from jobs.adapters.file_objects import FileObjects
FileObjects(Path(sys.argv[1])).put(io.BytesIO(b"same"))
"""
STOP = """
import io, os, signal, sys
from pathlib import Path
from jobs.adapters.file_objects import FileObjects

replace = Path.replace
def replace_and_stop(path, target):
    replace(path, target)
    print("stored", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
Path.replace = replace_and_stop
FileObjects(Path(sys.argv[1])).put(io.BytesIO(b"same"))
"""


def test_a_writer_that_stands_still_keeps_nobody_from_the_same_bytes(tmp_path: Path) -> None:
    words = [sys.executable, "-c", STOP, str(tmp_path / "objects")]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as stopped:
        try:
            assert stopped.stdout is not None
            assert stopped.stdout.readline() == b"stored\n"
            subprocess.run([sys.executable, "-c", PUT, str(tmp_path / "objects")], check=True, timeout=60)
            objects = FileObjects(tmp_path / "objects")
            [one] = objects.walk()
            assert objects.remove([one.digest], untouched_since=time.time() + 60) == []
        finally:
            stopped.kill()
    assert objects.remove([one.digest], untouched_since=time.time() + 60) == [one.digest]
