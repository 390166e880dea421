"""Look at Redis or Valkey for `seatrial doctor`: version, what it keeps, and who may come in."""

from __future__ import annotations

import re
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from jobs.adapters.rq_doorbell import connect
from jobs.doctor import RedisFacts

SECONDS = 2.0


def look(url: str, *, embedded: bool) -> RedisFacts:
    """Ask Redis what it is; never raises for what it answers."""
    shown = re.sub(r"//[^@/]*@", "//***@", url)
    try:
        connection = connect(url)
        info: dict[str, Any] = dict(connection.info())
    except (RedisError, OSError, ValueError) as error:
        return RedisFacts(shown, embedded, error=" ".join(str(error).split()) or type(error).__name__)
    given = connection.connection_pool.connection_kwargs
    host = str(given.get("host", "127.0.0.1"))
    port = int(given.get("port") or info.get("tcp_port") or 0)
    aof = info.get("aof_enabled")
    return RedisFacts(
        shown,
        embedded,
        server=str(info.get("server_name") or "redis"),
        version=str(info.get("valkey_version") or info.get("redis_version", "")),
        appendonly=None if aof is None else bool(aof),
        policy=str(info.get("maxmemory_policy", "")),
        open_at=(f"{host}:{port}",) if port and _lets_in(host, port, tls=url.startswith("rediss")) else (),
    )


def _lets_in(host: str, port: int, *, tls: bool) -> bool:
    """Tell whether somebody without a password is let in."""
    anonymous = Redis(host=host, port=port, ssl=tls, socket_timeout=SECONDS, socket_connect_timeout=SECONDS)
    try:
        return bool(anonymous.ping())
    except (RedisError, OSError):
        return False
    finally:
        anonymous.close()
