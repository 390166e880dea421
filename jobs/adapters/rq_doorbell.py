"""The doorbell: RQ on Redis or Valkey. A ring says "there is work in this pool" and nothing else.

Workers listen to RQ's queue but not with its worker class: a ring is never executed, only heard, and what stands in
Redis is never unpickled or looked up by name. So nothing that somebody pushes into Redis can run, and none of RQ's own
recoveries can start work twice.
"""

from __future__ import annotations

import json
import time
import zlib
from typing import Any, Protocol

import structlog
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry
from rq import Queue
from rq.exceptions import DequeueTimeout, DuplicateJobError
from rq.job import Job
from rq.serializers import JSONSerializer

RING = "jobs.tasks.ring"
RING_SECONDS = 60  # one that nobody heard for a minute is worth nothing: the sweeper rings again
RING_BYTES = 4_096  # ours has a tenth of it; a larger one is foreign
SLICE_SECONDS = 1  # so soon a listener notices that it is to stop

log = structlog.get_logger(__name__)


class Stop(Protocol):
    """Tells a listener that it is to end."""

    def is_set(self) -> bool: ...


def connect(url: str) -> Redis:
    """Open a connection that notices a half-open link within seconds and does not retry by itself."""
    over_tcp = {} if url.startswith("unix:") else {"socket_keepalive": True}
    return Redis.from_url(
        url,
        **over_tcp,
        socket_timeout=10,
        socket_connect_timeout=2,
        health_check_interval=5,
        retry=Retry(NoBackoff(), 0),
    )


class RqDoorbell:
    """Ring and listen. Errors of Redis are told by the return value, never raised."""

    def __init__(self, connection: Redis) -> None:
        self._redis = connection

    def close(self) -> None:
        """Let go of the connections."""
        self._redis.close()

    def _queue(self, pool: str) -> Queue:
        return Queue(f"seatrial-{pool}", connection=self._redis, serializer=JSONSerializer)

    def ring(self, pool: str, task: int | None = None) -> bool:
        """Ring once; False when Redis does not answer. For a `task` that rings already nothing is added."""
        job_id = None if task is None else f"ring-{pool}-{task}"
        try:
            self._queue(pool).enqueue_call(
                RING, args=(pool,), timeout=-1, ttl=RING_SECONDS, result_ttl=0, job_id=job_id, unique=bool(job_id)
            )
        except DuplicateJobError:
            return True
        except RedisError as error:
            log.warning("doorbell.silent", pool=pool, error=str(error))
            return False
        return True

    def listen(self, pool: str, *, seconds: int, stop: Stop | None = None) -> bool:
        """Wait up to `seconds` for a ring, or until `stop`; True when one was heard.

        When Redis is away this waits a second and says True: the caller looks into the store by itself.
        """
        for _ in range(0, max(1, seconds), SLICE_SECONDS):
            if stop is not None and stop.is_set():
                return False
            try:
                _, job_id = Queue.lpop([self._queue(pool).key], SLICE_SECONDS, connection=self._redis)
            except DequeueTimeout:
                continue
            except RedisError as error:
                log.warning("doorbell.away", pool=pool, error=str(error))
                time.sleep(SLICE_SECONDS)
                return True
            self._forget(Job.key_for(job_id.decode("utf-8", "replace")), pool)
            return True
        return False

    def _forget(self, key: Any, pool: str) -> None:
        """Take the ring's record away; one that is not ours did not run, but people must know."""
        try:
            foreign = _what_is_foreign(self._redis, key)
            if foreign:
                log.error("doorbell.foreign_job", pool=pool, key=str(key)[:200], found=foreign)
            self._redis.delete(key)
        except RedisError as error:
            log.warning("doorbell.away", pool=pool, error=str(error))

    def ping(self) -> str | None:
        """Give Redis' version, or None when it does not answer."""
        try:
            info: Any = self._redis.info("server")
            return str(info["redis_version"])
        except RedisError:
            return None


_CALLBACKS = ("success_callback_name", "failure_callback_name", "stopped_callback_name")


def _what_is_foreign(redis: Redis, key: Any) -> str:
    """Say what a record holds that no ring of ours does; empty when it is ours, or gone already."""
    try:
        sizes = [int(redis.hstrlen(key, name)) for name in ("data", "meta", *_CALLBACKS)]
        if max(sizes) > RING_BYTES:
            return "more than a ring"
        data, meta, *callbacks = (value for value in redis.hmget(key, "data", "meta", *_CALLBACKS))
        gone = data is None and not redis.exists(key)
    except ResponseError:
        return "a value that is no hash"
    if gone:
        return ""
    if any(callbacks):
        return "a callback: " + ", ".join(ascii(name) for name in callbacks if name)[:200]
    try:
        json.loads(meta or b"{}")
        call = json.loads(zlib.decompressobj().decompress(data or b"", RING_BYTES))  # type: ignore[arg-type]
    except (zlib.error, ValueError, RecursionError):
        return "what is not JSON: " + ascii((data or b"")[:60])
    name = call[0] if isinstance(call, list) and call else call
    return "" if name == RING else "the function " + ascii(name)[:200]
