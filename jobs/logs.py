"""The log of a server's process."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import structlog


def configure_logging(file: Path | None = None) -> None:
    """Write one line an event to standard error, or to the end of a file; tracebacks without variables' values."""
    stream = sys.stderr if file is None else file.open("a", encoding="utf-8")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
