"""What a worker gives back when it ends: once for all its slots, and also when its engine is away."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from jobs import compose, handing_over
from jobs.adapters.sql_store import Store
from jobs.run import WORKER_LOST
from jobs.settings import load_settings
from runner.errors import Drained, EngineUnavailable
from runner.model import Reason


class Records:
    """A store and its tasks, and a doorbell, that tell what was asked of them."""

    def __init__(self, story: list[str], held: dict[str, int]) -> None:
        self.story, self.held, self.tasks = story, held, self

    def open(self, _url: str) -> Records:
        self.story.append("opened")
        return self

    def revoke(self, name: str, reason: Reason, *, free: bool) -> list[int]:
        self.story.append(f"revoked {name}: {reason.code}{', free' if free else ''}")
        return [self.held[name]] if name in self.held else []

    def requeue_due(self) -> None:
        self.story.append("requeued")

    def to_ring(self, *, every: float) -> list[tuple[int, str]]:
        return [(task, "local") for task in self.held.values()]

    def ring(self, pool: str, task: int) -> None:
        self.story.append(f"rang {pool} {task}")

    def close(self) -> None: ...


def hand_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: dict[str, int], cut_off: list[str], crashed: list[str]
) -> list[str]:
    """Hand over with a store where these slots hold these tasks; gives what was done."""
    story: list[str] = []
    records = Records(story, held)
    monkeypatch.setattr(Store, "open", records.open)
    monkeypatch.setattr(compose, "build_doorbell", lambda _: records)
    file = tmp_path / "seatrial.toml"
    file.write_text("")
    handing_over.hand_over(load_settings(file, {"HOME": str(tmp_path)}), cut_off, crashed)
    return story


def test_all_is_taken_back_before_it_is_queued_and_rung_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hand_over(tmp_path, monkeypatch, {"one": 1, "three": 3}, ["one", "two"], ["three"]) == [
        "opened",
        f"revoked one: {Drained.code}, free",
        f"revoked two: {Drained.code}, free",
        f"revoked three: {WORKER_LOST}",
        "requeued",
        "rang local 1",
        "rang local 3",
    ]


def test_nothing_is_rung_for_where_nothing_was_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hand_over(tmp_path, monkeypatch, {}, ["one"], []) == ["opened", f"revoked one: {Drained.code}, free"]
    assert hand_over(tmp_path, monkeypatch, {}, [], []) == []


def test_an_error_of_the_engine_does_not_end_it_before_it_has_handed_over() -> None:
    away, given = threading.Event(), threading.Event()

    def give() -> None:
        assert away.wait(30)
        time.sleep(0.2)  # it is still at it when the error comes
        given.set()

    def tidy() -> None:
        away.set()
        raise EngineUnavailable("Docker does not answer.")

    with pytest.raises(EngineUnavailable):
        handing_over.beside(give, tidy)
    assert given.is_set()
