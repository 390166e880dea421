"""Errors as RFC 9457 problem documents for programs, and as a page that teaches for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog
from flask import Flask, Response, make_response, render_template, request
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES

from runner.errors import InfraError, RequestError
from web.schemas import ProblemItem, ProblemOut

log = structlog.get_logger(__name__)

# How much of a refused value is worth repeating.
VALUE_LIMIT = 200


class WebError(RequestError):
    """The request cannot be answered."""

    def __init__(self, status: int, code: str, text: str, *, remedy: str | None = None, **more: Any) -> None:
        super().__init__(text, remedy=remedy, **more)
        self.http_status = status
        self.http_code = code


REMEDIES = {
    400: "Check the request against the documentation in docs/api.md.",
    404: "Go back to the list of runs; what you look for may have another number.",
    405: "Use one of the methods that the Allow header names.",
    413: "Send less: a request's body may have at most 1 MiB.",
    415: "Send JSON, with the header Content-Type: application/json.",
}


def from_request_error(error: RequestError) -> ProblemOut:
    """Give the document of a refused request."""
    items = [
        ProblemItem(key=p.key, message=p.message, value=_short(p.value), line=p.line, column=p.column)
        for p in error.problems
    ]
    if not items and error.field is not None:
        said = error.text.removesuffix(error.remedy or "").rstrip()  # some end with what can be done about it
        items = [ProblemItem(key=error.field, message=said, value=_short(error.value), remedy=error.remedy)]
    status = error.http_status if isinstance(error, WebError) else error.status
    code = error.http_code if isinstance(error, WebError) else error.code
    told = any(item.remedy for item in items)
    detail = f"{error.text} {error.remedy}" if error.remedy and not told else error.text
    return problem(status, code, detail, items)


def from_validation(error: ValidationError, *, status: int = 422) -> ProblemOut:
    """Give the document of a body or query that has not the shape asked for."""
    items = []
    for fault in error.errors(include_url=False, include_context=False):
        key = ".".join(str(part) for part in fault["loc"]) or "body"
        message, remedy = _say(fault["type"], fault["msg"])
        value = fault.get("input")
        shown = None if fault["type"] == "missing" or isinstance(value, dict | bytes) else _short(str(value))
        items.append(ProblemItem(key=key, message=message, value=shown, remedy=remedy))
    named = ", ".join(item.key for item in items)
    return problem(status, "invalid", f"The request is not valid: {named}.", items)


def _say(kind: str, message: str) -> tuple[str, str | None]:
    if kind == "extra_forbidden":
        return "there is no such key", "Leave it out, or check its spelling."
    if kind == "missing":
        return "is required", "Add it."
    return message[:1].lower() + message[1:], None


def _short(value: str | None) -> str | None:
    if value is None or len(value) <= VALUE_LIMIT:
        return value
    return f"{value[:VALUE_LIMIT]}… ({len(value)} characters)"


def problem(status: int, code: str, detail: str, errors: Sequence[ProblemItem] = ()) -> ProblemOut:
    """Put a problem document together."""
    return ProblemOut(
        type=f"urn:seatrial:problem:{code}",
        title=HTTP_STATUS_CODES.get(status, "Error"),
        status=status,
        detail=detail,
        code=code,
        errors=list(errors),
    )


def wants_json() -> bool:
    """Tell whether the request was made to the API rather than to a page."""
    return request.path.startswith("/api/") or request.path in ("/healthz", "/metrics")


def respond(found: ProblemOut, headers: Sequence[tuple[str, str]] = ()) -> Response:
    """Answer with a problem: as a document for programs, as a page for people."""
    if wants_json():
        response = make_response(found.model_dump_json(exclude_none=True))
        response.mimetype = "application/problem+json"
    elif request.headers.get("HX-Request"):
        response = make_response(render_template("_problem.html", problem=found))
    else:
        response = make_response(render_template("error.html", problem=found, remedy=REMEDIES.get(found.status)))
    response.status_code = found.status
    for name, value in headers:
        response.headers[name] = value
    if found.status == 503:
        response.headers["Retry-After"] = "10"
    return response


def register(app: Flask) -> None:
    """Install the handlers; the outermost one says that something broke and shows no more."""

    @app.errorhandler(RequestError)
    def refused(error: RequestError) -> Response:
        return respond(from_request_error(error))

    @app.errorhandler(InfraError)
    def unavailable(error: InfraError) -> Response:
        log.error("request not served", method=request.method, path=request.path, code=error.code, error=error.text)
        return respond(problem(503, error.code, f"{error.text} Nothing was lost: ask again in a moment."))

    @app.errorhandler(ValidationError)
    def invalid(error: ValidationError) -> Response:
        return respond(from_validation(error))

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> Response:
        status = error.code or 500
        detail = error.description or "The request cannot be answered."
        kept = [
            (name, value)
            for name, value in error.get_headers(request.environ)
            if name.lower() in ("allow", "location", "retry-after")
        ]
        code = HTTP_STATUS_CODES.get(status, "error").lower().replace(" ", "_")
        if error.response is not None:  # a redirect to the canonical address
            return make_response(error.response)
        return respond(problem(status, code, detail), kept)

    @app.errorhandler(Exception)
    def broken(error: Exception) -> Response:
        log.error("request failed", method=request.method, path=request.path, exc_info=error)
        return respond(problem(500, "internal", "Something broke inside Seatrial. The server's log has the details."))
