"""What is refused of a submission before anything is done with it."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.submission import Submission, SubmissionRefused


@pytest.mark.parametrize(
    ("fields", "key", "words"),
    [
        ({"project": ""}, "project", "name one of the projects"),
        ({"ref": ""}, "ref", "name a branch"),
        ({"priority": 101}, "priority", "-100 to 100"),
        ({"priority": -101}, "priority", "-100 to 100"),
        ({"priority": True}, "priority", "whole number"),
        ({"priority": 1.5}, "priority", "whole number"),
        ({"priority": "5"}, "priority", "whole number"),
        ({"note": "x" * 2_001}, "note", "2,000 characters at most"),
        ({"units": "x" * 2_001}, "units", "2,000 characters at most"),
        ({"note": "a\0b"}, "note", "NUL"),
        ({"units": "\0"}, "units", "NUL"),
        ({"ref": "main\0"}, "ref", "NUL"),
        ({"database": "v\0"}, "database", "NUL"),
        ({"note": "half a pair \ud83d"}, "note", "surrogate"),
        ({"ref": "\udcff"}, "ref", "surrogate"),
        ({"options": {"speed": 1}}, "options.speed", "no such option; known: compare"),
        ({"options": {"compare": "yes"}}, "options.compare", "true or false"),
        ({"options": {"compare": False}, "baseline": "v1"}, "options.compare", "leave out the baseline"),
        ({"options": {"merge_base": True}}, "options.merge_base", "name a baseline"),
        ({"baseline": ""}, "baseline", "a branch, a tag"),
        ({"baseline": "v\0"}, "baseline", "NUL"),
        ({"options": {"fail_fast": 3}}, "options.fail_fast", "name a baseline"),
        ({"options": {"noise": 2}}, "options.noise", "name a baseline"),
        ({"options": {"noise": 3}, "baseline": "v1"}, "options.noise", "use 1 or 2"),
        ({"options": {"fail_fast": -1}, "baseline": "v1"}, "options.fail_fast", "whole number"),
        ({"options": {"fail_fast": True}, "baseline": "v1"}, "options.fail_fast", "whole number"),
        ({"options": {"baseline_database": 7}}, "options.baseline_database", "name one"),
        ({"options": {"snapshot": "a b"}}, "options.snapshot", "db snapshots"),
        ({"options": {"snapshot": ""}}, "options.snapshot", "db snapshots"),
        ({"options": {"snapshot": 3}}, "options.snapshot", "db snapshots"),
        ({"options": {"baseline_snapshot": "a"}}, "options.baseline_snapshot", "name it in options.snapshot"),
        ({"options": {"baseline_database": ""}}, "options.baseline_database", "name one"),
        ({"options": {"baseline_database": "old"}, "baseline": "v1"}, "baseline", "both legs have the same commit"),
        ({"options": {"baseline_database": "old", "compare": True}}, "options.compare", "the same commit"),
        ({"options": {"baseline_database": "old", "merge_base": True}}, "options.merge_base", "the same commit"),
    ],
)
def test_a_wrong_field_is_named_with_its_remedy(fields: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(SubmissionRefused) as refused:
        Submission(**({"project": "accounts", "ref": "main"} | fields)).check()
    (problem,) = refused.value.problems
    assert problem.key == key
    assert words in problem.message
    assert len(problem.value or "") <= 80
    str(problem).encode()


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(SubmissionRefused) as refused:
        Submission("", "", priority=999, note="\0").check()
    assert [problem.key for problem in refused.value.problems] == ["project", "ref", "priority", "note"]


def test_what_is_allowed_is_allowed() -> None:
    Submission("accounts", "refs/pull/7/head", None, "tenant_*", "verification", -100, "é 😀\nline" * 100).check()


def test_the_same_request_has_the_same_body_and_another_has_not() -> None:
    one = Submission("accounts", "main", note="é")
    assert one.body() == Submission("accounts", "main", note="é").body()
    others = [Submission("accounts", "main"), Submission("accounts", "main", note="é", priority=1)]
    assert one.body() not in {other.body() for other in others}
