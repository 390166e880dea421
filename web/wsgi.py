"""The entry for gunicorn: `gunicorn -c python:web.gunicorn_conf 'web.wsgi:main()'`."""

from __future__ import annotations

import getpass
import os
import secrets
from pathlib import Path

from flask import Flask

from jobs.compose import build_service
from jobs.logs import configure_logging
from jobs.settings import settings_from_process
from web.app import create_app


def secret_key(path: Path) -> str:
    """Read the key that signs sessions and forms; make it at the first start, for this user only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text("ascii").strip()
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_hex(32))
    return path.read_text("ascii").strip()


def main() -> Flask:
    """Build the application from this process's settings."""
    configure_logging()
    settings = settings_from_process()
    return create_app(
        build_service(settings),
        secret_key=secret_key(settings.server.secret_key_file),
        user=getpass.getuser(),
    )
