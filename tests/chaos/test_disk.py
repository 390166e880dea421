"""B21: the disk is full. Nothing is blamed on a branch, nothing that was stored is harmed, and it goes on with room."""

from __future__ import annotations

import itertools
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from fixtures_git import Repository
from fixtures_server import Server, branch_files, until

UNITS = [f"d/{number}" for number in range(4)]
# Every unit of the first batch waits; then each writes three megabytes.
SCRIPT = """\
work() {
    [ $1 != d/0 ] || gate
    mkdir -p "$SEATRIAL_OUTPUT/d"
    head -c 3000000 /dev/urandom | base64 >"$SEATRIAL_OUTPUT/$1.txt" || exit 1
}
while read -r unit; do
    echo "begin $unit"
    work "$unit"
    echo "$unit" >>"$SEATRIAL_CHECKPOINT"
done <"$SEATRIAL_UNITS"
"""


@pytest.fixture
def small(lab: Repository, lease: float) -> Iterator[Server]:
    """A server whose home is on a filesystem of 200 MB and 8,192 files."""
    with tempfile.TemporaryDirectory(prefix="seatrial-small-") as folder:
        image, root = Path(folder) / "disk.img", Path(folder) / "disk"
        root.mkdir()
        with image.open("wb") as file:
            file.truncate(200 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-N", "8192", str(image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(root)], check=True)
        try:
            settings = ('disk_reserve = "0"', 'inode_reserve = "0"')  # it is to run into it
            with Server({"lab": lab.path}, lease=lease, root=root / "server-root", settings=settings) as server:
                yield server
                server.cancel_all()
        finally:
            subprocess.run(["umount", "--lazy", str(root)], check=True)


def fill_with_files(server: Server) -> Path:
    """Make files until there can be no more."""
    ballast = server.root / "files"
    ballast.mkdir()
    with suppress(OSError):
        for number in itertools.count():
            (ballast / str(number)).touch()
    return ballast


def fill(server: Server, *, leave: int = 0) -> Path:
    """Write until nothing fits any more, or only so many bytes."""
    ballast = server.root / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"\0" * 65_536):
            pass
    if leave:
        with ballast.open("r+b") as file:
            file.truncate(max(0, ballast.stat().st_size - leave))
    return ballast


@pytest.mark.parametrize("of", ["bytes", "files"])
def test_b21_full_in_mid_run(small: Server, lab: Repository, of: str) -> None:
    server = small
    lab.branch(
        "writing",
        branch_files("", units=UNITS)
        | {"verify.sh": ("gate() { until [ -e /tmp/go ]; do sleep 0.1; done; }\n" + SCRIPT).encode()},
    )
    run = server.submit("lab", "writing")["id"]
    server.wait_log(run, "begin d/0\n")
    until(lambda: server.run(run)["units"]["done"] >= 2, "the other batch is done")
    before = server.digests(run)
    ballast = fill(server, leave=1 << 20) if of == "bytes" else fill_with_files(server)
    server.open_gate(run)
    time.sleep(4.0)  # it runs into it, wherever it is
    refused = server.post("/runs", {"project": "lab", "ref": "writing"})
    assert refused.status_code in (201, 503, 507), refused.text
    subprocess.run(["rm", "-r", str(ballast)], check=True)
    found = server.finish(run)
    assert found["verdict"] == "passed"
    assert set(server.interruptions(run)) <= {"disk_full", "store_unavailable"}
    assert "failed" not in server.states(run)
    after = server.digests(run)
    assert {unit: after[unit] for unit in before} == before
    for unit in UNITS:  # whole, and what their digests say
        assert server.http.get(f"/runs/{run}/units/{unit}/output").status_code == 200
    if refused.status_code == 201:
        server.finish(refused.json()["id"])
    with sqlite3.connect(f"file:{server.home}/seatrial.db?mode=ro", uri=True) as records:
        assert records.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_b21_full_at_submit(small: Server, lab: Repository) -> None:
    """A submission that cannot be written is refused in clear words, or accepted whole."""
    server = small
    lab.branch("small", branch_files("work() { :; }\neach\n", units=["u1"]))
    server.passes(server.submit("lab", "small")["id"])
    ballast = fill(server)
    lab.branch("small", branch_files("work() { :; }\neach\n# again\n", units=["u1"]))
    answer = server.post("/runs", {"project": "lab", "ref": "small", "note": "no room"})
    assert answer.status_code in (201, 503, 507), answer.text
    if answer.status_code != 201:
        assert "disk" in answer.text.lower() or "space" in answer.text.lower(), answer.text
    ballast.unlink()
    listed = server.get("/runs", text="no room")["runs"]
    assert len(listed) == (1 if answer.status_code == 201 else 0)
    for run in listed:
        server.finish(run["id"])
    server.passes(server.submit("lab", "small")["id"])
