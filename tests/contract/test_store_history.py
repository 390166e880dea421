"""The history that a process appends to where SEATRIAL_HISTORY names a file: what passed the fence, and what did not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hands import Hands

from jobs.adapters import sql_history
from runner.errors import Fenced


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_write_that_passed_and_each_that_was_refused_is_a_line(
    hands: Hands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "history"
    monkeypatch.setattr(sql_history, "_PATH", str(path))
    _, first = hands.verifying(["a", "b"])
    task = first.task.id
    path.unlink(missing_ok=True)
    hands.store.ledger.append_log(task, 1, b"12345\n", object_digest=None, source=None)
    hands.mark(first, "a")
    hands.interrupt(first)
    with pytest.raises(Fenced):
        hands.store.ledger.append_log(task, 1, b"67890\n", object_digest=None, source=None)
    found = lines(path)
    told = [(line["what"], line["accepted"], line["state"], line["log_size"], line["done"]) for line in found]
    assert told == [
        ("append_log", True, "running", 0, 0),
        ("mark", True, "running", 6, 0),
        ("interrupt", True, "running", 6, 1),
        ("append_log", False, "interrupted", 6, 1),
    ]
    assert {(line["pid"], line["task"], line["attempt"], line["current"]) for line in found} == {
        (os.getpid(), task, 1, 1)
    }


def test_nothing_is_written_without_it(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    def append(*_: object) -> None:
        raise AssertionError("a line was written")

    monkeypatch.setattr(sql_history, "_PATH", None)
    monkeypatch.setattr(sql_history, "_append", append)
    _, first = hands.verifying(["a"])
    hands.mark(first, "a")
