"""The door's link to the server on a bad network, and under TLS."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from fixtures_postgres import OLDEST, end_server, make_sample, start_server, through

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
    yield GatewayDoor(engine, root, labels={"installation": tag}, server_ca=certificate(root))
    for state in engine.find(installation=tag):
        engine.remove(state.name)
    shutil.rmtree(root)


def certificate(root: Path) -> Path:
    """Make a certificate for 127.0.0.1 that signs itself."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", root / "server.key", "-out", root / "server.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    return root / "server.crt"


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
            with psycopg.connect(through(sockets)) as again:
                assert again.execute("SELECT 1").fetchone() == (1,)
            probe.close()
            door.close(execution)
            source.drop(name, role=name)  # the server still runs the query of the session that it never saw end
            assert name not in sample.databases()
        finally:
            end_server(server)


if OLDEST.exists():  # the embedded server knows no TLS

    def test_the_servers_certificate_is_checked_when_the_source_says_so(door: GatewayDoor) -> None:
        server = start_server("tls", bin_dir=OLDEST)
        try:
            sample = make_sample(server)
            root = server.data.parent
            certificate(root)
            for part in ("server.key", "server.crt"):
                target = server.data / part
                shutil.move(root / part, target)
                os.chown(target, server.data.stat().st_uid, server.data.stat().st_gid)
                target.chmod(0o600)
            sample.execute("ALTER SYSTEM SET ssl = on", database="postgres")
            server.stop()
            server.start()
            asked = f"{sample.dsn}?sslmode=require"
            source = PostgresSource("books", asked, installation="link", connection_limit=5)
            base = source.bless()
            name = "seatrial_x_r1_t1_e1"
            source.clone(base.database, name)
            login = source.login(name, role=name, owner=base.owner)
            assert login.sslmode == "require"
            execution = f"link-{secrets.token_hex(3)}"
            with psycopg.connect(through(door.open(execution, login))) as session:
                session.execute("SET ROLE NONE")  # only to its login role does the server show this
                assert session.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone() == (True,)
            door.close(execution)
            # The door trusts another certificate than the server's: it must not open the link.
            other = replace(login, sslmode="verify-full")
            sockets = door.open(execution, other)
            with pytest.raises(psycopg.OperationalError), psycopg.connect(through(sockets)) as session:
                session.execute("SELECT 1")
            assert door.dropped(execution), (sockets.parent / "log" / "gateway.log").read_text()
            door.close(execution)
            source.drop(name, role=name)
        finally:
            end_server(server)
