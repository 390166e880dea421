"""Fixtures: Docker engines of one's own, which tests may kill; nothing of them touches the host's engine.

Each has its own containerd, data, sockets, cgroup and bridge, and no rule of iptables. Their images come from the
host's engine, loaded once a session into a template whose layers the engines share by hard links.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from fixtures_bench import BASE

from jobs.host import GATEWAY_IMAGE
from runner.adapters.docker_engine import DockerEngine

CGROUPS = Path("/sys/fs/cgroup")
# Where every shim of this machine has its socket, whatever containerd started it (containerd 1.5 and later).
SHIM_SOCKETS = Path("/run/containerd/s")
NAMESPACE = "moby"
START_SECONDS = 60.0
_LIBC = ctypes.CDLL(None)

CONTAINERD = """\
version = 2
root = "{root}/containerd"
state = "{root}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{root}/containerd.sock"
"""


class PrivateEngine:
    """A dockerd with its containerd. `live_restore`: whether containers outlive it; can be changed between starts."""

    def __init__(self, template: Path | None = None, *, live_restore: bool = False) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="seatrial-dockerd-"))
        self.live_restore = live_restore
        self.socket = self.root / "docker.sock"
        self.url = f"unix://{self.socket}"
        self._cgroup = self.root.name
        self._bridge = f"sea{self.root.name[-8:]}"  # 15 characters at most
        self._dockerd: subprocess.Popen[bytes] | None = None
        self._containerd: subprocess.Popen[bytes] | None = None
        self._shims: set[str] = set()
        if template is not None:
            _copy(template, self.root / "data")
        (self.root / "containerd.toml").write_text(CONTAINERD.format(root=self.root))
        (self.root / "daemon.json").write_text("{}")  # the host's own may have `live-restore` too

    # ---- its life ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it and wait until it answers."""
        if self._containerd is None:
            self._containerd = self._spawn("containerd", "--config", str(self.root / "containerd.toml"))
            _until((self.root / "containerd.sock").exists, f"containerd is there; see {self.root}/containerd.log")
        # Not `none`: then dockerd takes away docker0, whoever it belongs to.
        if not Path(f"/sys/class/net/{self._bridge}").exists():
            subprocess.run(["ip", "link", "add", self._bridge, "type", "bridge"], check=True)
        words = [
            *("--config-file", f"{self.root}/daemon.json"),
            *("--data-root", f"{self.root}/data", "--exec-root", f"{self.root}/exec"),
            *("--pidfile", f"{self.root}/docker.pid", "--host", self.url),
            *("--containerd", f"{self.root}/containerd.sock", "--cgroup-parent", f"/{self._cgroup}"),
            *("--bridge", self._bridge, "--iptables=false", "--ip-forward=false", "--ip-masq=false"),
        ]
        self._dockerd = self._spawn("dockerd", *words, *(["--live-restore"] if self.live_restore else []))
        _until(self.answers, f"dockerd answers; see {self.root}/dockerd.log")

    def _spawn(self, *words: str) -> subprocess.Popen[bytes]:
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        with (self.root / f"{words[0]}.log").open("ab") as log:
            return subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | {"PATH": path},
                start_new_session=True, preexec_fn=_end_with_parent,
            )  # fmt: skip

    def runs(self) -> bool:
        """Tell whether dockerd was started and not ended."""
        return self._dockerd is not None

    def answers(self) -> bool:
        """Tell whether it answers; fails when dockerd ended by itself."""
        assert self._dockerd is None or self._dockerd.poll() is None, (self.root / "dockerd.log").read_text()[-2_000:]
        with socket.socket(socket.AF_UNIX) as asking, suppress(OSError):
            asking.settimeout(10.0)
            asking.connect(str(self.socket))
            asking.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return asking.recv(64).startswith((b"HTTP/1.0 200", b"HTTP/1.1 200"))
        return False

    def kill(self) -> None:
        """Kill dockerd alone, as the kernel does when memory is short."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask dockerd to end, as an upgrade does; without live-restore it stops its containers."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        assert self._dockerd is not None
        self._dockerd.send_signal(number)  # unless it has ended by itself
        self._dockerd.wait(60)
        self._dockerd = None

    def lose_power(self) -> None:
        """Kill dockerd, containerd, the shims and all that runs in containers, as the end of their host would."""
        shims = self._running_shims()
        for process in (self._dockerd, self._containerd):
            if process is not None:
                process.kill()
        for pid in [*shims, *self._contained()]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in (self._dockerd, self._containerd):
            if process is not None:
                process.wait(60)
        self._dockerd = self._containerd = None
        for pid in self._running_shims():  # one that was being born
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _until(lambda: not self._contained() and not self._running_shims(), "nothing runs in a container any more")

    def remove(self) -> None:
        """Take away all of it: processes, mounts, control groups, sockets, files."""
        self.lose_power()
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for mount in sorted((mount for mount in mounts if mount.startswith(f"{self.root}/")), reverse=True):
            subprocess.run(["umount", "--lazy", mount], check=True)
        _until(self._without_groups, "its control groups are gone")
        for name in self._shims:
            (SHIM_SOCKETS / name).unlink(missing_ok=True)
        if Path(f"/sys/class/net/{self._bridge}").exists():
            subprocess.run(["ip", "link", "delete", self._bridge], check=True)
        _until(self._without_files, f"{self.root} is gone")

    def _without_groups(self) -> bool:
        """Take away its control groups, as far as the kernel lets go of them."""
        for group in self._groups():
            with suppress(OSError):
                for inner in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
                    inner.rmdir()
                group.rmdir()
        return not self._groups()

    def _without_files(self) -> bool:
        """Take away its files, to which what ends writes for a moment."""
        with suppress(OSError):
            shutil.rmtree(self.root)
        return not self.root.exists()

    # ---- what runs in it -----------------------------------------------------------------------------------

    def _groups(self) -> list[Path]:
        """Find its control group, in each hierarchy where there are several."""
        return [path for path in (CGROUPS / self._cgroup, *CGROUPS.glob(f"*/{self._cgroup}")) if path.is_dir()]

    def _contained(self) -> set[int]:
        """Give the processes in its containers."""
        found = set()
        for group in self._groups():
            for file in group.rglob("cgroup.procs"):
                with suppress(OSError):
                    found |= {int(pid) for pid in file.read_text().split()}
        return {pid for pid in found if not _is_zombie(pid)}

    def _running_shims(self) -> list[int]:
        """Give the shims, and note the names of their sockets: one that is killed leaves it behind."""
        address, found = f"{self.root}/containerd.sock", []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if address in words and "-id" in words:
                found.append(process.pid)
                name = f"{address}/{NAMESPACE}/{words[words.index('-id') + 1]}"
                self._shims.add(hashlib.sha256(name.encode()).hexdigest())
        return found


def _end_with_parent() -> None:
    """Let the kernel end this process when the tests were killed."""
    _LIBC.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


def _is_zombie(pid: int) -> bool:
    """Tell whether a process has ended, though nobody has asked how."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _until(look: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not look():
        assert time.monotonic() < deadline, f"not within {START_SECONDS:.0f} s: {what}"
        time.sleep(0.05)


def _copy(template: Path, data: Path) -> None:
    """Copy an engine's data; the layers, to which nothing ever writes, are shared."""
    data.mkdir()
    for entry in sorted(template.iterdir()):
        how = "-al" if entry.name == "overlay2" else "-a"
        subprocess.run(["cp", how, str(entry), str(data / entry.name)], check=True)


@pytest.fixture(scope="session")
def engine_template(docker_engine: DockerEngine) -> Iterator[Path]:
    """The data of an engine that has the base image and the gateway's."""
    assert docker_engine.image(GATEWAY_IMAGE) is not None, "make images"
    engine = PrivateEngine()
    engine.start()
    with subprocess.Popen(["docker", "save", BASE, GATEWAY_IMAGE], stdout=subprocess.PIPE) as save:
        load = ["docker", "--host", engine.url, "load"]
        subprocess.run(load, stdin=save.stdout, check=True, capture_output=True)
    assert save.returncode == 0
    engine.stop()
    engine.lose_power()
    yield engine.root / "data"
    engine.remove()


Engines = Callable[..., PrivateEngine]


@pytest.fixture
def engines(engine_template: Path) -> Iterator[Engines]:
    """Start engines of one's own, as many as asked for; `live_restore`: whether containers outlive them."""
    made: list[PrivateEngine] = []

    def start(*, live_restore: bool = False) -> PrivateEngine:
        engine = PrivateEngine(engine_template, live_restore=live_restore)
        made.append(engine)
        engine.start()
        return engine

    yield start
    for engine in made:
        engine.remove()


class SocketRoad:
    """A Unix socket that leads to an engine; it can be cut, hang, break at one request, or lose the answer to it."""

    def __init__(self, target: Path, at: Path) -> None:
        self.url = f"unix://{at}"
        self.lost, self.broke = threading.Event(), threading.Event()
        self._target = str(target)
        self._open = threading.Event()
        self._open.set()
        self._up = True
        self._lose: bytes | None = None
        self._break: bytes | None = None
        self._pairs: set[socket.socket] = set()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(at))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Refuse everybody, and end the connections that there are."""
        self._up = False
        self._drop()

    def blink(self) -> None:
        """End the connections that there are."""
        self._drop()

    def hang(self) -> None:
        """Let nothing through, without a word."""
        self._open.clear()

    def mend(self) -> None:
        self._up = True
        self._open.set()

    def lose_answer(self, request: bytes) -> None:
        """Bring the next request that begins so to the engine, and its answer to nobody."""
        self._lose = request
        self.lost.clear()

    def break_at(self, request: bytes) -> None:
        """End the connection at the next request that begins so, before it reaches the engine."""
        self.broke.clear()
        self._break = request

    def close(self) -> None:
        self._up = False
        self._listener.close()
        self.mend()
        self._up = False
        self._drop()

    def _drop(self) -> None:
        for end in list(self._pairs):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self._up:
                client.close()
                continue
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self._target)
            except OSError:
                client.close()
                server.close()
                continue
            self._pairs |= {client, server}
            deaf = threading.Event()
            threading.Thread(target=self._pump, args=(client, server, deaf, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, deaf, False), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket, deaf: threading.Event, asking: bool) -> None:
        try:
            while data := one.recv(65536):
                self._open.wait()
                if asking and self._break is not None and data.startswith(self._break):
                    self._break = None
                    self.broke.set()
                    with suppress(OSError):
                        one.shutdown(socket.SHUT_RDWR)
                    return
                if asking and self._lose is not None and data.startswith(self._lose):
                    self._lose = None
                    deaf.set()
                if asking or not deaf.is_set():
                    other.sendall(data)
                else:
                    self.lost.set()
        except OSError:
            pass
        finally:
            with suppress(OSError):
                other.shutdown(socket.SHUT_RDWR)
            self._pairs.discard(one)
            one.close()
