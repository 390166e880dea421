"""The doorbell: RQ on Redis or Valkey. A ring says "there is work in this pool" and nothing else.

Workers listen with RQ's queue but not with its worker class: a ring is never executed, only heard. So nothing that
somebody pushes into Redis can run, and none of RQ's own recoveries can start work twice.
"""

from __future__ import annotations

import time
from typing import Any

import structlog
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from rq import Queue
from rq.exceptions import DequeueTimeout, DuplicateJobError, NoSuchJobError
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job
from rq.serializers import JSONSerializer

RING = "jobs.tasks.ring"
RING_SECONDS = 3_600  # a ring that nobody heard for an hour is worth nothing: the sweeper rings again

log = structlog.get_logger(__name__)


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

    def listen(self, pool: str, *, seconds: int) -> bool:
        """Wait up to `seconds` for a ring; True when one was heard.

        When Redis is away this sleeps a second and says True: the caller looks into the store by itself.
        """
        queue = self._queue(pool)
        try:
            heard = Queue.dequeue_any([queue], seconds, connection=self._redis, serializer=JSONSerializer)
            if heard is not None:
                self._forget(queue, heard[0])
        except DequeueTimeout:
            return False
        except NoSuchJobError:
            return True
        except RedisError as error:
            log.warning("doorbell.away", pool=pool, error=str(error))
            time.sleep(1.0)
        return True

    def _forget(self, queue: Queue, job: Job) -> None:
        name = _name(job)
        if name != RING:
            # Somebody writes into our Redis. Nothing runs, but people must know.
            log.error("doorbell.foreign_job", job=job.id, function=name[:200])
        self._redis.lrem(IntermediateQueue(queue.key, self._redis).key, 1, job.id)
        job.delete(remove_from_queue=False)

    def ping(self) -> str | None:
        """Give Redis' version, or None when it does not answer."""
        try:
            info: Any = self._redis.info("server")
            return str(info["redis_version"])
        except RedisError:
            return None


def _name(job: Job) -> str:
    try:
        return str(job.func_name)
    except Exception:  # noqa: BLE001 - whatever a foreign payload raises while it is read, it is not ours
        return "something that is not JSON"
