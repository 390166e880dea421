"""EC2 announces that it takes a machine away: what runs on it goes on on another one, before the machine is gone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fake_imds import SPOT, FakeImds
from fixtures_ec2 import ACCOUNT, REGION, SERVICES, Yard
from fixtures_engine import PrivateEngine
from fixtures_git import Repository
from fixtures_hosts import Host, Shared
from fixtures_s3 import S3Server
from fixtures_server import branch_files, until
from fixtures_store import Valkey

from jobs.adapters.embedded_postgres import EmbeddedPostgres

# The SDK forgets to close a socket that it could not connect.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

# Two batches of two units; the second of each waits at the gate.
SCRIPT = "work() { case $1 in */2) gate ;; esac; }\neach\n"
UNITS = ["a/1", "a/2", "b/1", "b/2"]
POOL = f"""[pools.local]
provider = "ec2"
region = "{REGION}"
account = "{ACCOUNT}"
max_running = 2
idle = "never"
dead_man = "never"
logins_keep_awake = false
"""


class Machine(Host):
    """A host that is an instance, with a server of its own beside its worker."""

    def __init__(self, engine: PrivateEngine, shared: Shared, projects: Mapping[str, Path], imds: FakeImds) -> None:
        self.imds = imds
        self.worker: subprocess.Popen[bytes] | None = None
        super().__init__(imds.instance, engine, shared, projects)

    def _settings(self, projects: Mapping[str, Path], databases: Mapping[str, str]) -> str:
        return super()._settings(projects, databases).replace("[pools.local]\n", POOL)

    def _environment(self) -> dict[str, str]:
        roads = {f"AWS_ENDPOINT_URL_{service}": self.shared.s3.url for service in SERVICES}
        return super()._environment() | roads | {"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.imds.url}

    def launch(self) -> None:
        super().launch()
        with self.log.open("ab") as log:
            self.worker = subprocess.Popen(
                [sys.executable, "-m", "jobs.cli", "--config", str(self.config), "worker", "--pool", "local"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment(), start_new_session=True,
            )  # fmt: skip

    def die(self) -> None:
        super().die()
        self._worker_is_gone()

    def remove(self) -> None:
        if self.worker is not None:
            self.worker.terminate()
            self._worker_is_gone()
        super().remove()

    def _worker_is_gone(self) -> None:
        assert self.worker is not None
        self.worker.wait(30)
        self.worker = None


@pytest.fixture
def machines(
    postgres18: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server, engine_template: Path,
    lab: Repository, yard: Yard,
) -> Iterator[list[Machine]]:  # fmt: skip
    """Two machines of one pool that are not started yet."""
    with ExitStack() as stack:
        valkey = Valkey(tmp_path_factory.mktemp("valkey"))
        valkey.start()
        stack.callback(valkey.end)
        shared = Shared.make(postgres18, valkey, s3_server)
        made = []
        for _ in range(2):
            engine = PrivateEngine(engine_template)
            stack.callback(engine.remove)
            engine.start()
            instance = yard.machine("local", state="running")
            stack.callback(yard.client.stop_instances, InstanceIds=[instance])
            imds = stack.enter_context(closing(FakeImds(instance, region=REGION, account=ACCOUNT)))
            made.append(Machine(engine, shared, {"lab": lab.path}, imds))
            stack.callback(made[-1].remove)
        yield made


def test_a_spot_interruption_hands_over_what_runs(machines: list[Machine], lab: Repository) -> None:
    first, second = machines
    first.start()
    lab.branch("notice", branch_files(SCRIPT, units=UNITS))
    run: int = first.submit("lab", "notice")["id"]
    for unit in UNITS[1::2]:
        first.wait_log(run, f"begin {unit}\n")
    second.start()
    at = datetime.now(UTC) + timedelta(seconds=115)
    first.imds.documents[SPOT] = {"action": "stop", "time": f"{at:%Y-%m-%dT%H:%M:%SZ}"}
    until(lambda: len(second.workspaces(run)) == 2, "the other machine has both batches")
    assert datetime.now(UTC) < at, "before the first one is taken away"
    until(
        lambda: (found := first.workers()) and all("spot-stop" in str(worker["shortage"]) for worker in found),
        "its slots say why they take no work",
    )
    [told] = [pool for pool in second.get("/capacity")["pools"] if pool["name"] == "local"]
    notices = {one["instance"]: one["notice"] for one in told["ec2"]["machines"]}
    assert notices[first.name]["kind"] == "spot-stop"
    assert notices[second.name] is None
    first.die()  # as EC2 does it
    second.finish(run)
    second.passes(run)
    assert second.hosts(run) == [(first.name, "interrupted")] * 2 + [(second.name, "done")] * 2
    assert second.interruptions(run) == ["drained"] * 2
    assert second.begun(run) == sorted([*UNITS, *UNITS[1::2]])
