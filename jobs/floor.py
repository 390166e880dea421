"""Watch the room of a worker host: below its floor it takes no new work."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.settings import Settings
from runner.errors import InfraError
from runner.room import Floor, Reserve, Room, Short, Spare, lacking, look, short

# The engine's data directory never moves while it runs; one that did not answer is asked again after this time.
ASK_AGAIN_SECONDS = 60.0
OBJECTS = "the object store"


def floor_of(settings: Settings) -> Floor:
    """Give the floor that the settings name."""
    server = settings.server
    return Floor(Reserve.parse(server.disk_reserve), Reserve.parse(server.inode_reserve))


class HostRoom:
    """The file systems that this host's work is written to: home, the local object store, the engine's data."""

    def __init__(self, settings: Settings, engine_info: Callable[[], dict[str, Any]]) -> None:
        self._places = [("home", settings.server.home)]
        if settings.objects is None:
            self._places.append((OBJECTS, settings.server.object_store))
        self._floor = floor_of(settings)
        self._info = engine_info
        self._engine: Path | None = None
        self._ask_at = 0.0

    def rooms(self) -> list[Room]:
        """Look at each; one that cannot be looked at, such as a remote engine's, is left out."""
        places = list(self._places)
        if (root := self._engine_root()) is not None and root.is_dir():
            places.append(("the Docker engine", root))
        return [room for what, path in places if (room := look(what, path)) is not None]

    def lacking(self, *, times: int = 1) -> str | None:
        """Tell what is below the floor, or below so many times the floor; None when there is room."""
        return lacking(self.rooms(), self._floor.times(times))

    def spare(self) -> Spare | None:
        """Tell what may be written where workspaces are; None when it cannot be looked at."""
        room = look(*self._places[0])
        return None if room is None else Spare(room, self._floor)

    def short_of_objects(self, *, times: int = 1) -> Short | None:
        """Tell what the object store has too little of; None when it has room, or is not on this host."""
        room = next((look(what, path) for what, path in self._places if what == OBJECTS), None)
        return None if room is None else short(room, self._floor.times(times))

    def _engine_root(self) -> Path | None:
        now = time.monotonic()
        if self._engine is None and now >= self._ask_at:
            self._ask_at = now + ASK_AGAIN_SECONDS
            try:
                root = Path(str(self._info().get("DockerRootDir", "")))
            except InfraError:
                return None  # what needs the engine says so
            self._engine = root if root.is_absolute() else None
        return self._engine
