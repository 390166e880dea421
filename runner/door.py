"""The door of a workspace: one PgBouncer an execution, on a Unix socket that leads to one clone."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from runner.errors import DatabaseUnavailable
from runner.model import Container, ContainerState, Login, Mount
from runner.ports import Engine

# PgBouncer opens its admin console to whoever connects with the uid that it runs as: never root's, nor a workspace's.
GATEWAY_UID = 10101
RELAY_UID = 10102
SOCKET = ".s.PGSQL.5432"
INSIDE = "/seatrial/db"
CONFIG = "/seatgate/config"
LOG = "/seatgate/log"
# What branch code calls its database and itself, whatever the clone and its role are called.
DATABASE = "verification"
USER = "seatrial"

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
# As many clients are let in as there are sessions, so one that waits in vain waits for the server, not for its turn.
LOST = re.compile(
    r"server conn crashed|connect failed|connect timeout|TLS handshake error|server login failed|server_login_retry"
    r"|query_wait_timeout|kernel error|terminating connection|the database system is"
)
# PgBouncer warns of a start-up option with its value, and then refuses it without.
REFUSED = re.compile(r"unsupported startup parameter: \S+=|pooler error: (?!unsupported startup parameter)")
KNOCK = "seatgate_"
OPTION = re.compile(r"unsupported startup parameter: ")

# Keeps what speaks of errors, 2 × 4 MB of it at most, however often branch code connects. mawk reads a pipe by
# the block unless told otherwise.
KEEP = f"""
pgbouncer {CONFIG}/pgbouncer.ini 2>&1 | mawk -W interactive -v f={LOG}/gateway.log '
/closing because: (client close request|client unexpected eof|server lifetime over)/ {{ next }}
{{
    print >> f; fflush(f); size += length($0) + 1
    if (size > 4000000) {{ close(f); system("mv " f " " f ".1"); size = 0 }}
}}'
"""
RELAY = f"""
socat -d -d TCP4-LISTEN:5432,bind=127.0.0.1,fork,reuseaddr,max-children=$CHILDREN UNIX-CONNECT:{INSIDE}/{SOCKET} 2>&1 |
    mawk -W interactive -v f={LOG}/relay.ready '/listening on/ {{ print > f; close(f) }}'
"""


class GatewayDoor:
    """Doors on one engine's host. `root` holds a directory for each execution, `labels` go on every container."""

    def __init__(
        self,
        engine: Engine,
        root: Path,
        *,
        image: str = "seatrial/gateway:1",
        labels: dict[str, str] | None = None,
    ) -> None:
        self._engine = engine
        self._root = root.absolute()
        self._image = image
        self._labels = dict(labels or {})

    def open(self, execution: str, login: Login, *, tcp_network: str | None = None) -> Path:
        """Start the gateway (and the relay) and give the socket's directory when both accept connections."""
        home = self._home(execution)
        sockets, config = home / "db", home / "gateway"
        written = configuration(login)
        gateway = self._gateway(execution, login)
        state = self._engine.inspect(gateway.name)
        same = all((config / name).exists() and (config / name).read_text() == text for name, text in written.items())
        if state is None or not state.running or not same:
            self._engine.remove(gateway.name)
            shutil.rmtree(home, ignore_errors=True)
            _directory(home, None)
            _directory(sockets, GATEWAY_UID, shared=True)
            _directory(config, GATEWAY_UID)
            _directory(home / "log", GATEWAY_UID)
            for name, text in written.items():
                _secret(config / name, text)
            self._engine.create(gateway)
            self._engine.start(gateway.name)
        self._wait(gateway.name, home, lambda: _accepts(sockets))
        names = [gateway.name]
        if tcp_network is not None:
            names.append(self._relay(execution, login, tcp_network))
        (home / "opened").write_text("".join(f"{self._identity(name)}\n" for name in names))
        return sockets

    def dropped(self, execution: str) -> list[str]:
        """Give the gateway's log lines that speak of a lost server connection, oldest first."""
        return [line for line in self._lines(execution) if LOST.search(line)]

    def refusals(self, execution: str) -> list[str]:
        """Give the gateway's log lines that tell why it refused a client."""
        return [_explained(line) for line in self._lines(execution) if REFUSED.search(line) and not LOST.search(line)]

    def alive(self, execution: str) -> bool:
        """Tell whether the gateway (and the relay) that `open` started runs to this day, without having ended between."""
        opened = _read(self._home(execution) / "opened")
        return bool(opened) and all(self._identity(line.split()[0]) == line for line in opened)

    def close(self, execution: str) -> None:
        """Remove the gateway, the relay, their secrets and the socket; safe to call twice."""
        home = self._home(execution)
        self._engine.remove(f"{execution}-relay")
        self._engine.remove(f"{execution}-door")
        shutil.rmtree(home, ignore_errors=True)

    def standing(self) -> set[str]:
        """Name the executions of which a container or a directory is here, whatever became of the rest of them."""
        found = {container.labels.get("door", "") for container in self._engine.find(**self._labels)}
        if self._root.is_dir():
            found |= {path.name for path in self._root.iterdir()}
        return {name for name in found if NAME.fullmatch(name)}

    # ---- inner ---------------------------------------------------------------------------------------------

    def _home(self, execution: str) -> Path:
        if not NAME.fullmatch(execution):
            raise ValueError(f"{execution!r} is no container's name")
        return self._root / execution

    def _gateway(self, execution: str, login: Login) -> Container:
        home = self._home(execution)
        mounts = [
            Mount(home / "db", INSIDE, read_only=False),
            Mount(home / "gateway", CONFIG),
            Mount(home / "log", LOG, read_only=False),
        ]
        if login.host.startswith("/"):
            mounts.append(Mount(Path(login.host), login.host))
        return Container(
            name=f"{execution}-door",
            image=self._image,
            command=("/bin/sh", "-c", KEEP),
            labels={**self._labels, "door": execution, "part": "gateway"},
            mounts=tuple(mounts),
            user=f"{GATEWAY_UID}:{GATEWAY_UID}",
            network="host",
            memory=256 * 1024**2,
            pids=32,
        )

    def _identity(self, name: str) -> str | None:
        """Tell by what a container is known to be the same, started once; None when it does not run."""
        state = self._engine.inspect(name)
        if state is None or not state.running:
            return None
        # The engine says so for a while after the kernel has ended it, and a script can be quicker than that.
        if (watch := self._engine.watch(state)) is not None:
            try:
                if watch.gone(0):
                    return None
            finally:
                watch.close()
        return f"{name} {state.id} {state.started_at}"

    def _relay(self, execution: str, login: Login, network: str) -> str:
        """Have 127.0.0.1:5432 in the network namespace of another container lead to the socket; give the relay's name."""
        home = self._home(execution)
        ready = home / "relay" / "relay.ready"
        name = f"{execution}-relay"
        state = self._engine.inspect(name)
        if state is None or not state.running:
            self._engine.remove(name)
            shutil.rmtree(home / "relay", ignore_errors=True)
            _directory(home / "relay", RELAY_UID)
            relay = Container(
                name=name,
                image=self._image,
                command=("/bin/sh", "-c", RELAY),
                labels={**self._labels, "door": execution, "part": "relay"},
                env={"CHILDREN": str(2 * admitted(login.connection_limit))},
                mounts=(Mount(home / "db", INSIDE), Mount(home / "relay", LOG, read_only=False)),
                user=f"{RELAY_UID}:{RELAY_UID}",
                network=f"container:{network}",
                memory=256 * 1024**2,
                pids=16 + 2 * admitted(login.connection_limit),
            )
            self._engine.create(relay)
            self._engine.start(name)
        self._wait(name, home, ready.exists)
        return name

    def _wait(self, name: str, home: Path, ready: Callable[[], bool], *, timeout: float = 30.0) -> None:
        deadline = time.monotonic() + timeout
        looked = time.monotonic()
        while not ready():
            now = time.monotonic()
            if now - looked > 1.0:  # asking the engine costs more than a try
                state: ContainerState | None = self._engine.inspect(name)
                if state is None or not state.running or now > deadline:
                    how = "is gone" if state is None else f"{state.status} {state.error}".strip()
                    tail = " ".join(_read(home / "log" / "gateway.log")[-5:])
                    raise DatabaseUnavailable(f"the door {name} did not open: the container {how}; {tail}".rstrip("; "))
                looked = now
            time.sleep(0.01)

    def _lines(self, execution: str) -> list[str]:
        """Read the log as it is now: its lines reach the file by way of a pipe, so one of ours is sent after them."""
        home = self._home(execution)
        ours = f"{KNOCK}{secrets.token_hex(6)}"
        deadline = time.monotonic() + 2.0
        knocked = _knock(home / "db", ours)
        while True:
            lines = _read(home / "log" / "gateway.log.1") + _read(home / "log" / "gateway.log")
            if not knocked or any(ours in line for line in reversed(lines[-1000:])) or time.monotonic() > deadline:
                return [line for line in lines if KNOCK not in line]
            time.sleep(0.005)


def configuration(login: Login) -> dict[str, str]:
    """Write PgBouncer's files (name → text): one database, one client, no console, nothing that times out.

    Raises DatabaseUnavailable when the certificates that sign the server's cannot be read.
    """
    limit = admitted(login.connection_limit)
    target = {
        "host": login.host, "port": str(login.port), "dbname": login.database, "user": login.role,
        "password": login.password, "pool_size": str(limit),
    }  # fmt: skip
    entry = " ".join(f"{key}={_quoted(value)}" for key, value in target.items())
    settings = {
        "unix_socket_dir": INSIDE,
        "unix_socket_mode": "0777",
        "listen_port": "5432",
        "pool_mode": "session",
        "auth_type": "hba",
        "auth_hba_file": f"{CONFIG}/hba.conf",
        "auth_file": f"{CONFIG}/users.txt",
        # As many clients as there are sessions: one more is refused at once instead of waiting for its turn.
        "max_client_conn": str(limit),
        "default_pool_size": str(limit),
        "max_db_connections": str(limit),
        # A session is never handed to a second client: DISCARD ALL would leave it in the login role, not the owner's.
        "server_lifetime": "0",
        "server_idle_timeout": "0",
        "server_reset_query": "",
        "server_connect_timeout": "5",
        "server_login_retry": "1",
        "query_timeout": "0",
        "query_wait_timeout": "30",
        "client_idle_timeout": "0",
        "idle_transaction_timeout": "0",
        # Any other start-up option is refused by its name. JDBC sends this one; it changes nothing since version 12.
        "ignore_startup_parameters": "extra_float_digits",
        # A half-open link is noticed in 15 + 3 × 5 s; a long silent query is not cut.
        "tcp_keepalive": "1",
        "tcp_keepidle": "15",
        "tcp_keepintvl": "5",
        "tcp_keepcnt": "3",
        "tcp_user_timeout": "30000",
        "server_tls_sslmode": login.sslmode,
        "log_connections": "0",
        "log_disconnections": "1",
        "log_pooler_errors": "1",
        "log_stats": "0",
    }
    files = {}
    if login.server_ca is not None:
        settings["server_tls_ca_file"] = f"{CONFIG}/server-ca.pem"
        # A copy: the gateway's user may not be let at the file itself.
        files["server-ca.pem"] = _certificates(login.server_ca)
    lines = "".join(f"{key} = {value}\n" for key, value in settings.items())
    return {
        "pgbouncer.ini": f"[databases]\n{DATABASE} = {entry}\n\n[pgbouncer]\n{lines}",
        "hba.conf": f"local {DATABASE} {USER} trust\nlocal all all reject\n",
        "users.txt": f'"{USER}" ""\n',
        **files,
    }


def _certificates(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError as error:
        raise DatabaseUnavailable(f"the dsn's sslrootcert {path} cannot be read: {error.strerror}") from error


def admitted(connection_limit: int) -> int:
    """Tell how many clients the door lets in at once.

    A quarter more than the limit: a client that has just said goodbye is still counted when its successor knocks.
    """
    return connection_limit + max(2, connection_limit // 4)


def _quoted(value: str) -> str:
    if "\n" in value or "\0" in value:
        raise ValueError("a line break in a connection parameter")
    return "'" + value.replace("'", "''") + "'"


def _explained(line: str) -> str:
    if OPTION.search(line):
        return line + " (the door passes no start-up options, from PGOPTIONS or elsewhere: use SET in the session)"
    return line


def _accepts(directory: Path) -> bool:
    """Tell whether the socket accepts a connection."""
    try:
        with _connected(directory):
            return True
    except OSError:
        return False


def _knock(directory: Path, user: str) -> bool:
    """Ask to be let in as a user that there is not, and tell whether that was answered: then it is logged too."""
    words = f"user\0{user}\0database\0{DATABASE}\0\0".encode()
    try:
        with _connected(directory) as client:
            client.sendall(struct.pack(">II", len(words) + 8, 3 << 16) + words)
            return b"no more connections" not in client.recv(1024)
    except OSError:
        return False


@contextmanager
def _connected(directory: Path) -> Iterator[socket.socket]:
    # By way of a descriptor: a socket's path ends at 107 bytes.
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(2.0)
            client.connect(f"/proc/self/fd/{descriptor}/{SOCKET}")
            yield client
    finally:
        os.close(descriptor)


def _directory(path: Path, uid: int | None, *, shared: bool = False) -> None:
    """Make a directory for the container that runs as `uid`; `shared` ones may be entered by everyone."""
    path.mkdir(parents=True, mode=0o755 if shared or uid is None else 0o700, exist_ok=True)
    if uid is not None:
        _give(path, uid, 7, others=5 if shared else 0)


def _secret(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    _give(path, GATEWAY_UID, 4)


def _give(path: Path, uid: int, permissions: int, *, others: int = 0) -> None:
    """Let `uid` at a path: as its owner when we are root, else by an access control list, which needs no rights."""
    if os.geteuid() == 0:
        os.chown(path, uid, uid)
        path.chmod(permissions << 6 | others << 3 | others)
        return
    # linux/posix_acl_xattr.h: version 2, then (tag, permissions, id); tags owner, user, group, mask, other.
    nobody = 0xFFFFFFFF
    entries = [(1, 7, nobody), (2, permissions, uid), (4, others, nobody), (16, 7, nobody), (32, others, nobody)]
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(path, "system.posix_acl_access", packed)


def _read(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []
