"""What a host may part with, on facts alone."""

from __future__ import annotations

from jobs.keeping import DAY, IDLE_SECONDS, LEAST_IDLE_SECONDS, Kept, images_to_retire, may_go_for_good, to_remove

NOW = 100 * DAY
SHORT = "1.2 GiB free for home (/srv), the reserve is 2 GiB"


def names(kept: list[Kept], lacking: str | None = None) -> list[str]:
    return [one.name for one in to_remove(kept, NOW, lacking=lacking)]


def test_what_nobody_used_for_a_month_goes_and_says_why() -> None:
    old, young = Kept("old", NOW - IDLE_SECONDS - DAY), Kept("young", NOW - IDLE_SECONDS + 1)
    (one,) = to_remove([young, old], NOW, lacking=None)
    assert (one.name, one.why, one.pressed) == ("old", "not used for 31d", False)


def test_a_host_that_runs_short_parts_with_the_least_recently_used_first() -> None:
    kept = [Kept("a", NOW - DAY), Kept("b", NOW - 3 * DAY), Kept("c", NOW - 2 * DAY)]
    assert names(kept) == []
    chosen = to_remove(kept, NOW, lacking=SHORT)
    assert [one.name for one in chosen] == ["b", "c", "a"]
    assert all(one.pressed for one in chosen)
    assert chosen[0].why == f"not used for 3d, and the host runs short: {SHORT}"


def test_what_was_used_a_moment_ago_stays_however_short_the_host_is() -> None:
    assert names([Kept("a", NOW - LEAST_IDLE_SECONDS), Kept("later", NOW + 5)], SHORT) == []


def test_what_a_living_run_needs_stays_with_all_that_was_used_after_it() -> None:
    # A layer lies on a base that was used with it, a moment later: the base is not named by any run.
    kept = [Kept("older", NOW - 50 * DAY), Kept("layer", NOW - 40 * DAY, needed=True), Kept("base", NOW - 40 * DAY + 1)]
    assert names(kept) == ["older"]
    assert names(kept, SHORT) == ["older"]
    # Used at the same time, and sorted before it by its name.
    assert names([Kept("a", NOW - 40 * DAY), Kept("b", NOW - 40 * DAY, needed=True)], SHORT) == []


def test_an_image_that_no_record_of_ours_names_stays() -> None:
    used = {"ours": (False, NOW - 40 * DAY), "living": (True, NOW - 60 * DAY), "gone": (False, 0.0)}
    chosen = images_to_retire(["ours", "living", "foreign"], used, NOW, lacking=SHORT)
    assert [one.name for one in chosen] == ["ours"]


def test_a_retired_image_goes_when_all_who_could_have_found_it_have_ended() -> None:
    assert may_go_for_good(50.0, None)
    assert may_go_for_good(50.0, 51.0)
    assert not may_go_for_good(50.0, 50.0)
    assert not may_go_for_good(50.0, 10.0)
