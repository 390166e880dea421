"""The policy of a pool, from its settings."""

from __future__ import annotations

from datetime import timedelta

from jobs.capacity import Policy
from jobs.idle_policy import Idle, IdleKind
from jobs.pool_settings import PoolSettings
from jobs.schedule import Schedule, Window


def policy_of(pool: PoolSettings, *, lease: float) -> Policy:
    """Give the policy; `lease`: of a task, in seconds."""
    windows = [*(Window.parse(text, 1) for text in pool.on_hours), *(Window.parse(text, 0) for text in pool.off_hours)]
    return Policy(
        min_running=pool.min_running,
        max_running=pool.max_running,
        idle=Idle(IdleKind(pool.idle_policy), _time(pool.idle)),
        minimum_run=timedelta(seconds=pool.minimum_run),
        boot=timedelta(seconds=pool.boot),
        prewarm=timedelta(seconds=pool.prewarm or 0.0),
        maximum_run=_time(pool.maximum_run),
        schedule=Schedule(tuple(windows), pool.time_zone),
        lease=timedelta(seconds=lease),
        grow=pool.launch_template is not None,
        grow_kinds=pool.types,
    )


def _time(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
