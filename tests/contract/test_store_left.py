"""Which runs go on when a server ends."""

from __future__ import annotations

from hands import Hands

from jobs.cli_server import runs_left


def test_what_has_begun_and_is_not_over_is_left(hands: Hands) -> None:
    assert runs_left(hands.store) == 0
    _, claim = hands.verifying(["a"])
    hands.submit()
    assert runs_left(hands.store) == 1
    hands.interrupt(claim, free=True)
    assert runs_left(hands.store) == 1, "it waits for the next start"
