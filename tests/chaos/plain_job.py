"""What a worker of plain RQ does for a job. By itself, so that a work-horse imports no more than it needs."""

from __future__ import annotations

import subprocess
from pathlib import Path


def job(log: str, mark: str, number: int, image: str, script: str) -> int:
    """Run a container, and gather what it prints in a file."""
    labels = {"installation": mark, "kind": "workspace", "task": number}
    words = [word for key, value in labels.items() for word in ("--label", f"seatrial.{key}={value}")]
    with Path(log).open("ab") as file:
        return subprocess.run(["docker", "run", "--rm", "--network", "none", *words, image, "sh", "-c", script],
                              stdout=file, check=True).returncode  # fmt: skip
