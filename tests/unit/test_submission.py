"""What is refused of a submission before anything is done with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from web_site import Site

from jobs.projects import SpecRefused
from jobs.settings import load_settings
from jobs.submission import Submission, SubmissionRefused
from runner.errors import Conflict


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
        ({"options": {"speed": 1}}, "options", "no options"),
        ({"baseline": "v1"}, "baseline", "compare runs are not available yet"),
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


# ---- what the service refuses beyond that ----


def test_a_default_specification_that_vanished_is_named(tmp_path: Path) -> None:
    site = Site.make(tmp_path)
    config = tmp_path / "seatrial.toml"
    default = tmp_path / "default.yml"
    default.write_text("version: 1\nworkspace: {image: debian}\nrun: make check\n")
    text = config.read_text().replace("[projects.plain]", f'[projects.plain]\nspec = "{default}"')
    config.write_text(text)
    site.service._settings = load_settings(config, {"HOME": str(tmp_path)})
    assert site.submit("bare", "plain").candidate.spec_source == "the project's default (default.yml)"
    default.unlink()
    with pytest.raises(SpecRefused, match="cannot be read: No such file") as refused:
        site.submit("bare", "plain")
    assert (refused.value.field, refused.value.value) == ("ref", str(default))
    assert "projects.plain.spec" in str(refused.value.remedy)


def test_what_is_not_in_the_settings_any_more_is_not_run_again(tmp_path: Path) -> None:
    site = Site.make(tmp_path)
    run = site.passed()
    again = site.service.rerun(run.id, user="rin")
    assert (again.parent, again.candidate.commit, again.user) == (run.id, run.candidate.commit, "rin")
    config = tmp_path / "seatrial.toml"
    config.write_text(config.read_text().replace("[databases.verification]", "[databases.other]"))
    site.service._settings = load_settings(config, {"HOME": str(tmp_path)})
    with pytest.raises(Conflict, match=r"Database verification is not in seatrial\.toml any more"):
        site.service.rerun(run.id, user="rin")
    config.write_text(config.read_text().replace("[projects.accounts]", "[projects.renamed]"))
    site.service._settings = load_settings(config, {"HOME": str(tmp_path)})
    with pytest.raises(Conflict, match=r"Project accounts is not in seatrial\.toml any more"):
        site.service.rerun(run.id, user="rin")
