"""An engine in memory: the strict twin of DockerEngine, for tests without Docker."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from runner.errors import (
    ContainerForeign,
    ContainerLost,
    EngineUnavailable,
    ImageBuildFailed,
    ImageGone,
    ImageMissing,
    ImageUnusable,
    RegistryUnavailable,
)
from runner.files import walk_inside
from runner.model import Container, ContainerState, Image
from runner.ports import Watch

SIGTERM_CODE, SIGKILL_CODE = 143, 137


@dataclass(frozen=True)
class Program:
    """What a command does: ends at once with `exit_code`, or runs until it is stopped (None).

    `on_term`: the exit code that it gives when it is asked to stop; None ignores that. `unusable`: cannot be executed.
    """

    exit_code: int | None = 0
    output: bytes = b""
    oom: bool = False
    on_term: int | None = SIGTERM_CODE
    unusable: bool = False


@dataclass
class _Stored:
    container: Container
    program: Program
    state: ContainerState
    output: bytes = b""


@dataclass
class MemoryEngine:
    """An `Engine` (see runner.ports). `programs` tells what a command does, by its last word; others end with 0.

    `images`: name → id, `registry`: those that can be pulled. `up`, `registry_up`: whether they answer.
    """

    images: dict[str, str] = field(default_factory=dict)
    registry: dict[str, str] = field(default_factory=dict)
    programs: Mapping[str, Program] = field(default_factory=dict)
    up: bool = True
    registry_up: bool = True

    def __post_init__(self) -> None:
        self._containers: dict[str, _Stored] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()

    # ---- containers -----------------------------------------------------------------------------------

    def create(self, container: Container) -> ContainerState:
        """Create, or adopt the one of this name and these labels."""
        with self._answering():
            if container.network.startswith("container:"):
                joined = self._containers.get(container.network.removeprefix("container:"))
                if joined is None:
                    raise EngineUnavailable(f"The engine could not create {container.name}: no {container.network}")
            known = self._containers.get(container.name)
            if known is None:
                if container.image not in self.images and container.image not in self.images.values():
                    raise ImageGone(f"The image {container.image} is not on this machine.")
                found = f"{next(self._numbers):064x}"
                state = ContainerState(container.name, found, "created", None, False, "", labels=dict(container.labels))
                program = self.programs.get(container.command[-1], Program())
                known = self._containers[container.name] = _Stored(container, program, state)
            if any(known.state.labels.get(key) != value for key, value in container.labels.items()):
                raise ContainerForeign(f"A foreign container stands under the name {container.name}: remove it.")
            return known.state

    def start(self, name: str) -> None:
        """Start; safe to call on one that runs."""
        with self._answering():
            known = self._containers.get(name)
            if known is None:
                raise ContainerLost(f"The container {name} is gone.")
            if known.state.status == "running":
                return
            program = known.program
            if program.unusable:
                raise ImageUnusable("The image cannot run a shell: executable file not found")
            known.output += program.output
            known.state = replace(known.state, status="running", exit_code=None, started_at="2026-01-01T00:00:00Z")
            if program.exit_code is not None:
                self._end(known, SIGKILL_CODE if program.oom else program.exit_code, oom=program.oom)

    @staticmethod
    def _end(known: _Stored, code: int, *, oom: bool = False) -> None:
        known.state = replace(known.state, status="exited", exit_code=code, oom_killed=oom)

    def inspect(self, name: str) -> ContainerState | None:
        """Tell what it is doing, or None when there is none."""
        with self._answering():
            known = self._containers.get(name)
            return None if known is None else known.state

    def watch(self, state: ContainerState) -> Watch | None:
        """There are no processes to see."""
        return None

    def stop(self, name: str, *, grace: float) -> None:
        """Ask to stop; one that does not listen is killed at once, as time stands still here."""
        with self._answering():
            known = self._containers.get(name)
            if known is not None and known.state.status == "running":
                listens = known.program.on_term is not None and grace > 0
                self._end(known, known.program.on_term or 0 if listens else SIGKILL_CODE)

    def end(self, name: str, code: int = SIGKILL_CODE, *, oom: bool = False) -> None:
        """End a container as its program, the kernel or an operator does; not part of the port."""
        with self._answering():
            self._end(self._containers[name], code, oom=oom)

    def remove(self, name: str) -> None:
        """Kill and remove."""
        with self._answering():
            self._containers.pop(name, None)

    def remove_volumes(self, **labels: str) -> list[str]:
        """There are none."""
        return []

    def find(self, **labels: str) -> list[ContainerState]:
        """List containers, ended ones too, that carry all these labels."""
        with self._answering():
            return [
                replace(known.state, exit_code=None, oom_killed=False, started_at="")
                for known in self._containers.values()
                if all(known.state.labels.get(key) == value for key, value in labels.items())
            ]

    def output(self, name: str, *, limit: int = 65_536) -> bytes:
        """Give the last bytes that it wrote; empty when it is gone."""
        with self._answering():
            known = self._containers.get(name)
            return b"" if known is None else known.output[-limit:]

    # ---- images ---------------------------------------------------------------------------------------

    def image(self, name: str) -> Image | None:
        """Find an image by its name or id."""
        with self._answering():
            found = self.images.get(name) or (name if name in self.images.values() else None)
            return None if found is None else Image(name, found)

    def pull(self, name: str, *, check: Callable[[], None] = lambda: None) -> Image:
        """Take an image from the registry."""
        check()
        with self._answering():
            if not self.registry_up:
                raise RegistryUnavailable(f"The registry of {name} does not answer.")
            if name not in self.registry:
                raise ImageMissing(f"The image {name} is not on this machine and could not be fetched: not found.")
            self.images[name] = self.registry[name]
            return Image(name, self.images[name])

    def build(
        self,
        context: Path,
        *,
        dockerfile: str,
        tag: str,
        args: dict[str, str],
        log: Callable[[bytes], None],
        extra: dict[str, bytes] | None = None,
        memory: int | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Image:
        """Read the Dockerfile: FROM wants an image that is here, `RUN exit N` fails unless N is 0; no more is done."""
        added = extra or {}
        text = added[dockerfile] if dockerfile in added else (context / dockerfile).read_bytes()
        lines = [line.strip() for line in text.decode().splitlines() if line.strip() and not line.startswith("#")]
        with self._answering():
            for number, line in enumerate(lines, 1):
                check()
                log(f"Step {number}/{len(lines)} : {line}\n".encode())
                word, _, rest = line.partition(" ")
                if word == "FROM" and rest != "scratch" and rest not in self.images:
                    if not self.registry_up:
                        raise RegistryUnavailable(f"The registry of {rest} does not answer.")
                    raise self._failed(log, f"pull access denied for {rest}")
                if word == "RUN" and rest.startswith("exit ") and rest != "exit 0":
                    raise self._failed(log, f"The command '{rest}' returned a non-zero code")
            digest = hashlib.sha256(text)
            for path in walk_inside(context):
                digest.update(path.encode() + (context / path).read_bytes())
            self.images[tag] = f"sha256:{digest.hexdigest()}"
            return Image(tag, self.images[tag])

    @staticmethod
    def _failed(log: Callable[[bytes], None], text: str) -> ImageBuildFailed:
        log(f"{text}\n".encode())
        return ImageBuildFailed(f"The image could not be built: {text}")

    def _answering(self) -> threading.RLock:
        if not self.up:
            raise EngineUnavailable("The Docker engine does not answer.")
        return self._lock
