"""What branch code can reach from inside, asked from inside: real containers as the product starts them."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fixtures_bench import BASE, GATE, Bench, MemoryRecorder, Outcome

from runner.workspace import workspace_ids

CANARY = "canary-5ea1ed"


def inside(bench: Bench, program: str, limits: str = "memory: 256m, pids: 128") -> tuple[Any, Outcome, MemoryRecorder]:
    """Run a Python program in a workspace and give what it printed as JSON in its last line."""
    (bench.tree / "probe.py").write_text(PREAMBLE + program)
    spec = f"run: python3 probe.py\nworkspace: {{image: '{BASE}', limits: {{{limits}}}}}\ntimeouts: {{run: 60s}}"
    outcome, recorder = bench.verify(spec)
    lines = [line for line in recorder.said().splitlines() if line.startswith("{")]
    assert lines, recorder.said()
    return json.loads(lines[-1]), outcome, recorder


PREAMBLE = r"""
import ctypes, errno, glob, json, os, socket, stat, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def tried(call, *args):
    try:
        found = call(*args)
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return "ok" if found is None or not isinstance(found, (str, int, list, bytes)) else repr(found)[:60]
def system(number, *args):
    ctypes.set_errno(0)
    found = libc.syscall(number, *args)
    return "ok" if found >= 0 else errno.errorcode[ctypes.get_errno()]
def status(field, pid="self"):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith(field + ":"):
            return line.split(":", 1)[1].strip()
def tell(**found):
    print(json.dumps(found), flush=True)
"""


def test_identity_and_privileges(bench: Bench) -> None:
    found, outcome, _ = inside(
        bench,
        """
import getpass, pwd
tell(uid=os.getuid(), gid=os.getgid(), groups=os.getgroups(), effective=status("CapEff"), bounding=status("CapBnd"),
     permitted=status("CapPrm"), ambient=status("CapAmb"), new=status("NoNewPrivs"), seccomp=status("Seccomp"),
     first=[status(f, 1) for f in ("CapEff", "NoNewPrivs", "Seccomp", "Uid")], user=getpass.getuser(),
     home=pwd.getpwuid(os.getuid()).pw_dir, pid1=open("/proc/1/cmdline").read())
""",
    )
    assert outcome.code == "done"
    uid, gid = workspace_ids()
    assert uid != 0
    assert (found["uid"], found["gid"]) == (uid, gid)
    assert found["groups"] in ([], [gid])
    none = "0" * 16
    assert [found[name] for name in ("effective", "bounding", "permitted", "ambient")] == [none] * 4
    assert (found["new"], found["seccomp"]) == ("1", "2")
    assert found["first"] == [none, "1", "2", "\t".join([str(uid)] * 4)]
    assert (found["user"], found["home"]) == ("seatrial", "/home/seatrial")
    assert found["pid1"].startswith("sh\0/seatrial/control/wrapper.sh")


def test_what_can_be_written_and_what_cannot(bench: Bench) -> None:
    (bench.tree / "data.txt").write_text("as committed")
    (bench.tree / "sub").mkdir()
    for path in (bench.tree, *bench.tree.rglob("*")):
        os.chown(path, *workspace_ids())
    found, outcome, _ = inside(
        bench,
        """
def write(path):
    with open(path, "w") as file:
        file.write("x")
places = ["/x", "/etc/passwd", "/etc/x", "/usr/bin/x", "/seatrial/x", "/seatrial/control/x", "/seatrial/control/wrapper.sh",
          "/seatrial/control/passwd", "/proc/sys/kernel/core_pattern", "/sys/x", "/sys/fs/cgroup/x", "/dev/x", "/var/tmp/x",
          "/proc/sysrq-trigger", "/tmp/x", "/home/seatrial/x", "/seatrial/src/data.txt", "/seatrial/src/sub/new",
          "/seatrial/output/x", "/dev/shm/x"]
made = {path: tried(write, path) for path in places}
made["unlink"] = tried(os.unlink, "/seatrial/control/wrapper.sh")
made["remount"] = system(165, b"none", b"/", None, 32 | 4096, None)
os.rename("/seatrial/src/data.txt", "/seatrial/src/moved.txt")
os.unlink("/seatrial/src/probe.py")
tell(**made)
""",
    )
    assert outcome.code == "done"
    writable = {path for path, result in found.items() if result == "ok"}
    assert writable == {
        "/tmp/x", "/home/seatrial/x", "/seatrial/src/data.txt", "/seatrial/src/sub/new", "/seatrial/output/x", "/dev/shm/x",
    }  # fmt: skip
    assert found["remount"] == "EPERM"
    assert {result for path, result in found.items() if path not in writable} <= {"EROFS", "EACCES", "EPERM", "ENOENT"}
    assert (bench.tree / "data.txt").read_text() == "as committed", "the cached tree is unchanged"
    assert sorted(path.name for path in bench.tree.rglob("*")) == ["data.txt", "probe.py", "sub"]


@pytest.fixture
def listener() -> Iterator[int]:
    """A server of the host's on all addresses, with a secret for whoever reaches it."""
    server = socket.create_server(("0.0.0.0", 0))  # noqa: S104 - that is the point
    server.settimeout(0.2)
    stop = threading.Event()
    reached: list[str] = []

    def serve() -> None:
        while not stop.is_set():
            try:
                connection, address = server.accept()
            except TimeoutError:
                continue
            reached.append(address[0])
            connection.sendall(CANARY.encode())
            connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield int(server.getsockname()[1])
    stop.set()
    thread.join()
    server.close()
    assert reached == []


def test_no_network(bench: Bench, listener: int) -> None:
    addresses = subprocess.run(["hostname", "-I"], check=True, capture_output=True, text=True).stdout.split()
    targets = [
        ["169.254.169.254", 80], ["169.254.170.2", 80], ["172.17.0.1", listener], ["127.0.0.1", listener],
        ["192.0.2.1", 443], *[[address, listener] for address in addresses],
    ]  # fmt: skip
    found, outcome, _ = inside(
        bench,
        f"""
def connect(host, port):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as one:
        one.settimeout(5)
        one.connect((host, port))
def name():
    socket.getaddrinfo("example.com", 443)
def datagram():
    with socket.socket(type=socket.SOCK_DGRAM) as one:
        one.sendto(b"x", ("192.0.2.1", 53))
start = time.monotonic()
made = {{host: tried(connect, host, port) for host, port in {targets!r}}}
took = time.monotonic() - start
try:
    name(); dns = "ok"
except OSError as error:
    dns = "refused"
tell(made=made, took=took, dns=dns, datagram=tried(datagram), interfaces=os.listdir("/sys/class/net"),
     routes=open("/proc/net/route").read().count("\\n"), sockets=[path for path in
     ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock") if os.path.exists(path)])
""",
    )
    assert outcome.code == "done"
    assert found["made"].pop("127.0.0.1") == "ECONNREFUSED", "a loopback of its own, with nobody there"
    own = {result for host, result in found["made"].items() if host.startswith("127.")}
    assert own <= {"ECONNREFUSED"}
    assert {result for host, result in found["made"].items() if not host.startswith("127.")} <= {
        "ENETUNREACH", "EADDRNOTAVAIL", "EAFNOSUPPORT",
    }  # fmt: skip
    assert found["took"] < 1, "at once, not after a time-out"
    assert found["dns"] == "refused"
    assert found["datagram"] == "ENETUNREACH"
    assert set(found["interfaces"]) <= {
        "lo",
        "tunl0",
        "sit0",
        "ip6tnl0",
        "gre0",
        "gretap0",
        "erspan0",
        "ip_vti0",
        "ip6_vti0",
    }
    assert "lo" in found["interfaces"]
    assert found["routes"] == 1
    assert found["sockets"] == []


def test_system_calls_that_lead_out_are_refused(bench: Bench) -> None:
    found, outcome, recorder = inside(
        bench,
        """
child = subprocess.Popen(["sleep", "20"])
made = dict(
    mount=system(165, b"none", b"/tmp", b"tmpfs", 0, None), umount=system(166, b"/tmp", 2),
    unshare_user=system(272, 0x10000000), unshare_mount=system(272, 0x00020000), unshare_net=system(272, 0x40000000),
    setns=system(308, os.open("/proc/1/ns/mnt", os.O_RDONLY) if os.access("/proc/1/ns/mnt", os.R_OK) else 0, 0),
    pivot_root=system(155, b"/tmp", b"/tmp"), chroot=tried(os.chroot, "/tmp"),
    raw=tried(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1),
    packet=tried(socket.socket, socket.AF_PACKET, socket.SOCK_RAW),
    mknod=tried(os.mknod, "/tmp/device", stat.S_IFBLK | 0o600, os.makedev(8, 0)),
    mknod_char=tried(os.mknod, "/tmp/mem", stat.S_IFCHR | 0o600, os.makedev(1, 1)),
    bpf=system(321, 0, 0, 0), keyctl=system(250, 0, -3, 0),
    init_module=system(175, b"", 0, b""), kexec=system(246, 0, 0, 0, 0), reboot=system(169, 0xfee1dead, 672274793, 0x1234567),
    swapon=system(167, b"/tmp/x", 0), settime=system(227, 0, ctypes.byref(ctypes.c_int64(0))),
    sethostname=tried(socket.sethostname, "x"), setuid=tried(os.setuid, 0), setgid=tried(os.setgid, 0),
    setgroups=tried(os.setgroups, [0]), chown=tried(os.chown, "/seatrial/src/probe.py", 0, 0),
    perf=system(298, 0, 0, -1, -1, 0), userfaultfd=system(323, 0), open_by_handle=system(304, -100, None, 0),
    kcore=tried(open, "/proc/kcore", "rb"), kmsg=tried(open, "/dev/kmsg"), mem=tried(open, "/dev/mem", "rb"),
    disk=tried(open, "/dev/vda", "rb"), nice=tried(os.nice, -5),
)
child.kill()
tell(**made)
""",
    )
    assert outcome.code == "done", recorder.said()
    # ptrace is allowed, as debuggers need it: there are no others' processes to be seen (see below).
    # The kernel may not have a call at all, or find its arguments wrong before it asks for the privilege.
    refused = {"EPERM", "EACCES", "ENOSYS", "ENOENT"}
    assert {name: result for name, result in found.items() if result not in refused} == {}
    for name in ("mount", "unshare_user", "unshare_net", "mknod", "raw", "chroot", "setuid", "packet"):
        assert found[name] == "EPERM", name


def test_a_setuid_program_gains_nothing(bench: Bench, tmp_path: Path) -> None:
    found, outcome, _ = inside(
        bench,
        """
setuid = [path for folder in ("/usr/bin", "/bin", "/usr/sbin") for path in glob.glob(folder + "/*")
          if os.path.isfile(path) and os.stat(path).st_mode & stat.S_ISUID]
subprocess.run(["cp", "/bin/cat", "/tmp/mine"], check=True)
tell(setuid=setuid, chmod=tried(os.chmod, "/tmp/mine", 0o4755),
     owner=os.stat("/tmp/mine").st_uid,
     su=subprocess.run(["su", "-c", "id -u"], stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout.strip(),
     new=status("NoNewPrivs"))
""",
    )
    assert outcome.code == "done"
    assert found["owner"] == workspace_ids()[0], "one that it makes itself is its own"
    assert found["su"] != "0"
    assert found["new"] == "1"


def test_a_setuid_root_program_of_the_image_gains_nothing(bench: Bench) -> None:
    (bench.tree / "Dockerfile").write_text(
        f"FROM {BASE}\nRUN cp $(readlink -f $(command -v python3)) /usr/bin/rooted && chmod 4755 /usr/bin/rooted"
        f" && ls -l /usr/bin/rooted # {secrets.token_hex(4)}\n"
    )
    outcome, recorder = bench.verify(
        "run: \"ls -l /usr/bin/rooted; rooted -c 'import os; print(os.geteuid(), os.getresuid())'\"\n"
        "workspace: {build: {dockerfile: Dockerfile}}"
    )
    assert outcome.code == "done", recorder.said()
    uid = workspace_ids()[0]
    assert "-rwsr-xr-x" in recorder.said()
    assert f"{uid} ({uid}, {uid}, {uid})" in recorder.said()


def test_nothing_of_others_and_nothing_of_the_worker(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEATRIAL_SECRET_CANARY", CANARY)
    other = bench.root / "executions" / "seatrial-other-r9-t9-e1"
    (other / "io").mkdir(parents=True)
    (other / "io" / "log").write_text(CANARY)
    found, outcome, _ = inside(
        bench,
        f"""
environment = open("/proc/1/environ").read().split("\\0")
mounts = open("/proc/self/mountinfo").read()
hits = [path for path in glob.glob("/seatrial/**", recursive=True) if "other" in path]
tell(names=sorted(entry.split("=")[0] for entry in environment if entry),
     pids=[int(p) for p in os.listdir("/proc") if p.isdigit()],
     other=tried(os.listdir, {str(other)!r}), parent=tried(os.listdir, {str(bench.root)!r}), hits=hits,
     canary={CANARY!r} in "".join(environment), up=os.listdir("/seatrial"),
     points=[line.split()[4] for line in mounts.splitlines()], ipc=open("/proc/sysvipc/shm").read().count("\\n"))
""",
    )
    assert outcome.code == "done"
    assert found["names"] == [
        "HOME", "HOSTNAME", *(["LANG"] if "LANG" in found["names"] else []), "PATH", "SEATRIAL_ATTEMPT",
        "SEATRIAL_CHECKPOINT", "SEATRIAL_COMMIT", "SEATRIAL_LEG", "SEATRIAL_OUTPUT", "SEATRIAL_RUN",
    ]  # fmt: skip
    assert not found["canary"]
    assert max(found["pids"]) < 100, "a process namespace of its own"
    assert (found["other"], found["parent"], found["hits"]) == ("ENOENT", "ENOENT", [])
    assert sorted(found["up"]) == ["control", "io", "output", "src"]
    assert {point for point in found["points"] if point.startswith(("/seatrial", "/home", "/etc", "/tmp"))} == {
        "/etc/group", "/etc/hostname", "/etc/hosts", "/etc/passwd", "/etc/resolv.conf", "/home/seatrial", "/seatrial/control",
        "/seatrial/io", "/seatrial/output", "/seatrial/src", "/tmp",
    }  # fmt: skip
    assert found["ipc"] == 1
    assert (other / "io" / "log").read_text() == CANARY


def namespace(pid: str) -> str:
    """Name the process namespace of a process; "" for one that has gone."""
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/pid")
    return ""


def test_a_fork_bomb_leaves_the_host_and_the_worker_alone(bench: Bench) -> None:
    order = bench.order(
        'run: "bomb() { bomb | bomb & }; ( bomb ) & echo lit; exec sleep 60"\n'  # one that cannot fork ends
        f"workspace: {{image: '{BASE}', limits: {{pids: 64, memory: 128m}}}}"
    )
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for("lit")
    state = bench.engine.inspect(bench.container())
    assert state is not None
    inside = os.readlink(f"/proc/{state.pid}/ns/pid")

    def count() -> int:
        return sum(namespace(name) == inside for name in os.listdir("/proc") if name.isdigit())

    running.wait_for(lambda: count() > 2)
    most = 0
    for _ in range(20):
        most = max(most, count())
        recorder.check()
    recorder.cancelled.set()
    running.end(60)
    assert most <= 64
    assert bench.left_over() == []


def test_filling_the_temporary_files_is_contained(bench: Bench) -> None:
    found, outcome, _ = inside(
        bench,
        """
def fill(path):
    size = 0
    try:
        with open(path, "wb", buffering=0) as file:
            while True:
                size += file.write(bytes(1 << 20))
    except OSError as error:
        os.unlink(path)
        return size >> 20, errno.errorcode[error.errno]
def many(path):
    os.mkdir(path)
    for number in range(1_000_000):
        try:
            open(f"{path}/{number}", "w").close()
        except OSError as error:
            return number, errno.errorcode[error.errno]
    return number, "ok"
tell(tmp=fill("/tmp/big"), home=fill("/home/seatrial/big"), shm=fill("/dev/shm/big"))
""",
        "memory: 256m",
    )
    assert outcome.code == "done"
    assert found == {"tmp": [128, "ENOSPC"], "home": [64, "ENOSPC"], "shm": [64, "ENOSPC"]}


# ---- the files by which host and workspace speak ----------------------------------------------------------

SHADOW = Path("/etc/shadow")


@pytest.mark.parametrize("name", ["log", "checkpoint", "steps", "exit", "units", "exit.part"])
@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory", "hardlink", "missing", "dangling"])
def test_files_of_the_contract_that_are_replaced_neither_hang_nor_leak(bench: Bench, name: str, kind: str) -> None:
    make = {
        "symlink": f"ln -s /etc/shadow {name}",
        "fifo": f"mkfifo {name}",
        "directory": f"mkdir {name}; echo > {name}/x",
        "hardlink": f"echo a > other; ln other {name}",
        "missing": "true",
        "dangling": f"ln -s /nowhere {name}",
    }[kind]
    outcome, recorder = bench.verify_gated(
        "units: [a, b]\nrun: |\n"
        "  O=$SEATRIAL_OUTPUT; C=$SEATRIAL_CHECKPOINT\n"
        f"  echo 1 > $O/a.csv; echo a >> $C; echo before; {GATE}\n"
        f"  cd /seatrial/io; rm -rf {name}; {make}; sleep 0.4; echo after; exit 0\n",
        lambda recorder: recorder.units["a"].value == "done" and "before" in recorder.said(),
        ("a", "b"),
    )
    assert outcome.seconds < 45
    assert "before" in recorder.said()
    if SHADOW.exists():
        for line in SHADOW.read_text().splitlines():
            assert line not in recorder.said()
            assert line not in outcome.why
    assert recorder.units["a"].value == "done"
    assert outcome.code in ("incomplete", "step_failed", "units_failed", "container_lost"), outcome.why
    if name not in ("exit", "exit.part", "steps"):
        assert outcome.code == "incomplete", outcome.why
    assert bench.left_over() == []


@pytest.mark.parametrize(
    "text", ["", "0", "0\\n", "inf \\n", "-1 \\n", "999 \\n", "1e400 \\n", "0 stopped\\n", "\\377\\n", "0 \\n0 \\n"]
)
def test_a_forged_exit_file_does_no_harm(bench: Bench, text: str) -> None:
    outcome, _ = bench.verify(
        f"units: [a]\nrun: |\n  printf '{text}' > /seatrial/io/exit; sleep 0.5; echo late\n", ("a",)
    )
    assert outcome.code in ("incomplete", "container_lost"), outcome.why
    assert bench.left_over() == []


@pytest.mark.parametrize("name", ["log", "checkpoint", "steps", "exit"])
@pytest.mark.parametrize("make", ["ln -s /etc/shadow", "mkfifo", "mkdir"])
def test_files_that_are_replaced_while_nobody_looks(bench: Bench, name: str, make: str) -> None:
    order = bench.order(
        f"units: [a]\nrun: 'echo ready; {GATE}; cd /seatrial/io; rm -f {name}; {make} {name}; exit 0'",
        ("a",),
    )
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for("ready")
    recorder.drained.set()
    running.end()
    bench.open_gate()
    deadline = time.monotonic() + 30
    while (state := bench.engine.inspect(bench.container())) is not None and state.running:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    outcome = bench.run(bench.again(order, recorder), recorder)
    assert outcome.seconds < 45
    assert outcome.code in ("incomplete", "units_failed", "container_lost"), outcome.why
    if SHADOW.exists():
        assert SHADOW.read_text().splitlines()[0] not in recorder.said()
    if name in ("log", "checkpoint"):
        assert f"{name}: {name} is a" in recorder.said()
    assert bench.left_over() == []
