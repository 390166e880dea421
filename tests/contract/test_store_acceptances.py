"""Accepted groups in the store: which units they explain, what that makes of verdicts, and for how long it holds."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from fixtures_store import older_store
from hands import Hands
from hands_compare import ASKED, CODE, TAX, Trial, tax
from sqlalchemy import select, text

from jobs.accepting import AcceptanceRefused, Asked, Standing
from jobs.adapters.sql_compare import forget
from jobs.adapters.sql_retention import _shred
from jobs.adapters.sql_schema import acceptances, accepted
from jobs.adapters.sql_store import Store
from jobs.causes import Cause, Share
from jobs.comparing import UnitClass
from jobs.overview import Wanted
from jobs.run import Verdict
from runner.errors import Conflict, NotFound


def expire(hands: Hands) -> None:
    with hands.store.database.write() as connection:
        connection.execute(text("UPDATE acceptances SET expires_at = 1"))


def test_accepting_a_group_turns_the_verdict_and_withdrawing_turns_it_back(hands: Hands) -> None:
    one = Trial(hands, {"a/pl": [tax()], "b/pl": [tax()]}).end()
    ended = one.now.finished_at
    assert one.stands == ("different", 2, 0, 0)
    made = one.accept()
    assert (made.name, made.reason, made.made_by, made.run) == (ASKED.name, ASKED.reason, "rin", one.run)
    assert made.ratio == pytest.approx(1.1)
    assert 89 < (made.expires_at - made.made_at).days <= 90
    assert one.stands == ("passed", 2, 2, 1)
    assert one.marked() == {"a/pl", "b/pl"}
    assert {found.kind for found in hands.compared(one.run) if found.accepted} == {UnitClass.DIFFERENT}
    assert one.now.finished_at == ended, "only the verdict is another"
    [told] = one.told("accept")
    assert (told["user"], told["name"], told["reason"]) == ("rin", ASKED.name, ASKED.reason)
    assert (told["from"], told["verdict"], told["units"]) == ("different", "passed", 2)
    back = one.withdraw()
    assert (back.withdrawn_by, back.standing(datetime.now(UTC))) == ("mio", Standing.WITHDRAWN)
    assert one.stands == ("different", 2, 0, 0)
    assert one.marked() == set()
    [told] = one.told("withdraw")
    assert (told["user"], told["from"], told["verdict"]) == ("mio", "passed", "different")
    assert [found.name for found in hands.store.acceptances.of_project("accounts")] == [ASKED.name], "it is kept"


def test_a_unit_with_another_cause_or_unknown_ones_stays_different(hands: Hands) -> None:
    causes = {"a/pl": [tax()], "b/pl": [tax(), Share(CODE, 1)], "c/pl": [tax()]}
    one = Trial(hands, causes, cut=("c/pl",)).end()
    one.accept()
    assert (one.stands, one.marked()) == (("different", 3, 1, 1), {"a/pl"})
    one.accept(CODE, Asked("Tax codes", "Asked for in ticket 7.", "30d"))
    assert (one.stands, one.marked()) == (("different", 3, 2, 2), {"a/pl", "b/pl"})
    groups = one.store.acceptances.of_run(one.run)
    assert {key: len(found.held) for key, found in groups.items()} == {TAX.key: 1, CODE.key: 1}
    assert one.store.acceptances.counts(one.run) == {TAX.key: 2, CODE.key: 1}
    views = one.store.compare_views
    left = views.by_position(one.run, Wanted(accepted=False, kinds=(UnitClass.DIFFERENT,)), after=-1, limit=9)
    assert [found.unit for found in left] == ["c/pl"]
    assert views.count(one.run, Wanted(accepted=True)) == 2
    assert [found.unit for found in views.by_position(one.run, Wanted(group=CODE.key), after=-1, limit=9)] == ["b/pl"]
    one.withdraw()
    assert (one.stands, one.marked()) == (("different", 3, 0, 1), set())


def test_later_runs_carry_it_and_say_so(hands: Hands) -> None:
    Trial(hands, {"a/pl": [tax()]}).end().accept()
    later = Trial(hands, {"b/pl": [tax(1.101)], "c/pl": [tax()]}).compare()
    assert later.stands == (None, 2, 2, 1), "while the run goes on"
    later.end()
    assert later.stands == ("passed", 2, 2, 1)
    [told] = later.told("accepted")
    assert (told["units"], [group["name"] for group in told["groups"]]) == (2, [ASKED.name])
    assert Trial(hands, {"b/pl": [tax()]}, project="other").end().stands == ("different", 1, 0, 0)


def went(sign: str, low: float, high: float) -> Share:
    """Numbers that went so, by no ratio or offset."""
    return Share(Cause("*/pl", "value", "net", sign), 2, None, (low, high))


def test_groups_that_only_the_sign_tells_apart_are_one(hands: Hands) -> None:
    moved = {"a/pl": [went("up", 0.2, 0.3)], "b/pl": [went("down", -0.4, -0.1)], "c/pl": [went("mixed", -0.4, 0.5)]}
    one = Trial(hands, moved).end()
    [group] = one.store.groups.list(one.run)
    assert (group.cause.sign, group.units, group.count, group.first) == ("any", 3, 6, ("a/pl", "b/pl", "c/pl"))
    assert one.store.groups.one(one.run, group.key) == group
    part = one.store.groups.one(one.run, went("up", 1, 1).cause.key)
    assert part is not None
    assert (part.units, part.parts) == (1, ()), "a key of before still names what it named"
    one.accept(part.cause)
    assert one.stands == ("different", 3, 1, 1)
    made = one.accept(group.cause)
    assert (one.stands, made.cause.sign) == (("passed", 3, 3, 2), "any")
    with pytest.raises(Conflict, match="accepted already"):
        one.accept(group.cause)
    later = Trial(hands, {"d/pl": [went("down", -9.0, -2.0)], "e/pl": [went("up", 9.0, 10.0)]}).end()
    assert later.stands == ("passed", 2, 2, 2), "whichever way it went"
    one.withdraw(group.cause)
    assert one.stands == ("different", 3, 0, 0), "with what its parts were accepted by"
    assert Trial(hands, {"e/pl": [went("up", 9.0, 10.0)]}).end().stands == ("different", 1, 0, 0)


def test_a_unit_in_two_parts_of_a_group_is_counted_once(hands: Hands) -> None:
    moved = {"a/pl": [went("up", 0.2, 0.3), went("down", -0.3, -0.2)], "c/pl": [went("mixed", -0.4, 0.5)]}
    one = Trial(hands, moved).end()
    [group] = one.store.groups.list(one.run)
    assert (group.units, group.count) == (2, 6)
    old = Trial(hands, moved).end()
    one.accept(group.cause)
    assert old.accept(group.cause, Asked()).run == one.run, "what the project has is taken over"
    assert (one.stands, old.stands) == (("passed", 2, 2, 1), ("passed", 2, 2, 1))


def test_another_ratio_is_not_what_was_accepted(hands: Hands) -> None:
    Trial(hands, {"a/pl": [tax(1.1)]}).end().accept()
    later = Trial(hands, {"b/pl": [tax(1.1)], "c/pl": [tax(1.5)]}).end()
    assert (later.stands, later.marked()) == (("different", 2, 1, 1), {"b/pl"})
    later.accept(asked=Asked("All of it", "Seen with accounting."))
    assert later.stands == ("passed", 2, 2, 1)
    assert len(later.store.acceptances.of_run(later.run)[TAX.key].held) == 2
    far = Trial(hands, {"b/pl": [tax(9.0)]}, project="other")
    assert far.end().stands == ("different", 1, 0, 0)


def test_runs_that_have_ended_do_not_change_by_themselves(hands: Hands) -> None:
    old = Trial(hands, {"a/pl": [tax()]}).end()
    new = Trial(hands, {"a/pl": [tax()]}).end()
    found = new.accept()
    assert (old.stands, new.stands) == (("different", 1, 0, 0), ("passed", 1, 1, 1))
    assert old.store.acceptances.of_run(old.run)[TAX.key].offered == (found,)
    with pytest.raises(Conflict, match=f"accepted already, as 'New tax rate', by rin in run {new.run}") as refused:
        old.accept()
    assert "Take it over" in (refused.value.remedy or "")
    assert old.accept(asked=Asked()) == found, "what the project has is taken over"
    assert old.stands == ("passed", 1, 1, 1)
    old.withdraw()
    assert (old.stands, new.stands) == (("different", 1, 0, 0), ("passed", 1, 1, 1))
    assert Trial(hands, {"a/pl": [tax()]}).end().stands == ("different", 1, 0, 0), "later ones go without it"
    new.withdraw()
    assert new.stands == ("different", 1, 0, 0)
    assert hands.store.acceptances.of_project("accounts")[0].withdrawn_by == "mio"


def test_it_expires_for_what_is_compared_later(hands: Hands) -> None:
    one = Trial(hands, {"a/pl": [tax()]}).end()
    one.accept()
    expire(hands)
    assert one.stands == ("passed", 1, 1, 1)
    later = Trial(hands, {"a/pl": [tax()]}).end()
    assert later.stands == ("different", 1, 0, 0)
    assert later.store.acceptances.of_run(later.run) == {}
    assert later.accept(asked=Asked("Again", "It still holds.")).name == "Again"
    assert later.stands == ("passed", 1, 1, 1)
    assert len(hands.store.acceptances.of_project("accounts")) == 2


def test_what_expires_while_a_run_is_compared_does_not_hold_at_its_end(hands: Hands) -> None:
    Trial(hands, {"a/pl": [tax()]}).end().accept()
    later = Trial(hands, {"a/pl": [tax()]}).compare()
    assert later.stands == (None, 1, 1, 1)
    expire(hands)
    later.end()
    assert later.stands == ("different", 1, 0, 0)


def test_a_group_is_accepted_while_its_run_goes_on(hands: Hands) -> None:
    one = Trial(hands, {"a/pl": [tax()]}).compare()
    one.accept()
    assert one.stands == (None, 1, 1, 1)
    assert one.told("accept")[0]["verdict"] is None
    assert one.end().stands == ("passed", 1, 1, 1)


def test_what_is_accepted_stops_no_run_early_and_a_stopped_run_stays_different(hands: Hands) -> None:
    one = Trial(hands, {"a/pl": [tax()], "b/pl": [Share(CODE, 1)]}, fail_fast=1).end()
    assert one.now.reason is not None
    one.accept()
    one.accept(CODE)
    assert one.stands == ("different", 2, 2, 2)
    later = Trial(hands, {"a/pl": [tax()], "b/pl": [Share(CODE, 1)]}, fail_fast=1).end()
    assert (later.stands, later.now.reason) == (("passed", 2, 2, 2), None)


def test_units_that_are_compared_again_are_counted_again(hands: Hands) -> None:
    Trial(hands, {"a/pl": [tax()]}).end().accept()
    later = Trial(hands, {"a/pl": [tax()], "b/pl": [tax(7.0)]}).compare()
    assert later.stands == (None, 2, 1, 1)
    with hands.store.database.write() as connection:
        forget(connection, later.run, names=["a/pl"])
    assert later.stands == (None, 1, 0, 1)
    assert later.end().stands == ("different", 2, 1, 1)


def test_what_cannot_be_accepted(hands: Hands) -> None:
    failed = Cause("*/pl", "candidate_failed")
    one = Trial(hands, {"a/pl": [tax()], "b/pl": [Share(failed, 1)]}).end()
    with pytest.raises(NotFound, match="no group 'beef'") as unknown:
        one.store.acceptances.accept(one.run, "beef", ASKED, "rin")
    assert (unknown.value.field, unknown.value.value) == ("key", "beef")
    with pytest.raises(NotFound, match="no run 4711"):
        one.store.acceptances.accept(4711, TAX.key, ASKED, "rin")
    with pytest.raises(AcceptanceRefused, match="cannot be accepted") as refused:
        one.accept(failed)
    assert "Mend the candidate" in (refused.value.remedy or "")
    with pytest.raises(AcceptanceRefused, match="reason: is required"):
        one.accept(asked=Asked("Name"))
    with pytest.raises(AcceptanceRefused, match="name: is required"):
        one.accept(asked=Asked())
    with pytest.raises(AcceptanceRefused, match="expires: is in the past"):
        one.accept(asked=Asked("Name", "Reason", "2020-01-01"))
    with pytest.raises(Conflict, match="is not accepted in run"):
        one.withdraw()
    with pytest.raises(NotFound, match="no group 'beef'"):
        one.store.acceptances.withdraw(one.run, "beef", "rin")
    with pytest.raises(NotFound, match="no run 4711"):
        one.store.acceptances.withdraw(4711, TAX.key, "rin")
    one.accept()
    with pytest.raises(Conflict, match="accepted already, as 'New tax rate'") as again:
        one.accept()
    assert "Withdraw it first" in (again.value.remedy or "")
    with pytest.raises(Conflict, match="accepted already"):
        one.accept(asked=Asked())
    assert one.stands == ("different", 2, 1, 1)
    assert Verdict.DIFFERENT is one.now.verdict


def test_a_run_that_is_removed_leaves_what_was_accepted(hands: Hands) -> None:
    one = Trial(hands, {"a/pl": [tax()]}).end()
    one.accept()
    with hands.store.database.write() as connection:
        while _shred(connection, one.run, whole=True):
            pass
        assert connection.execute(select(accepted.c.run).where(accepted.c.run == one.run)).first() is None
        assert connection.execute(select(acceptances.c.name)).scalars().all() == [ASKED.name]


def test_a_store_of_the_version_before_keeps_its_comparisons(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/old.db"
    with older_store(url, "0010") as connection:
        connection.execute(
            text(
                "INSERT INTO comparisons (run, unit, position, kind, changed, summary, seconds, at) "
                "VALUES (1, 'a/pl', 0, 'different', 1, '{}', 0.1, 1.0)"
            )
        )
    store = Store.open(url)
    assert [(one.unit, one.accepted) for one in Hands(store).compared(1)] == [("a/pl", False)]
    assert store.acceptances.of_project("accounts") == []
    store.close()
