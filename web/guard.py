"""Who may ask: host names, origins, headers that bind the browser, and the size of what is sent."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from flask import Flask, Response, request

from web.problems import WebError

LOOPBACK = ("localhost", "127.0.0.1", "::1")

# A submission is a few hundred bytes; a list of units a few hundred kilobytes at most.
BODY_LIMIT = 1 << 20

POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)


def host_name(netloc: str) -> str:
    """Give the name in `name`, `name:port` or `[::1]:port`, in lower case."""
    try:
        return (urlsplit(f"//{netloc}").hostname or "").lower()
    except ValueError:
        return ""


def register(app: Flask, hosts: Iterable[str] = LOOPBACK) -> None:
    """Refuse foreign host names and cross-site writes, and send the headers that bind the browser.

    The list of host names is the defence against DNS rebinding: a page of another site whose name was made to
    point here sends that name.
    """
    allowed = frozenset(name.lower() for name in hosts)
    app.config["MAX_CONTENT_LENGTH"] = BODY_LIMIT
    app.config["MAX_FORM_MEMORY_SIZE"] = BODY_LIMIT

    @app.before_request
    def check() -> None:
        name = host_name(request.headers.get("Host", ""))
        if name not in allowed:
            raise WebError(
                400,
                "host_refused",
                f"This server does not answer to the host name {name[:100]!r}.",
                remedy=f"Use one of: {', '.join(sorted(allowed))}.",
            )
        if request.method not in ("GET", "HEAD", "OPTIONS"):
            check_origin(allowed)

    @app.after_request
    def bind(response: Response) -> Response:
        headers = response.headers
        headers.setdefault("Content-Security-Policy", POLICY)
        headers.setdefault("X-Content-Type-Options", "nosniff")
        headers.setdefault("Referrer-Policy", "same-origin")
        headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
        headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        headers.setdefault("X-Frame-Options", "DENY")
        if request.endpoint != "static":
            headers.setdefault("Cache-Control", "no-store")
        return response


def check_origin(allowed: frozenset[str]) -> None:
    """Refuse a write that a page of another site makes the browser send."""
    site = request.headers.get("Sec-Fetch-Site", "none")
    origin = request.headers.get("Origin")
    own = origin is None or (host_name(urlsplit(origin).netloc) in allowed and origin != "null")
    if origin is not None and own:
        own = urlsplit(origin).netloc.lower() == request.headers.get("Host", "").lower()
    if site not in ("none", "same-origin") or not own:
        raise WebError(
            403, "cross_site", "Another site asked for this.", remedy="Send the request from Seatrial's own pages."
        )


def require_json() -> None:
    """Refuse a body that is not declared as JSON: a form of another site cannot declare that."""
    if request.mimetype != "application/json":
        given = request.mimetype or "none"
        raise WebError(
            415,
            "media_type",
            f"The API takes JSON only, not {given[:100]}.",
            remedy="Send the header Content-Type: application/json.",
        )


def seal(response: Response) -> Response:
    """Mark an answer that holds a branch's own bytes: never a page, never run, never guessed at."""
    response.headers["Content-Security-Policy"] = "sandbox; default-src 'none'"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
