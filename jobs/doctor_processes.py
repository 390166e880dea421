"""Whether the processes run without which runs stand still, for `seatrial doctor`."""

from __future__ import annotations

from jobs.doctor import Finding, Level
from jobs.heartbeats import COMPARER, SWEEPER, Signs

WITHOUT = {
    SWEEPER: "nothing that was interrupted goes on by itself, and nothing is cleaned up",
    COMPARER: "no compare run comes to its end",
}


def judge_processes(signs: Signs | None) -> list[Finding]:
    """Judge by their signs of life; nothing is found where the store cannot be asked, or nobody ever used it."""
    if signs is None or not signs.seen:
        return []
    return [_judge(name, signs) for name in WITHOUT]


def _judge(name: str, signs: Signs) -> Finding:
    seen = signs.seen.get(name)
    if seen is not None and not signs.is_silent(name):
        return Finding(name, Level.OK, f"heard of {max(0.0, (signs.now - seen).total_seconds()):.0f} s ago")
    when = "was never heard of" if seen is None else f"was last heard of at {seen:%Y-%m-%d %H:%M:%S} UTC"
    remedy = f"Start it: seatrial {name} (`seatrial up` starts all of them); if it ends again, its log says why."
    return Finding(name, Level.WARNING, f"{when}: while it is away, {WITHOUT[name]}", remedy)
