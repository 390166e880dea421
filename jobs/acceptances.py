"""What people do with groups of differences: look at them, accept them, withdraw that."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from jobs.accepting import Acceptance, Asked, InRun
from jobs.causes import Share
from jobs.differences import Differences
from jobs.grouping import Group
from jobs.run import Run
from runner.errors import NotFound

NOBODY = InRun()
KEY = re.compile("[0-9a-f]{16}")  # see jobs.causes.Cause.key


@dataclass(frozen=True)
class GroupInRun:
    """A group of differences, and what of it is accepted."""

    group: Group
    stands: InRun


@dataclass(frozen=True)
class UnitCause:
    """Why a unit differs: the group that it is in, what it has of it, and the acceptances that explain that."""

    group: Group
    share: Share
    by: tuple[Acceptance, ...]


class Acceptances(Differences):
    """Groups of a compare run; every method raises NotFound, and Conflict for a run of one branch."""

    def groups(self, run: int) -> list[GroupInRun]:
        """List the causes of a run's differences, those of most units first."""
        found = self._check(run)
        known = self._stands(found)
        return [GroupInRun(one, _stands(one, known)) for one in self._groups(found)]

    def group(self, run: int, key: str) -> GroupInRun:
        """Give one of them."""
        job = self._check(run)
        found = self._store.groups.one(run, key) if KEY.fullmatch(key) else None
        if found is None:
            raise NotFound(
                f"Run {run} has no group {key[:40]!r}.",
                field="key",
                value=key[:80],
                remedy=f"List those it has: seatrial groups {run}",
            )
        return GroupInRun(found, _stands(found, self._stands(job)))

    def unit_causes(self, run: int, unit: str) -> list[UnitCause]:
        """Tell why a unit differs, cause by cause, and what of that is accepted; empty when it does no harm."""
        job = self._check(run)
        shares = self._store.groups.of_unit(run, unit)
        if not shares:
            return []
        groups = {key: one for one in self._groups(job) for key in one.keys}
        known = self._store.acceptances.of_run(run)
        found = []
        for share in shares:
            key = share.cause.key
            by = tuple(one for one in known.get(key, NOBODY).held if one.covers(share))
            found.append(UnitCause(groups.get(key, Group(share.cause, 1, share.count, first=(unit,))), share, by))
        return found

    def _stands(self, run: Run) -> dict[str, InRun]:
        """Tell what of a run's groups is accepted; which units that explains depends on nothing but what is held."""
        known = self._store.acceptances.of_run(run.id)
        held = tuple(sorted(one.id for stands in known.values() for one in stands.held))
        if not held:
            return known
        counts = self._keep(run, ("accepted", held), lambda: self._store.acceptances.counts(run.id))
        return {key: replace(stands, units=counts.get(key, 0)) for key, stands in known.items()}

    def accept(self, run: int, key: str, asked: Asked, *, user: str) -> Acceptance:
        """Accept a group, for this run and those compared from now on; also raises AcceptanceRefused."""
        self.group(run, key)
        return self._store.acceptances.accept(run, key, asked, user)

    def withdraw(self, run: int, key: str, *, user: str) -> Acceptance:
        """Let a group count as different again, in this run and in those compared from now on."""
        self.group(run, key)
        return self._store.acceptances.withdraw(run, key, user)

    def acceptances(self, project: str) -> list[Acceptance]:
        """List what was accepted in a project, newest first, also what expired or was withdrawn."""
        return self._store.acceptances.of_project(project)


def _stands(group: Group, known: Mapping[str, InRun]) -> InRun:
    """Tell what of a group is accepted: of itself, and of each of its parts."""
    found = [known[key] for key in dict.fromkeys((group.key, *group.keys)) if key in known]
    if len(found) < 2:
        return found[0] if found else NOBODY
    held = dict.fromkeys(one for stands in found for one in stands.held)
    offered = dict.fromkeys(one for stands in found for one in stands.offered)
    return InRun(min(group.units, sum(stands.units for stands in found)), tuple(held), tuple(offered))
