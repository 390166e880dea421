"""How a pool of machines is run: the settings that a decision needs, as one value."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from jobs.idle_policy import Idle
from jobs.schedule import Schedule


@dataclass(frozen=True)
class Policy:
    """How a pool is run.

    `max_running`: None is no limit. `minimum_run`: a started machine stays on at least so long. `boot`: how long one takes from
    its start to its first task. `prewarm`: for how long an opened form keeps one machine ready; zero: not at all.
    `maximum_run`, `register`, `silent`: after how long a machine that runs, is not heard of after its start, or no more, raises
    an alarm. `lease`: of a task. `answer`: how long a draining machine may take to say what it does; one that says that
    it is busy, or nothing, is asked again after `ask_again`. `grow`: machines may be launched from a template, of the first of
    `grow_kinds` that is to be had (none: the template's own type).
    """

    min_running: int = 0
    max_running: int | None = None
    idle: Idle = field(default_factory=Idle)
    minimum_run: timedelta = timedelta(0)
    boot: timedelta = timedelta(seconds=60)
    prewarm: timedelta = timedelta(seconds=90)
    maximum_run: timedelta | None = timedelta(hours=24)
    register: timedelta = timedelta(minutes=10)
    silent: timedelta = timedelta(minutes=2)
    schedule: Schedule = field(default_factory=Schedule)
    lease: timedelta = timedelta(seconds=5)
    answer: timedelta = timedelta(minutes=1)
    ask_again: timedelta = timedelta(minutes=5)
    grow: bool = False
    grow_kinds: tuple[str, ...] = ()
