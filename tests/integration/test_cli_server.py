"""The command line against a real server: web, workers, sweeper, Valkey, Docker and git as `seatrial up` starts them."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result
from fixtures_git import Repository
from fixtures_postgres import free_port

from jobs.cli import main

UNITS = b"""\
version: 1
workspace: {image: "seatrial/base:bookworm"}
units: [t1/pl, t1/bs, t2/pl, t2/bs]
run: |
  while read unit; do
    mkdir -p "$SEATRIAL_OUTPUT/$(dirname $unit)"
    echo "unit,$unit" > "$SEATRIAL_OUTPUT/$unit.csv"
    if [ "$unit" = "BROKEN" ]; then
      printf '%s\\tfailed\\tthe sum is wrong\\n' "$unit" >> "$SEATRIAL_CHECKPOINT"
    else
      echo "$unit" >> "$SEATRIAL_CHECKPOINT"
    fi
  done < "$SEATRIAL_UNITS"
"""
NOISE = b"""\
version: 1
workspace: {image: "seatrial/base:bookworm"}
run: |
  i=0
  while [ $i -lt 24 ]; do printf 'part %s \\377\\000\\r' $i; i=$((i + 1)); sleep 0.5; done
  mkdir "$SEATRIAL_OUTPUT/d"; echo one > "$SEATRIAL_OUTPUT/a.csv"; echo two > "$SEATRIAL_OUTPUT/d/b.csv"
"""
LONG = b'version: 1\nworkspace: {image: "seatrial/base:bookworm"}\nrun: sleep 300\n'


class Server:
    """A whole Seatrial in a directory of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config = home / "seatrial.toml"
        self.url = f"http://127.0.0.1:{free_port()}"
        self.repository = Repository(home / "app.git")
        self.repository.branch("main", {"seatrial.yml": UNITS})
        self.repository.branch("broken", {"seatrial.yml": UNITS.replace(b"BROKEN", b"t2/pl")})
        self.repository.branch("noise", {"seatrial.yml": NOISE})
        self.repository.branch("long", {"seatrial.yml": LONG})
        self.repository.branch("invalid", {"seatrial.yml": b"version: 1\nrunn: x\n"})
        self.config.write_text(
            f'[server]\nlisten = "{self.url.removeprefix("http://")}"\nhome = "home"\n'
            f'[projects.app]\nrepository = "{self.repository.path}"\n[pools.local]\nslots = 2\n',
            "utf-8",
        )
        self.log = (home / "up.log").open("wb")
        self.process = subprocess.Popen(self.command("up"), stdout=self.log, stderr=self.log, start_new_session=True)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "jobs.cli", "--config", str(self.config), *words]

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz", timeout=5, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def until_ready(self) -> None:
        deadline = time.monotonic() + 120
        while not self.ready():
            assert time.monotonic() < deadline, (self.home / "up.log").read_text("utf-8")
            time.sleep(0.2)

    def web(self) -> int:
        """Give the process id of the web server, which the log names at each start."""
        text = (self.home / "up.log").read_text("utf-8")
        return int(re.findall(r"child=web\S*\s+pid=\D*(\d+)", re.sub(r"\x1b\[[0-9;]*m", "", text))[-1])

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.log.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    one = Server(tmp_path_factory.mktemp("cli"))
    try:
        one.until_ready()
        yield one
    finally:
        one.end()


def seatrial(server: Server, *words: str, code: int = 0) -> Result:
    found = CliRunner().invoke(main, ["--config", str(server.config), *words])
    assert found.exit_code == code, found.output
    return found


def submitted(server: Server, *words: str) -> int:
    return int(json.loads(seatrial(server, "submit", *words, "--json").stdout)["id"])


@pytest.fixture(scope="module")
def passed(server: Server) -> int:
    found = seatrial(server, "submit", "main", "--wait", "--json", "--note", "rounding \x1b[31m", "--priority", "5")
    run = json.loads(found.stdout)
    assert f"run {run['id']}: passed, 4/4 units\n" in found.stderr
    return int(run["id"])


@pytest.fixture(scope="module")
def failed(server: Server) -> int:
    found = seatrial(server, "submit", "--project", "app", "broken", "--wait", code=1)
    match = re.match(r"Run (\d+) is failed: .*\(units_failed\); units: 3/4, 1 failed\n", found.stdout)
    assert match is not None, found.output
    return int(match[1])


# ---- submit, list, show ------------------------------------------------------------------------------------


def test_submit_tells_the_run_its_commit_and_its_page(server: Server) -> None:
    lines = seatrial(server, "submit", "main", "--idempotency-key", "k1").stdout.splitlines()
    run = int(lines[0].split()[1])
    sha = server.repository.git("rev-parse", "main")
    assert lines == [f"Run {run} is queued: app main at {sha[:10]}", f"{server.url}/runs/{run}"]
    again = json.loads(seatrial(server, "submit", "main", "--idempotency-key", "k1", "--json").stdout)
    assert (again["id"], again["commit"]) == (run, sha)
    other = seatrial(server, "submit", "broken", "--idempotency-key", "k1", code=2)
    assert "idempotency" in other.stderr.lower()


def test_list_and_show(server: Server, passed: int, failed: int) -> None:
    lines = seatrial(server, "list").stdout.splitlines()
    assert lines[0].split()[:4] == ["RUN", "STATE", "PROJECT", "REF"]
    numbers = [int(line.split()[0]) for line in lines[1:]]
    assert {passed, failed} <= set(numbers)
    assert numbers == sorted(numbers, reverse=True)
    found = json.loads(seatrial(server, "list", "--state", "failed", "--text", "broken", "--json").stdout)
    assert [run["id"] for run in found["runs"]] == [failed]
    assert len(json.loads(seatrial(server, "list", "--limit", "1", "--json").stdout)["runs"]) == 1
    assert "No run matches" in seatrial(server, "list", "--user", "nobody-of-that-name").stderr
    shown = seatrial(server, "show", str(passed)).stdout
    assert shown.startswith(f"Run {passed} is passed\n")
    assert "rounding \\x1b[31m" in shown
    assert "batch 1  checkout" in shown
    assert json.loads(seatrial(server, "show", str(failed), "--json").stdout)["reason"]["code"] == "units_failed"
    told = [line.split() for line in seatrial(server, "attempts", str(failed)).stdout.splitlines()]
    assert told[0][:4] == ["TASK", "ATTEMPT", "WORKER", "HOST"]
    assert told[1][0] == "prepare"
    assert "units_failed:" in next(words for words in told[2:] if "failed" in words)
    known = json.loads(seatrial(server, "attempts", str(failed), "--json").stdout)["attempts"]
    assert len(known) == len(told) - 1


def test_list_pages_on_until_it_has_enough(
    server: Server, monkeypatch: pytest.MonkeyPatch, passed: int, failed: int
) -> None:
    monkeypatch.setattr("jobs.cli_runs.RUNS_AT_ONCE", 1)
    found = json.loads(seatrial(server, "list", "--limit", "2", "--json").stdout)["runs"]
    assert len({run["id"] for run in found}) == 2


def test_units_of_a_run(server: Server, failed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.cli_runs.UNITS_AT_ONCE", 3)
    lines = seatrial(server, "units", str(failed)).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["done", "done", "failed", "done"]
    (line,) = seatrial(server, "units", str(failed), "--state", "failed").stdout.splitlines()
    assert line.endswith("t2/pl  the sum is wrong")
    told = json.loads(seatrial(server, "units", str(failed), "--json").stdout)
    assert [unit["unit"] for unit in told["units"]] == ["t1/pl", "t1/bs", "t2/pl", "t2/bs"]
    assert told["counts"]["candidate"] == {"total": 4, "done": 3, "failed": 1}


def test_what_the_server_offers(server: Server, passed: int) -> None:
    assert seatrial(server, "projects").stdout.splitlines()[1].split()[0] == "app"
    assert json.loads(seatrial(server, "projects", "--json").stdout)["projects"][0]["name"] == "app"
    names = [line.split()[-1] for line in seatrial(server, "refs", "app").stdout.splitlines()[1:]]
    assert {"main", "broken", "noise"} <= set(names)
    assert [ref["name"] for ref in json.loads(seatrial(server, "refs", "app", "ois", "--json").stdout)["refs"]] == [
        "noise"
    ]
    lines = seatrial(server, "capacity").stdout.splitlines()
    assert lines[1].split()[:3] == ["local", "2", "2"]
    assert len(json.loads(seatrial(server, "capacity", "--json").stdout)["pools"][0]["workers"]) == 2


# ---- outputs -----------------------------------------------------------------------------------------------


def test_outputs_one_by_one_and_as_an_archive(
    server: Server, passed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = str(passed)
    assert seatrial(server, "output", run, "t1/pl").stdout_bytes == b"unit,t1/pl\n"
    seatrial(server, "output", run, "t1/pl", "-o", str(tmp_path))
    assert (tmp_path / "pl.csv").read_bytes() == b"unit,t1/pl\n"
    seatrial(server, "output", run, "t1/bs", "-o", str(tmp_path / "pl.csv"))
    assert (tmp_path / "pl.csv").read_bytes() == b"unit,t1/bs\n"
    monkeypatch.chdir(tmp_path)
    assert f"run-{run}-outputs.zip" in seatrial(server, "output", run).stderr
    with zipfile.ZipFile(tmp_path / f"run-{run}-outputs.zip") as archive:
        assert archive.read("candidate/t2/bs.csv") == b"unit,t2/bs\n"
        assert len(archive.namelist()) == 4
    seatrial(server, "output", run, "-o", "all.tar")
    listed = subprocess.run(["tar", "-tf", "all.tar"], capture_output=True, text=True, check=True).stdout.split()
    assert sorted(listed) == [f"candidate/t{n}/{name}.csv" for n in (1, 2) for name in ("bs", "pl")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.tar", "pl.csv", f"run-{run}-outputs.zip"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("t9/pl",), 2, "Run {run} has no unit t9/pl"),
        (("t1/pl", "--leg", "baseline"), 2, "baseline"),
        (("t1/pl", "--path", "x"), 2, "is a single file"),
        (("--path", "x"), 2, "--path is for one unit"),
        (("t1/pl", "-o", "/proc/no/such/place"), 3, "/proc/no/such/place cannot be written"),
    ],
)
def test_outputs_that_there_are_not(server: Server, passed: int, words: tuple[str, ...], code: int, said: str) -> None:
    assert said.format(run=passed) in seatrial(server, "output", str(passed), *words, code=code).stderr


# ---- logs --------------------------------------------------------------------------------------------------


def test_a_log_is_byte_exact_and_following_it_outlasts_the_death_of_the_web_server(server: Server) -> None:
    run = submitted(server, "noise")
    following = subprocess.Popen(server.command("logs", str(run), "-f"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while json.loads(seatrial(server, "show", str(run), "--json").stdout)["state"] != "running":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    time.sleep(3)
    os.kill(server.web(), signal.SIGKILL)
    out, err = following.communicate(timeout=180)
    assert following.returncode == 0, err
    server.until_ready()
    tasks = json.loads(seatrial(server, "show", str(run), "--json").stdout)["tasks"]
    (task,) = [task["id"] for task in tasks if task["kind"] == "verify"]
    printed = b"".join(b"part %d \xff\x00\r" % number for number in range(24))
    alone = seatrial(server, "logs", str(run), "--task", str(task)).stdout_bytes
    # Without the lines that Seatrial adds; the last begins on a line of its own, as the script ended none.
    assert re.sub("(?:── |seatrial: ).*\n".encode(), b"", alone) == printed + b"\n"
    assert out.endswith(alone)
    assert seatrial(server, "logs", str(run), "--task", str(task), "-f").stdout_bytes == alone
    whole = seatrial(server, "logs", str(run)).stdout_bytes
    assert whole == out
    zipped = seatrial(server, "output", str(run), "all").stdout_bytes
    with zipfile.ZipFile(io.BytesIO(zipped)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {"a.csv": b"one\n", "d/b.csv": b"two\n"}
    assert seatrial(server, "output", str(run), "all", "--path", "d/b.csv").stdout_bytes == b"two\n"


def test_logs_of_a_task_that_there_is_not(server: Server, passed: int) -> None:
    for more in ((), ("-f",)):
        assert "has no task 4711" in seatrial(server, "logs", str(passed), "--task", "4711", *more, code=2).stderr


# ---- cancel, resume, rerun ---------------------------------------------------------------------------------


def test_cancel_resume_rerun_and_leaving_a_wait(server: Server, failed: int) -> None:
    waiting = subprocess.Popen(
        server.command("submit", "long", "--wait"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever started the tests in the background may have let them ignore it.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert waiting.stderr is not None
    run = int(waiting.stderr.readline().split()[1].rstrip(":"))
    waiting.stderr.readline()
    waiting.send_signal(signal.SIGINT)
    _, err = waiting.communicate(timeout=30)
    assert (waiting.returncode, f"Run {run} goes on by itself" in err) == (130, True)
    assert "cancel" in seatrial(server, "cancel", str(run)).stdout
    deadline = time.monotonic() + 60
    while json.loads(seatrial(server, "show", str(run), "--json").stdout)["state"] != "cancelled":
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert "is cancelled already" in seatrial(server, "cancel", str(run), code=2).stderr
    again = seatrial(server, "resume", str(failed), "--wait", "--json", code=1)
    assert json.loads(again.stdout)["id"] == failed
    new = json.loads(seatrial(server, "rerun", str(failed), "--wait", "--json", code=1).stdout)
    assert (new["parent"], new["id"] > failed) == (failed, True)


# ---- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("submit", "nope"), 2, "no branch, tag or pull request named 'nope'"),
        (("submit", "--", "-x"), 2, "begins with a dash"),
        (("submit", "--", "--upload-pack=touch pwned"), 2, "is not a name that a git ref can have"),
        (("submit", "a..b"), 2, "is not a name that a git ref can have"),
        (("submit", "--project", "nope", "main"), 2, "Known projects: app"),
        (("submit", "invalid"), 2, "runn: is not a known key"),
        (("submit", "main", "--database", "x"), 2, "database: this branch uses none"),
        (("submit", "main", "--priority", "101"), 2, "-100<=x<=100"),
        (("submit", "main", "--note", "x" * 2_001), 2, "note"),
        (("submit", "main", "--idempotency-key", "a b"), 2, "Idempotency-Key"),
        (("submit",), 2, "Missing argument 'REF'"),
        (("show", "4711"), 2, "There is no run 4711"),
        (("show", "0"), 2, "0 is not in the range"),
        (("show", "x"), 2, "'x' is not a valid integer"),
        (("resume", "1"), 2, "there is nothing to resume"),
        (("rerun", "4711"), 2, "There is no run 4711"),
        (("list", "--state", "dead"), 2, "'dead' is not one of"),
        (("list", "--text", "a\0b"), 2, "NUL"),
        (("refs", "nope"), 2, "There is no project 'nope'"),
        (("refs", "../runs"), 2, "Error: "),
        (("show", "1", "--server", "foo"), 2, "is not the address of a server"),
        (("show", "1", "--server", "http://127.0.0.1:1"), 3, "No Seatrial server answers at http://127.0.0.1:1"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, tuple) else None,
)
def test_what_is_refused(server: Server, passed: int, words: tuple[str, ...], code: int, said: str) -> None:
    found = seatrial(server, *words, code=code)
    assert said in found.stderr
    assert "Traceback" not in found.output


def test_a_second_server_on_the_same_home_is_refused(server: Server) -> None:
    """It would take the first one's Valkey away."""
    found = subprocess.run(server.command("up"), capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 3, found.stderr
    assert f"is running already on {server.home / 'home'}, as process {server.process.pid}" in found.stderr
    assert (server.home / "home" / "valkey" / "valkey.sock").is_socket()


def test_a_server_whose_address_somebody_has_starts_nothing(server: Server, tmp_path: Path) -> None:
    config = tmp_path / "seatrial.toml"
    config.write_text(
        server.config.read_text("utf-8").replace('home = "home"', f'home = "{tmp_path / "home"}"'), "utf-8"
    )
    command = [sys.executable, "-m", "jobs.cli", "--config", str(config), "up"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 3, found.stderr
    assert "perhaps another Seatrial. End it, or set another server.listen in seatrial.toml." in found.stderr
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["up.pid"]


def test_a_remote_that_is_away_is_infrastructure(server: Server, passed: int) -> None:
    away = server.repository.path.rename(server.home / "away.git")
    try:
        assert "is not available" in seatrial(server, "submit", "main", code=3).stderr
    finally:
        away.rename(server.repository.path)


def test_the_doctor_is_content(server: Server) -> None:
    found = json.loads(seatrial(server, "doctor", "--json").stdout)
    assert found["healthy"]
    assert {f["what"] for f in found["findings"]} >= {"python", "git", "docker", "redis", "store", "project app"}
    lines = seatrial(server, "doctor").stdout.splitlines()
    assert any(line.startswith("ok ") and "live-restore" in line for line in lines)
