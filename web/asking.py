"""What every view asks of the request and the application."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from flask import current_app, request
from pydantic import BaseModel
from werkzeug.routing import BaseConverter, IntegerConverter

from runner.errors import RequestError
from web.schemas import MAX_ID

if TYPE_CHECKING:
    from jobs.service import Service
    from web.hub import Hub
    from web.loglines import LogIndexes

Q = TypeVar("Q", bound=BaseModel)


class IdConverter(IntegerConverter):
    """A record's number: digits that fit an SQL integer."""

    def __init__(self, map: object) -> None:  # noqa: A002 - werkzeug passes it under that name
        super().__init__(map, min=1, max=MAX_ID)  # type: ignore[arg-type]


class UnitConverter(BaseConverter):
    """A unit's name, which may contain slashes."""

    regex = r"[^/].*?"
    weight = 200
    part_isolating = False


def service() -> Service:
    return cast("Service", current_app.extensions["seatrial"])


def hub() -> Hub:
    return cast("Hub", current_app.extensions["seatrial.hub"])


def indexes() -> LogIndexes:
    return cast("LogIndexes", current_app.extensions["seatrial.indexes"])


def user() -> str:
    """Name who asks; without access control that is whoever can reach the loopback address."""
    return str(current_app.config["SEATRIAL_USER"])


def query(model: type[Q]) -> Q:
    """Read the query string; raises ValidationError that names unknown keys and bad values."""
    return model.model_validate({key: value for key, value in request.args.items() if value != ""})


def idempotency_key() -> str | None:
    """Read the Idempotency-Key header: at most 255 visible ASCII characters."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not 1 <= len(key) <= 255 or not all("!" <= letter <= "~" for letter in key):
        raise RequestError(
            "An idempotency key is 1 to 255 visible ASCII characters.",
            field="Idempotency-Key",
            value=key[:100],
            remedy="Send a UUID, for example.",
        )
    return key
