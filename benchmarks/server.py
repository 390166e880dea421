"""A whole Seatrial of its own, for what is measured from outside."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

FINAL = ("done", "failed", "errored", "cancelled")


@dataclass
class Server:
    """A running server, its repository and a client."""

    url: str
    home: Path
    repository: Path
    client: httpx.Client

    def submit(self, ref: str = "main", **more: object) -> int:
        """Submit a run."""
        answer = self.client.post("/api/v1/runs", json={"project": "bench", "ref": ref, **more})
        answer.raise_for_status()
        return int(answer.json()["id"])

    def wait(self, run: int, *, every: float = 0.005, verdict: str = "passed") -> dict[str, Any]:
        """Wait for a run's end, which must be this one."""
        while True:
            found: dict[str, Any] = self.client.get(f"/api/v1/runs/{run}").json()
            if found["state"] in FINAL:
                assert found["verdict"] == verdict, found
                return found
            time.sleep(every)


def commit(repository: Path, branch: str, spec: str) -> None:
    """Commit a seatrial.yml on a branch of its own."""
    who = ["-c", "user.name=b", "-c", "user.email=b@example.com"]
    if not (repository / ".git").exists():
        repository.mkdir(parents=True)
        subprocess.run(["git", "init", "-q", "-b", branch], cwd=repository, check=True)
    else:
        subprocess.run(["git", "checkout", "-q", "-B", branch], cwd=repository, check=True)
    (repository / "seatrial.yml").write_text(spec)
    subprocess.run(["git", "add", "-A"], cwd=repository, check=True)
    subprocess.run(["git", *who, "commit", "-qm", branch], cwd=repository, check=True)


@contextmanager
def serving(root: Path, *, slots: int = 2, before: Callable[[Path], None] | None = None) -> Iterator[Server]:
    """Start a server on a free port; end it with all that it started. `before` is given its settings file first."""
    home = root / "server"
    home.mkdir(parents=True)
    repository = root / "repository"
    commit(repository, "main", "version: 1\nworkspace: {image: 'seatrial/base:bookworm'}\nrun: 'true'\n")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    settings = home / "seatrial.toml"
    settings.write_text(
        f'[server]\nlisten = "127.0.0.1:{port}"\nhome = "home"\n[pools.local]\nslots = {slots}\n'
        f'[projects.bench]\nrepository = "{repository}"\n'
    )
    if before is not None:
        before(settings)
    with (home / "log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", "--config", str(settings), "up"], stdout=output, stderr=output
        )
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)
    try:
        for _ in range(600):
            try:
                if client.get("/healthz").json().get("healthy"):
                    break
            except (httpx.HTTPError, ValueError):
                pass
            time.sleep(0.1)
        time.sleep(1.0)
        yield Server(f"http://127.0.0.1:{port}", home, repository, client)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
