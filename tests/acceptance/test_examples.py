"""The examples end as they say that they do, on real data, and give the same bytes each time."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures_server import FINAL, Json, Server, until

from jobs.adapters.demo_postgres import ensure_database, ensure_role, fill_by_script, fill_by_sql
from jobs.adapters.embedded_postgres import EmbeddedPostgres
from jobs.demo import EXAMPLES, Expected

NAMES = ("opaque", "rake", "ledger")
BUILD_PATIENCE = 400.0  # the first time an image with django-ledger is built


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The examples' repositories."""
    root = tmp_path_factory.mktemp("repositories")
    for name in NAMES:
        command = [sys.executable, str(EXAMPLES / "repository.py"), name, "--target", str(root / f"{name}.git")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return {name: root / f"{name}.git" for name in NAMES}


class Filling(threading.Thread):
    """Fills the ledger's database, which takes most of a minute, while other tests go on."""

    def __init__(self, server: EmbeddedPostgres, home: Path) -> None:
        super().__init__(name="filling")
        self._server, self._home = server, home
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            ensure_database(
                self._server, "ledger", fill_by_script(EXAMPLES / "ledger" / "fill_database.py", self._home)
            )
        except Exception as error:  # noqa: BLE001 - raised in the test that waits for it
            self.error = error

    def wait(self) -> None:
        self.join()
        if self.error is not None:
            raise self.error


@pytest.fixture(scope="module")
def role(postgres18: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The password of Seatrial's role on the examples' databases."""
    return ensure_role(postgres18, tmp_path_factory.mktemp("role") / "password")


@pytest.fixture(scope="module")
def filling(
    postgres18: EmbeddedPostgres, role: str, pytestconfig: pytest.Config, request: pytest.FixtureRequest
) -> Iterator[Filling]:
    """The filling of the ledger's database, begun. The virtual environment for it is kept from run to run."""
    thread = Filling(postgres18, pytestconfig.cache.mkdir("seatrial-ledger"))
    thread.start()
    yield thread
    thread.join()


@pytest.fixture(scope="module")
def examples(
    repositories: dict[str, Path], postgres18: EmbeddedPostgres, role: str, filling: Filling
) -> Iterator[Server]:
    """A server with the examples as projects, as the demo has them."""
    ensure_database(postgres18, "tenants", fill_by_sql(EXAMPLES / "rake" / "seed.sql"))
    dsns = {name: postgres18.dsn(name, user="seatrial", password=role) for name in ("tenants", "ledger")}
    with Server(repositories, dsns) as server:
        server.bless("tenants")
        yield server
        server.wait_clean()


@pytest.fixture
def server(examples: Server) -> Iterator[Server]:
    yield examples
    examples.cancel_all()


def expected(project: str, ref: str, baseline: str | None = None) -> Expected:
    """Read what an example says of the runs of a ref, alone or compared with another."""
    for entry in json.loads((EXAMPLES / project / "expected.json").read_text()):
        if (entry["ref"], entry.get("baseline")) == (ref, baseline):
            return Expected(project, ref, entry["expect"], baseline)
    raise AssertionError(f"{project} says nothing of {ref} against {baseline}")


def run(server: Server, project: str, ref: str, baseline: str | None = None) -> Json:
    """Submit, wait for the end and hold it against what the example says."""
    more = {"baseline": baseline} if baseline is not None else {}
    number = server.submit(project, ref, **more)["id"]
    until(lambda: server.run(number)["state"] in FINAL, f"{project} {ref} ends", timeout=BUILD_PATIENCE, every=0.3)
    found = server.run(number)
    assert expected(project, ref, baseline).matches(found), (
        found["state"],
        found["verdict"],
        found["units"],
        found["different"],
    )
    return found


def classes(server: Server, run: int) -> dict[str, int]:
    counts: dict[str, int] = server.get(f"/runs/{run}/diffs")["counts"]
    return counts


def test_opaque(server: Server) -> None:
    found = run(server, "opaque", "main")
    assert server.interruptions(found["id"]) == ["resume_requested"]
    [log] = server.script_logs(found["id"])
    assert [line for line in log.splitlines() if b" of 8" in line] == [b"stage %d of 8" % n for n in range(1, 9)]


def test_rake_alone(server: Server) -> None:
    found = run(server, "rake", "feature/broken")
    [failed] = server.get(f"/runs/{found['id']}/units", state="failed")["units"]
    assert "division by zero" in failed["text"]


@pytest.mark.parametrize(
    ("ref", "counts"),
    [("feature/rounding", {"same": 480}), ("feature/broken", {"same": 479, "candidate_failed": 1})],
)
def test_rake_compared(server: Server, ref: str, counts: dict[str, int]) -> None:
    assert classes(server, run(server, "rake", ref, "main")["id"]) == counts


def test_ledger_compared(server: Server, filling: Filling) -> None:
    """Two released versions of an accounting system that nobody here wrote, and one with a planted defect."""
    filling.wait()
    server.bless("ledger")
    agreed = run(server, "ledger", "candidate", "released")
    assert classes(server, agreed["id"]) == {"same": 18}
    planted = run(server, "ledger", "planted-defect", "released")
    assert classes(server, planted["id"]) == {"same": 12, "different": 6}
    for unit in server.get(f"/runs/{planted['id']}/diffs", **{"class": "different"})["units"]:
        assert unit["rows"]["changed"] > 0
        assert unit["largest"] > 0
    [group] = server.get(f"/runs/{planted['id']}/groups")["groups"]
    assert (group["units"], group["sign"]) == (6, "any"), "a defect that rounds up and down is one cause"
