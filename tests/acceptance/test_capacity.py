"""Capacity end to end: a server, EC2 over HTTP, and `seatrial worker` processes that are there while their machine runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import docker
import httpx
import psutil
import pytest
from fake_imds import FakeImds
from fixtures_ec2 import ACCOUNT, REGION, Road, Yard
from fixtures_git import Repository
from fixtures_server import Json, Server, branch_files, kill, until

IDLE = 4
SETTINGS = f"""
[pools.cloud]
provider = "ec2"
region = "{REGION}"
account = "{ACCOUNT}"
slots = 1
idle = "{IDLE}s"
minimum_run = "1s"
boot = "60s"
price_per_hour = 0.384
logins_keep_awake = false
"""


class CloudServer(Server):
    """A server with a pool of machines beside its own one."""

    def __init__(self, project: Path, road: Road, yard: Yard) -> None:
        self.road = road
        self._machines: dict[str, tuple[subprocess.Popen[bytes], FakeImds]] = {}
        super().__init__({"lab": project}, slots=1, lease=5.0)
        text = self.config.read_text().replace("[projects.lab]", '[projects.lab]\npool = "cloud"')
        self.config.write_text(text + SETTINGS)
        self.instance = yard.machine("cloud")
        road.pending, road.stopping = 1.0, 2.0
        road.started, road.stopped = self._boot, self._power_off

    def _environment(self) -> dict[str, str]:
        return super()._environment() | self.road.environment

    def _ready(self) -> bool:
        if not self.direct("web"):
            return False
        with suppress(httpx.TransportError):  # it is there, and does not listen yet
            return self.http.get("/capacity").status_code == 200
        return False

    def pool(self) -> Json:
        [found] = [pool for pool in self.get("/capacity")["pools"] if pool["name"] == "cloud"]
        return found

    def _boot(self, instance: str) -> None:
        imds = FakeImds(instance, region=REGION, account=ACCOUNT)
        around = self._environment() | {
            "SEATRIAL_SERVER__HOST_NAME": instance,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": imds.url,
        }
        with (self.root / "machine.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "jobs.cli", "--config", str(self.config), "worker", "--pool", "cloud"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=around, start_new_session=True,
            )  # fmt: skip
        self._machines[instance] = process, imds

    def _power_off(self, instance: str) -> None:
        """Take the power from a machine: its processes and its containers are gone at once."""
        process, imds = self._machines.pop(instance)
        kill(*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid))
        process.wait(10)
        imds.close()
        for container in self.containers(pool="cloud"):
            with suppress(docker.errors.APIError):  # the sweeper takes them away, too
                container.remove(force=True, v=True)

    def remove(self) -> None:
        for instance in list(self._machines):
            self._power_off(instance)
        super().remove()


@pytest.fixture
def server(lab: Repository, road: Road, yard: Yard) -> Iterator[CloudServer]:
    with CloudServer(lab.path, road, yard) as one:
        try:
            yield one
        finally:
            machine = one.root / "machine.log"
            print(machine.read_text(errors="replace")[-6_000:] if machine.exists() else "no machine")  # noqa: T201
        one.cancel_all()
    yard.client.stop_instances(InstanceIds=[one.instance])


def test_work_starts_a_machine_that_stops_when_nothing_is_left(
    server: CloudServer, lab: Repository, road: Road, yard: Yard
) -> None:
    lab.branch("turns", branch_files("work() { echo turn; sleep 1; }\neach\n", units=["c1", "c2"]))
    until(lambda: server.pool()["ec2"]["machines"], "EC2 has told of the machine")
    run = server.submit("lab", "turns")["id"]
    ended = datetime.fromisoformat(server.passes(run)["finished_at"])
    until(lambda: road.stops, "it is stopped", every=0.02)
    # Work that comes while it is stopping waits for the end of that, and for the start.
    again = server.submit("lab", "turns")["id"]
    server.passes(again)
    until(lambda: len(road.stops) == 2, "it is stopped again")
    until(lambda: yard.state(server.instance) == "stopped", "and is so")
    for one in (run, again):
        assert server.interruptions(one) == []
    told: list[Any] = server.get("/capacity/cloud/decisions")["decisions"]
    turns = [one for one in told if one["action"] in ("start", "drain", "stop")]
    assert [one["action"] for one in turns] == ["stop", "drain", "start"] * 2
    idle = datetime.fromisoformat(turns[4]["at"]) - ended
    assert idle >= timedelta(seconds=IDLE - 1)  # the work on it ended a moment before the run
    assert road.forbidden() == []
