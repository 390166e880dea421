"""For how long a pool had nothing to do before work came, or a form was opened. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def gaps_of(works: Sequence[tuple[float, float | None]], forms: Sequence[float] = ()) -> tuple[float, ...]:
    """Give the idle times in seconds, oldest first: between the end of all work and what came next.

    `works`: (came in, ended or None while it goes on), in any order. `forms`: when one was opened. What came while there
    was work makes no gap; an opened form ends one, and the next begins with it.
    """
    if not works:
        return ()
    first = min(came for came, _ in works)
    happened = sorted([*works, *((form, form) for form in forms if form >= first)], key=lambda one: one[0])
    found: list[float] = []
    until: float | None = None
    for came, ended in happened:
        if until is not None and came > until:
            found.append(came - until)
        until = float("inf") if ended is None else max(ended, until or ended)
    return tuple(found)
