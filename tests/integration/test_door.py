"""The door with real containers: who gets in, what is refused and how, what is left behind."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import psycopg
import pytest
from fixtures_postgres import Proxy, make_sample, through

from runner.adapters.docker_engine import DockerEngine
from runner.adapters.postgres_clone import PostgresSource
from runner.door import GatewayDoor, admitted
from runner.errors import DatabaseUnavailable
from runner.model import Base, Container, Login, Mount

if TYPE_CHECKING:
    from fixtures_postgres import Sample

    from jobs.adapters.embedded_postgres import EmbeddedPostgres

REPOSITORY = Path(__file__).parents[2]
BASE_IMAGE = "seatrial/base:bookworm"
LIMIT = 5
AT_ONCE = 10.0  # a client that is kept waiting for a place waits for 30 s


@dataclass
class Harbour:
    """A blessed source, a door, and the means to put workspaces before it."""

    engine: DockerEngine
    door: GatewayDoor
    source: PostgresSource
    sample: Sample
    base: Base
    root: Path
    tag: str

    def login(self, source: PostgresSource | None = None) -> Login:
        name = f"seatrial_x_r{secrets.randbelow(10**9)}_t1_e1"
        self.source.clone(self.base.database, name)
        return (source or self.source).login(name, role=name, owner=self.base.owner)

    def workspace(self, name: str, sockets: Path | None, script: str, *, network: str = "none") -> tuple[int, str]:
        """Run a shell script as branch code is run, and give its exit code and output."""
        self.engine.create(
            Container(
                name=name,
                image=BASE_IMAGE,
                command=("/bin/sh", "-c", script),
                labels={"installation": self.tag},
                env={"DATABASE_URL": "postgresql:///verification?host=/seatrial/db&user=seatrial", "HOME": "/tmp"},
                mounts=(Mount(sockets, "/seatrial/db"),) if sockets else (),
                tmpfs={"/tmp": "size=16m"},
                user="10001:10001",
                network=network,
            )
        )
        self.engine.start(name)
        deadline = time.monotonic() + 60
        while (state := self.engine.inspect(name)) and state.running:
            assert time.monotonic() < deadline, self.engine.output(name)
            time.sleep(0.02)
        output = self.engine.output(name).decode()
        self.engine.remove(name)
        assert state is not None
        return state.exit_code if state.exit_code is not None else -1, output


@pytest.fixture(scope="module")
def harbour(postgres18: EmbeddedPostgres) -> Iterator[Harbour]:
    for script in ("gateway-image.sh", "base-image.sh"):
        subprocess.run([REPOSITORY / "docker" / script], check=True, capture_output=True)
    tag = f"door{secrets.token_hex(3)}"
    engine = DockerEngine()
    root = Path(tempfile.mkdtemp(prefix="seatrial-doors-"))
    sample = make_sample(postgres18)
    source = PostgresSource("books", sample.dsn, installation=tag, connection_limit=LIMIT)
    door = GatewayDoor(engine, root, labels={"installation": tag})
    yield Harbour(engine, door, source, sample, source.bless(), root, tag)
    for state in engine.find(installation=tag):
        engine.remove(state.name)
    source.sweep(set)
    shutil.rmtree(root)


@pytest.fixture
def execution(harbour: Harbour) -> Iterator[str]:
    """Give the name of a workspace; its door is closed afterwards."""
    name = f"{harbour.tag}-{secrets.token_hex(3)}"
    yield name
    harbour.door.close(name)


def refused(sockets: Path, **more: Any) -> tuple[str, float]:
    """Try to connect, and give the answer and how long it took."""
    start = time.monotonic()
    with pytest.raises(psycopg.OperationalError) as answer:
        psycopg.connect(through(sockets, **more)).close()
    return str(answer.value), time.monotonic() - start


# ---- who gets in ------------------------------------------------------------------------------------------


def test_psql_psycopg2_and_ruby_reach_the_clone_without_network_and_password(harbour: Harbour, execution: str) -> None:
    sockets = harbour.door.open(execution, harbour.login())
    code, output = harbour.workspace(
        execution,
        sockets,
        """
        psql "$DATABASE_URL" -Atc 'SELECT count(*) FROM account' &&
        python3 -c 'import os, psycopg2
c = psycopg2.connect(os.environ["DATABASE_URL"]).cursor()
c.execute("SELECT current_user, count(*) FROM account GROUP BY 1"); print(c.fetchall())' &&
        ruby -rpg -e 'puts PG.connect(ENV["DATABASE_URL"]).exec("SELECT count(*) FROM account").values.inspect' &&
        PGHOST=/seatrial/db PGDATABASE=verification PGUSER=seatrial psql -Atc 'SELECT 7'
        """,
    )
    assert (code, output.split("\n")) == (0, ["1000", f"[('{harbour.sample.owner}', 1000)]", '[["1000"]]', "7", ""])


def test_the_password_is_nowhere_in_the_workspace_nor_in_what_the_engine_tells(
    harbour: Harbour, execution: str
) -> None:
    login = harbour.login()
    harbour.engine.create(
        Container(f"{execution}-pause", BASE_IMAGE, ("sleep", "infinity"), {"installation": harbour.tag})
    )
    harbour.engine.start(f"{execution}-pause")
    sockets = harbour.door.open(execution, login, tcp_network=f"{execution}-pause")
    code, output = harbour.workspace(
        execution,
        sockets,
        "env; cat /proc/self/environ /proc/mounts; ls -laR /seatrial; cat /seatrial/db/* 2>&1; ls /seatgate",
    )
    assert code != 0  # there is no /seatgate
    assert login.password not in output
    for name in (f"{execution}-door", f"{execution}-relay"):
        inspected = subprocess.run(["docker", "inspect", name], check=True, capture_output=True, text=True).stdout
        assert login.password not in inspected
        settings = json.loads(inspected)[0]["HostConfig"]
        assert settings["CapDrop"] == ["ALL"]
        assert settings["ReadonlyRootfs"]
    assert login.password not in (harbour.root / execution / "log" / "gateway.log").read_text()
    harbour.engine.remove(f"{execution}-pause")


def test_the_socket_directory_is_read_only_inside(harbour: Harbour, execution: str) -> None:
    sockets = harbour.door.open(execution, harbour.login())
    code, output = harbour.workspace(execution, sockets, "rm -f /seatrial/db/.s.PGSQL.5432; touch /seatrial/db/x")
    assert code != 0
    assert output.count("Read-only file system") + output.count("Permission denied") == 2
    psycopg.connect(through(sockets)).close()


@pytest.mark.parametrize(
    ("database", "user"),
    [("pgbouncer", "seatrial"), ("pgbouncer", "pgbouncer"), ("verification", "postgres"), ("postgres", "seatrial"),
     ("template1", "seatrial"), ("verification", "pgbouncer")],
)  # fmt: skip
def test_no_console_no_other_database_and_no_other_user(
    harbour: Harbour, execution: str, database: str, user: str
) -> None:
    sockets = harbour.door.open(execution, harbour.login())
    words, seconds = refused(sockets, database=database, user=user)
    assert "FATAL" in words
    assert seconds < AT_ONCE
    code, output = harbour.workspace(execution, sockets, f"psql -h /seatrial/db -U {user} -c 'SHOW CONFIG' {database}")
    assert code == 2
    assert "FATAL" in output
    assert harbour.door.refusals(execution)


def test_a_door_listens_on_its_socket_alone(harbour: Harbour, execution: str) -> None:
    harbour.door.open(execution, harbour.login())
    [door] = [one for one in harbour.engine.find(installation=harbour.tag) if execution in one.name]
    state = harbour.engine.inspect(door.name)
    assert state is not None
    first = psutil.Process(state.pid)
    inside = [first, *first.children(recursive=True)]
    assert "pgbouncer" in [process.name() for process in inside]
    sockets = subprocess.run(["ss", "-Hltnp"], check=True, capture_output=True, text=True).stdout
    assert not [process for process in inside if f"pid={process.pid}," in sockets]


def test_two_doors_lead_to_two_clones(harbour: Harbour, execution: str) -> None:
    other = f"{execution}-other"
    first, second = harbour.login(), harbour.login()
    one, two = harbour.door.open(execution, first), harbour.door.open(other, second)
    for sockets, login in ((one, first), (two, second)):
        with psycopg.connect(through(sockets)) as session:
            assert session.execute("SELECT current_database(), session_user").fetchone() == (login.database, login.role)
    harbour.door.close(other)
    assert one.exists()
    assert not two.exists()


# ---- what is refused, and how -----------------------------------------------------------------------------


def test_a_start_up_option_is_refused_by_its_name_and_set_works(harbour: Harbour, execution: str) -> None:
    sockets = harbour.door.open(execution, harbour.login())
    code, output = harbour.workspace(
        execution, sockets, """PGOPTIONS='-c search_path=tenant_001' psql "$DATABASE_URL" -c 'SELECT 1'"""
    )
    assert code == 2
    assert "unsupported startup parameter: options" in output
    (line,) = harbour.door.refusals(execution)
    assert "options=-c search_path=tenant_001" in line
    assert "use SET in the session" in line
    words, _ = refused(sockets, options="-c geqo=off")
    assert "options" in words
    with psycopg.connect(through(sockets)) as session:
        session.execute("SET search_path = tenant_001")
        assert session.execute("SELECT count(*) FROM entry").fetchone() == (100,)


def test_a_client_too_many_is_refused_at_once_and_a_full_door_still_cancels(harbour: Harbour, execution: str) -> None:
    sockets = harbour.door.open(execution, harbour.login())
    with ExitStack() as stack:
        sessions = [
            stack.enter_context(psycopg.connect(through(sockets), autocommit=True)) for _ in range(admitted(LIMIT))
        ]
        for session in sessions:
            assert session.execute("SELECT 1").fetchone() == (1,)
        words, seconds = refused(sockets)
        assert "no more connections allowed" in words
        assert seconds < AT_ONCE

        def cancel_when_it_runs() -> None:
            running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(120)'"
            while not harbour.sample.value(running):
                time.sleep(0.05)
            sessions[0].cancel()

        canceller = threading.Thread(target=cancel_when_it_runs)
        canceller.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            sessions[0].execute("SELECT pg_sleep(120)")
        canceller.join()
    assert any("no more connections allowed" in line for line in harbour.door.refusals(execution))
    assert harbour.door.dropped(execution) == []


def test_as_many_clients_as_the_limit_may_come_and_go_as_fast_as_they_like(harbour: Harbour, execution: str) -> None:
    sockets = harbour.door.open(execution, harbour.login())
    slowest = 0.0

    def churn(_: int) -> float:
        worst = 0.0
        for _ in range(40):
            start = time.monotonic()
            with psycopg.connect(through(sockets)) as session:
                assert session.execute("SELECT 1").fetchone() == (1,)
            worst = max(worst, time.monotonic() - start)
        return worst

    with ThreadPoolExecutor(LIMIT) as pool:
        slowest = max(pool.map(churn, range(LIMIT)))
    assert slowest < AT_ONCE
    assert harbour.door.dropped(execution) == []


def test_each_client_gets_a_session_of_its_own(harbour: Harbour, execution: str) -> None:
    sockets = harbour.door.open(execution, harbour.login())
    with psycopg.connect(through(sockets), autocommit=True) as session:
        session.execute("SET search_path = tenant_001")
        session.execute("CREATE TEMPORARY TABLE left_over (id int)")
        session.execute("SELECT pg_advisory_lock(1)")
        session.execute("DISCARD ALL")
        first = session.execute("SELECT pg_backend_pid()").fetchone()
    with psycopg.connect(through(sockets), autocommit=True) as session:
        assert session.execute("SELECT pg_backend_pid()").fetchone() != first
        assert session.execute("SELECT current_user").fetchone() == (harbour.sample.owner,)
        assert session.execute("SHOW search_path").fetchone() == ('"$user", public',)


def test_a_flood_of_refused_clients_fills_no_disk(harbour: Harbour, execution: str) -> None:
    sockets = harbour.door.open(execution, harbour.login())
    words = b"user\0" + b"x" * 60 + b"\0database\0verification\0\0"
    message = (len(words) + 8).to_bytes(4, "big") + (196608).to_bytes(4, "big") + words
    log = harbour.root / execution / "log"
    for _ in range(25_000):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(sockets / ".s.PGSQL.5432"))
            client.sendall(message)
            client.recv(200)
        if (log / "gateway.log.1").exists():
            break
    assert (log / "gateway.log.1").exists()
    assert sum(path.stat().st_size for path in log.iterdir()) < 9_000_000
    psycopg.connect(through(sockets)).close()


# ---- dropped or broken ------------------------------------------------------------------------------------


def test_a_session_that_branch_code_ends_itself_is_no_lost_link(harbour: Harbour, execution: str) -> None:
    probe = harbour.source.probe()
    sockets = harbour.door.open(execution, harbour.login())
    start = time.monotonic()
    session = psycopg.connect(through(sockets), autocommit=True)
    session.execute("SET ROLE NONE")
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert harbour.door.dropped(execution)  # the gateway cannot tell the difference …
    assert not probe.lost_between(start, time.monotonic())  # … the probe can
    probe.close()


def test_a_cut_link_is_in_the_gateways_log_and_seen_by_the_probe(harbour: Harbour, execution: str) -> None:
    with Proxy(harbour.sample.server.port) as link:
        source = PostgresSource(
            "books", link.through(harbour.sample.dsn), installation=harbour.tag, connection_limit=LIMIT
        )
        probe = source.probe()
        sockets = harbour.door.open(execution, harbour.login(source))
        session = psycopg.connect(through(sockets), autocommit=True)
        assert session.execute("SELECT 1").fetchone() == (1,)
        start = time.monotonic()
        link.cut()
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
        assert any("server conn crashed" in line for line in harbour.door.dropped(execution))
        assert probe.lost_between(start, time.monotonic())
        assert harbour.door.refusals(execution) == []
        threading.Timer(2.0, link.mend).start()
        with psycopg.connect(through(sockets, connect_timeout=60)) as again:  # waits for the link instead of failing
            assert again.execute("SELECT count(*) FROM account").fetchone() == (1000,)
        probe.close()


# ---- opening and closing ----------------------------------------------------------------------------------


def test_opening_again_changes_nothing_and_takes_a_remade_login(harbour: Harbour, execution: str) -> None:
    login = harbour.login()
    sockets = harbour.door.open(execution, login)
    session = psycopg.connect(through(sockets), autocommit=True)
    assert harbour.door.open(execution, login) == sockets
    assert session.execute("SELECT 1").fetchone() == (1,)
    session.close()
    remade = harbour.source.login(login.database, role=login.role, owner=harbour.base.owner)
    harbour.door.open(execution, remade)
    with psycopg.connect(through(sockets)) as fresh:
        assert fresh.execute("SELECT 1").fetchone() == (1,)


def test_a_door_whose_container_was_killed_opens_again(harbour: Harbour, execution: str) -> None:
    login = harbour.login()
    sockets = harbour.door.open(execution, login)
    assert harbour.door.alive(execution)
    subprocess.run(["docker", "kill", f"{execution}-door"], check=True, capture_output=True)
    assert not harbour.door.alive(execution)
    harbour.door.open(execution, login)
    psycopg.connect(through(sockets)).close()


def test_closing_leaves_nothing_and_is_safe_twice(harbour: Harbour, execution: str) -> None:
    harbour.door.open(execution, harbour.login())
    harbour.door.close(execution)
    harbour.door.close(execution)
    assert not (harbour.root / execution).exists()
    assert harbour.engine.inspect(f"{execution}-door") is None
    assert harbour.door.dropped(execution) == []
    assert harbour.door.refusals(execution) == []


def test_a_door_that_cannot_start_says_why(harbour: Harbour, execution: str) -> None:
    login = replace(harbour.login(), sslmode="nonsense")
    with pytest.raises(DatabaseUnavailable, match="did not open"):
        harbour.door.open(execution, login)


# ---- the relay --------------------------------------------------------------------------------------------


@pytest.fixture
def pause(harbour: Harbour, execution: str) -> Iterator[str]:
    name = f"{execution}-pause"
    harbour.engine.create(Container(name, BASE_IMAGE, ("sleep", "infinity"), {"installation": harbour.tag}))
    harbour.engine.start(name)
    yield name
    harbour.engine.remove(name)


def test_a_client_that_speaks_tcp_only_uses_the_relay(harbour: Harbour, execution: str, pause: str) -> None:
    login = harbour.login()
    sockets = harbour.door.open(execution, login, tcp_network=pause)
    harbour.door.open(execution, login, tcp_network=pause)
    code, output = harbour.workspace(
        execution,
        sockets,
        """
        psql postgresql://seatrial@127.0.0.1:5432/verification -Atc 'SELECT count(*) FROM account' &&
        psql "$DATABASE_URL" -Atc 'SELECT 7' && cat /proc/net/route | wc -l
        """,
        network=f"container:{pause}",
    )
    assert (code, output) == (0, "1000\n7\n1\n")
    harbour.door.close(execution)
    assert harbour.engine.inspect(f"{execution}-relay") is None


def test_a_relay_whose_port_is_taken_is_no_open_door(harbour: Harbour, execution: str, pause: str) -> None:
    other = f"{execution}-first"
    harbour.door.open(other, harbour.login(), tcp_network=pause)
    with pytest.raises(DatabaseUnavailable, match="did not open"):
        harbour.door.open(execution, harbour.login(), tcp_network=pause)
    harbour.door.close(other)


# ---- files of the door for a worker that is not root ------------------------------------------------------


def in_child(act: Callable[[], None], uid: int) -> int:
    """Run something as another user, and give 0 when it ended well."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            act()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_an_unprivileged_worker_lets_the_gateway_in_and_nobody_else() -> None:
    from runner.door import GATEWAY_UID, _directory, _secret

    worker, stranger = 20_001, 20_002
    root = Path(tempfile.mkdtemp(prefix="seatrial-acl-"))
    os.chown(root, worker, worker)
    root.chmod(0o755)

    def prepare() -> None:
        _directory(root / "gateway", GATEWAY_UID)
        _secret(root / "gateway" / "pgbouncer.ini", "secret")
        _directory(root / "db", GATEWAY_UID, shared=True)

    def write_as_gateway() -> None:
        (root / "db" / "socket").touch()

    def read() -> None:
        assert (root / "gateway" / "pgbouncer.ini").read_text() == "secret"

    def enter() -> None:
        assert list((root / "db").iterdir())

    def remove() -> None:
        shutil.rmtree(root / "db")
        shutil.rmtree(root / "gateway")

    assert in_child(prepare, worker) == 0
    assert in_child(read, GATEWAY_UID) == 0
    assert in_child(write_as_gateway, GATEWAY_UID) == 0
    assert in_child(read, stranger) != 0
    assert in_child(enter, stranger) == 0
    assert in_child(write_as_gateway, stranger) != 0
    assert in_child(remove, worker) == 0
    shutil.rmtree(root)
