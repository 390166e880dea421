"""Put together what a worker host needs beyond web and CLI: Docker, databases, doors."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable
from functools import cache, lru_cache, partial
from pathlib import Path

from jobs.adapters.sql_store import Store
from jobs.aside import Aside
from jobs.cleanup import Cleanup
from jobs.compose import Mirrors, build_objects, passing_places
from jobs.instances import Instance, is_alive, slot_name
from jobs.run import NO_ENGINE
from jobs.settings import Settings, host_environment
from runner.adapters.docker_engine import DockerEngine
from runner.adapters.postgres_clone import PostgresSource
from runner.adapters.tree_cache import TreeCache
from runner.door import GatewayDoor
from runner.errors import EngineUnavailable, ImageGone
from runner.execution import Runtime
from runner.images import BuildHost
from runner.model import Container
from runner.workspace import workspace_ids

GATEWAY_IMAGE = "seatrial/gateway:1"
# The public bundle of Debian, Ubuntu and Alpine hosts; nothing else of a host goes into an image.
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


def installation(settings: Settings) -> str:
    """Give the mark that this installation's containers and databases carry: two on one machine never meet.

    With PostgreSQL all hosts of the store have the same, that of the first one; raises StoreUnavailable.
    """
    own = hashlib.sha256(str(settings.server.home.resolve()).encode()).hexdigest()[:6]
    url = settings.server.database_url
    return own if url.startswith("sqlite:") else _shared_mark(url, own)


@cache
def _shared_mark(url: str, own: str) -> str:
    store = Store.open(url)
    try:
        return store.mark(own)
    finally:
        store.close()


def host_name(settings: Settings) -> str:
    """Give the name under which this machine's workers are known."""
    return settings.server.host_name or socket.gethostname()


class Sources:
    """The verification databases, opened when they are first asked for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._get = lru_cache(maxsize=None)(self._make)

    def __call__(self, name: str) -> PostgresSource:
        return self._get(name)

    def _make(self, name: str) -> PostgresSource:
        known = self._settings.databases[name]
        return PostgresSource(
            name,
            known.resolve_dsn(host_environment()),
            owner=known.owner,
            connection_limit=known.max_connections,
            installation=installation(self._settings),
        )


def build_cleanup(settings: Settings, store: Store, runtime: Runtime) -> Cleanup:
    """Put together what the sweeper may remove on this host."""
    sources = Sources(settings)
    return Cleanup(
        store,
        runtime.engine,
        runtime.door,
        {name: partial(sources, name) for name in settings.databases},
        runtime.executions,
        passing=passing_places(settings),
        installation=installation(settings),
        host=host_name(settings),
    )


def build_host() -> BuildHost:
    """Give what image builds take from this host."""
    environment = host_environment()
    proxies = {name: environment[name] for name in PROXY_VARIABLES if environment.get(name)}
    return BuildHost(CA_BUNDLE if CA_BUNDLE.is_file() else None, proxies)


def build_runtime(settings: Settings, *, network: str = "none") -> Runtime:
    """Put together the world of one worker slot."""
    home = settings.server.home
    engine = DockerEngine(settings.server.docker_url)
    executions = home / "executions"
    executions.mkdir(parents=True, exist_ok=True)
    labels = {"installation": installation(settings)}
    return Runtime(
        engine=engine,
        trees=TreeCache(home / "trees", Mirrors(settings), owner=workspace_ids()[0], executions=executions),
        objects=build_objects(settings),
        databases=Sources(settings),
        door=GatewayDoor(engine, home / "doors", image=GATEWAY_IMAGE, labels=labels),
        executions=executions,
        network=network,
        build_host=build_host(),
        host=host_name(settings),
        aside=Aside(),
    )


def network_of(settings: Settings, pool: str, instance: int, slot: int) -> str:
    """Name the network namespace that the workspaces of a slot join: that of its pause container."""
    return f"container:seatrial-{installation(settings)}-pause-{slot_name(pool, instance, slot)}"


def open_network(engine: DockerEngine, settings: Settings, pool: str, instance: int, slot: int) -> None:
    """Start the slot's pause container.

    Half of a container's start is setting up its sandbox; this one is ready, has no network, and is never shared
    by two tasks at once. A leftover of the same slot is replaced.
    """
    name = network_of(settings, pool, instance, slot).removeprefix("container:")
    engine.remove(name)
    engine.create(
        Container(
            name=name,
            image=GATEWAY_IMAGE,
            command=("sleep", "infinity"),
            labels={"installation": installation(settings), "kind": "pause", "pool": pool, "instance": str(instance)},
            user="65534:65534",
            memory=32 << 20,
            pids=8,
        )
    )
    engine.start(name)


class SlotEngine:
    """A slot's engine as it is before each task. Its pause container may have ended with it, or been removed from outside.

    `network`: that of the pause container, which `reopen` makes; `none` where there is to be none.
    """

    def __init__(self, engine: DockerEngine, network: str, reopen: Callable[[], None]) -> None:
        self._engine, self._reopen = engine, reopen
        self._pause = network.removeprefix("container:")

    def lacking(self) -> str | None:
        """Tell why no container could start; None when one can, with the pause container made anew where it is gone."""
        try:
            state = self._engine.inspect(self._pause)
            if self._pause != "none" and (state is None or state.status != "running"):
                self._reopen()
        except (EngineUnavailable, ImageGone) as error:
            return f"{NO_ENGINE}: {error.text.rstrip('.')}"
        return None


def close_dead_networks(engine: DockerEngine, settings: Settings, ours: Instance) -> None:
    """Remove the pause containers that workers left which were killed: of this instance, and of those nobody holds."""
    for state in engine.find(installation=installation(settings), kind="pause"):
        pool, number = state.labels.get("pool", ""), state.labels.get("instance", "")
        if not number.isdigit():
            continue
        own = (pool, int(number)) == (ours.pool, ours.number)
        if own or not is_alive(settings.server.home, pool, int(number)):
            engine.remove(state.name)
