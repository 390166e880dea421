"""Groups of units that differ for the same reason; which of them a person would take for one. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.causes import EITHER, Bounds, Cause, around, constant, one_ratio


@dataclass(frozen=True)
class Group:
    """A cause and how many units share it.

    `ratios`, `offsets`: between which bounds the numbers of all its units lie; None when a unit has none. `parts`: the
    groups that were put together, none for most.
    """

    cause: Cause
    units: int
    count: int
    ratios: Bounds | None = None
    offsets: Bounds | None = None
    first: tuple[str, ...] = ()
    parts: tuple[Group, ...] = ()

    @property
    def key(self) -> str:
        """Give the name that it has in every run."""
        return self.cause.key

    @property
    def keys(self) -> tuple[str, ...]:
        """Name the causes of its units: its own, or those of its parts."""
        return tuple(part.key for part in self.parts) or (self.key,)

    @property
    def ratio(self) -> float | None:
        """Give the one number by which all were multiplied; None when there is none."""
        return one_ratio(self.ratios)

    @property
    def offset(self) -> float | None:
        """Give the one number that was added to all of them; None when there is none."""
        return constant(self.offsets)


def together(groups: Sequence[Group]) -> list[Group]:
    """Put the groups of one column together where nothing but the sign tells them apart; those of most units first.

    They are one when a single ratio explains all of them; or when numbers went both ways within units, and neither
    those that only went up nor those that only went down have a number of their own that two units share.
    """
    families: dict[Cause, list[Group]] = {}
    for group in groups:
        families.setdefault(group.cause.either, []).append(group)
    found = []
    for cause, family in families.items():
        found += [_merged(cause, family)] if len(family) > 1 and _are_one(family) else family
    return sorted(found, key=lambda one: (-one.units, one.key))


def _are_one(family: Sequence[Group]) -> bool:
    if one_ratio(_around([one.ratios for one in family])) is not None:
        return True
    by_sign = {one.cause.sign: one for one in family}
    return "mixed" in by_sign and not any(_has_number(one) for one in family)


def _has_number(group: Group) -> bool:
    """Tell whether units agree on a number; one unit alone may have one by chance."""
    return group.units > 1 and (group.ratio is not None or group.offset is not None)


def _merged(cause: Cause, family: Sequence[Group]) -> Group:
    parts = tuple(sorted(family, key=lambda one: EITHER[one.cause.sign or ""]))
    return Group(
        cause,
        sum(one.units for one in parts),
        sum(one.count for one in parts),
        _around([one.ratios for one in parts]),
        _around([one.offsets for one in parts]),
        parts=parts,
    )


def _around(bounds: Sequence[Bounds | None]) -> Bounds | None:
    found = bounds[0]
    for one in bounds[1:]:
        found = around(found, one)
    return found
