"""Parting with objects, in a directory and on a store that speaks S3: nothing goes that somebody stores at that moment."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fixtures_s3 import S3Server

from jobs.adapters import s3_removal
from jobs.adapters.file_objects import FileObjects
from jobs.adapters.s3_bucket import Bucket
from jobs.adapters.s3_objects import S3Objects
from jobs.shelf import Shelf
from runner.errors import StoreUnavailable

PART = 5 << 20
Make = Callable[..., Shelf]


@pytest.fixture
def bucket(request: pytest.FixtureRequest) -> Bucket:
    server: S3Server = request.getfixturevalue("s3_server")
    return Bucket(request.getfixturevalue("s3_bucket"), "sea/trial/", endpoint_url=server.url)


@pytest.fixture(params=["file", "s3"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Open the same store again and again; `touch`: what is older is touched when it is stored again."""
    if request.param == "file":
        return lambda touch=0.0: FileObjects(tmp_path / "objects", touch=touch)
    place: Bucket = request.getfixturevalue("bucket")
    return lambda touch=0.0: S3Objects(place, spool=tmp_path / "spool", part=PART, touch=touch)


def put(objects: Shelf, data: bytes, *, later: bool = False) -> str:
    digest, _ = objects.put(io.BytesIO(data), later=later)
    objects.settle([digest])
    return digest


def touched(objects: Shelf, digest: str) -> float:
    return next(one.touched_at for one in objects.walk() if one.digest == digest)


def later() -> float:
    return time.time() + 10.0


def test_all_objects_are_found(make: Make) -> None:
    objects = make()
    assert list(objects.walk()) == []
    stored = {put(objects, b"%d" % number): len(b"%d" % number) for number in range(40)}
    found = list(objects.walk())
    assert {one.digest: one.size for one in found} == stored
    assert [one.digest for one in found] == sorted(stored)
    assert all(abs(one.touched_at - time.time()) < 30 for one in found)


def test_more_than_a_page_is_found_on_s3(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of the store is a thousand; here it is asked for ten at a time."""
    monkeypatch.setattr(s3_removal, "AT_ONCE", 20)
    objects, pages = S3Objects(bucket), []

    def ask_for_ten(params: dict[str, Any], **_: Any) -> None:
        params["MaxKeys"] = 10
        pages.append(params.get("ContinuationToken"))

    objects.client.meta.events.register("provide-client-params.s3.ListObjectsV2", ask_for_ten)
    digests = [objects.put(io.BytesIO(b"%d" % number), later=True)[0] for number in range(110)]
    objects.settle(digests)
    objects.client.put_object(Bucket=bucket.name, Key=f"{bucket.prefix}README", Body=b"somebody else's")
    assert [one.digest for one in objects.walk()] == sorted(digests)
    assert len(pages) == 12
    assert len({*pages}) == 12, "each page goes on where the one before ended"
    assert sorted(objects.remove(digests, untouched_since=later())) == sorted(digests)
    left = S3Objects(bucket).client.list_objects_v2(Bucket=bucket.name)["Contents"]
    assert [item["Key"] for item in left] == [f"{bucket.prefix}README"], "no announcement stays"


def test_only_what_was_not_touched_goes(make: Make) -> None:
    objects = make()
    digests = [put(objects, b"1"), put(objects, b"2")]
    assert objects.remove(digests, untouched_since=time.time() - 10.0) == []
    assert all(map(objects.has, digests))
    assert objects.remove([*digests, "ab" * 32], untouched_since=later()) == digests
    assert not any(map(objects.has, digests))
    assert objects.remove(digests, untouched_since=later()) == []
    assert list(objects.walk()) == []
    assert put(objects, b"1") == digests[0]
    with objects.open(digests[0]) as file:
        assert file.read() == b"1"


@pytest.mark.parametrize("size", [10, 300_000, PART + 1])
@pytest.mark.parametrize("later", [True, False])
def test_what_is_stored_again_is_touched_when_that_was_long_ago(make: Make, size: int, later: bool) -> None:
    data = os.urandom(size)
    digest = put(make(), data)
    before = touched(make(), digest)
    time.sleep(1.1)  # S3 tells whole seconds
    put(make(touch=3_600.0), data, later=later)
    assert touched(make(), digest) == before
    put(make(touch=1.0), data, later=later)
    assert touched(make(), digest) > before
    with make().open(digest) as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == digest


def test_the_first_who_asks_owns_them(make: Make) -> None:
    assert make().owner("e" * 32, claim=False) == "e" * 32
    with ThreadPoolExecutor(8) as pool:
        told = set(pool.map(lambda number: make().owner(f"{number:032x}", claim=True), range(16)))
    (owner,) = told
    assert len(owner) == 32
    assert make().owner("f" * 32, claim=True) == make().owner("e" * 32, claim=False) == owner
    assert list(make().walk()) == []


def test_what_is_no_digest_cannot_be_removed(make: Make) -> None:
    with pytest.raises(KeyError):
        make().remove(["../../etc/passwd"], untouched_since=later())


def test_two_who_remove_are_harmless(make: Make) -> None:
    first = make()
    digests = [put(first, b"%d" % number) for number in range(60)]
    with ThreadPoolExecutor(2) as pool:
        gone = list(pool.map(lambda _: make().remove(digests, untouched_since=later()), range(2)))
    assert set(gone[0]) | set(gone[1]) == set(digests)
    assert list(make().walk()) == []


def test_whoever_stores_while_it_goes_has_it_afterwards(make: Make) -> None:
    """Not one interleaving but many: each thread stores or removes as fast as it can."""
    data = b"the same bytes, night after night"
    digest = put(make(), data)
    end, lost = time.monotonic() + 4.0, []

    def store() -> None:
        objects = make()
        while time.monotonic() < end:
            began = time.time()
            put(objects, data)
            # Removers spare what was touched in the last two seconds.
            if not objects.has(digest) and time.time() - began < 1.0:
                lost.append(began)
            time.sleep(0.003 if isinstance(objects, FileObjects) else 1.5)

    def remove() -> None:
        objects = make()
        while time.monotonic() < end:
            objects.remove([digest], untouched_since=time.time() - 2.0)

    threads = [threading.Thread(target=one) for one in (store, store, remove, remove)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lost == []


# ---- one who stores comes between the last look and the removal ----


class Gate:
    """Stops whoever passes until it is opened."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()

    def pass_through(self) -> None:
        self.reached.set()
        assert self.open.wait(30)


def between(gate: Gate, objects: Shelf, other: Shelf, digest: str, data: bytes) -> None:
    """Remove an object, store it again just before it is really removed, and see that it is there."""
    with ThreadPoolExecutor(2) as pool:
        removed: Future[list[str]] = pool.submit(objects.remove, [digest], untouched_since=later())
        assert gate.reached.wait(30)
        stored = pool.submit(put, other, data)
        time.sleep(1.0)
        assert not stored.done(), "whoever stores it must wait for its removal, or it is lost"
        gate.open.set()
        assert removed.result(30) == [digest]
        assert stored.result(30) == digest
    assert other.has(digest)


def test_storing_waits_for_a_removal_in_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects, gate, unlink = FileObjects(tmp_path, touch=0.0), Gate(), Path.unlink
    digest = put(objects, b"same")

    def slow(path: Path, missing_ok: bool = False) -> None:
        if path.name == digest:
            gate.pass_through()
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", slow)
    between(gate, objects, FileObjects(tmp_path, touch=0.0), digest, b"same")


def test_writing_a_short_one_anew_waits_for_a_removal_in_a_directory_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut left it short; whoever stores it has seen that, and is about to put it in its place."""
    objects, gate, writing = FileObjects(tmp_path), Gate(), Gate()
    unlink, sync = Path.unlink, os.fdatasync
    digest = put(objects, b"same")
    (tmp_path / digest[:2] / digest).write_bytes(b"sa")

    def slow(path: Path, missing_ok: bool = False) -> None:
        if path.name == digest:
            gate.pass_through()
        unlink(path, missing_ok)

    def slow_sync(file: int) -> None:
        writing.pass_through()
        sync(file)

    monkeypatch.setattr(Path, "unlink", slow)
    monkeypatch.setattr(os, "fdatasync", slow_sync)
    with ThreadPoolExecutor(2) as pool:
        stored = pool.submit(put, FileObjects(tmp_path), b"same")
        assert writing.reached.wait(30)
        removed = pool.submit(objects.remove, [digest], untouched_since=later())
        assert gate.reached.wait(30)
        writing.open.set()
        time.sleep(0.5)
        assert not stored.done()
        gate.open.set()
        assert (removed.result(30), stored.result(30)) == ([digest], digest)
    with objects.open(digest) as file:
        assert file.read() == b"same"


class SlowClient:
    """A client whose removals of objects wait at a gate."""

    def __init__(self, client: Any, digest: str, gate: Gate) -> None:
        self._client, self._digest, self._gate = client, digest, gate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def delete_object(self, **words: Any) -> Any:
        if words["Key"].endswith(self._digest):
            self._gate.pass_through()
        return self._client.delete_object(**words)


def test_storing_waits_for_an_announced_removal_on_s3(bucket: Bucket) -> None:
    objects, gate = S3Objects(bucket, touch=0.0), Gate()
    digest = put(objects, b"same")
    objects._client = SlowClient(objects.client, digest, gate)
    between(gate, objects, S3Objects(bucket, touch=0.0), digest, b"same")


def test_an_announcement_of_a_sweeper_that_was_killed_runs_out(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = S3Objects(bucket, touch=0.0)
    digest = put(objects, b"same")
    began = time.monotonic()
    s3_removal._announce(objects, [digest])
    monkeypatch.setattr(s3_removal, "NOTICE_SECONDS", 2.0)
    put(objects, b"same")
    assert 0.9 < time.monotonic() - began < 60.0  # its age is known to the second
    time.sleep(2.0)
    assert objects.remove([digest], untouched_since=later()) == [digest]
    assert "Contents" not in objects.client.list_objects_v2(Bucket=bucket.name), "and the next one takes it away"


def test_a_removal_that_takes_too_long_ends(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = S3Objects(bucket)
    digest = put(objects, b"same")
    monkeypatch.setattr(s3_removal, "WORK_SECONDS", -1.0)
    assert objects.remove([digest], untouched_since=later()) == []
    assert objects.has(digest)


def test_a_store_that_does_not_answer_is_told(tmp_path: Path, s3_credentials: dict[str, str]) -> None:
    objects = S3Objects(Bucket("nowhere", endpoint_url="http://127.0.0.1:1"))
    with pytest.raises(StoreUnavailable):
        list(objects.walk())
    with pytest.raises(StoreUnavailable):
        objects.remove(["ab" * 32], untouched_since=later())
