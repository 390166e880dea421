"""States, transitions, and what a run is by its tasks."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.run import (
    FINAL_TASK_STATES,
    TRANSITIONS,
    Comparison,
    Derived,
    IllegalTransition,
    RunState,
    TaskFacts,
    TaskState,
    Verdict,
    backoff,
    check_transition,
    derive,
)
from runner.model import Reason, TaskKind

S, P, V = TaskState, TaskKind.PREPARE, TaskKind.VERIFY

CANCELLED_BY = Reason("cancelled", "Cancelled by mio.")


def fact(state: TaskState, kind: TaskKind = V, attempt: int = 1, code: str | None = None) -> TaskFacts:
    return TaskFacts(kind, state, attempt, Reason(code, code) if code else None)


def test_the_table_is_the_one_that_the_design_draws() -> None:
    drawn = {
        "queued": "running cancelled errored",
        "running": "done failed cancelled errored interrupted",
        "interrupted": "queued cancelled errored",
        "failed": "queued",
        "errored": "queued",
        "cancelled": "queued",
    }
    assert {(S(old), S(new)) for old, news in drawn.items() for new in news.split()} == TRANSITIONS


@pytest.mark.parametrize(("old", "new"), list(itertools.product(S, S)))
def test_each_step_is_allowed_or_refused(old: TaskState, new: TaskState) -> None:
    if (old, new) in TRANSITIONS:
        check_transition(old, new)
    else:
        with pytest.raises(IllegalTransition, match=f"{old} → {new}"):
            check_transition(old, new)


def test_done_is_for_good_and_running_has_one_door() -> None:
    assert not [pair for pair in TRANSITIONS if pair[0] is S.DONE]
    assert [old for old, new in TRANSITIONS if new is S.RUNNING] == [S.QUEUED]
    assert {old for old, new in TRANSITIONS if new is S.QUEUED} == {S.INTERRUPTED, S.FAILED, S.ERRORED, S.CANCELLED}


def test_back_off_doubles_to_a_minute() -> None:
    assert [backoff(n) for n in (0, 1, 2, 3, 6, 7, 100)] == [1.0, 1.0, 2.0, 4.0, 32.0, 60.0, 60.0]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ([fact(S.QUEUED, P, 0)], (RunState.QUEUED, None)),
        ([fact(S.QUEUED, P, 1)], (RunState.RUNNING, None)),
        ([fact(S.DONE, P), fact(S.QUEUED, attempt=0)], (RunState.RUNNING, None)),
        ([fact(S.DONE, P), fact(S.RUNNING), fact(S.INTERRUPTED), fact(S.FAILED)], (RunState.RUNNING, None)),
        ([fact(S.INTERRUPTED), fact(S.QUEUED), fact(S.CANCELLED)], (RunState.INTERRUPTED, None)),
        ([fact(S.ERRORED), fact(S.CANCELLED), fact(S.FAILED), fact(S.DONE)], (RunState.ERRORED, None)),
        ([fact(S.CANCELLED), fact(S.FAILED), fact(S.DONE)], (RunState.CANCELLED, None)),
        ([fact(S.FAILED), fact(S.DONE)], (RunState.FAILED, None)),
        ([fact(S.DONE, P), fact(S.DONE)], (RunState.DONE, Verdict.PASSED)),
    ],
)
def test_a_run_is_what_its_tasks_are(facts: list[TaskFacts], expected: tuple[RunState, Verdict | None]) -> None:
    for order in itertools.permutations(facts):
        derived = derive(order)
        assert (derived.state, derived.verdict) == expected


def test_a_failing_batch_of_a_compare_run_is_a_class_of_its_units() -> None:
    done = fact(S.DONE, P)
    different = Derived(RunState.DONE, Verdict.DIFFERENT, None)
    assert derive([done, fact(S.FAILED)], comparison=Comparison(different=1)) == different
    assert derive([done, fact(S.DONE)], comparison=Comparison(different=1)) == different
    assert derive([done, fact(S.DONE)], comparison=Comparison()).verdict is Verdict.PASSED
    failed = derive([fact(S.FAILED, P, code="step_failed"), fact(S.CANCELLED)], comparison=Comparison())
    assert failed.state is RunState.CANCELLED
    failed = derive([fact(S.FAILED, P, code="step_failed"), done, fact(S.FAILED)], comparison=Comparison(left=True))
    assert (failed.state, failed.reason) == (RunState.FAILED, Reason("step_failed", "step_failed"))


def test_a_compare_run_goes_on_until_all_is_compared() -> None:
    facts = [fact(S.DONE, P), fact(S.DONE), fact(S.FAILED)]
    assert derive(facts, comparison=Comparison(left=True, different=1)).state is RunState.RUNNING
    cancelled = derive(facts, comparison=Comparison(left=True, cancelled=CANCELLED_BY))
    assert (cancelled.state, cancelled.reason) == (RunState.CANCELLED, CANCELLED_BY)
    assert derive(facts, comparison=Comparison(cancelled=CANCELLED_BY)).state is RunState.DONE


def test_a_run_that_stopped_itself_is_done_with_what_it_found() -> None:
    reason = Reason("fail_fast", "Stopped after 2 differing units (fail_fast).")
    facts = [fact(S.DONE, P), fact(S.DONE), fact(S.CANCELLED)]
    stopped = Comparison(different=2, stopped=reason)
    assert derive(facts, comparison=stopped) == Derived(RunState.DONE, Verdict.DIFFERENT, reason)
    assert derive(facts, comparison=replace(stopped, left=True)).state is RunState.RUNNING
    assert derive([*facts, fact(S.RUNNING)], comparison=stopped).state is RunState.RUNNING
    assert derive([*facts, fact(S.ERRORED)], comparison=stopped).state is RunState.ERRORED
    assert derive(facts, comparison=replace(stopped, cancelled=CANCELLED_BY)).state is RunState.CANCELLED
    assert derive(facts, comparison=Comparison(different=2)).state is RunState.CANCELLED


def test_a_leg_that_cannot_be_prepared_fails_the_run_though_the_other_one_was_stopped() -> None:
    facts = [fact(S.FAILED, P, code="step_failed"), fact(S.CANCELLED, code="leg_failed")]
    failed = derive(facts, comparison=Comparison(left=True, stopped=Reason("leg_failed", "…")))
    assert (failed.state, failed.reason) == (RunState.FAILED, Reason("step_failed", "step_failed"))


def test_the_reason_is_the_first_one_of_the_state() -> None:
    facts = [fact(S.FAILED, code="x"), fact(S.ERRORED), fact(S.ERRORED, code="one"), fact(S.ERRORED, code="two")]
    assert derive(facts).reason == Reason("one", "one")
    assert derive([fact(S.RUNNING, code="old")]).reason is None


facts_of_any_run = st.lists(
    st.builds(
        TaskFacts,
        st.sampled_from(TaskKind),
        st.sampled_from(S),
        st.integers(0, 3),
        st.none() | st.just(Reason("c", "t")),
    ),
    min_size=1,
    max_size=6,
)


@given(facts_of_any_run, st.none() | st.builds(Comparison, different=st.integers(0, 2)))
def test_a_run_is_final_when_all_its_tasks_are(facts: list[TaskFacts], comparison: Comparison | None) -> None:
    derived = derive(facts, comparison=comparison)
    assert derived.state.final == all(one.state in FINAL_TASK_STATES for one in facts)
    assert (derived.verdict is not None) == (derived.state is RunState.DONE)
