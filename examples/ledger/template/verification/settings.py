"""Settings for a command-line verification: one database, no web pages, no secrets."""

import os

from psycopg2.extensions import parse_dsn

# libpq's own reader takes every form of DATABASE_URL, also `postgresql:///name?host=/a/socket/directory`.
_dsn = parse_dsn(os.environ.get("DATABASE_URL", ""))

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _dsn.get("dbname") or os.environ["PGDATABASE"],
        "USER": _dsn.get("user") or os.environ.get("PGUSER", ""),
        "PASSWORD": _dsn.get("password", ""),
        "HOST": _dsn.get("host") or os.environ.get("PGHOST", ""),
        "PORT": _dsn.get("port") or os.environ.get("PGPORT", ""),
    }
}

INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django_ledger",
    "verification",
]

# No session and no signed cookie is ever made here, so the key protects nothing.
SECRET_KEY = "not-a-secret"

# django-ledger 0.8: no deprecated names. 0.7 does not know this setting.
DJANGO_LEDGER_USE_DEPRECATED_BEHAVIOR = False

USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
