"""What a unit took: measured while somebody watches its container, and otherwise not known."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures_bench import BASE, Bench, Inside, MemoryRecorder

from runner.outputs import Outputs
from runner.traces import Traces
from runner.workspace import Command, Workspace

Maker = Callable[[Callable[[Inside], int | None]], Bench]
UNITS = ("a", "b", "c", "d", "e")
NEAR = 0.9  # the clocks go on by themselves, on a busy machine too


class Clock:
    """The clocks of the machine; they go on by themselves, and further when they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead = 0.0
        monotonic, self._uptime = time.monotonic, lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
        monkeypatch.setattr("runner.traces.time.monotonic", lambda: monotonic() + self._ahead)
        monkeypatch.setattr("runner.steps._uptime", self.uptime)

    def uptime(self) -> float:
        return self._uptime() + self._ahead

    def forward(self, seconds: float) -> None:
        self._ahead += seconds


class Container:
    """The files of one container, and who takes what is in them."""

    def __init__(self, bench: Bench, place: Path, clock: Clock) -> None:
        self._bench, self.clock = bench, clock
        self._order = bench.order(f"units: [{', '.join(UNITS)}]\nrun: x\nworkspace: {{image: '{BASE}'}}", UNITS)
        self._workspace = Workspace(place)
        self._workspace.lay_out([Command("run", "x")], UNITS)
        self.recorder: MemoryRecorder = bench.recorder(self._order)
        self.traces = self._open()
        self._append("steps", f"begin\t00-run\t{clock.uptime():.2f}\n")
        self.traces.take()

    def _open(self) -> Traces:
        outputs = Outputs(self._workspace.output, self._bench.objects, UNITS, file_limit=1 << 20)
        return Traces(self._order, 1, self._workspace, self.recorder, outputs, UNITS, lambda *_: None, lambda *_: None)

    def _append(self, name: str, text: str) -> None:
        with (self._workspace.io / name).open("a") as file:
            file.write(text)

    def adopt(self) -> None:
        """Go on with it, as the attempt after a worker that died does."""
        self.traces.close()
        left = tuple(unit for unit in UNITS if unit not in self.recorder.results)
        self._order = replace(self._order, live=1, units=left)
        self.traces = self._open()

    def work(self, *units: str, seconds: float, looks: bool = True) -> None:
        """Finish units, one after the other; somebody looks every second, or nobody does."""
        for unit in units:
            for _ in range(round(seconds)):
                self.clock.forward(1.0)
                if looks:
                    self.traces.take()
            (self._workspace.output / f"{unit}.csv").write_text(unit)
            self._append("checkpoint", f"{unit}\n")
            if looks:
                self.traces.take()

    def end(self) -> None:
        self._append("steps", f"end\t00-run\t{self.clock.uptime():.2f}\t0\n")
        self.traces.take()

    def took(self) -> dict[str, float | None]:
        """Give what is recorded, in whole seconds."""
        found = {unit: result.seconds for unit, result in self.recorder.results.items()}
        return {unit: seconds if seconds is None else int(seconds + 1.0 - NEAR) for unit, seconds in found.items()}


@pytest.fixture
def container(scripted: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Container]:
    found = Container(scripted(lambda inside: 0), tmp_path / "one", Clock(monkeypatch))
    yield found
    found.traces.close()


def test_a_unit_that_was_watched_has_its_time(container: Container) -> None:
    container.work("a", "b", seconds=10)
    assert container.took() == {"a": 10, "b": 10}


def test_what_was_marked_while_no_worker_lived_has_no_time_nor_has_the_next(container: Container) -> None:
    container.work("a", seconds=10)
    container.work("b", "c", seconds=10, looks=False)
    container.adopt()
    container.traces.take()
    container.work("d", "e", seconds=10)
    assert container.took() == {"a": 10, "b": None, "c": None, "d": None, "e": 10}


def test_whoever_goes_on_does_not_know_when_the_last_mark_was_made(container: Container) -> None:
    container.work("a", seconds=10)
    container.adopt()
    container.work("b", "c", seconds=10)
    assert container.took() == {"a": 10, "b": None, "c": 10}


def test_the_first_unit_began_with_its_command_whoever_watches(container: Container) -> None:
    container.clock.forward(7.0)
    container.adopt()
    container.traces.take()
    container.work("a", seconds=3)
    assert container.took() == {"a": 10}


def test_what_was_marked_while_nobody_could_look_has_no_time(container: Container) -> None:
    """A worker that was paused, or waited for the records or the object store."""
    container.work("a", seconds=10)
    container.work("b", "c", seconds=10, looks=False)
    container.traces.take()
    container.work("d", "e", seconds=10)
    assert container.took() == {"a": 10, "b": None, "c": None, "d": None, "e": 10}


def test_a_pause_in_which_nothing_was_marked_costs_no_time(container: Container) -> None:
    container.work("a", seconds=10)
    container.clock.forward(30.0)
    container.work("b", "c", seconds=10)
    assert container.took() == {"a": 10, "b": 40, "c": 10}


def test_a_script_without_units_took_what_its_command_took(container: Container) -> None:
    container.clock.forward(30.0)
    container.adopt()
    container.end()
    assert container.traces.took == pytest.approx(30.0, abs=NEAR)
