"""Walk the stages of a task, one after the other."""

from __future__ import annotations

import errno

from runner.errors import DiskFull
from runner.execution import Runtime
from runner.model import Order, Prepared, TaskKind
from runner.ports import Recorder
from runner.stages import PREPARE, VERIFY, State, prepared


def run(order: Order, runtime: Runtime, recorder: Recorder) -> Prepared | None:
    """Do the task. Gives what a preparation found, None for a batch that ended well.

    Raises a BranchError for a verdict, an InfraError for an interruption; Cancelled, Drained or Fenced when the task
    is not to go on in these hands.
    """
    state = State(order, runtime, recorder)
    try:
        for stage in PREPARE if order.kind is TaskKind.PREPARE else VERIFY:
            recorder.check()
            state = stage(state)
        recorder.flush()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"The host's disk is full: {error}") from error
        raise
    return prepared(state) if order.kind is TaskKind.PREPARE else None
