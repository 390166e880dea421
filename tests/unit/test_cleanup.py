"""What the sweeper takes away on a host: all that carries our mark and nobody wants any more."""

from __future__ import annotations

from pathlib import Path

import pytest
from hands import Hands

from jobs.adapters.sql_store import Store
from jobs.cleanup import Cleanup
from runner.adapters.engine_memory import MemoryEngine
from runner.door import GatewayDoor
from runner.model import Container

GATEWAY = "seatrial/gateway:1"


class Host:
    """A host with a door and executions of its own; each execution is a container, a door and two directories."""

    def __init__(self, root: Path) -> None:
        self.hands = Hands(Store.in_memory())
        self.engine = MemoryEngine(images={GATEWAY: "sha256:1"})
        self.doors, self.executions = root / "doors", root / "executions"
        door = GatewayDoor(self.engine, self.doors, labels={"installation": "i"})
        self.cleanup = Cleanup(
            self.hands.store, self.engine, door, dict, self.executions, installation="i", host="h1"
        )  # fmt: skip

    def door(self, execution: str) -> None:
        """Stand up what is left of a door: its two containers and its directory."""
        for part in ("door", "relay"):
            labels = {"installation": "i", "door": execution, "part": part}
            self.engine.create(Container(f"{execution}-{part}", GATEWAY, ("sleep",), labels))
        (self.doors / execution).mkdir(parents=True)

    def left(self) -> list[str]:
        return sorted([each.name for each in self.engine.find()] + [path.name for path in self.doors.glob("*")])


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_door_that_lost_its_execution_is_swept(host: Host) -> None:
    run, claim = host.hands.preparing()
    mine, other = f"seatrial-i-r{run}-t{claim.task.id}-e1", "seatrial-i-r999-t999-e1"
    host.door(mine)
    host.door(other)
    assert list(host.cleanup.orphans()) == [other]
    assert host.left() == sorted([mine, f"{mine}-door", f"{mine}-relay"])


def test_a_run_takes_its_doors_along(host: Host) -> None:
    run, _ = host.hands.preparing()
    host.door(f"seatrial-i-r{run}-t1-e1")
    host.door(f"seatrial-i-r{run}0-t1-e1")
    host.cleanup.run(run)
    assert {name.split("-")[2] for name in host.left()} == {f"r{run}0"}
