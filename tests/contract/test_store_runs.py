"""Submissions in the store: idempotency, cancel, resume, clean-up, lists. SQLite in a file, in memory, PostgreSQL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hands import OUTPUT, Hands
from sqlalchemy import text

from jobs.adapters.sql_submissions import IdempotencyMismatch
from jobs.new_run import NewLeg
from jobs.run import Page, RunFilter, RunState, TaskState, Verdict
from runner.errors import Conflict, Fenced, NotFound
from runner.model import Prepared, Reason, TaskKind, UnitState

S = TaskState
ALL = RunFilter()


# ---- submit ----


def test_a_submission_is_queued_with_its_leg_and_its_preparation(hands: Hands) -> None:
    run, created = hands.store.runs.add(hands.new(note="what could break?"), key=None, body="")
    assert created
    assert (run.state, run.user, run.note, run.units.total, run.attempts) == (
        RunState.QUEUED, "mio", "what could break?", None, 0,
    )  # fmt: skip
    assert (run.candidate.ref, run.candidate.commit, run.candidate.prepared, run.baseline) == (
        "main", "c" * 40, False, None,
    )  # fmt: skip
    (task,) = hands.tasks(run.id)
    assert (task.kind, task.state, task.leg, task.batch) == (TaskKind.PREPARE, S.QUEUED, "candidate", 0)


def test_two_legs_have_a_preparation_each(hands: Hands) -> None:
    baseline = replace(hands.new().legs[0], name="baseline", ref="v1", commit="b" * 40)
    run = hands.run(hands.submit(legs=(baseline,)))
    assert [leg.name for leg in run.legs] == ["baseline", "candidate"]
    assert run.baseline is not None
    assert run.baseline.commit == "b" * 40
    assert [task.leg for task in hands.tasks(run.id)] == ["baseline", "candidate"]
    assert [leg.ref for leg in hands.store.runs.new_legs(run.id)] == ["v1", "main"]
    claims = [hands.take(), hands.take()]
    assert {claim.task.leg: claim.migrate for claim in claims} == {"candidate": True, "baseline": False}


def test_the_same_key_gives_the_same_run(hands: Hands) -> None:
    add, new = hands.store.runs.add, hands.new()
    first, created = add(new, key="k", body="b")
    assert created
    assert add(new, key="k", body="b") == (first, False)
    assert hands.store.runs.known("mio", "k", "b") == first
    assert hands.store.runs.known("rin", "k", "b") is None
    assert add(hands.new("rin"), key="k", body="b")[1] is True
    with pytest.raises(IdempotencyMismatch):
        add(new, key="k", body="other")
    with pytest.raises(IdempotencyMismatch):
        hands.store.runs.known("mio", "k", "other")


def test_a_key_counts_for_a_day(hands: Hands) -> None:
    first, _ = hands.store.runs.add(hands.new(), key="k", body="b")
    hands.store.runs.add(hands.new(), key="young", body="b")
    with hands.store.database.write() as connection:
        connection.execute(text("UPDATE idempotency SET created_at = created_at - 86401 WHERE key = 'k'"))
    assert hands.store.runs.known("mio", "k", "b") is None
    again, created = hands.store.runs.add(hands.new(), key="k", body="other")
    assert (created, again.id != first.id) == (True, True)
    with hands.store.database.write() as connection:
        connection.execute(text("UPDATE idempotency SET created_at = created_at - 86401 WHERE key = 'k'"))
    assert hands.store.runs.forget_keys() == 1
    assert hands.store.runs.known("mio", "young", "b") is not None


def test_a02_fifty_submissions_with_one_key_at_once_are_one_run(hands: Hands) -> None:
    with ThreadPoolExecutor(50) as pool:
        made = list(pool.map(lambda _: hands.store.runs.add(hands.new(), key="k", body="b"), range(50)))
    assert len({run.id for run, _ in made}) == 1
    assert [created for _, created in made].count(True) == 1
    assert len(hands.store.runs.page(ALL, before=None, after=None, limit=100).runs) == 1


def test_an_unknown_run_or_task_is_not_found(hands: Hands) -> None:
    for look in (
        lambda: hands.run(4711),
        lambda: hands.store.runs.cancel(4711, "mio"),
        lambda: hands.store.runs.resume(4711, "mio"),
        lambda: hands.store.inside.task(4711),
        lambda: hands.store.inside.unit(4711, "candidate", "a"),
    ):
        with pytest.raises(NotFound, match=r"4711"):
            look()


# ---- cancel ----


def test_a_queued_run_is_cancelled_at_once(hands: Hands) -> None:
    run = hands.submit()
    found = hands.store.runs.cancel(run, "rin")
    assert found.reason is not None
    assert (found.state, found.reason.code, found.reason.text) == (
        RunState.CANCELLED, "cancelled", "Cancelled by rin.",
    )  # fmt: skip
    assert hands.claim() is None
    with pytest.raises(Conflict):
        hands.store.runs.cancel(run, "rin")


def test_a_running_task_is_told_and_the_waiting_ones_end(hands: Hands) -> None:
    run, claim = hands.verifying(batches=2)
    assert hands.store.runs.cancel(run, "rin").state is RunState.RUNNING
    hands.store.runs.cancel(run, "rin")
    assert len(hands.events(run, "cancel")) == 1
    assert hands.store.tasks.renew(claim.task.id, 1, 60.0) is True
    assert [task.state for task in hands.tasks(run)] == [S.DONE, S.RUNNING, S.CANCELLED]
    hands.end(claim, S.CANCELLED, Reason("cancelled", "…"))
    assert hands.run(run).state is RunState.CANCELLED


def test_an_interrupted_run_is_cancelled_at_once(hands: Hands) -> None:
    run, claim = hands.preparing()
    hands.interrupt(claim)
    assert hands.store.runs.cancel(run, "mio").state is RunState.CANCELLED
    assert hands.make_due() == []


def test_an_interruption_of_a_cancelled_run_ends_it(hands: Hands) -> None:
    run, claim = hands.preparing()
    hands.store.runs.cancel(run, "mio")
    assert hands.interrupt(claim) is S.CANCELLED
    found = hands.run(run)
    assert (found.state, found.reason) == (RunState.CANCELLED, Reason("cancelled", "Cancelled by mio."))


def test_a_preparation_that_ends_in_a_cancelled_run_starts_no_batches(hands: Hands) -> None:
    run, claim = hands.preparing()
    hands.store.runs.cancel(run, "mio")
    hands.prepared(claim)
    assert [task.state for task in hands.tasks(run)] == [S.CANCELLED]
    assert hands.run(run).state is RunState.CANCELLED


def test_a_task_that_was_queued_while_its_run_was_cancelled_is_not_run(hands: Hands) -> None:
    run, other = hands.submit(), hands.submit()
    with hands.store.database.write() as connection:
        connection.execute(text(f"UPDATE runs SET cancel_requested = true WHERE id = {run}"))
    assert hands.take().task.run == other
    assert hands.run(run).state is RunState.CANCELLED


# ---- resume ----


def test_a_failed_run_tries_its_failed_units_again_and_keeps_the_others(hands: Hands) -> None:
    run, claim = hands.verifying(["a", "b", "c"])
    hands.mark(claim, "a")
    hands.mark(claim, "b", failed=True)
    hands.end(claim, S.FAILED, Reason("units_failed", "…"))
    before = hands.store.inside.unit(run, "candidate", "a")
    found = hands.store.runs.resume(run, "rin")
    assert (found.state, found.finished_at, found.reason, found.units.done, found.units.failed) == (
        RunState.RUNNING, None, None, 1, 0,
    )  # fmt: skip
    again = hands.take()
    assert (again.task.id, again.task.attempt, again.units) == (claim.task.id, 2, ("b", "c"))
    assert (again.task.units_done, again.task.units_failed) == (1, 0)
    hands.mark(again, "b", "c")
    hands.end(again)
    assert hands.run(run).verdict is Verdict.PASSED
    assert hands.store.inside.unit(run, "candidate", "a") == before
    assert [event.data for event in hands.events(run, "resume")] == [{"user": "rin"}]


def test_a_failed_preparation_is_tried_again(hands: Hands) -> None:
    run, claim = hands.preparing()
    hands.end(claim, S.FAILED, Reason("step_failed", "…"))
    hands.store.runs.resume(run, "mio")
    again = hands.take()
    assert (again.task.id, again.task.attempt) == (claim.task.id, 2)
    hands.prepared(again)
    assert hands.finish(run).verdict is Verdict.PASSED


def test_a_run_without_budget_gets_a_new_one(hands: Hands) -> None:
    run, claim = hands.preparing()
    for _ in range(2):
        hands.interrupt(claim)
        hands.make_due()
        claim = hands.take()
    assert hands.interrupt(claim) is S.ERRORED
    hands.store.runs.resume(run, "mio")
    assert hands.interrupt(hands.take()) is S.INTERRUPTED


def test_a_cancelled_run_goes_on(hands: Hands) -> None:
    run, claim = hands.verifying(["a", "b", "c", "d"], batches=2)
    hands.mark(claim, "a")
    hands.store.runs.cancel(run, "mio")
    hands.end(claim, S.CANCELLED, Reason("cancelled", "…"))
    assert hands.run(run).reason == Reason("cancelled", "Cancelled by mio.")
    found = hands.store.runs.resume(run, "mio")
    assert (found.state, found.cancel_requested) == (RunState.RUNNING, False)
    assert hands.store.tasks.renew(hands.take().task.id, 2, 60.0) is False
    assert hands.take().units == ("c", "d")


def test_an_interrupted_run_can_be_hurried(hands: Hands) -> None:
    run, claim = hands.preparing()
    hands.interrupt(claim)
    assert hands.claim() is None
    hands.store.runs.resume(run, "mio")
    assert hands.take().task.attempt == 2


@pytest.mark.parametrize("state", ["queued", "running", "done"])
def test_what_goes_on_or_is_done_is_not_resumed(hands: Hands, state: str) -> None:
    run = hands.submit()
    if state == "running":
        hands.take()
    if state == "done":
        hands.finish(run)
    with pytest.raises(Conflict, match=state):
        hands.store.runs.resume(run, "mio")


def failed_and_cleaned(hands: Hands, *, batches: int = 2) -> int:
    """Give a run with the units a, b done, c failed, d never tried, whose databases are gone."""
    run, claim = hands.preparing()
    hands.prepared(claim, batches=batches, data="d1")
    for _ in range(batches):
        claim = hands.take()
        hands.mark(claim, *(unit for unit in claim.units if unit in "ab"))
        hands.mark(claim, *(unit for unit in claim.units if unit == "c"), failed=True)
        hands.end(claim)
    assert hands.run(run).state is RunState.FAILED
    hands.clean(run)
    hands.store.runs.resume(run, "mio")
    return run


def test_a_cleaned_run_is_prepared_anew_and_keeps_what_was_done(hands: Hands) -> None:
    run = failed_and_cleaned(hands)
    assert hands.run(run).state is RunState.RUNNING
    claim = hands.take()
    assert claim.task.kind is TaskKind.PREPARE
    assert hands.claim() is None
    hands.prepared(claim, data="d1")
    batch = hands.take()
    assert batch.units == ("c", "d")
    hands.mark(batch, "c", "d")
    hands.end(batch)
    found = hands.run(run)
    assert (found.verdict, found.units.total, found.units.done) == (Verdict.PASSED, 4, 4)
    assert hands.events(run, "repeat") == []


@pytest.mark.parametrize(("changed", "image", "data"), [(["data"], "sha256:1", "d2"), (["image"], "sha256:2", "d1")])
def test_other_data_or_another_image_repeats_all_and_says_so(
    hands: Hands, changed: list[str], image: str, data: str
) -> None:
    run = failed_and_cleaned(hands)
    hands.prepared(hands.take(), data=data, image=image)
    assert [event.data for event in hands.events(run, "repeat")] == [{"changed": changed, "units": 2}]
    assert hands.run(run).units.done == 0
    claims = [hands.take(), hands.take(), hands.take()]
    assert sorted(unit for claim in claims for unit in claim.units) == ["a", "b", "c", "d"]
    for claim in claims:
        hands.mark(claim, *claim.units)
        hands.end(claim)
    assert hands.finish(run).verdict is Verdict.PASSED


def test_a_list_that_changed_is_followed(hands: Hands) -> None:
    run = failed_and_cleaned(hands)
    hands.prepared(hands.take(), ["new", "d", "b"], data="d1")
    assert [(unit.unit, unit.position, unit.state) for unit in hands.units(run)] == [
        ("new", 0, UnitState.TODO), ("d", 1, UnitState.TODO), ("b", 2, UnitState.DONE),
    ]  # fmt: skip
    assert hands.finish(run).verdict is Verdict.PASSED
    assert hands.run(run).units.total == 3


def test_a_batch_with_nothing_left_ends_without_a_loss(hands: Hands) -> None:
    run, claim = hands.verifying(["a", "b"])
    hands.log(claim, b"kept")
    hands.mark(claim, "a", "b")
    hands.end(claim, S.ERRORED, Reason("internal", "…"))
    hands.clean(run)
    hands.store.runs.resume(run, "mio")
    hands.prepared(hands.take(), ["a", "b"])
    again = hands.take()
    assert (again.task.id, again.units, again.task.log_size) == (claim.task.id, (), 4)
    assert hands.end(again) is S.DONE
    assert hands.run(run).verdict is Verdict.PASSED


def test_a_preparation_that_died_while_it_wrote_its_list_is_repeated(hands: Hands) -> None:
    run, claim = hands.preparing()
    names = [f"u{number:05}" for number in range(12_000)]
    wrote: list[int] = []

    def die(_names: object) -> list[tuple[str, ...]]:
        hands.interrupt(claim)  # somebody takes the task away between reading and writing
        wrote.append(1)
        return [tuple(names)]

    with pytest.raises(Fenced):
        hands.store.plan.prepared(claim.task.id, 1, Prepared("i", "sha256:1", tuple(names), None), die)
    assert wrote
    hands.make_due()
    again = hands.take()
    # A part of the list stands, held by batches that never came to be.
    with hands.store.database.write() as connection:
        for position, name in enumerate(names[:5_000]):
            connection.execute(
                text(
                    "INSERT INTO units (run, leg, unit, position, task, state, text)"
                    f" VALUES ({run}, 'candidate', '{name}', {position}, 987654, 'todo', '')"
                )
            )
    hands.prepared(again, names, batches=3)
    assert [len(hands.take().units) for _ in range(3)] == [4_000] * 3
    assert hands.run(run).units.total == 12_000


# ---- clean-up ----


def test_only_what_is_over_is_cleaned_and_only_once(hands: Hands) -> None:
    run, other = hands.submit(), hands.submit()
    assert hands.store.runs.to_clean() == []
    assert hands.store.runs.begin_cleaning(run) is None
    hands.store.runs.cancel(run, "mio")
    assert hands.store.runs.to_clean() == [run]
    token = hands.cleaning(run)
    assert hands.store.runs.begin_cleaning(run) is None  # another sweeper
    assert hands.store.runs.cleaned(run, token) is True
    assert hands.store.runs.to_clean() == []
    assert [order[0] for order in hands.store.inside.live_orders()] == [other]


def test_a_clean_up_that_could_not_end_is_tried_again(hands: Hands) -> None:
    run = hands.submit()
    hands.store.runs.cancel(run, "mio")
    hands.store.runs.cleaned(run, hands.cleaning(run), all_of_it=False)
    assert hands.store.runs.to_clean() == [run]
    assert hands.cleaning(run)
    assert len(hands.store.inside.live_orders()) == 1  # what is left of it is not an orphan's


def test_a_resume_during_the_clean_up_waits_for_its_end_and_prepares_anew(hands: Hands) -> None:
    run, claim = hands.verifying(["a", "b"])
    hands.mark(claim, "a")
    hands.end(claim)
    token = hands.cleaning(run)
    assert hands.store.runs.still_cleaning(run, token) is True
    hands.store.runs.resume(run, "mio")
    assert hands.store.runs.still_cleaning(run, token) is False, "what follows would be the resumed run's"
    assert hands.claim() is None
    assert hands.store.runs.cleaned(run, token) is True
    assert hands.take().task.kind is TaskKind.PREPARE
    assert hands.store.runs.to_clean() == []


def let_pass(hands: Hands, run: int, seconds: float) -> None:
    """Let so much time pass for a run that is cleaned up."""
    with hands.store.database.write() as connection:
        connection.execute(text(f"UPDATE runs SET cleaning_until = cleaning_until - {seconds} WHERE id = {run}"))
        connection.execute(text(f"UPDATE tasks SET due_at = due_at - {seconds} WHERE run = {run}"))


def test_a_clean_up_that_takes_long_never_reaches_the_run_that_went_on(hands: Hands) -> None:
    run, claim = hands.verifying(["a", "b"])
    hands.mark(claim, "a")
    hands.end(claim)
    slow = hands.cleaning(run)
    hands.store.runs.resume(run, "mio")
    let_pass(hands, run, 61.0)
    claim = hands.take()
    assert claim.task.kind is TaskKind.PREPARE
    assert hands.store.runs.still_cleaning(run, slow) is False
    hands.prepared(claim, ["a", "b"], batches=1, data="d")
    hands.end(hands.take())
    # It has ended anew, with databases that the slow one has never seen, and that another one cleans up.
    assert hands.store.runs.still_cleaning(run, slow) is False
    assert hands.store.runs.cleaned(run, slow) is False
    assert hands.store.runs.to_clean() == [run]


def test_of_two_who_clean_up_one_run_only_the_later_may_go_on(hands: Hands) -> None:
    run = hands.submit()
    hands.store.runs.cancel(run, "mio")
    slow = hands.cleaning(run)
    let_pass(hands, run, 61.0)
    other = hands.cleaning(run)
    assert hands.store.runs.still_cleaning(run, slow) is False
    assert hands.store.runs.cleaned(run, slow) is False
    hands.store.runs.resume(run, "mio")
    assert hands.claim() is None, "the later one is still at it"
    assert hands.store.runs.cleaned(run, other) is True
    assert hands.take().task.run == run


def test_who_is_at_it_keeps_the_others_off(hands: Hands) -> None:
    run = hands.submit()
    hands.store.runs.cancel(run, "mio")
    token = hands.cleaning(run)
    for _ in range(3):
        let_pass(hands, run, 50.0)
        assert hands.store.runs.still_cleaning(run, token) is True
        assert hands.store.runs.begin_cleaning(run) is None


def test_what_stands_on_an_absent_host_when_a_run_is_cleaned_is_never_gone_on_with(hands: Hands) -> None:
    """Its template and its clone are dropped, and the leg may stand on other data when the host is back."""
    run, claim = hands.verifying(["a"])
    task, ledger = claim.task.id, hands.store.ledger
    number = ledger.next_execution(task, claim.task.attempt)
    ledger.execution(task, claim.task.attempt, number, state="running", container="c1", exit_code=None)
    hands.interrupt(claim)
    hands.store.runs.cancel(run, "mio")
    assert ledger.live_execution(task) is not None
    assert hands.store.workers.abandoned(host="h1") == []
    hands.clean(run)
    hands.store.runs.resume(run, "mio")
    hands.prepared(hands.take("w2", host="h2"), ["a"], batches=1)
    assert hands.store.tasks.claim(pool="local", host="h1", worker="w1", lease=60.0, adopt_only=True) is None
    assert ledger.live_execution(task) is None
    assert hands.store.workers.abandoned(host="h1") == [(task, number, "c1")], "its sweeper takes it away"


def test_the_clean_up_is_told_where_clones_may_be(hands: Hands) -> None:
    run, claim = hands.preparing()
    [(text, source, chosen)] = hands.store.inside.specs(run)
    assert text
    assert source
    assert chosen == hands.run(run).database
    assert hands.store.inside.live_tasks() == {claim.task.id}


# ---- lists ----


def ids(page: Page) -> list[int]:
    return [run.id for run in page.runs]


def test_pages_go_both_ways_without_gap_or_repetition(hands: Hands) -> None:
    made = [hands.submit() for _ in range(25)]
    newest_first = made[::-1]
    there, before = [], None
    while True:
        page = hands.store.runs.page(ALL, before=before, after=None, limit=10)
        there += ids(page)
        if page.next is None:
            break
        before = page.next
    assert there == newest_first
    back, after = ids(page), page.previous
    while after is not None:
        page = hands.store.runs.page(ALL, before=None, after=after, limit=10)
        back = ids(page) + back
        after = page.previous
    assert back == newest_first
    first = hands.store.runs.page(ALL, before=None, after=None, limit=10)
    assert (first.previous, first.next) == (None, newest_first[9])
    assert ids(hands.store.runs.page(ALL, before=made[0], after=None, limit=10)) == []
    assert hands.store.runs.count_newer(ALL, made[20]) == 4


def test_filters_narrow_the_list(hands: Hands) -> None:
    one = hands.submit("mio", project="accounts", ref="feature/rounding")
    two = hands.submit("rin", project="plain", ref="main")
    three = hands.submit("rin", project="accounts", ref="main")
    hands.store.runs.cancel(two, "rin")

    def list_(**wanted: object) -> list[int]:
        return ids(hands.store.runs.page(RunFilter(**wanted), before=None, after=None, limit=10))  # type: ignore[arg-type]

    assert list_(project="accounts") == [three, one]
    assert list_(state=RunState.CANCELLED) == [two]
    assert list_(user="rin", ref="main") == [three, two]
    assert list_(user="rin", state=RunState.QUEUED) == [three]
    assert list_(verdict=Verdict.PASSED) == []
    assert list_(project="accounts", text="ROUND") == [one]
    assert hands.store.runs.count_newer(RunFilter(user="rin"), one) == 2


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("100%", [0]), ("0%", [0]), ("%", [0]), ("_", [1]), ("snake_case", [1]), ("a_b", []), ("/", [2]),
        ("O'Brien; DROP TABLE runs", [3]), ("\\", [4]), ("ÄRGER", [5]), ("ärger", [5]), ("main", [5, 4, 3, 2, 1, 0]),
    ],
)  # fmt: skip
def test_text_is_searched_as_it_is_written(hands: Hands, wanted: str, found: list[int]) -> None:
    notes = ("up to 100% of it", "snake_case", "a/b", "o'brien; drop table runs", "back\\slash", "Ärger")
    made = [hands.submit(note=note) for note in notes]
    page = hands.store.runs.page(RunFilter(text=wanted), before=None, after=None, limit=10)
    assert ids(page) == [made[index] for index in found]


def test_units_are_searched_and_paged(hands: Hands) -> None:
    names = ["tenant_001/pl", "tenant_001/bs", "tenantX001/pl", "50%/Äpfel"]
    run, claim = hands.verifying(names)
    hands.mark(claim, names[1])

    def list_(**wanted: object) -> list[str]:
        return [unit.unit for unit in hands.units(run, **wanted)]

    assert list_() == names
    assert list_(limit=2) == names[:2]
    assert list_(after=1, limit=2) == names[2:]
    assert list_(text="tenant_001") == names[:2]
    assert list_(text="%") == [names[3]]
    assert list_(text="ÄPFEL") == [names[3]]
    assert list_(state=UnitState.DONE) == [names[1]]
    assert list_(task=claim.task.id, leg="candidate", state=UnitState.TODO, after=0) == names[2:]
    assert list_(leg="baseline") == []
    unit = hands.store.inside.unit(run, "candidate", names[1])
    assert (unit.output, unit.attempt, unit.seconds) == (OUTPUT, 1, 1.5)
    counts = hands.store.inside.unit_counts(run)["candidate"]
    assert (counts.total, counts.done, counts.failed) == (4, 1, 0)


def test_durations_come_from_the_last_run_that_can_tell(hands: Hands) -> None:
    hands.finish(hands.submit())
    filtered = hands.submit(units_filter="a")
    hands.finish(filtered)
    hands.finish(hands.submit(project="plain"))
    now = hands.submit()
    assert hands.store.ledger.durations("accounts", "candidate", before=now) == dict.fromkeys("abcd", 1.5)
    with hands.store.database.write() as connection:
        connection.execute(text(f"UPDATE units SET seconds = 9 WHERE run = {filtered}"))
    assert hands.store.ledger.durations("accounts", "candidate", before=now) == dict.fromkeys("abcd", 1.5)
    same = hands.submit(units_filter="a")
    assert hands.store.ledger.durations("accounts", "candidate", before=same) == dict.fromkeys("abcd", 9.0)
    assert hands.store.ledger.durations("accounts", "baseline", before=now) == {}
    assert hands.store.ledger.durations("new", "candidate", before=now) == {}


def test_a_new_leg_is_kept_as_it_was_submitted(hands: Hands) -> None:
    leg = NewLeg("candidate", "r", "c" * 40, "é", "Rin \ud83d", "f", "run: |\n  x\n", "d")
    run, _ = hands.store.runs.add(replace(hands.new(), legs=(leg,)), key=None, body="")
    assert hands.store.runs.new_legs(run.id) == (replace(leg, author="Rin ?"),)
