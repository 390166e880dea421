"""The ledger of a pool's machines as CSV that a spreadsheet may open. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jobs.money import Share
from web.diffcsv import line, neutral
from web.schemas import rfc3339

HEAD = ("pool", "instance", "started_at", "seconds", "cost", "currency", "run", "project", "user")


def lines(shares: Iterable[Share], currency: str) -> Iterator[bytes]:
    """Write the parts of billed intervals, one a line; one without a run is time in which the machine did nothing."""
    yield line(HEAD)
    for one in shares:
        yield line(
            (
                neutral(one.pool),
                one.instance,
                rfc3339(one.at),
                f"{one.seconds:f}",
                "" if one.cost is None else f"{one.cost:.6f}",
                currency,
                "" if one.run is None else str(one.run),
                neutral(one.project),
                neutral(one.user),
            )
        )
