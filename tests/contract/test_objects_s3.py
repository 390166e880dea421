"""The object store on S3 when the road to it, the store itself, or the process that writes fails."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import pytest
from fixtures_postgres import Proxy
from fixtures_s3 import UNSET, S3Server

from jobs.adapters.s3_bucket import Bucket
from jobs.adapters.s3_look import look
from jobs.adapters.s3_objects import S3Objects
from jobs.adapters.sql_schema import workers
from jobs.adapters.sql_store import Store
from jobs.doctor import Level
from jobs.doctor_facts import looks_at_installation
from jobs.doctor_objects import judge_objects
from jobs.settings import load_settings
from runner.errors import DiskFull, InfraError, StoreUnavailable

PART = 5 << 20
Answer = tuple[int, str, str]
Rule = Callable[[str, str, int], Answer | bytes | None]


class Meddler:
    """A road to the store on which some requests are answered by a rule, and some answers are changed.

    `rule`: (method, path, how many of this kind before) → an error (status, code, text), the bytes to send in place of
    the body, or None to let it pass.
    """

    def __init__(self, target: int) -> None:
        self.rule: Rule = lambda method, path, count: None
        self.seen: list[tuple[str, str]] = []
        self.headers: list[tuple[str, Any]] = []
        self.deaf_to: set[str] = set()  # headers that do not get through
        meddler = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def handle_one(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                count = sum(1 for method, _ in meddler.seen if method == self.command)
                meddler.seen.append((self.command, self.path))
                meddler.headers.append((self.command, self.headers))
                ruled = meddler.rule(self.command, self.path, count)
                if isinstance(ruled, tuple):
                    status, code, text = ruled
                    data = f"<Error><Code>{code}</Code><Message>{text}</Message></Error>".encode()
                    headers = [("Content-Type", "application/xml")]
                else:
                    connection = HTTPConnection("127.0.0.1", target, timeout=30)
                    heard = {name: value for name, value in self.headers.items() if name.lower() not in meddler.deaf_to}
                    connection.request(self.command, self.path, body, heard)
                    answer = connection.getresponse()
                    status, data, headers = answer.status, answer.read(), answer.getheaders()
                    connection.close()
                    data = ruled if ruled is not None else data
                length = next((v for k, v in headers if k.lower() == "content-length"), str(len(data)))
                self.send_response(status)
                for name, value in headers:
                    if name.lower() not in ("content-length", "transfer-encoding", "connection", "server", "date"):
                        self.send_header(name, value)
                self.send_header("Content-Length", length if self.command == "HEAD" else str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_one  # noqa: N815 - http.server calls them so

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def meddler(s3_server: S3Server) -> Iterator[Meddler]:
    made = Meddler(s3_server.port)
    yield made
    made.close()


@pytest.fixture
def objects(s3_bucket: str, meddler: Meddler, tmp_path: Path) -> S3Objects:
    return S3Objects(Bucket(s3_bucket, "t/", endpoint_url=meddler.url), spool=tmp_path, part=PART)


def put(objects: S3Objects, data: bytes) -> str:
    return objects.put(io.BytesIO(data))[0]


# ---- the road and the store ----


def test_a_store_that_is_away_is_an_interruption_and_comes_back(s3_server: S3Server, s3_bucket: str) -> None:
    with Proxy(s3_server.port) as proxy:
        objects = S3Objects(Bucket(s3_bucket, endpoint_url=f"http://127.0.0.1:{proxy.port}"))
        digest = put(objects, b"before")
        proxy.cut()
        for action in (
            lambda: put(objects, b"meanwhile"),
            lambda: objects.has(digest),
            lambda: objects.open(digest),
        ):
            with pytest.raises(StoreUnavailable, match="does not answer") as caught:
                action()
            assert isinstance(caught.value, InfraError)
            assert f"s3://{s3_bucket} at http://127.0.0.1:{proxy.port}" in caught.value.text
        proxy.mend()
        assert objects.has(digest)
        assert not objects.has(hashlib.sha256(b"meanwhile").hexdigest())


def test_a_read_goes_on_after_its_connection_broke(s3_server: S3Server, s3_bucket: str) -> None:
    data = os.urandom(24 << 20)
    with Proxy(s3_server.port) as proxy:
        objects = S3Objects(Bucket(s3_bucket, endpoint_url=f"http://127.0.0.1:{proxy.port}"))
        digest = put(objects, data)
        with objects.open(digest, offset=3) as file:
            read = file.read(1 << 20)
            proxy.blink()
            read += file.read(10 << 20)
            proxy.blink()
            read += file.read()
    assert read == data[3:]


def test_requests_that_are_refused_for_a_while_are_asked_again(
    objects: S3Objects, meddler: Meddler, s3_server: S3Server, s3_bucket: str
) -> None:
    meddler.rule = lambda method, _, count: (503, "SlowDown", "Reduce your rate.") if count < 2 else None
    digest = put(objects, b"slow")
    assert s3_server.keys(s3_bucket) == [f"t/{digest[:2]}/{digest}"]
    with objects.open(digest) as file:
        assert file.read() == b"slow"


@pytest.mark.parametrize("size", [100, PART + 1])
def test_who_loses_a_race_to_another_writer_has_stored_it_too(objects: S3Objects, meddler: Meddler, size: int) -> None:
    writes = {"PUT": size == 100, "POST": size != 100}
    conflict = (409, "ConditionalRequestConflict", "Another write is under way.")
    begun = 0 if size == 100 else 1  # the first POST begins the upload
    meddler.rule = lambda method, _, count: conflict if writes.get(method) and count == begun else None
    data = os.urandom(size)
    digest = put(objects, data)
    with objects.open(digest) as file:
        assert file.read() == data


def test_a_write_that_is_always_in_conflict_ends(objects: S3Objects, meddler: Meddler) -> None:
    conflict = (409, "ConditionalRequestConflict", "Another write is under way.")
    meddler.rule = lambda method, *_: conflict if method == "PUT" else None
    with pytest.raises(StoreUnavailable, match="again and again"):
        put(objects, b"x")


@pytest.mark.parametrize("size", [10, PART + 1])
@pytest.mark.parametrize("status", [(403, "AccessDenied"), (403, "SignatureDoesNotMatch"), (500, "InternalError")])
def test_a_write_that_is_refused_leaves_nothing(
    objects: S3Objects, meddler: Meddler, s3_server: S3Server, s3_bucket: str, size: int, status: tuple[int, str]
) -> None:
    meddler.rule = lambda method, *_: (*status, "no") if method == "PUT" else None
    words = "does not let us in" if status[0] == 403 else "does not answer"
    with pytest.raises(StoreUnavailable, match=words) as caught:
        put(objects, os.urandom(size))
    assert status[1] in caught.value.text
    assert (s3_server.keys(s3_bucket), s3_server.uploads(s3_bucket)) == ([], [])


def test_bytes_that_came_damaged_are_told(objects: S3Objects, meddler: Meddler) -> None:
    digest = put(objects, b"what was stored")
    meddler.rule = lambda method, *_: b"what was smored" if method == "GET" else None
    with objects.open(digest) as file, pytest.raises(StoreUnavailable, match="came damaged"):
        file.read()


def test_what_is_sent_says_its_digest_and_that_nothing_is_to_be_overwritten(
    objects: S3Objects, meddler: Meddler
) -> None:
    digest = put(objects, b"small")
    [headers] = [headers for method, headers in meddler.headers if method == "PUT"]
    assert base64.b64decode(headers["x-amz-checksum-sha256"]).hex() == digest
    assert headers["If-None-Match"] == "*"
    meddler.headers.clear()
    data = os.urandom(PART + 1)
    put(objects, data)
    sums = [base64.b64decode(words["x-amz-checksum-sha256"]) for method, words in meddler.headers if method == "PUT"]
    assert sums == [hashlib.sha256(data[:PART]).digest(), hashlib.sha256(data[PART:]).digest()]
    assert [words["If-None-Match"] for method, words in meddler.headers if method == "POST"] == [None, "*"]


def test_a_bucket_that_is_missing_is_named(s3_server: S3Server, s3_credentials: dict[str, str]) -> None:
    objects = S3Objects(Bucket("no-such-bucket", endpoint_url=s3_server.url))
    with pytest.raises(StoreUnavailable, match="There is no bucket no-such-bucket: make it, or correct"):
        put(objects, b"x")


def test_without_credentials_it_says_so(
    s3_server: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in (*UNSET, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    objects = S3Objects(Bucket(s3_bucket, region="us-east-1", endpoint_url=s3_server.url))
    with pytest.raises(StoreUnavailable, match="does not let us in: Unable to locate credentials"):
        put(objects, b"x")


def test_an_object_is_asked_for_before_it_is_sent_again(objects: S3Objects, meddler: Meddler) -> None:
    data = os.urandom(PART + 1)
    put(objects, data)
    meddler.seen.clear()
    put(objects, data)
    assert [method for method, _ in meddler.seen] == ["HEAD"]


def test_small_ones_that_may_come_later_are_sent_beside_each_other(objects: S3Objects, meddler: Meddler) -> None:
    at_once, most = [0], [0]
    lock, deadline = Lock(), time.monotonic() + 20

    def linger(method: str, *_: object) -> None:
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        while most[0] <= 4 and time.monotonic() < deadline:  # the others are on their way
            time.sleep(0.01)
        time.sleep(0.05)
        with lock:
            at_once[0] -= 1

    meddler.rule = linger
    objects.settle([objects.put(io.BytesIO(b"%d" % n), durable=False, later=True)[0] for n in range(60)])
    assert 4 < most[0] <= 16


def test_what_goes_wrong_with_one_that_comes_later_is_told_when_it_is_to_be_there(
    objects: S3Objects, meddler: Meddler, s3_server: S3Server, s3_bucket: str
) -> None:
    meddler.rule = lambda *_: (403, "AccessDenied", "no")
    digest, _ = objects.put(io.BytesIO(b"refused"), durable=False, later=True)
    with pytest.raises(StoreUnavailable, match="does not let us in"):
        objects.settle([digest])
    objects.put(io.BytesIO(b"refused"), durable=False, later=True)
    assert objects._sent[digest][0].exception(20) is not None
    meddler.rule = lambda *_: None
    objects.put(io.BytesIO(b"refused"), durable=False, later=True)  # nobody asked after the one before
    objects.settle([digest])
    assert s3_server.keys(s3_bucket) == [f"t/{digest[:2]}/{digest}"]


def test_one_that_nobody_asked_after_is_sent_again_when_it_may_have_gone(s3_bucket: str, meddler: Meddler) -> None:
    objects = S3Objects(Bucket(s3_bucket, "t/", endpoint_url=meddler.url), touch=60.0)
    digest, _ = objects.put(io.BytesIO(b"forgotten"), later=True)
    deadline = time.monotonic() + 20
    while not objects.has(digest):
        assert time.monotonic() < deadline
    objects.put(io.BytesIO(b"forgotten"), later=True)
    objects._sent[digest][0].result(20)
    assert [method for method, _ in meddler.seen].count("PUT") == 1, "it is there, and was so a moment ago"
    objects.client.delete_object(**objects.place(digest))
    objects._touch = 0.0  # that moment is over
    objects.put(io.BytesIO(b"forgotten"), later=True)
    objects.settle([digest])
    assert objects.has(digest)


# ---- the doctor's look ----


def test_the_doctor_finds_nothing_wrong_and_leaves_nothing(
    objects: S3Objects, s3_server: S3Server, s3_bucket: str
) -> None:
    [finding] = judge_objects(look(objects))
    assert (finding.what, finding.level) == ("object store", Level.OK)
    assert f"s3://{s3_bucket}/t at http://127.0.0.1:" in finding.text
    assert s3_server.keys(s3_bucket) == []


TROUBLE: dict[str, tuple[Rule, str, Level, str]] = {
    "denied": (lambda *_: (403, "AccessDenied", "no"), "object store", Level.PROBLEM, "does not let us in"),
    "read only": (
        lambda method, *_: (403, "AccessDenied", "no") if method == "PUT" else None,
        "object store",
        Level.PROBLEM,
        "does not let us in",
    ),
    "no listing": (
        lambda method, *_: (403, "403", "") if method == "HEAD" else None,
        "object store",
        Level.PROBLEM,
        "does not let us in",
    ),
    "whole reads": (
        lambda method, path, _: b"seatrial doctor" if "doctor" in path and method == "GET" else None,
        "object store",
        Level.PROBLEM,
        "did not give back a part",
    ),
    "uploads": (
        lambda method, path, _: (403, "AccessDenied", "no") if "uploads" in path else None,
        "object store, uploads",
        Level.WARNING,
        "parts that a killed process left",
    ),
    "deletion": (
        lambda method, *_: (403, "AccessDenied", "no") if method == "DELETE" else None,
        "object store, deletion",
        Level.WARNING,
        "does not let us delete",
    ),
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_the_doctor_names_what_a_store_refuses(objects: S3Objects, meddler: Meddler, trouble: str) -> None:
    meddler.rule, what, level, words = TROUBLE[trouble]
    found = judge_objects(look(objects))
    [finding] = [finding for finding in found if finding.level is not Level.OK]
    assert (finding.what, finding.level) == (what, level)
    assert words in finding.text
    assert finding.remedy


def test_the_doctor_names_a_store_that_overwrites(objects: S3Objects, meddler: Meddler) -> None:
    meddler.deaf_to = {"if-none-match"}
    found = {finding.what: finding for finding in judge_objects(look(objects))}
    assert found["object store, conditions"].level is Level.WARNING
    assert "does not heed If-None-Match" in found["object store, conditions"].text


def test_the_doctor_names_a_bucket_that_is_missing(s3_server: S3Server, s3_credentials: dict[str, str]) -> None:
    [finding] = judge_objects(look(S3Objects(Bucket("no-such-bucket", endpoint_url=s3_server.url))))
    assert (finding.level, "There is no bucket no-such-bucket" in finding.text) == (Level.PROBLEM, True)


def test_the_doctor_looks_where_the_settings_say(
    s3_server: S3Server, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "seatrial.toml"
    config.write_text(f'[objects]\nurl = "s3://{s3_bucket}"\nendpoint_url = "{s3_server.url}"\n')
    settings = load_settings(config, {"HOME": str(tmp_path)})
    [finding] = next(look() for what, look in looks_at_installation(settings) if what == "the object store")
    assert (finding.level, f"s3://{s3_bucket}" in finding.text) == (Level.OK, True)


def test_the_doctor_names_hosts_that_share_records_and_no_objects(tmp_path: Path, postgres_store: Store) -> None:
    url = postgres_store.database.engine.url.render_as_string(hide_password=False)
    settings = load_settings(None, {"HOME": str(tmp_path), "SEATRIAL_DATABASE_URL": url})
    look = next(look for what, look in looks_at_installation(settings) if what == "the object store")
    with postgres_store.database.write() as connection:
        connection.execute(workers.delete())
    for number, host in enumerate(("one", "one", "two")):
        assert [finding.what for finding in look() if finding.what == "object store, hosts"] == []
        postgres_store.workers.register(name=f"w{number}", host=host, pool="local", pid=1)
    [finding] = [finding for finding in look() if finding.what == "object store, hosts"]
    assert finding.level is Level.WARNING
    assert finding.text.startswith("one, two share the records")


# ---- the process ----


class Zeros:
    """A stream of zeros that takes no memory."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int = -1) -> bytes:
        size = min(size, self.left)
        self.left -= size
        return bytes(size)


def test_a_large_object_takes_the_memory_of_a_part(s3_server: S3Server, s3_bucket: str) -> None:
    objects = S3Objects(Bucket(s3_bucket, endpoint_url=s3_server.url), part=PART)
    stream: Any = Zeros(60 << 20)
    put(objects, b"opens the client")
    tracemalloc.start()
    digest, size = objects.put(stream)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size == 60 << 20
    assert most < 6 * PART  # whole it would be 12; other threads allocate too
    assert s3_server.client.head_object(Bucket=s3_bucket, Key=f"{digest[:2]}/{digest}")["ContentLength"] == size


def test_a_disk_without_room_for_what_is_on_its_way_is_named(objects: S3Objects, tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(tmp_path)], check=True)
    try:
        stream: Any = Zeros(20 << 20)
        with pytest.raises(DiskFull):
            objects.put(stream)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_uploads_left_behind_are_given_up_and_no_others(s3_server: S3Server, s3_bucket: str) -> None:
    def begin(key: str) -> None:
        s3_server.client.create_multipart_upload(Bucket=s3_bucket, Key=key)

    digest = "ab" * 32
    others = ["t/other", f"u/ab/{digest}", f"t/cd/{digest}", f"t/ab/{digest}/x"]
    for key in (f"t/ab/{digest}", *others):
        begin(key)
    objects = S3Objects(Bucket(s3_bucket, "t/", endpoint_url=s3_server.url))
    assert objects.abandon(datetime(2000, 1, 1, tzinfo=UTC)) == 0
    assert objects.abandon(datetime.now(UTC) + timedelta(days=1)) == 1
    assert sorted(s3_server.uploads(s3_bucket)) == sorted(others)


WRITE = """
import io, os, sys
from jobs.adapters.s3_bucket import Bucket
from jobs.adapters.s3_objects import S3Objects
name, url, part = sys.argv[1:]
objects = S3Objects(Bucket(name, endpoint_url=url), part=int(part))
send = objects._send_part
def hang(words, number, body):
    if number == 2:
        print("half", flush=True)
        sys.stdin.read()
    return send(words, number, body)
objects._send_part = hang
objects.put(io.BytesIO(os.urandom(3 * int(part))))
"""


def test_a_killed_writer_leaves_no_object_and_its_rest_goes(s3_server: S3Server, s3_bucket: str) -> None:
    words = [sys.executable, "-c", WRITE, s3_bucket, s3_server.url, str(PART)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"half\n"
        writer.send_signal(signal.SIGKILL)
    assert s3_server.keys(s3_bucket) == []
    assert len(s3_server.uploads(s3_bucket)) == 1
    # This server says of every upload that it began in 2010.
    put(S3Objects(Bucket(s3_bucket, endpoint_url=s3_server.url), part=PART), os.urandom(PART + 1))
    assert s3_server.uploads(s3_bucket) == []


def test_an_installation_without_s3_does_not_load_its_sdk() -> None:
    script = (
        "import sys, jobs.compose, jobs.host, jobs.cli; from jobs.settings import load_settings;"
        "jobs.compose.build_objects(load_settings(None, {'HOME': '/nowhere'}));"
        "assert not {'boto3', 'botocore'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd="/")
