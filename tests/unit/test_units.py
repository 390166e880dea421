"""The systemd units of docs/systemd: what each must say for a service that comes back by itself."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

import pytest

from jobs.supervisor import DRAIN_SECONDS

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "docs/systemd").glob("*.service"))
OURS = [unit for unit in UNITS if unit.stem != "seatrial-valkey"]

each_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
each_of_ours = pytest.mark.parametrize("unit", OURS, ids=lambda unit: unit.stem)


def read(unit: Path) -> ConfigParser:
    parser = ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys keep their case
    parser.read(unit)
    return parser


def test_each_process_of_the_procfile_has_its_unit_with_the_same_words() -> None:
    procfile = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
    command = "/opt/seatrial/.venv/bin/seatrial --config /etc/seatrial/seatrial.toml"
    for name, words in procfile.items():
        unit = read(ROOT / f"docs/systemd/seatrial-{name}.service")
        assert unit["Service"]["ExecStart"] == words.replace("seatrial", command, 1)
    assert {unit.stem.removeprefix("seatrial-") for unit in OURS} == set(procfile)


@each_unit
def test_systemd_never_gives_a_unit_up(unit: Path) -> None:
    read_unit = read(unit)
    assert read_unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert read_unit["Service"]["Restart"] == "always"
    assert read_unit["Service"]["User"] == "seatrial"


@each_of_ours
def test_only_settings_that_are_not_valid_keep_a_unit_down(unit: Path) -> None:
    assert read(unit)["Service"]["RestartPreventExitStatus"] == "2"


@each_of_ours
def test_a_unit_has_longer_to_stop_than_what_it_supervises(unit: Path) -> None:
    assert float(read(unit)["Service"]["TimeoutStopSec"]) > DRAIN_SECONDS


def test_the_guide_enables_each_unit() -> None:
    guide = (ROOT / "docs/deploy.md").read_text("utf-8")
    enabled = re.search(r"^systemctl enable --now (.+)$", guide, re.MULTILINE)
    assert enabled is not None
    assert set(enabled[1].split()) == {unit.stem for unit in UNITS}
