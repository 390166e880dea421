"""Put together the warden of a machine; imported by the process that is one, and by no other."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

from jobs.adapters.ec2 import Ec2
from jobs.adapters.ec2_volumes import Ec2Volumes
from jobs.adapters.imds import Imds
from jobs.adapters.sql_store import Store
from jobs.closing import Closing
from jobs.floor import HostRoom
from jobs.growing import Growing, as_root, run
from jobs.host import host_name, installation
from jobs.keeping import MARK
from jobs.machine_disk import SYS, disk_of
from jobs.machines import Disk
from jobs.occupied import containers, people
from jobs.pool_settings import PoolSettings
from jobs.settings import Settings, host_environment
from jobs.warden import Post, Senses, Warden, siblings
from runner.adapters.docker_engine import DockerEngine
from runner.quantities import parse_size

ENGINE_SECONDS = 10.0  # a machine whose engine hangs must still show that it lives


def build_warden(settings: Settings, pool: str) -> Warden:
    """Make the warden of this machine, as a child of its worker."""
    mine = settings.pools[pool]
    engine = DockerEngine(settings.server.docker_url, timeout=ENGINE_SECONDS)
    room = HostRoom(settings, engine.info)
    grow = _growing(mine, pool)

    def busy() -> tuple[str, ...]:
        standing = containers(lambda: engine.find(installation=installation(settings)))
        return (*standing, *(people() if mine.logins_keep_awake else ()))

    def enlarge(disk: Disk) -> None:
        if grow is not None:
            grow.look(disk, full=room.lacking(times=MARK) is not None)

    def on_shutdown(instance: str) -> str:
        return Ec2(str(mine.region)).on_shutdown(instance)

    senses = Senses(
        imds=Imds.of(host_environment()),
        busy=busy,
        disk=lambda: disk_of(room.rooms()),
        on_shutdown=on_shutdown,
        shut_down=partial(shut_down, command=mine.shutdown_command),
        siblings=partial(siblings, os.getppid(), os.getpid()),
        grow=enlarge,
    )
    post = Post(
        host_name(settings), pool, mine.region, mine.account, mine.dead_man, settle=max(2 * settings.server.lease, 2.0)
    )
    return Warden(post, Store.open(settings.server.database_url), Closing(settings.server.home, pool), senses)


def _growing(mine: PoolSettings, pool: str) -> Growing | None:
    if mine.grow_disk is None:
        return None

    def ask(volume: str, size: int) -> None:
        Ec2Volumes(str(mine.region)).grow(volume, pool=pool, size=size)

    return Growing(parse_size(mine.grow_disk), ask, time.monotonic)


def shut_down(instance: str, *, command: tuple[str, ...] = (), sys: Path = SYS) -> None:
    """Shut this machine down; raises OSError when it cannot be, or is not the instance that it is taken for.

    `command`: the settings' own, whose effect is their author's to know.
    """
    if not command:
        if not is_instance(instance, sys):
            raise OSError(f"this machine does not show that it is {instance}; see shutdown_command in the settings")
        command = as_root("shutdown", "-h", "now")
    run(command)


def is_instance(instance: str, sys: Path = SYS) -> bool:
    """Tell whether the firmware says that this is the instance, or at least, where it names none, that EC2 runs it."""

    def said(name: str) -> str:
        try:
            return (sys / "devices" / "virtual" / "dmi" / "id" / name).read_text("utf-8", "replace").strip()
        except OSError:
            return ""

    tag = said("board_asset_tag")
    if tag.startswith("i-"):
        return tag == instance
    return "amazon" in f"{said('sys_vendor')} {said('bios_version')}".lower()
