"""The object store as who clears it out sees it: what there is, since when, and parting with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from runner.ports import Objects

# An object goes when nothing refers to it and nobody has stored it for so long: far longer than the hours that may pass
# between the first output of a large directory being stored and the record of all of them.
GRACE_SECONDS = 24 * 3600.0
# What is stored again is touched when the last time is older than this, so that the grace begins anew; half of it, so that
# the same outputs night after night cost one touch each and no more.
TOUCH_SECONDS = GRACE_SECONDS / 2

# Where the owner is written: beside the directories of objects, or below the prefix of a bucket.
OWNER = ".records"


@dataclass(frozen=True)
class Shelved:
    """An object as it stands: content address, size in bytes, and when it was stored or touched last, since 1970."""

    digest: str
    size: int
    touched_at: float


class Shelf(Objects, Protocol):
    """An object store that can be cleared out. `put` touches what it finds there when that was touched long ago."""

    def owner(self, name: str, *, claim: bool) -> str:
        """Tell to which records the objects belong; `name` when they are nobody's, and from then on with `claim`."""
        ...

    def walk(self) -> Iterator[Shelved]:
        """Give all objects, by their digests. What is stored or removed meanwhile may be missing or not."""
        ...

    def remove(self, digests: Sequence[str], *, untouched_since: float) -> list[str]:
        """Remove those that were last touched before a time, and give which; the others stay.

        Who stores one of them at the same moment either finds it gone and stores it, or it stays. Safe to call for what
        is gone already, and from several processes at once.
        """
        ...
