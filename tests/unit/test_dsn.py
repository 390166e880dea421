"""The form of a dsn, and what it says of TLS."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.dsn import check_certificates, check_dsn

CANARY = "canary-4711"
# Self-signed, for nobody; all that is looked at is that it can be read as certificates.
PEM = """-----BEGIN CERTIFICATE-----
MIIBeTCCAR+gAwIBAgIUKiT5McSY+qCwcsdCgeVznTu93b4wCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGbm9ib2R5MCAXDTI2MTEyMjAzMTA1N1oYDzIxMjYxMDI5MDMx
MDU3WjARMQ8wDQYDVQQDDAZub2JvZHkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AATyJ4wZ9lEBiGjr1GetUqN/9r+L9zSQ8mC7VP4qOS2axsSEhnEKsIvEKeZhr4P3
OhWb+ggVjB71yINW2ZAakjkgo1MwUTAdBgNVHQ4EFgQUhca2JrhVQjgH60yebLUE
LLGuc9wwHwYDVR0jBBgwFoAUhca2JrhVQjgH60yebLUELLGuc9wwDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiEAp4MaOoTRUWfy8WpCN2l10bPkk6Qx
+S4GjfdD5PZM4soCIAOSgy2GzHw4gKtDPzK+urFVafiMq0i3brmATW1Sq243
-----END CERTIFICATE-----
"""


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:p@h:5432/d", "postgres://h/d?sslmode=require", "host=h dbname=d", "service=books",
        "postgresql:///?dbname=d&host=/run", "host=h dbname=d sslmode=verify-full sslrootcert=/a.pem",
        "postgresql://h/d?sslmode=verify-ca&sslrootcert=/etc/ca%20files/a.pem",
        "host=h dbname=d sslmode = 'verify-ca' sslrootcert = '/it\\'s here.pem'", "postgresql://h/d?sslmode=require&sslrootcert=/a+b.pem",
    ],
)  # fmt: skip
def test_what_is_taken(text: str) -> None:
    assert check_dsn(text) == text


@pytest.mark.parametrize("form", ["postgresql://u:{canary}@h/d?{tls}", "host=h dbname=d password={canary} {tls}"])
@pytest.mark.parametrize(
    ("tls", "said"),
    [
        ("sslmode=verify-full", "has sslmode=verify-full and no sslrootcert: add sslrootcert=/path/of/ca.pem"),
        ("sslmode=verify-ca", "has sslmode=verify-ca and no sslrootcert"),
        ("sslmode=full", "has an sslmode that there is not: use disable, allow, prefer, require, verify-ca or verify-full"),
        ("sslrootcert=/a.pem", "has an sslrootcert, and sslmode=prefer checks nothing with it: add sslmode=verify-full"),
        ("sslmode=disable&sslrootcert=/a.pem", "sslmode=disable checks nothing with it"),
        ("sslmode=verify-ca&sslrootcert=a.pem", "has an sslrootcert that is no absolute path"),
        ("sslmode=verify-full&sslrootcert=system", "name the file with the certificates, /etc/ssl/certs/ca-certificates.crt"),
    ],
)  # fmt: skip
def test_what_is_refused(form: str, tls: str, said: str) -> None:
    text = form.format(canary=CANARY, tls=tls if "://" in form else tls.replace("&", " "))
    with pytest.raises(ValueError, match=r"sslmode|sslrootcert") as refused:
        check_dsn(text)
    assert said in str(refused.value)
    assert CANARY not in str(refused.value)


def test_certificates_are_read(tmp_path: Path) -> None:
    path = tmp_path / "the ca.pem"
    text = f"host=h dbname=d sslmode=verify-full sslrootcert='{path}'"
    for content, said in (
        (None, "not there: make the file"),
        (b"", "no certificates"),
        (b"\xff\x00", "no certificates"),
    ):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ValueError, match=said):
            check_certificates(text)
    path.write_text(PEM)
    assert check_certificates(text) == text
    with pytest.raises(ValueError, match=r"cannot be read|no certificates"):
        check_certificates(text.replace(str(path), str(tmp_path)))
    assert check_certificates("postgresql://h/d") == "postgresql://h/d"
