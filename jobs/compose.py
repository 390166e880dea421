"""Put the parts together for web and CLI. Knows no Docker engine and no pipeline."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.adapters.file_objects import INCOMING, FileObjects
from jobs.adapters.rq_doorbell import RqDoorbell, connect
from jobs.adapters.sql_store import Store
from jobs.ringer import Ringer
from jobs.service import Service
from jobs.settings import Settings, host_environment
from runner.adapters.git_mirror import GitCredentials, GitMirror

if TYPE_CHECKING:
    from jobs.shelf import Shelf


def redis_url(settings: Settings) -> str:
    """Give the URL of Redis: the one that is set, or that of the embedded Valkey's socket."""
    return settings.server.redis_url or f"unix://{settings.server.valkey_socket}"


class Mirrors:
    """The mirrors of all projects, made when they are first asked for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._get = lru_cache(maxsize=None)(self._make)

    def __call__(self, project: str) -> GitMirror:
        return self._get(project)

    def _make(self, project: str) -> GitMirror:
        known = self._settings.projects[project]
        credentials = None
        if known.credentials is not None:
            credentials = GitCredentials(
                ssh_key_file=known.credentials.ssh_key_file, token=known.credentials.resolve_token(host_environment())
            )
        path = self._settings.server.home / "mirrors" / f"{project}.git"
        return GitMirror(path, known.repository, credentials=credentials, submodules=known.submodules)


def build_doorbell(settings: Settings) -> RqDoorbell:
    """Connect the doorbell; connections are made when they are used."""
    return RqDoorbell(connect(redis_url(settings)))


def build_objects(settings: Settings) -> Shelf:
    """Open the object store: a directory, or S3. Connections are made when they are used."""
    if settings.objects is None:
        return FileObjects(settings.server.object_store)
    # Here and not above: boto3 takes half a second that installations without S3 need not spend.
    from jobs.adapters.s3_bucket import Bucket
    from jobs.adapters.s3_objects import S3Objects

    where = settings.objects
    bucket = Bucket(where.bucket, where.prefix, where.region, where.endpoint_url)
    return S3Objects(bucket, spool=spool_directory(settings))


def passing_places(settings: Settings) -> tuple[Path, ...]:
    """Give the directories in which files stand only while a process is at them."""
    spool = spool_directory(settings)
    return (spool,) if settings.objects is not None else (spool, settings.server.object_store / INCOMING)


def spool_directory(settings: Settings) -> Path:
    """Give where copies for a comparison or an upload stand meanwhile."""
    return settings.server.home / "spool"


def build_service(settings: Settings) -> Service:
    """Open the store and all that the service needs."""
    return Service(
        settings,
        Store.open(settings.server.database_url),
        build_objects(settings),
        Mirrors(settings),
        Ringer(build_doorbell(settings)),
    )
