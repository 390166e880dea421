"""What is taken from a repository and the settings when a run is made."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import update
from web_site import Site

from jobs.adapters.sql_schema import runs
from jobs.projects import SpecRefused
from jobs.settings import load_settings
from runner.adapters.git_memory import MemoryMirror
from runner.errors import Conflict


def test_a_commits_file_is_read_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    original = MemoryMirror.read_file

    def counted(self: MemoryMirror, sha: str, path: str, **more: int) -> bytes | None:
        reads.append(sha)
        return original(self, sha, path, **more)

    monkeypatch.setattr(MemoryMirror, "read_file", counted)
    first, second = site.submit(), site.submit()
    other = site.submit("main")
    assert first.candidate.spec_digest == second.candidate.spec_digest
    assert reads == [first.candidate.commit, other.candidate.commit]


def test_a_default_specification_that_vanished_is_named(site: Site, tmp_path: Path) -> None:
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


def test_what_is_not_in_the_settings_any_more_is_not_run_again(site: Site, tmp_path: Path) -> None:
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


def test_a_rerun_of_what_differed_is_not_run_again_without_what_differed(site: Site) -> None:
    run = site.passed()
    with site.store.database.write() as connection:
        connection.execute(update(runs).where(runs.c.id == run.id).values(options={"only_of": 77}))
    with pytest.raises(Conflict, match=r"repeats what differed in run 77, of which nothing is recorded any more"):
        site.service.rerun(run.id, user="rin")
