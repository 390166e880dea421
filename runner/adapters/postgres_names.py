"""What a source's databases, roles and labels are called, and what a check of a source tells; no driver in here."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from runner.errors import BaseGone, DatabaseRefused, SnapshotGone
from runner.model import SNAPSHOT, Base

SOURCE = re.compile(r"[a-z][a-z0-9_]{0,24}")
# 63 bytes is PostgreSQL's limit for a name; longer ones would be cut silently, and two could become one.
OURS = re.compile(r"seatrial_(base|leg|x)_[a-z0-9_]{1,48}")
MARKER = re.compile(r"^seatrial: *(\S.*?) *$", re.MULTILINE)
VERIFICATION = "verification"
PRODUCTION = "production"


def check_source(name: str) -> str:
    """Refuse a source name that cannot be part of a database's name."""
    if not SOURCE.fullmatch(name):
        raise DatabaseRefused(
            f"the database source {name!r}: a name is a lower-case letter and up to 24 letters, digits or underscores"
        )
    return name


def check_ours(name: str) -> str:
    """Refuse a database or role name that Seatrial never makes; nothing else is ever dropped or changed."""
    if not OURS.fullmatch(name) or len(name) > 63:
        raise DatabaseRefused(f"{name!r} is not the name of a database or role that Seatrial made")
    return name


def check_clone(name: str) -> str:
    """Refuse a name that no clone of ours has; a base is no clone, and only forgetting drops it."""
    if check_ours(name).startswith("seatrial_base_"):
        raise DatabaseRefused(f"{name!r} is a frozen base, not a clone")
    return name


def check_snapshot(name: str) -> str:
    """Refuse what cannot be a snapshot's name."""
    if not SNAPSHOT.fullmatch(name):
        raise DatabaseRefused(
            f"the snapshot {name[:80]!r}: a name is a letter or digit and up to 62 letters, digits, dots, dashes or "
            "underscores"
        )
    return name


def check_unused(name: str, found: Sequence[Base]) -> str:
    """Refuse the name of a snapshot that stands."""
    taken = next((base for base in found if name in (base.name, base.data_id)), None)
    if taken is not None:
        raise DatabaseRefused(
            f"the source {taken.source} has a snapshot {name} already, of {taken.blessed_at:%Y-%m-%d %H:%M} UTC: choose "
            "another name, or remove that one first"
        )
    return check_snapshot(name)


def base_name(source: str, data_id: str) -> str:
    """Name the frozen base that holds the data `data_id`."""
    return check_ours(f"seatrial_base_{source}_{data_id.replace('-', '_')}")


def new_data_id(now: datetime) -> str:
    """Make the id of a snapshot of data; ids sort by their age, to the millisecond."""
    return f"{now:%Y%m%dt%H%M%S}{now.microsecond // 1000:03}-{secrets.token_hex(2)}"


def marker(comment: str | None) -> str | None:
    """Read the marker in a database's comment: `verification`, `production`, something else, or None."""
    found = MARKER.findall(comment or "")
    return PRODUCTION if PRODUCTION in found else found[0] if found else None


def marked(comment: str | None) -> str:
    """Give the comment with the positive marker added."""
    return "\n".join(filter(None, [(comment or "").rstrip(), f"seatrial: {VERIFICATION}"]))


def unmarked(comment: str | None) -> str:
    """Give the comment without any marker."""
    return MARKER.sub("", comment or "").strip()


@dataclass(frozen=True)
class Label:
    """The comment on each database and role of ours: whose it is, and what a clone has to know of its data.

    `settings`: what the application's role had by ALTER ROLE … SET when the base was made (name → value): branch
    code can change that of the shared role, but not this copy. `made_at` is by the server's clock. `name`: of the
    snapshot, when it is not the data id. `lent`: the database whose marker a base has while that is refreshed.
    """

    installation: str
    kind: str
    source: str
    database: str
    made_at: str
    data_id: str = ""
    owner: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    name: str = ""
    lent: str = ""

    def text(self) -> str:
        said = {key: value for key, value in asdict(self).items() if value or key not in ("name", "lent")}
        return "seatrial " + json.dumps(said, separators=(",", ":"), sort_keys=True)

    @property
    def snapshot(self) -> str:
        """Give the snapshot's name."""
        return self.name or self.data_id

    def of(self, kind: str, database: str, made_at: str) -> Label:
        """Give the label of a copy."""
        return replace(self, kind=kind, database=database, made_at=made_at, lent="")


def choose(found: Sequence[Base], data_id: str | None, snapshot: str | None = None) -> Base:
    """Choose among a source's bases, newest first: the newest, the one with that id, or the one of that name.

    Raises BaseGone, SnapshotGone. A snapshot's name may also be given as its data id.
    """
    if data_id is None and snapshot is not None:
        named = next((base for base in found if snapshot in (base.name, base.data_id)), None)
        if named is None:
            standing = ", ".join(base.name for base in found[:5])
            raise SnapshotGone(
                f"The source {found[0].source} has no snapshot {snapshot}; the newest are: {standing}. Submit the run "
                "again with one of them, or with none for the newest."
            )
        return named
    chosen = next((base for base in found if data_id in (None, base.data_id)), None)
    if chosen is None:
        raise BaseGone(
            f"The other leg was made from the data {data_id}, and the source {found[0].source} has no such base any more: "
            "two legs are compared on the same data only. Submit the run again."
        )
    return chosen


def read_label(comment: str | None) -> Label | None:
    """Read a label; None for anything that is not one."""
    if not comment or not comment.startswith("seatrial {"):
        return None
    try:
        read: dict[str, Any] = json.loads(comment.removeprefix("seatrial "))
        return Label(**read)
    except (ValueError, TypeError):
        return None


@dataclass(frozen=True)
class SourceProblem:
    """Something about a source, with its remedy. `refuses`: no run can use the source before it is mended."""

    text: str
    remedy: str
    refuses: bool = True

    def __str__(self) -> str:
        return f"{self.text}: {self.remedy}"


@dataclass(frozen=True)
class SourceCheck:
    """What `db check` tells of a source.

    `method` and `seconds`: how a clone of the newest base was made and how long it took, when one was made.
    `size` is the source's and `sizes` those of its bases (database → bytes), newest first. `lent`: the source has no
    marker because it is being refreshed, and its bases serve on.
    """

    reachable: bool
    version: str = ""
    marker: str | None = None
    problems: tuple[SourceProblem, ...] = ()
    owner: str = ""
    method: str = ""
    seconds: float | None = None
    size: int | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    lent: bool = False

    @property
    def usable(self) -> bool:
        """Tell whether a run could use the source now."""
        marked = self.marker == VERIFICATION or self.lent
        return self.reachable and marked and not any(p.refuses for p in self.problems)


def made_anew(template: str, source: str) -> str:
    """Say how a frozen database comes back that somebody dropped: a run's own by its preparation, else a base."""
    if template.startswith("seatrial_leg_"):
        return "when the run has ended, resume it: its leg is prepared anew"
    return f"run: seatrial db bless {source}"
