"""Processes that end with the one that started them, whatever ended that."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1  # prctl(2)
_LIBC = ctypes.CDLL(None, use_errno=True)


def end_with_parent(parent: int, sign: signal.Signals) -> None:
    """Let the kernel send this new process a signal when its parent has ended; to be called before it does anything else.

    It also comes at the end of the thread that started this process. `parent` is what os.getpid() gave that one: if it
    ended before the kernel could be asked, this process ends here, with status 1.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, sign, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
