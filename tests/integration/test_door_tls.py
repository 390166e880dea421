"""The road to the database under TLS: Seatrial's own sessions and the door check the certificate that the dsn names."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest
from fixtures_postgres import OLDEST, Sample, drop_sample, end_server, make_sample, start_server, through

from jobs.adapters.embedded_postgres import EmbeddedPostgres, packaged_bin
from runner.adapters.docker_engine import DockerEngine
from runner.adapters.postgres_clone import PostgresSource
from runner.door import GatewayDoor
from runner.errors import DatabaseUnavailable
from runner.model import Login

REPOSITORY = Path(__file__).parents[2]
SSL_REQUEST = struct.pack(">II", 8, 80877103)


def openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def make_authority(root: Path, name: str) -> Path:
    """Make an authority's own certificate, which signs others."""
    openssl(
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
        "-keyout", root / f"{name}.key", "-out", root / f"{name}.pem",
    )  # fmt: skip
    return root / f"{name}.pem"


def make_certificate(root: Path, authority: Path, names: str) -> tuple[Path, Path]:
    """Make a server's certificate for some names, signed by an authority; gives it and its key."""
    key, request, made, more = (root / f"server.{end}" for end in ("key", "csr", "crt", "ext"))
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=db", "-keyout", key, "-out", request)
    more.write_text(f"subjectAltName={names}\n")
    openssl(
        "x509", "-req", "-in", request, "-CA", authority, "-CAkey", authority.with_suffix(".key"), "-CAcreateserial",
        "-days", "2", "-extfile", more, "-out", made,
    )  # fmt: skip
    return made, key


class Front:
    """TLS in front of a PostgreSQL server that was built without it, as a cloud's proxy is."""

    def __init__(self, port: int, certificate: Path, key: Path) -> None:
        self._target = port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.plain = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            if client.recv(8) != SSL_REQUEST:
                self.plain += 1
                return
            client.sendall(b"S")
            with (
                self._context.wrap_socket(client, server_side=True) as secure,
                socket.create_connection(("127.0.0.1", self._target)) as server,
            ):
                # One thread alone speaks to the TLS side: OpenSSL's objects are not for two at once.
                secure.settimeout(0.02)
                server.settimeout(0.02)
                while self._move(secure, server) and self._move(server, secure):
                    pass

    @staticmethod
    def _move(one: socket.socket, other: socket.socket) -> bool:
        try:
            data = one.recv(65536)
        except TimeoutError:
            return True
        other.settimeout(10)
        other.sendall(data)
        other.settimeout(0.02)
        return bool(data)


@dataclass
class Harbour:
    """A server behind TLS, the authority that signed its certificate, another one, and a door."""

    sample: Sample
    port: int
    authority: Path
    other: Path
    door: GatewayDoor
    tag: str

    def source(self, *parameters: str) -> PostgresSource:
        dsn = f"{self.sample.dsn.replace(f':{self.sample.server.port}/', f':{self.port}/')}?{'&'.join(parameters)}"
        return PostgresSource("books", dsn, installation=self.tag, connection_limit=5)

    def login(self, source: PostgresSource) -> Login:
        base = source.bless()
        name = f"seatrial_x_r{secrets.randbelow(10**9)}_t1_e1"
        source.clone(base.database, name)
        return source.login(name, role=name, owner=base.owner)


@pytest.fixture(scope="module", params=["18 behind a proxy", *(["15"] if OLDEST.exists() else [])])
def harbour(request: pytest.FixtureRequest) -> Iterator[Harbour]:
    """PostgreSQL 18, which is built without TLS, behind a front that has it; and 15 by itself where it is installed."""
    subprocess.run([REPOSITORY / "docker" / "gateway-image.sh"], check=True, capture_output=True)
    root = Path(tempfile.mkdtemp(prefix="seatrial-tls-"))
    engine, tag = DockerEngine(), f"tls{secrets.token_hex(3)}"
    authority, other = make_authority(root, "authority"), make_authority(root, "other")
    certificate, key = make_certificate(root, authority, "IP:127.0.0.1")
    server = start_server("tls", bin_dir=OLDEST if request.param == "15" else packaged_bin())
    sample = make_sample(server)
    front = None
    if request.param == "15":
        use_certificate(server, sample, certificate, key)
    else:
        front = Front(server.port, certificate, key)
    door = GatewayDoor(engine, root / "doors", labels={"installation": tag})
    yield Harbour(sample, front.port if front else server.port, authority, other, door, tag)
    for state in engine.find(installation=tag):
        engine.remove(state.name)
    if front is not None:
        front.close()
        assert front.plain == 0, "somebody spoke without TLS"
    drop_sample(sample)
    end_server(server)
    engine.close()
    shutil.rmtree(root)


def use_certificate(server: EmbeddedPostgres, sample: Sample, certificate: Path, key: Path) -> None:
    status = server.data.stat()
    for path, name in ((certificate, "server.crt"), (key, "server.key")):
        target = server.data / name
        shutil.copy(path, target)
        os.chown(target, status.st_uid, status.st_gid)
        target.chmod(0o600)
    sample.execute("ALTER SYSTEM SET ssl = on", database="postgres")
    server.stop()
    server.start()


def ask(harbour: Harbour, login: Login) -> object:
    """Ask something through a door of its own."""
    execution = f"{harbour.tag}-{secrets.token_hex(3)}"
    sockets = harbour.door.open(execution, login)
    try:
        with psycopg.connect(through(sockets)) as session:
            row = session.execute("SELECT count(*) FROM account").fetchone()
        return row[0] if row else None
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(" ".join(harbour.door.dropped(execution))) from error
    finally:
        harbour.door.close(execution)


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_the_door_trusts_the_authority_that_the_dsn_names(harbour: Harbour, mode: str) -> None:
    source = harbour.source(f"sslmode={mode}", f"sslrootcert={harbour.authority}")
    login = harbour.login(source)
    # `require` with certificates checks them, as libpq does.
    assert (login.sslmode, login.server_ca) == (mode.replace("require", "verify-ca"), harbour.authority)
    assert ask(harbour, login) == 1000


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_seatrials_own_sessions_refuse_another_authority(harbour: Harbour, mode: str) -> None:
    source = harbour.source(f"sslmode={mode}", f"sslrootcert={harbour.other}")
    with pytest.raises(DatabaseUnavailable, match="certificate verify failed"):
        source.base()


def test_the_door_refuses_another_authority(harbour: Harbour) -> None:
    login = harbour.login(harbour.source("sslmode=verify-full", f"sslrootcert={harbour.authority}"))
    with pytest.raises(DatabaseUnavailable, match=r"TLS|tls|certificate"):
        ask(harbour, replace(login, server_ca=harbour.other))


def test_the_door_refuses_a_certificate_for_another_name(harbour: Harbour) -> None:
    login = harbour.login(harbour.source("sslmode=verify-full", f"sslrootcert={harbour.authority}"))
    with pytest.raises(DatabaseUnavailable, match=r"name|TLS|tls|certificate"):
        ask(harbour, replace(login, host="localhost"))
    assert ask(harbour, replace(login, host="localhost", sslmode="verify-ca")) == 1000


def test_without_certificates_require_encrypts_and_checks_nothing(harbour: Harbour) -> None:
    login = harbour.login(harbour.source("sslmode=require"))
    assert (login.sslmode, login.server_ca) == ("require", None)
    assert ask(harbour, login) == 1000
