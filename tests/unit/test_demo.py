"""The demo's own judgements and words, without its servers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from jobs import doctor_facts
from jobs.adapters.demo_postgres import DemoFailed
from jobs.cli_demo import tell_ended
from jobs.demo import Expected, prepare
from runner.quota import Mounted


def test_where_no_workspace_could_start_nothing_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor_facts, "mount_of", lambda _: Mounted("/", "overlay", ("rw",)))
    home = tmp_path / "home"
    with pytest.raises(DemoFailed, match=r"home is overlay: no workspace can start there\. .*--home DIRECTORY"):
        next(prepare(home, port=8321, slots=1))
    assert not home.exists()


def _run(number: int, state: str, verdict: str | None, reason: str | None = None) -> dict[str, Any]:
    units = {"done": 1, "failed": 0, "total": 1}
    why = {"code": reason} if reason else None
    run = {"id": number, "project": "rake", "ref": "main", "state": state, "verdict": verdict, "reason": why}
    return run | {"units": units, "different": 0}


def test_a_log_gets_one_line_for_each_run_as_it_ends() -> None:
    wanted = [Expected("rake", "main", {"state": "done", "verdict": "passed"})] * 2
    told: set[int] = set()
    log = io.StringIO()
    console = Console(file=log, width=200)
    tell_ended([_run(1, "running", None), _run(2, "queued", None)], wanted, told, console)
    assert log.getvalue() == ""
    found = [_run(1, "done", "passed"), _run(2, "errored", None, "needs_attention")]
    for _ in range(2):
        tell_ended(found, wanted, told, console)
    assert log.getvalue().splitlines() == [
        "· Run 1, rake main: passed, as expected",
        "· Run 2, rake main: errored (needs_attention), not as expected",
    ]
