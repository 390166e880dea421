"""The demo: a PostgreSQL with sample tenants, the example repositories, a whole server, and their runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.adapters.demo_postgres import DemoFailed, ensure_database, ensure_role, fill_by_script, fill_by_sql
from jobs.adapters.embedded_postgres import EmbeddedPostgres
from jobs.api_client import ApiClient, ServerUnreachable
from jobs.doctor import Level
from jobs.doctor_facts import look_at_carrier
from jobs.settings import host_environment

EXAMPLES = Path(__file__).parent.parent / "examples"
POSTGRES_PORT = 54_329
READY_SECONDS = 60.0

_SETTINGS = """\
# Made by `seatrial demo`; written anew at each start.
[server]
listen = "127.0.0.1:{port}"
home = "server"

[pools.local]
slots = {slots}

[databases.ledger]
dsn = "postgresql://seatrial:{password}@127.0.0.1:{postgres}/ledger"

[databases.tenants]
dsn = "postgresql://seatrial:{password}@127.0.0.1:{postgres}/tenants"

[projects.ledger]
repository = "{repositories}/ledger.git"
default_baseline = "released"

[projects.rake]
repository = "{repositories}/rake.git"
default_baseline = "main"

[projects.opaque]
repository = "{repositories}/opaque.git"
"""


@dataclass(frozen=True)
class Expected:
    """A run of an example and what it must end as; what `expect` leaves out may be anything."""

    project: str
    ref: str
    expect: dict[str, Any]
    baseline: str | None = None

    def matches(self, run: dict[str, Any]) -> bool:
        """Tell whether an ended run is what the example says."""
        reason = (run["reason"] or {}).get("code")
        found = {"state": run["state"], "verdict": run["verdict"], "reason": reason}
        simple = all(found[key] == value for key, value in self.expect.items() if key in found)
        units = self.expect.get("units", {})
        counts = run["units"] | {"different": run["different"]}
        return simple and all(counts[key] == value for key, value in units.items())


def default_home() -> Path:
    """Give where the demo keeps its things: the database's own account must be able to get there."""
    if os.geteuid() == 0:
        return Path("/var/lib/seatrial-demo")
    environment = host_environment()
    base = environment.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "seatrial-demo"


def expected() -> list[Expected]:
    """Read what the examples' runs must end as."""
    if not EXAMPLES.is_dir():
        raise DemoFailed("The examples are not here: run the demo from a clone of Seatrial's repository.")
    files = [EXAMPLES / name / "expected.json" for name in ("opaque", "rake", "ledger")]
    entries = [entry for file in files for entry in json.loads(file.read_text())]
    known = [Expected(e["project"], e["ref"], e["expect"], e.get("baseline")) for e in entries]
    # A branch that is compared is verified with that.
    compared = {(one.project, one.ref) for one in known if one.baseline is not None}
    return [one for one in known if one.baseline is not None or (one.project, one.ref) not in compared]


def prepare(home: Path, *, port: int, slots: int) -> Iterator[str]:
    """Make all that the demo needs, and say each step; quick when it is there already.

    Raises DemoFailed, before anything is made, where no workspace could start.
    """
    for finding in look_at_carrier(home):
        if finding.level is Level.PROBLEM:
            remedy = "Name a directory on ext4, XFS or Btrfs: .venv/bin/seatrial demo --home DIRECTORY"
            raise DemoFailed(f"{finding.text}. {remedy}")
    home.mkdir(parents=True, exist_ok=True)
    repositories = home / "repositories"
    repositories.mkdir(exist_ok=True)
    yield f"Example repositories in {repositories}"
    for name in ("opaque", "rake", "ledger"):
        command = [sys.executable, str(EXAMPLES / "repository.py"), name, "--target", str(repositories / f"{name}.git")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    server = postgres(home)
    yield f"PostgreSQL on 127.0.0.1:{server.port}"
    server.start()
    password = ensure_role(server, home / "seatrial-role.password")
    yield "Sample data: 40 tenants (rake)"
    ensure_database(server, "tenants", fill_by_sql(EXAMPLES / "rake" / "seed.sql"))
    yield "Sample data: django-ledger's own generator (ledger), about a minute the first time"
    ensure_database(server, "ledger", fill_by_script(EXAMPLES / "ledger" / "fill_database.py", home))
    text = _SETTINGS.format(port=port, slots=slots, password=password, postgres=server.port, repositories=repositories)
    file = settings_file(home)
    file.touch(mode=0o600)
    file.write_text(text)


def settings_file(home: Path) -> Path:
    """Give the demo's settings file."""
    return home / "seatrial.toml"


def postgres(home: Path) -> EmbeddedPostgres:
    """Give the demo's PostgreSQL."""
    return EmbeddedPostgres(home / "postgres", port=POSTGRES_PORT)


def wait_until_ready(client: ApiClient) -> None:
    """Wait until the server answers and a worker is there."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            if client.healthy():
                return
        except ServerUnreachable:
            pass  # it has not begun to listen
        time.sleep(0.2)
    raise DemoFailed(f"The server did not get ready within {READY_SECONDS:.0f} s.")


def submit(client: ApiClient, wanted: Expected) -> int:
    """Submit a run and give its id."""
    body = {"project": wanted.project, "ref": wanted.ref, "note": "What could this change affect? (demo)"}
    body |= {"baseline": wanted.baseline} if wanted.baseline is not None else {}
    return int(client.post("/runs", body)["id"])
