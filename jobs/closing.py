"""A host that is about to go takes no work: a word that its warden leaves for its slots, also while the store is away."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from jobs.instances import DIRECTORY
from jobs.run import CLOSED


class Closing:
    """The word for the slots of one pool on this host: a file below `home`, in which the reason stands."""

    def __init__(self, home: Path, pool: str) -> None:
        self._path = home / DIRECTORY / f"{pool}.closed"

    def close(self, reason: str) -> None:
        """Let the slots take nothing more, from their next look on."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        new.write_text(reason, "utf-8")
        os.replace(new, self._path)

    def open(self) -> None:
        """Let them take work again; safe to call when they do."""
        with suppress(FileNotFoundError):
            self._path.unlink()

    def why(self) -> str | None:
        """Give the reason, None while work is taken."""
        try:
            reason = self._path.read_text("utf-8")
        except FileNotFoundError:
            return None
        return f"{CLOSED}: {reason}" if reason else CLOSED
