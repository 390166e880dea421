from __future__ import annotations

import base64
from pathlib import Path

import pytest

from runner.adapters.git_command import reason
from runner.adapters.git_remote import GitCredentials, Remote
from runner.errors import RequestError


@pytest.mark.parametrize(
    ("url", "transport"),
    [
        ("https://example.org/a/b.git", "https"),
        ("http://example.org/a/b.git", "http"),
        ("ssh://git@example.org:2222/a/b.git", "ssh"),
        ("git@example.org:a/b.git", "ssh"),
        ("example.org:b.git", "ssh"),
        ("file:///srv/b.git", "file"),
        ("/srv/b.git", "file"),
    ],
)
def test_allowed_addresses(url: str, transport: str) -> None:
    remote = Remote.parse(url)
    assert remote.transport == transport
    assert remote.environment()["GIT_ALLOW_PROTOCOL"] == transport


@pytest.mark.parametrize(
    "url",
    [
        "",
        "-x",
        "--upload-pack=touch pwned",
        "ext::sh -c touch% pwned",
        "ext::sh",
        "fd::7",
        "git://example.org/a",
        "ftp://example.org/a",
        "https://",
        "https://user:secret@example.org/a",
        "ssh://-oProxyCommand=x/a",
        "ssh://-oProxyCommand=x@example.org/a",
        "-oProxyCommand=x:a",
        "file://host/a",
        "https://example.org:port/a",
        "https://example.org/a\nb",
        "relative/path",
        "../up",
        "C:",
        "https://[::1/a",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(RequestError) as caught:
        Remote.parse(url)
    assert caught.value.field == "repository"
    assert caught.value.remedy
    assert "secret" not in f"{caught.value.text}{caught.value.value}"


def test_a_token_is_not_sent_in_the_clear() -> None:
    with pytest.raises(RequestError, match="unencrypted"):
        Remote.parse("http://example.org/a", GitCredentials(token="canary"))


def test_a_token_is_in_no_representation_and_is_scrubbed() -> None:
    remote = Remote.parse("https://example.org/a", GitCredentials(token="canary-token"))
    header = base64.b64encode(b"x-access-token:canary-token").decode()
    assert "canary" not in repr(remote)
    assert header in dict(remote.config())["http.https://example.org/a.extraHeader"]
    assert remote.scrub(f"fatal: canary-token {header} https://u:p@h/") == "fatal: *** *** https://h/"
    assert "canary" not in "".join(remote.environment().values())


def test_an_ssh_key_is_quoted_and_the_only_one() -> None:
    command = Remote.parse("git@h:a", GitCredentials(ssh_key_file=Path("/k/a b'; touch x"))).environment()
    assert "-o BatchMode=yes" in command["GIT_SSH_COMMAND"]
    assert "-o IdentitiesOnly=yes -i '/k/a b'\"'\"'; touch x'" in command["GIT_SSH_COMMAND"]


@pytest.mark.parametrize(
    ("stderr", "words"),
    [
        ("fatal: could not read Username for 'https://h': terminal prompts disabled", "password"),
        ("git@h: Permission denied (publickey).\nfatal: Could not read from remote repository.", "ssh key"),
        ("fatal: unable to access 'https://h/': Could not resolve host: h", "resolved"),
        ("fatal: unable to access 'https://h/': The requested URL returned error: 301", "moved"),
        ("fatal: detected dubious ownership in repository at '/srv/x'", "another user"),
        ("fatal: '/srv/x' does not appear to be a git repository", "no git repository"),
        ("error: inflate: data stream error\nfatal: index-pack failed", "damaged"),
        ("fatal: something \x1b[31mnew", "something ?[31mnew"),
        ("noise", ""),
    ],
)
def test_reasons_are_words(stderr: str, words: str) -> None:
    assert words in reason(stderr)
