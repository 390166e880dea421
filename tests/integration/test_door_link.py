"""The door's link to the server on a bad network."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from fixtures_postgres import end_server, make_sample, start_server, through

from runner.adapters.docker_engine import DockerEngine
from runner.adapters.postgres_clone import PostgresSource
from runner.door import GatewayDoor
from runner.errors import DatabaseUnavailable

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def door() -> Iterator[GatewayDoor]:
    subprocess.run([REPOSITORY / "docker" / "gateway-image.sh"], check=True, capture_output=True)
    tag = f"link{secrets.token_hex(3)}"
    engine = DockerEngine()
    root = Path(tempfile.mkdtemp(prefix="seatrial-doors-"))
    yield GatewayDoor(engine, root, labels={"installation": tag})
    for state in engine.find(installation=tag):
        engine.remove(state.name)
    shutil.rmtree(root)


@contextmanager
def silent(port: int) -> Iterator[None]:
    """Let every packet to and from a port of this host vanish, as a dead NAT entry or a pulled cable does."""
    rules = [["INPUT", "-i", "lo", "-p", "tcp", way, str(port), "-j", "DROP"] for way in ("--dport", "--sport")]
    for rule in rules:
        subprocess.run(["iptables", "-I", *rule], check=True)
    try:
        yield
    finally:
        for rule in rules:
            subprocess.run(["iptables", "-D", *rule], check=True)


if os.geteuid() == 0 and shutil.which("iptables"):

    @pytest.mark.slow
    def test_a_half_open_link_is_noticed_within_forty_seconds(door: GatewayDoor) -> None:
        server = start_server("silent")
        try:
            sample = make_sample(server)
            source = PostgresSource("books", sample.dsn, installation="link", connection_limit=5)
            base = source.bless()
            name = "seatrial_x_r1_t1_e1"
            source.clone(base.database, name)
            sockets = door.open(f"link-{secrets.token_hex(3)}", source.login(name, role=name, owner=base.owner))
            probe = source.probe()
            execution = sockets.parent.name
            session = psycopg.connect(through(sockets), autocommit=True)
            assert session.execute("SELECT 1").fetchone() == (1,)
            time.sleep(1.0)
            start = time.monotonic()
            with silent(server.port):
                with pytest.raises(psycopg.OperationalError):
                    session.execute("SELECT pg_sleep(300)")
                noticed = time.monotonic() - start
                assert noticed < 40.0
                assert any("server conn crashed" in line for line in door.dropped(execution))
                assert probe.lost_between(start, time.monotonic())
                asked = time.monotonic()
                with pytest.raises(DatabaseUnavailable):
                    source.base()
                assert time.monotonic() - asked < 10.0
            with psycopg.connect(through(sockets, connect_timeout=60)) as again:
                assert again.execute("SELECT 1").fetchone() == (1,)
            probe.close()
            door.close(execution)
            source.drop(name, role=name)  # the server still runs the query of the session that it never saw end
            assert name not in sample.databases()
        finally:
            end_server(server)
