"""A worker whose Docker engine is away when it starts: it is known, waits, and says what it lacks."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from jobs.adapters.sql_store import Store
from jobs.run import NO_ENGINE, Worker


def test_a_slot_that_starts_without_its_engine_is_there_and_says_so(tmp_path: Path) -> None:
    config = tmp_path / "seatrial.toml"
    config.write_text(f'[server]\nhome = "{tmp_path}/home"\ndocker_url = "unix://{tmp_path}/none.sock"\n')
    store = Store.open(f"sqlite:///{tmp_path}/home/seatrial.db")
    command = [sys.executable, "-m", "jobs.cli", "--config", str(config), "worker", "--slots", "1"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        [slot] = _slots_that_lack(store, tmp_path / "log")
        assert slot.shortage is not None
        assert slot.shortage.startswith(NO_ENGINE)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert store.workers.workers() == []
        said = (tmp_path / "log").read_text("utf-8")
        assert said.count("worker.ready") == 1, "it was not started again and again"
    finally:
        process.kill()
        process.wait()
        store.close()


def _slots_that_lack(store: Store, log: Path) -> list[Worker]:
    deadline = time.monotonic() + 60
    while not (found := [one for one in store.workers.workers() if one.shortage is not None]):
        assert time.monotonic() < deadline, log.read_text("utf-8")
        time.sleep(0.05)
    return found
