"""The log of a server's process."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import structlog


class Lines:
    """Write text to a file descriptor, unbuffered. A full disk ends no process: what is lost is counted, and told later."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lost = 0

    def write(self, text: str) -> int:
        """Write a line, whole or not at all."""
        told = f"{self._lost} lines of this log could not be written\n" if self._lost else ""
        try:
            os.write(self._descriptor, f"{told}{text}".encode(errors="replace"))
            self._lost = 0
        except OSError:
            self._lost += 1
        return len(text)

    def flush(self) -> None:
        """Do nothing: nothing is held back."""


def configure_logging(file: Path | None = None) -> None:
    """Write one line an event to standard error, or to the end of a file; tracebacks without variables' values."""
    flags = os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC
    descriptor = sys.stderr.fileno() if file is None else os.open(file, flags, 0o644)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(
                colors=os.isatty(descriptor), exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=Lines(descriptor)),  # type: ignore[arg-type]
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
