"""Check the form of a libpq connection string. No message repeats any of it: it holds a password."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
CHECKING = ("require", "verify-ca", "verify-full")  # `require` checks as verify-ca does when it is given certificates
_PAIR = re.compile(r"\b(sslmode|sslrootcert|dbname|service)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|(\S*))")


def check_dsn(text: str) -> str:
    """Give the text when it is a PostgreSQL connection string that names its database; raises ValueError."""
    if "\0" in text or not text.strip():
        raise ValueError("is empty: write postgresql://user:password@host/database")
    if re.match(r"[a-z+]+://", text):
        try:
            parts = urlsplit(text)
        except ValueError:
            raise ValueError("is not a URL: write postgresql://user:password@host/database") from None
        if parts.scheme not in ("postgresql", "postgres"):
            raise ValueError("must begin with postgresql://; only PostgreSQL is supported")
    elif "=" not in text:
        raise ValueError("must be postgresql://user:password@host/database or host=… dbname=…")
    given = _parameters(text)
    if not (given.get("dbname") or given.get("service")):
        raise ValueError("does not name its database: add /database at the end, or dbname=…")
    _check_mode(given)
    return text


def check_certificates(text: str) -> str:
    """Give the text of a checked dsn when the file of its sslrootcert holds certificates; raises ValueError."""
    path = _parameters(text).get("sslrootcert")
    if path is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
        except FileNotFoundError:
            raise ValueError("has an sslrootcert that is not there: make the file, or correct the path") from None
        except ssl.SSLError:
            raise ValueError("has an sslrootcert that holds no certificates in PEM form") from None
        except OSError as error:
            raise ValueError(f"has an sslrootcert that cannot be read: {error.strerror}") from None
    return text


def _check_mode(given: dict[str, str]) -> None:
    mode, certificates = given.get("sslmode", "prefer"), given.get("sslrootcert")
    if mode not in MODES:
        raise ValueError(f"has an sslmode that there is not: use {', '.join(MODES[:-1])} or {MODES[-1]}")
    if certificates is None:
        if mode.startswith("verify"):
            raise ValueError(
                f"has sslmode={mode} and no sslrootcert: add sslrootcert=/path/of/ca.pem, the certificates that sign "
                "the server's"
            )
        return
    if certificates == "system":
        raise ValueError(
            "has sslrootcert=system: name the file with the certificates, /etc/ssl/certs/ca-certificates.crt on Debian"
        )
    if not Path(certificates).is_absolute():
        raise ValueError("has an sslrootcert that is no absolute path")
    if mode not in CHECKING:
        raise ValueError(f"has an sslrootcert, and sslmode={mode} checks nothing with it: add sslmode=verify-full")


def _parameters(text: str) -> dict[str, str]:
    """Read what is looked at here from either form of a connection string."""
    if "://" not in text:
        return {key: re.sub(r"\\(.)", r"\1", quoted) or plain for key, quoted, plain in _PAIR.findall(text)}
    parts = urlsplit(text)
    found = dict(parse_qsl(parts.query.replace("+", "%2B")))  # a plus is a plus for libpq
    if parts.path.strip("/"):
        found["dbname"] = parts.path.strip("/")
    return found
