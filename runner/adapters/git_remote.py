"""A project's remote: which URLs are allowed, and how its key or token reaches git without being seen."""

from __future__ import annotations

import base64
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from runner.errors import RequestError

_SCP: Final = re.compile(r"(?:[A-Za-z0-9._-]+@)?(?!-)[A-Za-z0-9._-]+:(?!:)(?!//)[^:]", re.ASCII)
_USERINFO: Final = re.compile(r"(?<=://)[^/@\s]+@")
_REMEDY: Final = "Give https://host/path, ssh://user@host/path, user@host:path, file:///path or an absolute path."
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True)
class GitCredentials:
    """How a private repository is opened: the path of an ssh key without passphrase, or an access token."""

    ssh_key_file: Path | None = None
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Remote:
    """A checked repository address with its credentials."""

    url: str
    transport: str
    credentials: GitCredentials = field(default_factory=GitCredentials)

    @classmethod
    def parse(cls, repository: str, credentials: GitCredentials | None = None) -> Remote:
        """Check a repository's address against the schemes that are allowed; raises RequestError."""
        credentials = credentials or GitCredentials()
        if not repository or repository.startswith("-") or re.search(r"[\x00-\x20\x7f]", repository):
            raise _refused(repository, "is empty, begins with a dash, or contains a space or control byte")
        if repository.startswith("/"):
            return cls(repository, "file", credentials)
        if "://" not in repository:
            if _SCP.match(repository):
                return cls(repository, "ssh", credentials)
            raise _refused(repository, "is neither an absolute path nor an address of an allowed kind")
        try:
            parts = urlsplit(repository)
            host = parts.hostname or ""
            _ = parts.port
        except ValueError:
            raise _refused(repository, "is not an address that can be understood") from None
        _check_parts(repository, parts, host)
        if credentials.token and parts.scheme == "http" and host not in _LOOPBACK:
            raise _refused(repository, "would send the token over an unencrypted connection")
        return cls(repository, parts.scheme, credentials)

    def environment(self) -> dict[str, str]:
        """Give the variables that open the remote; nothing secret appears in argv, URL or configuration."""
        return {"GIT_ALLOW_PROTOCOL": self.transport, "GIT_SSH_COMMAND": self._ssh(), "GIT_SSH_VARIANT": "ssh"}

    def config(self) -> list[tuple[str, str]]:
        """Give the settings for this remote, to be handed over in the environment."""
        header = self._header()
        return [(f"http.{self.url}.extraHeader", f"Authorization: Basic {header}")] if header else []

    def scrub(self, text: str) -> str:
        """Take the credentials out of a text that git printed."""
        for secret in (self.credentials.token, self._header()):
            if secret:
                text = text.replace(secret, "***")
        return _USERINFO.sub("", text)

    @property
    def shown(self) -> str:
        """The address as people may see it."""
        return _USERINFO.sub("", self.url)

    def _header(self) -> str | None:
        if not self.credentials.token or not self.transport.startswith("http"):
            return None
        # Forges take any user name beside a token; GitHub documents this one.
        user = urlsplit(self.url).username or "x-access-token"
        return base64.b64encode(f"{user}:{self.credentials.token}".encode()).decode()

    def _ssh(self) -> str:
        command = "ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o ConnectTimeout=10"
        command += " -o ServerAliveInterval=10 -o ServerAliveCountMax=3"
        if self.credentials.ssh_key_file is not None:
            command += f" -o IdentitiesOnly=yes -i {shlex.quote(str(self.credentials.ssh_key_file))}"
        return command


def _check_parts(repository: str, parts: SplitResult, host: str) -> None:
    if parts.scheme not in ("https", "http", "ssh", "file"):
        raise _refused(repository, f"uses {parts.scheme}://, which is not allowed")
    if parts.password is not None:
        raise _refused(
            repository, "contains a password", "Take it out and use credentials = {token_file = ...} instead."
        )
    if parts.scheme == "file" and (host or not parts.path.startswith("/")):
        raise _refused(repository, "is a file:// address with a host")
    if parts.scheme != "file" and (not host or host.startswith("-") or (parts.username or "").startswith("-")):
        raise _refused(repository, "has no host")


def _refused(repository: str, why: str, remedy: str = _REMEDY) -> RequestError:
    shown = _USERINFO.sub("***@", repository[:200])
    return RequestError(f"repository: {shown!a} {why}. {remedy}", field="repository", value=shown, remedy=remedy)
