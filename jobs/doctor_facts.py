"""Gather what `seatrial doctor` judges, each by its own adapter and within a few seconds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.doctor import (
    DiskFacts,
    EngineFacts,
    Finding,
    Level,
    ProjectFacts,
    judge_carrier,
    judge_database,
    judge_disk,
    judge_disk_limit,
    judge_engine,
    judge_git,
    judge_project,
    judge_python,
    judge_redis,
    judge_store,
)
from jobs.doctor_objects import judge_directory, judge_objects
from jobs.doctor_processes import judge_processes
from runner.errors import InfraError, NotFound, SeatrialError, SpecError
from runner.quota import NoQuota, mount_of, try_out

if TYPE_CHECKING:
    from jobs.settings import Settings

BASE_IMAGE = "seatrial/base:bookworm"
REMOTE_SECONDS = 10.0
# Asking for it makes git list what the remote has, and fetches nothing as there is no such branch.
NO_BRANCH = "seatrial-doctor/asks-whether-you-answer"

# What is looked at, in words for the one who waits, and the looking itself.
Look = tuple[str, Callable[[], list[Finding]]]


def looks_at_machine() -> list[Look]:
    """List what is looked at before there are settings."""
    return [
        ("Python", lambda: [judge_python(sys.version_info[:3])]),
        ("git", lambda: [judge_git(git_version())]),
    ]


def git_version() -> str | None:
    """Ask git for its version; None when there is none."""
    try:
        asked = subprocess.run(["git", "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return asked.stdout.strip()


def looks_at_installation(settings: Settings) -> list[Look]:
    """List what the settings name; without git, on which the rest is built, only the directories and the store."""
    server = settings.server
    looks: list[Look] = [
        ("home", lambda: judge_disk("home", disk(server.home, write=True))),
        ("the file system of home", lambda: look_at_carrier(server.home)),
        ("the object store", lambda: _look_at_objects(settings)),
        ("limits.disk", lambda: [_look_at_disk_limit(server.home)]),
        ("the store", lambda: _look_at_store(settings)),
        ("sweeper and comparer", lambda: _look_at_processes(settings)),
    ]
    if git_version() is None:
        return looks
    looks += [("the Docker engine", lambda: _look_at_docker(settings)), ("Redis", lambda: _look_at_redis(settings))]
    looks.append(("the disk floor", lambda: _look_at_room(settings)))
    looks += [(f"database {name}", partial(_look_at_database, settings, name)) for name in sorted(settings.databases)]
    looks += [(f"project {name}", partial(_look_at_project, settings, name)) for name in sorted(settings.projects)]
    return looks


def looks_at_pools(settings: Settings) -> list[Look]:
    """List the pools of EC2 instances."""
    pools = [name for name, pool in sorted(settings.pools.items()) if pool.is_ec2]
    if not pools:
        remedy = "docs/aws.md tells how one is set up."
        none = Finding("pools", Level.WARNING, 'there is no pool with provider = "ec2"', remedy)
        return [("the pools", lambda: [none])]
    return [(f"pool {name}", partial(_look_at_pool, settings, name)) for name in pools]


def disk(directory: Path, *, write: bool) -> DiskFacts:
    """Look at a directory, or at the one above it that there is when it is yet to be made."""
    try:
        place = next(one for one in (directory, *directory.parents) if one.exists())
        if write and not place.is_dir():
            return DiskFacts(str(directory), error=f"{place} is no directory")
        if write:
            with tempfile.TemporaryFile(dir=place) as file:
                file.write(b"seatrial doctor")
                file.flush()
                os.fsync(file.fileno())
        usage, files = shutil.disk_usage(place), os.statvfs(place)
    except OSError as error:
        return DiskFacts(str(directory), error=error.strerror or str(error))
    return DiskFacts(str(directory), usage.free, usage.total, files.f_favail if files.f_files else None)


def _nearest(home: Path) -> Path:
    """Give the directory, or the one in which it will be made."""
    return next((one for one in (home, *home.parents) if one.is_dir()), Path("/"))


def look_at_carrier(home: Path) -> list[Finding]:
    """Look whether workspaces can start where home is, or will be made; nothing is found where the kernel does not say."""
    try:
        return [judge_carrier(str(home), mount_of(_nearest(home)).kind)]
    except (NoQuota, OSError):
        return []  # where nobody may look, the finding on home tells


def _look_at_disk_limit(home: Path) -> Finding:
    place = _nearest(home)
    try:
        return judge_disk_limit(try_out(place).kind)
    except NoQuota as no:
        return judge_disk_limit(None, str(no))
    except OSError as error:
        return judge_disk_limit(None, f"{place}: {error.strerror}")


def _look_at_objects(settings: Settings) -> list[Finding]:
    directory, url = settings.server.object_store, settings.server.database_url
    if settings.objects is None:
        found = judge_disk("object store", disk(directory, write=True))
        if not url.startswith("sqlite:"):
            from jobs.adapters.sql_look import hosts

            found += judge_directory(str(directory), hosts(url))
        return found
    from jobs.adapters.s3_look import look
    from jobs.adapters.s3_objects import S3Objects
    from jobs.compose import build_objects

    objects = build_objects(settings)
    assert isinstance(objects, S3Objects)
    return judge_objects(look(objects))


def _look_at_docker(settings: Settings) -> list[Finding]:
    from jobs.host import GATEWAY_IMAGE
    from runner.adapters.docker_engine import DockerEngine

    spoken = ""
    try:
        engine = DockerEngine(settings.server.docker_url, timeout=10.0)
        info = engine.info()
        images = {name: engine.image(name) is not None for name in (GATEWAY_IMAGE, BASE_IMAGE)}
        facts, spoken = EngineFacts(info, images), engine.api_version
    except InfraError as error:
        facts = EngineFacts(error=error.text)
    found = judge_engine(facts, api=spoken, gateway=GATEWAY_IMAGE, base=BASE_IMAGE, databases=bool(settings.databases))
    root = Path(str(facts.info.get("DockerRootDir", "")))
    if root.is_absolute() and root.exists():
        found += judge_disk("docker, disk", disk(root, write=False))
    return found


def _look_at_pool(settings: Settings, name: str) -> list[Finding]:
    from jobs.adapters.ec2 import Ec2
    from jobs.cloud import CloudUnavailable, Expected
    from jobs.doctor_aws import PoolFacts, judge_pool, look_at_pool

    pool = settings.pools[name]
    expected = Expected(name, str(pool.account), str(pool.region), pool.production_tags)
    try:
        cloud = Ec2(expected.region)
        facts = look_at_pool(cloud, expected, instances=pool.instances, template=pool.launch_template)
    except CloudUnavailable as error:
        facts = PoolFacts(expected, error=error.text)
    return judge_pool(facts, dead_man=pool.dead_man is not None)


def _look_at_room(settings: Settings) -> list[Finding]:
    from jobs.doctor_room import look_at_room
    from jobs.floor import HostRoom
    from runner.adapters.docker_engine import DockerEngine

    return look_at_room(HostRoom(settings, lambda: DockerEngine(settings.server.docker_url, timeout=10.0).info()))


def _look_at_store(settings: Settings) -> list[Finding]:
    from jobs.adapters.sql_look import look

    return judge_store(look(settings.server.database_url))


def _look_at_processes(settings: Settings) -> list[Finding]:
    from jobs.adapters.sql_look import signs

    return judge_processes(signs(settings.server.database_url))


def _look_at_redis(settings: Settings) -> list[Finding]:
    from jobs.adapters.redis_look import look
    from jobs.compose import redis_url

    return judge_redis(look(redis_url(settings), embedded=settings.server.redis_url is None))


def _look_at_database(settings: Settings, name: str) -> list[Finding]:
    from jobs.host import Sources

    try:
        return judge_database(name, Sources(settings)(name).check())
    except SeatrialError as error:
        return judge_database(name, None, error.text)
    except (OSError, KeyError, ValueError):
        # Never the error's own words: they could hold the dsn.
        return judge_database(name, None, "its dsn cannot be read")


def _look_at_project(settings: Settings, name: str) -> list[Finding]:
    from jobs.compose import Mirrors

    project = settings.projects[name]
    began, error = time.monotonic(), ""
    try:
        Mirrors(settings)(name).resolve(NO_BRANCH, timeout=REMOTE_SECONDS)
    except NotFound:
        pass
    except SeatrialError as failed:
        error = failed.text
    except (OSError, KeyError) as failed:
        error = f"its credentials cannot be read: {type(failed).__name__}"
    seconds = time.monotonic() - began
    spec = None if project.spec is None else str(project.spec)
    problems = tuple(_spec_problems(project.spec))
    return judge_project(ProjectFacts(name, project.repository, seconds, error, spec, problems))


def _spec_problems(file: Path | None) -> list[str]:
    from runner.spec import parse_spec

    if file is None:
        return []
    try:
        parse_spec(file.read_bytes(), source=file.name)
    except SpecError as error:
        return [str(problem) for problem in error.problems]
    except OSError as error:
        return [f"cannot be read: {error.strerror}"]
    return []
