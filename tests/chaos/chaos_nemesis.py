"""What is done to a server while it works. Seeded: the same seed does the same in the same order."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random

import docker
import psutil
from chaos_history import History
from fixtures_postgres import Proxy
from fixtures_server import Server, kill
from redis import Redis
from redis.exceptions import RedisError


@dataclass(frozen=True)
class Field:
    """Where a nemesis works. `lease` is in seconds; all its times are told in leases."""

    server: Server
    link: Proxy
    lease: float


Fault = Callable[[Field, Random], str | None]


def slot(field: Field, chance: Random) -> str | None:
    """Kill one worker slot; its container goes on."""
    return _kill(field, "slot", chance)


def slot_and_container(field: Field, chance: Random) -> str | None:
    """Kill one worker slot and one of the containers."""
    containers = _workspaces(field)
    told = _kill(field, "slot", chance)
    if containers:
        with suppress(docker.errors.APIError):
            chance.choice(containers).kill()
    return told


def worker(field: Field, _chance: Random) -> str | None:
    """Kill the worker with all its slots, so that only the leases tell."""
    kill(*field.server.processes("supervisor"), *field.server.processes("slot"))
    return "all"


def sweeper(field: Field, chance: Random) -> str | None:
    """Kill the sweeper."""
    return _kill(field, "sweeper", chance)


def comparer(field: Field, chance: Random) -> str | None:
    """Kill the comparer."""
    return _kill(field, "comparer", chance)


def web(field: Field, chance: Random) -> str | None:
    """Kill one process of the web server."""
    return _kill(field, "web", chance)


def redis(field: Field, chance: Random) -> str | None:
    """Kill Redis: it keeps nothing."""
    return _kill(field, "valkey", chance)


def redis_hangs(field: Field, chance: Random) -> str | None:
    """Let Redis answer nobody for a while."""
    return _suspend(field.server.processes("valkey"), field.lease * chance.uniform(0.5, 2.0), chance)


def redis_forgets(field: Field, _chance: Random) -> str | None:
    """Take every key away, as a fail-over to an empty replica does."""
    with suppress(RedisError):
        connection = Redis(unix_socket_path=str(field.server.home / "valkey" / "valkey.sock"), socket_timeout=1.0)
        keys = connection.keys("*")
        if keys:
            connection.delete(*keys)
        return f"{len(keys)} keys"
    return None


def slot_hangs(field: Field, chance: Random) -> str | None:
    """Stop one worker slot for three leases; then it wakes up and believes that nothing happened."""
    return _suspend(field.server.processes("slot"), field.lease * 3, chance)


def container(field: Field, chance: Random) -> str | None:
    """Kill a workspace from outside."""
    found = _workspaces(field)
    if not found:
        return None
    one = chance.choice(found)
    with suppress(docker.errors.APIError):
        one.kill()
    return str(one.name)


def container_removed(field: Field, chance: Random) -> str | None:
    """Remove a workspace from outside, as an engine's prune does."""
    found = _workspaces(field)
    if not found:
        return None
    one = chance.choice(found)
    with suppress(docker.errors.APIError):
        one.remove(force=True)
    return str(one.name)


def link_blinks(field: Field, _chance: Random) -> str | None:
    """Drop every connection to the database server once."""
    field.link.blink()
    return "dropped"


def link_cut(field: Field, chance: Random) -> str | None:
    """Take the road to the database server away for a while."""
    field.link.cut()
    _later(field.lease * chance.uniform(0.2, 1.5), field.link.mend)
    return "cut"


def everything(field: Field, _chance: Random) -> str | None:
    """Kill `up` with all its children, and start it again."""
    server = field.server
    assert server.up is not None
    kill(psutil.Process(server.up.pid), *server.processes())
    server.up.wait()
    server.launch()
    return "all"


FAULTS: tuple[Fault, ...] = (slot, slot, slot_and_container, worker, sweeper, comparer, web, redis, redis_hangs, redis_forgets,
                             slot_hangs, container, container_removed, link_blinks, link_cut, everything)  # fmt: skip


class Nemesis:
    """Does one fault after the other in a thread of its own, until told to stop."""

    def __init__(
        self,
        field: Field,
        history: History,
        seed: int,
        *,
        faults: tuple[Fault, ...] = FAULTS,
        pause: tuple[float, float] = (0.3, 1.2),
    ) -> None:
        """Take the field. `pause`: between two faults, in leases, at least and at most."""
        self._field, self._history, self._faults, self._pause = field, history, faults, pause
        self._chance = Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="nemesis")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the fault that is being done, and make whole what was cut for a while."""
        self._stop.set()
        self._thread.join()
        self._field.link.mend()
        for process in self._field.server.processes():
            with suppress(psutil.Error):
                process.resume()

    def _work(self) -> None:
        while not self._stop.wait(self._field.lease * self._chance.uniform(*self._pause)):
            fault = self._chance.choice(self._faults)
            self._history.note("fault", name=fault.__name__, what=fault(self._field, self._chance))


def _workspaces(field: Field) -> list[docker.models.containers.Container]:
    found = [one for one in field.server.containers(kind="workspace") if one.status == "running"]
    return sorted(found, key=lambda one: str(one.name))


def _kill(field: Field, role: str, chance: Random) -> str | None:
    found = sorted(field.server.processes(role), key=lambda process: process.pid)
    if not found:
        return None
    one = chance.choice(found)
    kill(one)
    return str(one.pid)


def _suspend(processes: list[psutil.Process], seconds: float, chance: Random) -> str | None:
    if not processes:
        return None
    one = chance.choice(sorted(processes, key=lambda process: process.pid))
    with suppress(psutil.Error):
        one.suspend()
    _later(seconds, lambda: one.send_signal(signal.SIGCONT))
    return f"{one.pid} for {seconds:.1f} s"


def _later(seconds: float, action: Callable[[], object]) -> None:
    def do() -> None:
        time.sleep(seconds)
        with suppress(psutil.Error):
            action()

    threading.Thread(target=do, daemon=True).start()
