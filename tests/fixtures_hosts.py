"""Hosts of one installation on this machine: each with a home, a name and a Docker engine of its own.

They share a PostgreSQL for their records, a Valkey and an object store, and nothing else.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import docker
import psycopg
from fixtures_engine import PrivateEngine
from fixtures_s3 import CREDENTIALS, S3Server
from fixtures_server import Json, Server, kill, until
from fixtures_store import Valkey

from jobs.adapters.embedded_postgres import EmbeddedPostgres
from jobs.host import installation
from jobs.settings import load_settings


@dataclass(frozen=True)
class Shared:
    """What the hosts of an installation share."""

    database_url: str
    redis_url: str
    s3: S3Server
    bucket: str

    @classmethod
    def make(cls, postgres: EmbeddedPostgres, valkey: Valkey, s3: S3Server) -> Shared:
        """Make an empty store and an empty bucket."""
        name = f"seatrial_hosts_{secrets.token_hex(3)}"
        with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name}".encode())
        return cls(postgres.dsn(name), valkey.url, s3, s3.bucket())


class Host(Server):
    """`seatrial up` on a host of its own."""

    def __init__(
        self,
        name: str,
        docker_engine: PrivateEngine,
        shared: Shared,
        projects: Mapping[str, Path],
        databases: Mapping[str, str] | None = None,
        *,
        slots: int = 2,
        lease: float = 5.0,
    ) -> None:
        self.name, self.docker_engine, self.shared = name, docker_engine, shared
        super().__init__(projects, databases, slots=slots, lease=lease)
        self.log.touch()
        self.engine.close()
        self.engine = docker.DockerClient(base_url=docker_engine.url)

    def _settings(self, projects: Mapping[str, Path], databases: Mapping[str, str]) -> str:
        own = [
            "[server]",
            f'host_name = "{self.name}"',
            f'docker_url = "{self.docker_engine.url}"',
            f'database_url = "{self.shared.database_url}"',
            f'redis_url = "{self.shared.redis_url}"',
        ]
        objects = [
            "[objects]",
            f'url = "s3://{self.shared.bucket}/trial"',
            f'endpoint_url = "{self.shared.s3.url}"',
        ]
        base = super()._settings(projects, databases)
        return base.replace("[server]", "\n".join(own), 1) + "\n".join(objects) + "\n"

    def _environment(self) -> dict[str, str]:
        known = {name: value for name, value in super()._environment().items() if not name.startswith("AWS_")}
        return known | CREDENTIALS

    @cached_property
    def installation(self) -> str:
        return installation(load_settings(self.config, {}))

    def workers(self) -> list[Json]:
        """List the slots of this host."""
        [pool] = self.get("/capacity")["pools"]
        return [worker for worker in pool["workers"] if worker["host"] == self.name]

    def _ready(self) -> bool:
        if self.up is not None and self.up.poll() is not None:
            raise AssertionError(f"`up` ended with exit code {self.up.returncode}:\n{self.tail()}")
        found = {worker["pid"] for worker in self._shown() if worker["host"] == self.name}
        return len(found) == self.slots and found == {process.pid for process in self.processes("slot")}

    def ensure(self) -> None:
        """Have the host run: its engine and its processes."""
        if not self.docker_engine.runs():
            self.docker_engine.start()
        if self.up is not None and self.up.poll() is not None:
            self.up = None
        if self.up is None:
            until(lambda: not self.processes(), "what was killed is gone")
            self.start()

    def die(self) -> None:
        """Kill all of it at once, as the end of a machine would: its processes, its engine, what runs in containers."""
        kill(*self.processes())
        self.docker_engine.lose_power()
        if self.up is not None:
            self.up.wait(10)
            self.up = None
        until(lambda: not self.processes(), "nothing of the host runs any more")

    def remove(self) -> None:
        if not self.docker_engine.runs():
            Server.live.remove(self)
            self.http.close()
            self.engine.close()
            return
        super().remove()

    def hosts(self, run: int) -> list[tuple[str, str]]:
        """Give (host, how it ended) of the attempts of a run's batches, oldest first."""
        batches = {task["id"] for task in self.run(run)["tasks"] if task["kind"] == "verify"}
        return [(one["host"], one["outcome"]) for one in self.attempts(run) if one["task"] in batches]

    def output(self, run: int, unit: str) -> bytes:
        """Read a unit's output by the API."""
        answer = self.http.get(f"/runs/{run}/units/{unit}/output")
        assert answer.status_code == 200, answer.text
        return answer.content
