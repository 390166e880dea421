"""What is over, by which rule; and for how long the clocks have gone together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.pruning import Steady
from jobs.retention import BETWEEN_SECONDS, Ended, Rule, Rules, for_want_of_room, over, rules_of
from jobs.settings import Settings, SettingsError, load_settings

DAY = 86_400.0
NOW = 1_000 * DAY
OUTPUTS = Rule(90 * DAY, "server.keep_outputs")
RUNS = Rule(365 * DAY, "server.keep_runs")
NEVER = Rule(None, "server.keep_runs")


def chosen(one: Ended, outputs: Rule = OUTPUTS, runs: Rule = RUNS) -> list[tuple[str, str]]:
    return [(found.what, found.rule.setting) for found in over([one], Rules(outputs, runs), NOW)]


def ended(days: float, *, removed: float | None = None, **more: Any) -> Ended:
    return Ended(7, "p", NOW - days * DAY, None if removed is None else NOW - removed, **more)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (ended(89.9), []),
        (ended(90.1), [("outputs", "server.keep_outputs")]),
        (ended(400), [("outputs", "server.keep_outputs")]),  # first its outputs, later itself
        (ended(400, removed=BETWEEN_SECONDS - 1), []),
        (ended(400, removed=BETWEEN_SECONDS + 1), [("run", "server.keep_runs")]),
        (ended(364.9, removed=DAY), []),
        (ended(400, needed=True), []),
        (ended(400, removed=DAY, needed=True), []),
        (ended(400, removed=DAY, measure=True), []),
        (ended(400, measure=True), [("outputs", "server.keep_outputs")]),  # durations stay without them
    ],
)
def test_what_is_over(one: Ended, expected: list[tuple[str, str]]) -> None:
    assert chosen(one) == expected


def test_what_is_kept_for_ever_stays() -> None:
    assert chosen(ended(10_000), Rule(None, "server.keep_outputs"), NEVER) == []
    assert chosen(ended(10_000, removed=DAY), OUTPUTS, NEVER) == []


def test_outputs_go_with_their_run_at_the_latest() -> None:
    forever = Rule(None, "server.keep_outputs")
    assert chosen(ended(400), forever) == [("outputs", "server.keep_runs")]
    assert chosen(ended(400, measure=True), forever) == [], "and stay with a run that stays"
    assert chosen(ended(364), forever) == []


def test_for_want_of_room_go_those_that_were_used_longest_ago() -> None:
    runs = [Ended(1, "p", 30.0), Ended(2, "p", 10.0), Ended(3, "q", 20.0), Ended(4, "p", 5.0)]
    assert for_want_of_room(runs, {}) == [4, 2, 3, 1]
    assert for_want_of_room(runs, {4: 25.0, 1: 3.0}) == [2, 3, 4, 1]


@pytest.mark.parametrize("more", [{"needed": True}, {"measure": True}, {"outputs_removed_at": 6.0}])
def test_for_want_of_room_nothing_goes_that_is_needed_or_gone(more: dict[str, Any]) -> None:
    assert for_want_of_room([Ended(1, "p", 5.0, **more)], {}) == []


def test_a_project_that_keeps_its_outputs_for_ever_is_pinned_and_the_servers_word_pins_nothing(tmp_path: Path) -> None:
    text = """
        [server]
        keep_outputs = "forever"
        [projects.a]
        repository = "/srv/a.git"
        [projects.b]
        repository = "/srv/b.git"
        keep_outputs = "forever"
        """
    found = settings(tmp_path, text)
    assert [rules_of(found, project).pinned for project in ("a", "b", "gone")] == [False, True, False]


def settings(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "seatrial.toml"
    file.write_text(text)
    return load_settings(file, {"HOME": str(tmp_path)})


def test_a_project_has_its_own_rules_or_the_servers(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        """
        [server]
        keep_outputs = "30d"
        keep_runs = "400d"
        [projects.kept]
        repository = "/srv/kept.git"
        keep_outputs = "forever"
        keep_runs = "40d"
        [projects.plain]
        repository = "/srv/plain.git"
        """,
    )
    assert (
        rules_of(found, "plain")
        == rules_of(found, "no-more")
        == Rules(Rule(30 * DAY, "server.keep_outputs"), Rule(400 * DAY, "server.keep_runs"))
    )
    assert rules_of(found, "kept") == Rules(
        Rule(None, "projects.kept.keep_outputs"), Rule(40 * DAY, "projects.kept.keep_runs")
    )
    assert rules_of(found, "plain").outputs.why == "30d after the run's end (server.keep_outputs)"


def test_outputs_stay_for_ninety_days_and_runs_for_ever(tmp_path: Path) -> None:
    server = settings(tmp_path, "").server
    assert (server.keep_outputs, server.keep_runs, server.keep_outputs_at_least) == (90 * DAY, None, None)
    assert settings(tmp_path, '[server]\nkeep_outputs_at_least = "14d"').server.keep_outputs_at_least == 14 * DAY


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('keep_outputs = "59m"', "1h to 3650d, or forever"),
        ("keep_outputs = 90", "has no unit"),
        ('keep_outputs = "never"', "or forever"),
        ('keep_runs = "34d"', "35d to 3650d"),
        ('keep_outputs_at_least = "23h"', "1d to 3650d"),
        ("keep_runs = true", "or forever"),
    ],
)
def test_a_time_that_cannot_be_is_refused(tmp_path: Path, line: str, text: str) -> None:
    with pytest.raises(SettingsError) as refused:
        settings(tmp_path, f"[server]\n{line}\n")
    (problem,) = refused.value.problems
    assert text in str(problem)


def test_the_environment_says_forever_too(tmp_path: Path) -> None:
    variables = {"HOME": str(tmp_path), "SEATRIAL_SERVER__KEEP_OUTPUTS": "forever", "SEATRIAL_SERVER__KEEP_RUNS": "36d"}
    server = load_settings(None, variables).server
    assert (server.keep_outputs, server.keep_runs) == (None, 36 * DAY)


def test_a_machine_that_slept_is_not_steady() -> None:
    wall, uptime = 5_000_000.0, 100.0
    steady = Steady(lambda: wall, lambda: uptime)
    for _ in range(40):
        wall, uptime = wall + 100.5, uptime + 100.0  # a clock that goes a little wrong
        steady.seconds()
    assert steady.seconds() == 4_000.0
    wall += 2 * DAY
    assert steady.seconds() == 0.0
    wall, uptime = wall + 60.0, uptime + 60.0
    assert steady.seconds() == 60.0
    wall -= DAY
    assert steady.seconds() == 0.0
