"""Leave alone for a while what could not be done, so that everything else gets its turn."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from runner.errors import InfraError, StoreUnavailable

AWAY_SECONDS = 10.0  # a server that does not answer is back soon
BROKEN_SECONDS = 60.0  # anything else is likely to wait for somebody to mend it

log = structlog.get_logger(__name__)


class Patience:
    """What could not be done lately, by its name. For the outermost frame of each thing that may fail by itself."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def ready(self, what: str) -> bool:
        """Tell whether it may be tried: it did not fail, or that was long enough ago."""
        return time.monotonic() >= self._until.get(what, 0.0)

    @contextmanager
    def guard(self, what: str) -> Iterator[None]:
        """Do it; an error is logged, and then it is not ready() for a while. Raises StoreUnavailable alone.

        Without the records nothing else can be done either.
        """
        try:
            yield
            self._until.pop(what, None)
        except StoreUnavailable:
            raise
        except InfraError as error:
            self._until[what] = time.monotonic() + AWAY_SECONDS
            log.warning("sweeper.postponed", what=what, code=error.code, error=error.text)
        except Exception as error:  # whatever is wrong with one thing, the others go on
            self._until[what] = time.monotonic() + BROKEN_SECONDS
            log.exception("sweeper.postponed", what=what, error=str(error))
