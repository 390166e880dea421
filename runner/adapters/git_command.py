"""Run git with nothing of the host's configuration, a deadline, and its words turned into reasons."""

from __future__ import annotations

import copy
import errno
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, Final, cast

from git.cmd import Git

from runner.adapters.git_remote import Remote
from runner.errors import DiskFull

_OUTPUT_LIMIT: Final = 256 * 1024 * 1024
"""Bytes of output that are held in memory: a remote with two million refs."""
_STDERR_KEPT: Final = 65_536
_LOOK: Final = 0.1
"""Seconds between two looks at whether the work is still wanted."""
_ALONE: Final = 10.0
"""Seconds past its time after which a command ends that nobody waits for any more: longer than _kill takes."""

_CONFIG: Final = (
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("core.untrackedCache", "false"),
    ("credential.helper", ""),
    ("core.askPass", ""),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("fetch.recurseSubmodules", "no"),
    # Every fetch becomes one whole pack, moved into place at its end: a commit that is there has its tree.
    ("fetch.unpackLimit", "1"),
    ("fetch.writeCommitGraph", "false"),
    # transfer.fsckObjects stays off: it refuses harmless old commits of real repositories (padded modes). What
    # could hurt, the paths, is checked before a tree is laid out.
    ("http.followRedirects", "false"),
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "30"),
)

# Without no_setuid_fixup access(2), by which git looks for its repository, would not honour the right to read.
_AS_USER: Final = (
    *("setpriv", "--securebits=+no_setuid_fixup", "--clear-groups", "--no-new-privs"),
    *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"),
)

_REASONS: Final = {
    "it asks for a password, or refuses the one it was given; set the project's credentials": (
        "could not read (username|password)|authentication failed|terminal prompts disabled|error: 40[13]"
    ),
    "it refused the ssh key; set the project's credentials": r"permission denied \(|no such identity|load key",
    "its ssh host key is not the known one": "host key verification failed",
    "its host name could not be resolved": "could not resolve host",
    "no connection to its host could be made": "connection refused|couldn't connect to server|no route to host",
    "its host did not answer in time": "timed out|operation too slow",
    "no trusted TLS connection to its host could be made": "certificate|ssl|tls",
    "it has moved to another address; set the project's repository to that": r"error: 30\d|redirect",
    "its directory belongs to another user; give it to the user that runs Seatrial, or use ssh or https": (
        "dubious ownership"
    ),
    "its data is damaged": (
        "bad object|corrupt|inflate|index-pack (failed|died)|bad pack|loose object|unresolved delta"
        "|pack.* (missing|not .*available|signature)|did not send all necessary|not a tree object"
        "|unable to (read|parse) (tree|object|[0-9a-f]{40})|could not read [0-9a-f]{40}|error processing"
    ),
    "there is no git repository at that address": (
        "does not appear to be a git repository|invalid gitfile|not a git repository|repository .*not found|error: 404"
        "|no such file or directory|does not exist"
    ),
    "its address is of a kind that is not allowed": "transport '.*' not allowed",
    "the connection broke": "could not read from remote|unexpected disconnect|early eof|hung up|reset by peer",
}
"""What git or ssh print, in the order in which they are looked for, and what that means to people."""


class GitFailed(Exception):
    """A git command ended with an error; `reason` says it in words, free of credentials."""

    def __init__(self, reason: str, stderr: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.stderr = stderr


class GitTimedOut(GitFailed):
    """A git command did not end within its time and was killed with all its children."""


class GitRunner:
    """Git on one bare repository, given by its path and not searched for.

    GitPython starts the processes; its own time limit does not fit, because it kills only the children that it
    finds by `pgrep`, then waits on for pipes that others hold.
    """

    def __init__(self, git_dir: Path, remote: Remote) -> None:
        self._git_dir = git_dir
        self._remote = remote
        self._can_be: dict[int, bool] = {}
        self._check: Callable[[], None] = lambda: None

    def heeding(self, check: Callable[[], None]) -> GitRunner:
        """Give this one, but such that `check` is called several times a second while a command runs, from the thread
        that waits for it: what it raises ends the command with all its children and is passed on."""
        heedful = copy.copy(self)
        heedful._check = check
        return heedful

    def run(
        self,
        arguments: Sequence[str],
        *,
        timeout: float,
        stdin: bytes = b"",
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        keep_open: int | None = None,
        take: Callable[[bytes], None] | None = None,
        user: int | None = None,
    ) -> bytes:
        """Run one command and give its output (or hand it piece by piece to `take`).

        `arguments` are ours or proven to be hex; a user's text goes to `stdin` or after `--`.
        `user`: the uid to run it as (see can_be).
        `keep_open`: a descriptor (a lock) that the child holds too: the lock outlives a killed parent, and the child ends
        in its time without one.
        Raises GitFailed, GitTimedOut, DiskFull; whatever `take` raises ends the command.
        """
        self._check()
        variables = self._environment() | (env or {})
        strays = [f"--unset={name}" for name in os.environ if name.startswith("GIT_") and name not in variables]
        prefix = ["env", *strays] if strays else []
        if user is not None:
            prefix += [*_AS_USER, f"--reuid={user}", f"--regid={user}"]
        if keep_open is not None:
            prefix += ["timeout", "--signal=KILL", f"{timeout + _ALONE:.1f}"]
        with TemporaryFile() as file:  # and no pipe, which would have to be fed while the answer is read
            file.write(stdin)
            file.seek(0)
            process = Git(str(cwd or "/")).execute(
                [*prefix, "git", *arguments],
                istream=cast(BinaryIO, file),
                as_process=True,
                env=variables,
                start_new_session=True,
                umask=0o022,
                pass_fds=() if keep_open is None else (keep_open,),
            )
        assert process.proc is not None
        return self._follow(process.proc, arguments[0], time.monotonic() + timeout, timeout, take)

    def can_be(self, user: int) -> bool:
        """Tell whether git can run as another uid: one that owns what it writes, and can read all but change nothing
        else. That wants a root with all its rights, which one in a container seldom is."""
        if user not in self._can_be:
            try:
                self.run(["rev-parse", "--git-dir"], timeout=10.0, user=user)
                self._can_be[user] = True
            except GitFailed:
                self._can_be[user] = False
        return self._can_be[user]

    def _follow(
        self,
        process: subprocess.Popen[bytes],
        name: str,
        deadline: float,
        timeout: float,
        take: Callable[[bytes], None] | None,
    ) -> bytes:
        assert process.stdout is not None
        assert process.stderr is not None
        held = bytearray()
        stderr = bytearray()
        ended = False
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                selector.register(process.stderr, selectors.EVENT_READ)
                while selector.get_map():
                    ready = selector.select(_until(deadline))
                    self._check()
                    if time.monotonic() > deadline:
                        raise GitTimedOut(f"it did not answer within {round(timeout, 1):g} s", name)
                    for key, _ in ready:
                        chunk = os.read(key.fd, 1 << 16)
                        if not chunk:
                            selector.unregister(key.fileobj)
                        elif key.fileobj is process.stderr:
                            stderr += chunk
                            del stderr[:-_STDERR_KEPT]
                        elif take is not None:
                            take(chunk)
                        else:
                            held += chunk
                            if len(held) > _OUTPUT_LIMIT:
                                raise GitFailed(f"git {name} gave more than {_OUTPUT_LIMIT} bytes")
            while not ended:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.01, _until(deadline)))
                    ended = True
                self._check()
                if not ended and time.monotonic() > deadline:
                    raise GitTimedOut(f"it did not answer within {round(timeout, 1):g} s", name)
        finally:
            if not ended:
                _kill(process)
            process.stdout.close()
            process.stderr.close()
        if process.returncode != 0:
            raise self._failure(name, stderr.decode("utf-8", "replace"), process.returncode)
        return bytes(held)

    def _failure(self, name: str, stderr: str, status: int) -> Exception:
        stderr = self._remote.scrub(stderr)
        if re.search(r"no space left on device|disk quota exceeded", stderr, re.IGNORECASE):
            return DiskFull(f"The host's disk is full: git {name} could not write.")
        return GitFailed(reason(stderr) or f"git {name} ended with status {status}", stderr)

    def _environment(self) -> dict[str, str]:
        config = [*_CONFIG, *self._remote.config()]
        numbered = {f"GIT_CONFIG_KEY_{n}": key for n, (key, _) in enumerate(config)}
        numbered |= {f"GIT_CONFIG_VALUE_{n}": value for n, (_, value) in enumerate(config)}
        return {
            "GIT_DIR": str(self._git_dir),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_LITERAL_PATHSPECS": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "",
            "SSH_ASKPASS": "",
            "GIT_CONFIG_COUNT": str(len(config)),
            "HOME": "/nonexistent",  # no .netrc, no git configuration; ssh finds its own files by the passwd entry
            "XDG_CONFIG_HOME": "/nonexistent",
            **numbered,
            **self._remote.environment(),
        }


@contextmanager
def disk_full_told() -> Iterator[None]:
    """Turn our own failure to write into DiskFull."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"The host's disk is full: {error}.") from error
        raise


def reason(stderr: str) -> str:
    """Say in a few words what git complained of; its last complaint when it is not a known one."""
    for words, pattern in _REASONS.items():
        if re.search(pattern, stderr, re.IGNORECASE):
            return words
    lines = [line for line in stderr.splitlines() if re.match(r"(remote: )?(fatal|error):", line)]
    last = lines[-1] if lines else ""
    return re.sub(r"[^\x20-\x7e]", "?", re.sub(r"^(remote: )?(fatal|error): ", "", last))[:300]


def _until(deadline: float) -> float:
    """Give the seconds to wait now: those that are left, but no longer than until the next look."""
    return max(0.0, min(_LOOK, deadline - time.monotonic()))


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a command and what it started: politely, so that git removes its lock files, then for good."""
    # The second round comes in any case: the leader may be gone while ssh or a helper of its group is not.
    for sign, grace in ((signal.SIGTERM, 0.5), (signal.SIGKILL, 5.0)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace)
