"""A compare run by hand: units that differ by causes as given, compared, ended, accepted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hands import SPEC, Hands

from jobs.accepting import Asked
from jobs.causes import Cause, Share
from jobs.comparing import HARMLESS, Compared, UnitClass, classify
from jobs.new_run import NewLeg
from jobs.run import Run, RunState
from runner.model import Output, UnitResult, UnitState

BASELINE = NewLeg("baseline", "v1", "b" * 40, "subject", "author", "f", SPEC, "d")
TAX = Cause("*/pl", "value", "tax", "up")
CODE = Cause("*/pl", "added_column", "tax_code")
ASKED = Asked("New tax rate", "The law changed on 1 October.")


def tax(ratio: float = 1.1) -> Share:
    return Share(TAX, 3, (ratio, ratio), (1.0, 9.0))


class Trial:
    """A compare run by hand, in which units differ by causes as given."""

    def __init__(self, hands: Hands, causes: Mapping[str, Sequence[Share]], **more: Any) -> None:
        self.hands, self.store, self.causes = hands, hands.store, causes
        self.cut = more.pop("cut", ())
        self.limit = more.pop("fail_fast", None)
        self.run = hands.submit(legs=(BASELINE,), **more)
        units = [*causes, "same"]
        found = [hands.take(f"w{number}") for number in range(2)]
        for claim in sorted(found, key=lambda claim: claim.task.leg):
            hands.prepared(claim, units, batches=1)
        for claim in [hands.take(f"w{number}") for number in range(2)]:
            content = "1" if claim.task.leg == "baseline" else "2"
            results = [
                UnitResult(unit, UnitState.DONE, Output("x", ("1" if unit == "same" else content) * 64, 3), "", 1.0)
                for unit in units
            ]
            hands.store.ledger.mark(claim.task.id, claim.task.attempt, results, None)
            hands.end(claim)

    def compare(self) -> Trial:
        """Record what became of the units."""
        found = []
        for pair in self.store.compare.ready(self.run, 100):
            kind = classify(pair) or UnitClass.DIFFERENT
            summary = {"truncated": "the 2 largest of 3 differences are kept"} if pair.unit in self.cut else {}
            shares = () if kind in HARMLESS else tuple(self.causes[pair.unit])
            found.append((pair, Compared(pair.unit, pair.position, kind, summary=summary, causes=shares)))
        self.store.compare.record(self.run, found, fail_fast=self.limit)
        return self

    def end(self) -> Trial:
        self.compare()
        assert self.store.compare.close(self.run)
        assert self.now.state is RunState.DONE
        return self

    @property
    def now(self) -> Run:
        return self.hands.run(self.run)

    @property
    def stands(self) -> tuple[str | None, int, int, int]:
        run = self.now
        verdict = None if run.verdict is None else run.verdict.value
        return verdict, run.units_different, run.units_accepted, run.groups_accepted

    def accept(self, cause: Cause = TAX, asked: Asked = ASKED, user: str = "rin") -> Any:
        return self.store.acceptances.accept(self.run, cause.key, asked, user)

    def withdraw(self, cause: Cause = TAX, user: str = "mio") -> Any:
        return self.store.acceptances.withdraw(self.run, cause.key, user)

    def marked(self) -> set[str]:
        return {one.unit for one in self.hands.compared(self.run) if one.accepted}

    def told(self, kind: str) -> list[Mapping[str, Any]]:
        return [event.data for event in self.hands.events(self.run, kind)]
