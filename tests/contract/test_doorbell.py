"""The doorbell on a real Valkey: what it hears, what it never runs, and what it does when Redis is away."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
from fixtures_store import Valkey
from hands import Hands
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from jobs.adapters.rq_doorbell import RING_SECONDS, RqDoorbell, connect
from jobs.flag import Flag

KEY = "rq:queue:seatrial-local"


def redis(valkey: Valkey) -> Redis:
    return Redis.from_url(valkey.url)


# ---- ring and listen ----


def test_a_ring_is_heard_once_and_leaves_nothing(valkey: Valkey) -> None:
    bell = valkey.bell()
    assert bell.ring("local") is True
    assert bell.listen("local", seconds=1) is True
    assert bell.listen("local", seconds=1) is False
    assert [key for key in redis(valkey).scan_iter() if b":job:" in key or b"queue:" in key] == []


def test_a_ring_is_heard_at_once_by_who_listens_already(valkey: Valkey) -> None:
    heard: list[float] = []

    def listen() -> None:
        if valkey.bell().listen("local", seconds=10):
            heard.append(time.monotonic())

    thread = threading.Thread(target=listen)
    thread.start()
    time.sleep(0.3)
    rung = time.monotonic()
    valkey.bell().ring("local")
    thread.join()
    assert heard[0] - rung < 5  # not only when it would have looked for itself


def test_pools_are_kept_apart(valkey: Valkey) -> None:
    bell = valkey.bell()
    bell.ring("large")
    assert bell.listen("local", seconds=1) is False
    assert bell.listen("large", seconds=1) is True


def test_a_task_rings_once_until_it_is_heard(valkey: Valkey) -> None:
    bell = valkey.bell()
    assert [bell.ring("local", 7) for _ in range(5)] == [True] * 5
    assert redis(valkey).llen(KEY) == 1
    assert 0 < redis(valkey).ttl("rq:job:ring-local-7") <= RING_SECONDS
    assert bell.listen("local", seconds=1) is True
    assert bell.ring("local", 7) is True
    assert bell.listen("local", seconds=1) is True


def test_a_ring_whose_record_ran_out_is_still_a_ring(valkey: Valkey) -> None:
    bell = valkey.bell()
    bell.ring("local", 7)
    redis(valkey).delete("rq:job:ring-local-7")
    assert bell.listen("local", seconds=1) is True


def test_a_listener_lets_go_soon_after_it_is_told_to(valkey: Valkey) -> None:
    stop = Flag()
    threading.Timer(0.2, stop.set).start()
    begin = time.monotonic()
    assert valkey.bell().listen("local", seconds=30, stop=stop) is False
    assert time.monotonic() - begin < 15


# ---- what is never executed ----


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.path}",))


def push(valkey: Valkey, name: str, record: dict[str, bytes | str]) -> None:
    """Write a job into Redis as RQ does."""
    connection = redis(valkey)
    if record:
        connection.hset(f"rq:job:{name}", mapping={"created_at": "2026-11-21T00:00:00Z", **record})
    connection.rpush(KEY, name)


def call(function: str, *args: str) -> bytes:
    return zlib.compress(json.dumps([function, None, list(args), {}]).encode())


RING = call("jobs.tasks.ring", "local")


@pytest.mark.parametrize(
    ("record", "alarm"),
    [
        (lambda path: {"data": zlib.compress(pickle.dumps(Bomb(path)))}, "not JSON"),
        (lambda path: {"data": pickle.dumps(Bomb(path))}, "not JSON"),
        (lambda path: {"data": RING, "meta": pickle.dumps(Bomb(path))}, "not JSON"),
        (lambda path: {"data": call("os.system", f"touch {path}")}, "os.system"),
        (lambda path: {"data": RING, "success_callback_name": "os.system"}, "a callback: b'os.system'"),
        (lambda path: {"data": RING, "failure_callback_name": "subprocess.run"}, "callback"),
        (lambda path: {"data": RING, "stopped_callback_name": "os.abort"}, "callback"),
        (lambda path: {"data": zlib.compress(b"[" * 200_000)}, "not JSON"),
        (lambda path: {"data": zlib.compress(b'["' + b"a" * 50_000_000 + b'"]')}, "more than a ring"),
        (lambda path: {"data": b"\xff\xfe"}, "not JSON"),
        (lambda path: {"data": zlib.compress(b"7")}, "7"),
        (lambda path: {"status": "queued"}, "not JSON"),
    ],
)
def test_a_foreign_job_is_never_run_and_raises_an_alarm(
    valkey: Valkey, tmp_path: Path, record: Callable[[Path], dict[str, bytes | str]], alarm: str
) -> None:
    proof = tmp_path / "pwned"
    push(valkey, "evil", record(proof))
    with structlog.testing.capture_logs() as logs:
        assert valkey.bell().listen("local", seconds=1) is True
    (event,) = [event for event in logs if event["event"] == "doorbell.foreign_job"]
    assert alarm in event["found"]
    assert (event["log_level"], len(event["found"]) < 500) == ("error", True)
    assert not proof.exists()
    assert not redis(valkey).exists("rq:job:evil")


def test_a_record_of_another_kind_raises_an_alarm(valkey: Valkey) -> None:
    redis(valkey).set("rq:job:evil", "x")
    push(valkey, "evil", {})
    with structlog.testing.capture_logs() as logs:
        assert valkey.bell().listen("local", seconds=1) is True
    assert [event["found"] for event in logs] == ["a value that is no hash"]


def test_names_that_are_no_text_do_not_end_a_listener(valkey: Valkey) -> None:
    redis(valkey).rpush(KEY, b"\xff\xfe\x00 {}", "x" * 100_000)
    bell = valkey.bell()
    assert [bell.listen("local", seconds=1) for _ in range(3)] == [True, True, False]


def test_a_queue_that_is_no_list_does_not_end_a_listener(valkey: Valkey) -> None:
    redis(valkey).set(KEY, "x")
    assert valkey.bell().listen("local", seconds=1) is True


def test_a_foreign_job_with_dependents_sets_nothing_off(valkey: Valkey) -> None:
    queue = Queue("seatrial-local", connection=redis(valkey), serializer=JSONSerializer)
    first = queue.enqueue_call("os.getpid", on_success=None)
    Job.create("os.getpid", depends_on=first, connection=redis(valkey), serializer=JSONSerializer).save()
    with structlog.testing.capture_logs() as logs:
        assert valkey.bell().listen("local", seconds=1) is True
    assert "os.getpid" in logs[0]["found"]
    assert redis(valkey).llen(KEY) == 0


# ---- when Redis is away ----


def test_nobody_there_is_told_by_the_answer(tmp_path: Path) -> None:
    bell = RqDoorbell(connect(f"unix://{tmp_path}/none.sock"))
    assert bell.ring("local") is False
    assert bell.ring("local", 7) is False
    begin = time.monotonic()
    assert bell.listen("local", seconds=5) is True  # go and look for yourself
    assert 0.9 < time.monotonic() - begin < 4.5
    assert bell.ping() is None


def test_b09_a_killed_redis_is_heard_again_when_it_is_back(valkey: Valkey) -> None:
    bell = valkey.bell()
    bell.ring("local")
    assert bell.listen("local", seconds=1) is True
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(bell.listen("local", seconds=20)))
    thread.start()
    time.sleep(0.3)
    valkey.end()
    thread.join(10)
    assert answers == [True]
    assert bell.ring("local") is False
    valkey.start()
    assert bell.listen("local", seconds=1) is False
    assert bell.ring("local") is True
    assert bell.listen("local", seconds=1) is True


def test_b12_a_full_redis_refuses_the_ring_and_leaves_nothing_half_written(valkey: Valkey, shared_hands: Hands) -> None:
    connection = redis(valkey)
    connection.config_set("maxmemory", "1")
    connection.config_set("maxmemory-policy", "noeviction")
    bell = valkey.bell()
    run = shared_hands.submit()
    assert bell.ring("local") is False
    assert bell.ring("local", 7) is False
    assert connection.keys("rq:job:*") == []
    assert connection.llen(KEY) == 0
    shared_hands.worker()
    assert bell.listen("local", seconds=1) in (True, False)
    connection.config_set("maxmemory", "0")
    ((task, pool),) = shared_hands.store.tasks.to_ring(every=0)
    assert bell.ring(pool, task) is True
    assert bell.listen("local", seconds=1) is True
    assert shared_hands.take().task.run == run


# ---- who may come in ----

VISIT = """
import os, socket, sys
uid = int(sys.argv[2])
if uid:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
except PermissionError:
    print("refused")
else:
    print("in")
"""


def test_nobody_else_reaches_the_embedded_redis(valkey: Valkey) -> None:
    def visit(uid: int) -> str:
        words = [sys.executable, "-c", VISIT, str(valkey.socket), str(uid)]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    assert visit(0) == "in"  # ourselves
    if os.geteuid() == 0:  # nobody else can become somebody else
        assert visit(65534) == "refused"
        valkey.socket.parent.chmod(0o755)
        assert visit(65534) == "refused"
        valkey.socket.parent.chmod(0o700)
    assert (valkey.socket.parent.stat().st_mode & 0o777, valkey.socket.stat().st_mode & 0o777) == (0o700, 0o700)
    assert redis(valkey).config_get("port") == {"port": "0"}
