"""The Flask application: put together by `create_app`, never at import."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Flask, current_app, request
from flask_wtf.csrf import CSRFProtect

from jobs.noise import words as noise_words
from web import (
    acceptapi,
    acceptpage,
    api,
    asking,
    capacityapi,
    capacitypage,
    capacitywords,
    datawords,
    diffapi,
    diffpage,
    diffwords,
    files,
    guard,
    health,
    legwords,
    links,
    openapi,
    pages,
    present,
    problems,
    report,
    schemas,
    stream,
    submit,
    words,
)
from web.hub import Hub
from web.loglines import LogIndexes
from web.runpage import RunPages

if TYPE_CHECKING:
    from jobs.service import Service

VIEWERS = 300

# The banner of problems need not be newer than this; asking costs a query.
HEALTH_SECONDS = 5.0


def create_app(
    service: Service,
    *,
    secret_key: str | bytes,
    user: str = "local",
    hosts: Iterable[str] = guard.LOOPBACK,
    viewers: int = VIEWERS,
    config: Mapping[str, Any] | None = None,
) -> Flask:
    """Build the application on a service.

    `user`: who every request counts as while there is no access control. `hosts`: host names that it answers to.
    `viewers`: how many live streams it holds at once.
    """
    # The version is part of the path, so that modules which import each other by relative names stay of one kind.
    app = Flask(__name__, static_url_path=f"/static/{assets_version()}")
    app.config.update(
        SECRET_KEY=secret_key,
        SEATRIAL_USER=user,
        SESSION_COOKIE_NAME="seatrial",
        SESSION_COOKIE_SAMESITE="Lax",
        SEND_FILE_MAX_AGE_DEFAULT=31_536_000,
        WTF_CSRF_TIME_LIMIT=None,
    )
    app.config.update(config or {})
    app.url_map.merge_slashes = False
    app.url_map.converters |= {"id": asking.IdConverter, "unit": asking.UnitConverter}
    app.jinja_options = {"trim_blocks": True, "lstrip_blocks": True}

    guard.register(app, hosts)
    csrf = CSRFProtect(app)
    indexes = LogIndexes(service)
    _templates(app)
    run_pages = RunPages(service, indexes, app.jinja_env)
    hub = Hub(service, viewers=viewers, render=run_pages.render)
    app.extensions |= {
        "seatrial": service,
        "seatrial.hub": hub,
        "seatrial.indexes": indexes,
        "seatrial.pages": run_pages,
    }
    health.register(app, service, hub)
    problems.register(app)
    programs = (api.blueprint, acceptapi.blueprint, capacityapi.blueprint, diffapi.blueprint)
    for blueprint in (*programs, files.blueprint, stream.blueprint):
        csrf.exempt(blueprint)  # guarded by content type and origin instead: programs hold no form token
        app.register_blueprint(blueprint, url_prefix=links.API)
    app.register_blueprint(report.blueprint)
    app.register_blueprint(report.blueprint, url_prefix=links.API, name="api_report")
    shown = (pages.blueprint, diffpage.blueprint, acceptpage.blueprint, capacitypage.blueprint, submit.blueprint)
    for blueprint in (openapi.blueprint, health.blueprint, *shown):
        app.register_blueprint(blueprint)
    _banner(app, service)
    return app


def _templates(app: Flask) -> None:
    """Give templates the words and addresses that they use."""
    env = app.jinja_env
    env.globals |= {"links": links, "present": present, "diffwords": diffwords, "datawords": datawords}
    env.globals |= {"legwords": legwords, "capacitywords": capacitywords}
    env.filters |= {
        "number": words.number,
        "plural": words.plural,
        "duration": words.duration,
        "size": words.size,
        "ago": words.ago,
        "moment": words.moment,
        "clock": words.clock,
        "soon": words.soon,
        "with_runs": words.with_runs,
        "rfc3339": schemas.rfc3339,
        "short": links.commit,
        "task_title": words.task_title,
        "delta": diffwords.delta,
        "diffword": lambda name: diffwords.LENIENCIES.get(name, name),
        "noise": noise_words,
        "amount": diffwords.amount,
        "percent": diffwords.percent,
    }
    env.globals["static"] = lambda name: f"{app.static_url_path}/{name}"


def assets_version() -> str:
    """Name the state of the static files: they can be kept by browsers for as long as it stays."""
    digest = hashlib.sha256()
    for path in sorted((Path(__file__).parent / "static").rglob("*")):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _banner(app: Flask, service: Service) -> None:
    """Show on each page what is wrong with the server, asked for at most every few seconds."""
    held: list[tuple[float, list[str]]] = [(float("-inf"), [])]

    @app.context_processor
    def around() -> dict[str, object]:
        def troubles() -> list[str]:
            at, found = held[0]
            if time.monotonic() - at > HEALTH_SECONDS:
                found = service.healthy() or service.pool_alarms()
                held[0] = (time.monotonic(), found)
            return found

        return {"troubles": troubles, "user": current_app.config["SEATRIAL_USER"], "here": request.path}


def follow_server(app: Flask, stopping: Callable[[], bool]) -> None:
    """Let go of live viewers as soon as the server stops, so that it need not wait for them."""
    app.extensions["seatrial.hub"].stop_when(stopping)
