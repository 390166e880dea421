from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from web_site import Site

UNITS = [f"tenant_{number:03}/pl" for number in range(50)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site.make(tmp_path)
    made.worker()
    yield made
    made.store.close()


def test_without_any_duration_nothing_is_estimated(site: Site) -> None:
    run = site.submit()
    assert site.service.estimate(run.id) is None
    site.prepare(UNITS)
    assert site.service.estimate(run.id) is None


def test_a_young_runs_pace_is_guessed_from_the_last_one(site: Site) -> None:
    last = site.passed(UNITS)
    run = site.submit()
    site.prepare(UNITS)
    claim = site.claim()
    found = site.service.estimate(run.id)
    assert found is not None
    assert found.basis == f"from run {last.id}"
    assert found.seconds_left == pytest.approx(50 * 2.5)
    site.mark(claim, claim.units[:10])
    again = site.service.estimate(run.id)
    assert again is not None
    assert again.seconds_left == pytest.approx(40 * 2.5)


def test_a_runs_own_units_count_when_there_are_enough(site: Site) -> None:
    site.passed(UNITS)
    run = site.submit()
    site.prepare(UNITS, batches=1)
    claim = site.claim()
    site.mark(claim, claim.units[:25])
    found = site.service.estimate(run.id)
    assert found is not None
    assert found.basis == "from this run's finished units"
    assert found.seconds_left == pytest.approx(25 * 2.5)
    assert found.units_per_minute == pytest.approx(24)


def test_a_commits_file_is_read_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from runner.adapters.git_memory import MemoryMirror

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
