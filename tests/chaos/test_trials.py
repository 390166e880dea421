"""Trials: runs of every kind on a server to which everything happens. `SEATRIAL_CHAOS_SEEDS=50` makes it fifty."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from chaos_check import violations
from chaos_trial import Trial, dump, told, works
from fixtures_git import Repository
from fixtures_postgres import Proxy, Sample
from fixtures_server import Server

SEEDS = int(os.environ.get("SEATRIAL_CHAOS_SEEDS", "2"))


@pytest.mark.parametrize("seed", range(1, SEEDS + 1))
def test_b03_everything_happens(
    server: Server, link: Proxy, sample: Sample, lab: Repository, tmp_path: Path, lease: float, seed: int
) -> None:
    trial = Trial(server, link, sample, lab, tmp_path, lease=lease)
    evidence = trial.go(seed, works(seed, 7), seconds=lease * 6)
    assert len(trial.history.entries("fault")) >= 3
    found = violations(evidence)
    if found:
        dump(evidence, tmp_path)
        shutil.copy(server.log, tmp_path)
    assert not found, "\n".join([f"seed {seed}:", *found, told(trial.history)])
