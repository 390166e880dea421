"""See when the processes of a container on this host are gone, some 0.1 s before its engine has cleared up and says so."""

from __future__ import annotations

import os
import select
from pathlib import Path

from runner.adapters.memory_limit import MemoryLimit


class ProcessWatch:
    """A `Watch` (see runner.ports) of a container's first process.

    When that one ends, the kernel has ended all others of its process namespace before it tells.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._memory: MemoryLimit | None = None
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    @classmethod
    def open(cls, pid: int, container: str) -> ProcessWatch | None:
        """Watch process `pid` of the container with this id; None when this host's process table does not show it so.

        It does not where the engine or the worker has a process table of its own. Raises ProcessLookupError when there
        is no such process, or one that has ended and that nobody has waited for yet.
        """
        try:
            watch = cls(os.pidfd_open(pid))
        except ProcessLookupError:
            raise
        except OSError:  # no such call
            return None
        try:
            # After it was opened: the number may have been given to another process before, but not since.
            groups = Path(f"/proc/{pid}/cgroup").read_text()
        except OSError:  # no /proc, or it ends at this moment
            groups = ""
        # Asked last: what ends loses its control group before it is waited for.
        if watch.gone(0):
            watch.close()
            raise ProcessLookupError(f"process {pid} has ended")
        if container in groups:
            watch._memory = MemoryLimit(groups, container)
            return watch
        watch.close()
        return None

    def gone(self, seconds: float) -> bool:
        """Wait so long at most; tell whether all of its processes are gone."""
        return bool(self._poll.poll(seconds * 1000))

    def look(self) -> None:
        """See how far it is from its limit of memory."""
        if self._memory is not None:
            self._memory.look()

    def kept_its_memory(self) -> bool:
        """Tell, after its end, whether it certainly did not reach its own limit of memory."""
        return self._memory is not None and self._memory.kept()

    def close(self) -> None:
        """Let go of it; safe to call twice."""
        if self._descriptor >= 0:
            self._poll.unregister(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


class Gone:
    """The `Watch` of a container that has ended."""

    def gone(self, seconds: float) -> bool:
        """Tell at once that it is gone, whatever the time given."""
        return seconds >= 0

    def look(self) -> None:
        """There is nothing left to see."""

    def kept_its_memory(self) -> bool:
        """Tell that nobody has seen it."""
        return False

    def close(self) -> None:
        """There is nothing to let go of."""
