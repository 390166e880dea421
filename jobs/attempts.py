"""What an attempt did with its task's units: what it found finished, finished itself, and had to repeat. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from jobs.run import Attempt, TaskState

Key = tuple[int, int]  # task, attempt


@dataclass(frozen=True)
class Container:
    """An execution: which attempt began it, when it ended, and how, where its own end was seen."""

    task: int
    attempt: int
    ended_at: datetime | None
    exit_code: int | None
    abandoned: bool = False


@dataclass(frozen=True)
class Work:
    """An attempt's work.

    `kept`: units that earlier attempts had finished, which were not run again. `finished`: those that it finished
    itself; `failed` of them failed. `void`: finished ones that it had to take back, to run them again. `adopted`: it went
    on with a container that an earlier attempt had left running. `begun_again`: whatever was in flight when the attempt
    before it was cut off had to begin again.
    """

    kept: int
    finished: int
    void: int
    adopted: bool
    begun_again: bool
    failed: int = 0


def works(
    attempts: Sequence[Attempt],
    finished: Mapping[Key, int],
    failed: Mapping[Key, int],
    void: Mapping[Key, int],
    containers: Sequence[Container],
) -> dict[Key, Work]:
    """Tell the work of each attempt of a run; `attempts` in any order."""
    found: dict[Key, Work] = {}
    kept: dict[int, int] = {}
    cut_off: dict[int, bool] = {}  # whether the last attempt of a task that had a container was interrupted
    began = {(made.task, made.attempt) for made in containers}
    for one in sorted(attempts, key=lambda attempt: (attempt.task, attempt.attempt)):
        key, task = (one.task, one.attempt), one.task
        adopted = _adopted(one, containers)
        found[key] = Work(
            kept=kept.get(task, 0),
            finished=finished.get(key, 0),
            void=void.get(key, 0),
            adopted=adopted,
            begun_again=key in began and cut_off.get(task, False) and not adopted,
            failed=failed.get(key, 0),
        )
        kept[task] = kept.get(task, 0) + finished.get(key, 0)
        if adopted or key in began:
            cut_off[task] = one.outcome == TaskState.INTERRUPTED.value
    return found


def _adopted(one: Attempt, containers: Sequence[Container]) -> bool:
    """Tell whether an earlier attempt's container still ran, or its end was still to be taken, when this one began."""
    earlier = [made for made in containers if made.task == one.task and made.attempt < one.attempt]
    for made in earlier:
        if made.ended_at is None and not made.abandoned:
            return True
        if made.ended_at is not None and made.ended_at >= one.started_at and made.exit_code is not None:
            return True
    return False
