"""The Docker engine through its SDK."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, ImageNotFound, NotFound
from docker.types import DriverConfig, LogConfig, Ulimit
from docker.types import Mount as DockerMount

from runner.adapters.docker_answers import no_room, not_built, not_fetched
from runner.adapters.docker_calls import long_call, pack_context, translated
from runner.adapters.docker_client import EngineClient
from runner.adapters.process_watch import Gone, ProcessWatch
from runner.errors import (
    ContainerForeign,
    ContainerLost,
    EngineUnavailable,
    ImageBuildFailed,
    ImageGone,
    ImageMissing,
    ImageUnusable,
    OutputRefused,
)
from runner.model import Container, ContainerState, Image

LABEL = "seatrial."

# As runc says it of the command; a mount that is missing sounds alike, and is not the image's fault.
_NOT_EXECUTABLE = re.compile(
    r'exec: ".*(?:not found|no such file|permission denied)|exec format error|exec user process'
)


class DockerEngine:
    """One engine. Thread-safe; made cheap by one low-level client."""

    def __init__(self, base_url: str | None = None, *, timeout: float = 60.0) -> None:
        self._base_url = base_url
        self._sees_processes = False
        with translated("be reached"):
            self._api = EngineClient(base_url, timeout=timeout)

    def _connect(self, *, timeout: float | None) -> EngineClient:
        with translated("be reached"):
            return EngineClient(self._base_url, timeout=timeout, version=self.api_version)

    @property
    def api_version(self) -> str:
        """The version of the API that is spoken with this engine; the oldest that we know until it was called."""
        return self._api.api_version

    def close(self) -> None:
        """Let go of the connections; safe to call twice."""
        self._api.close()

    # ---- containers -----------------------------------------------------------------------------------

    def create(self, container: Container) -> ContainerState:
        """Create, or adopt the one of this name and these labels."""
        labels = {LABEL + key: value for key, value in container.labels.items()}
        try:
            with translated(f"create {container.name}"):
                made = self._api.create_container_from_config(  # type: ignore[no-untyped-call]  # so in the stubs
                    self._config(container, labels), container.name
                )
            return ContainerState(
                container.name, made["Id"], "created", None, oom_killed=False, started_at="", labels=container.labels
            )
        except EngineUnavailable as error:
            if (full := no_room(error.text)) is not None:
                raise full from error
            cause = error.__cause__
            # 404 may also be the container whose network namespace it is to join.
            if isinstance(cause, ImageNotFound) or "No such image" in str(cause):
                raise ImageGone(
                    f"The image {container.image} is not on this machine. Build or load it here (ours: make images)."
                ) from error
            if not (isinstance(cause, APIError) and cause.status_code == 409):
                raise
        state = self.inspect(container.name)
        if state is None:
            raise ContainerLost(f"The container {container.name} vanished right after its creation.")
        if any(state.labels.get(key) != value for key, value in container.labels.items()):
            raise ContainerForeign(f"A foreign container stands under the name {container.name}: remove it.")
        return state

    def _config(self, container: Container, labels: dict[str, str]) -> dict[str, Any]:
        mounts = [
            DockerMount(mount.target, str(mount.source), type="bind", read_only=mount.read_only, propagation="rprivate")
            for mount in container.mounts
        ]
        for overlay in container.overlays:
            lower = ":".join(map(str, overlay.lower))
            options = f"lowerdir={lower},upperdir={overlay.upper},workdir={overlay.work}"
            driver = DriverConfig("local", {"type": "overlay", "device": "overlay", "o": options})
            mounts.append(
                DockerMount(overlay.target, None, type="volume", labels=labels, driver_config=driver, no_copy=True)
            )
        host = self._api.create_host_config(
            network_mode=container.network,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            read_only=container.read_only,
            mounts=mounts,
            tmpfs=container.tmpfs,
            init=container.init,
            mem_limit=container.memory,
            memswap_limit=container.memory,
            nano_cpus=None if container.cpus is None else int(container.cpus * 1e9),
            pids_limit=container.pids,
            ulimits=self._ulimits(container),
            log_config=LogConfig(type="json-file", config={"max-size": "4m", "max-file": "1"}),
            restart_policy={"Name": "no"},
        )
        config: dict[str, Any] = self._api.create_container_config(
            container.image,
            list(container.command),
            user=container.user,
            environment=container.env,
            working_dir=container.workdir,
            labels=labels,
            host_config=host,
            entrypoint=[] if container.command else None,
            detach=True,
        )
        return config

    @staticmethod
    def _ulimits(container: Container) -> list[Ulimit]:
        limits = [Ulimit(name="core", soft=0, hard=0)]
        if container.file_size is not None:
            limits.append(Ulimit(name="fsize", soft=container.file_size, hard=container.file_size))
        return limits

    def start(self, name: str) -> None:
        """Start; safe to call on one that runs."""
        try:
            with translated(f"start {name}"):
                self._api.start(name)
        except EngineUnavailable as error:
            if (full := no_room(error.text)) is not None:
                raise full from error
            cause = error.__cause__
            # Not found may also be the container whose network namespace it is to join.
            if isinstance(cause, NotFound) and name in str(cause.explanation):
                raise ContainerLost(f"The container {name} is gone.") from error
            if isinstance(cause, APIError) and _NOT_EXECUTABLE.search(str(cause)):
                raise ImageUnusable(f"The image cannot run a shell: {cause.explanation}") from error
            raise

    def inspect(self, name: str) -> ContainerState | None:
        """Tell what it is doing, or None when there is none."""
        try:
            with translated(f"inspect {name}"):
                found = self._api.inspect_container(name)
        except EngineUnavailable as error:
            if isinstance(error.__cause__, NotFound):
                return None
            raise
        state = found["State"]
        ended = state["Status"] in ("exited", "dead")
        return ContainerState(
            name=found["Name"].lstrip("/"),
            id=found["Id"],
            status=state["Status"],
            exit_code=state["ExitCode"] if ended else None,
            oom_killed=bool(state.get("OOMKilled")),
            started_at=state["StartedAt"],
            error=state.get("Error") or "",
            labels=_ours(found["Config"]["Labels"]),
            pid=state.get("Pid") or None,
        )

    def watch(self, state: ContainerState) -> ProcessWatch | Gone | None:
        """Watch the processes of a container that was inspected."""
        if state.pid is None:
            return None if state.running else Gone()
        try:
            found = ProcessWatch.open(state.pid, state.id)
        except ProcessLookupError:  # it has just ended, if that is to be seen from here at all
            return Gone() if self._sees_processes else None
        self._sees_processes = self._sees_processes or found is not None
        return found

    def stop(self, name: str, *, grace: float) -> None:
        """Ask to stop, kill after `grace` seconds."""
        try:
            with translated(f"stop {name}"):
                self._api.stop(name, timeout=max(0, round(grace)))
        except EngineUnavailable as error:
            if not isinstance(error.__cause__, NotFound):
                raise

    def remove(self, name: str) -> None:
        """Kill and remove with its anonymous volumes."""
        with _gone_is_fine(f"remove {name}"):
            self._api.remove_container(name, v=True, force=True)

    def find(self, **labels: str) -> list[ContainerState]:
        """List containers, ended ones too, that carry all these labels."""
        with translated("list containers"):
            found = self._api.containers(all=True, filters={"label": _filter(labels) or [LABEL + "installation"]})
        return [
            ContainerState(
                name=item["Names"][0].lstrip("/"),
                id=item["Id"],
                status=item["State"],
                exit_code=None,
                oom_killed=False,
                started_at="",
                labels=_ours(item["Labels"]),
            )
            for item in found
            if item["Names"]  # one that is just being removed has none
        ]

    def remove_volumes(self, **labels: str) -> list[str]:
        """Remove the anonymous volumes of containers with these labels that went without them, as `docker rm -f` does."""
        with translated("list volumes"):
            found = self._api.volumes(filters={"label": _filter(labels), "dangling": ["true"]})["Volumes"] or []
        removed = []
        for volume in found:
            with _gone_is_fine(f"remove the volume {volume['Name']}"):
                self._api.remove_volume(volume["Name"])
                removed.append(volume["Name"])
        return removed

    def output(self, name: str, *, limit: int = 65_536) -> bytes:
        """Give the last bytes that a container of ours (a gateway) wrote to its standard output."""
        try:
            with translated(f"read the output of {name}"):
                data: bytes = self._api.logs(name, stdout=True, stderr=True, tail=500)
        except EngineUnavailable as error:
            if isinstance(error.__cause__, NotFound):
                return b""
            raise
        return data[-limit:]

    # ---- images ---------------------------------------------------------------------------------------

    def image(self, name: str) -> Image | None:
        """Find an image on this host."""
        try:
            with translated(f"inspect the image {name}"):
                found = self._api.inspect_image(name)  # type: ignore[no-untyped-call]  # so in the stubs
                return Image(name, found["Id"])
        except EngineUnavailable as error:
            if isinstance(error.__cause__, NotFound):
                return None
            raise

    def pull(self, name: str, *, check: Callable[[], None] = lambda: None) -> Image:
        """Fetch an image from its registry; raises ImageMissing, RegistryUnavailable, DiskFull."""
        repository, tag = _reference(name)
        try:
            for item in long_call(
                self._connect, f"pull {name}", lambda api: api.pull(repository, tag, stream=True, decode=True), check
            ):
                if "error" in item:
                    raise not_fetched(name, item["error"])
        except EngineUnavailable as error:
            if not isinstance(error.__cause__, APIError):
                raise
            raise not_fetched(name, error.__cause__.explanation or str(error.__cause__)) from error
        image = self.image(name)
        if image is None:
            raise ImageMissing(f"The image {name} could not be fetched: the registry answered with another one.")
        return image

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
        """Build from a directory; `extra` files are added to (or replace those of) the context."""
        try:
            packed = pack_context(context, extra or {}, check)
        except OutputRefused as error:
            raise ImageBuildFailed(f"The build's context cannot be used: {error.text}") from error

        def begin(api: docker.APIClient) -> Any:
            return api.build(
                fileobj=packed,
                custom_context=True,
                dockerfile=dockerfile,
                tag=tag,
                buildargs=args,
                rm=True,
                forcerm=True,
                decode=True,
                container_limits={} if memory is None else {"memory": memory, "memswap": memory},
                labels={LABEL + "build": "1"},
            )

        step = ""
        try:
            with packed:
                for item in long_call(self._connect, f"build {tag}", begin, check):
                    if "stream" in item:
                        log(item["stream"].encode("utf-8", "replace"))
                        step = item["stream"] if item["stream"].startswith("Step ") else step
                    if "error" in item:
                        log(item["error"].encode("utf-8", "replace") + b"\n")
                        failed = ImageBuildFailed(f"The image could not be built: {item['error']}")
                        raise not_built(step, item["error"]) or failed
        except EngineUnavailable as error:
            cause = error.__cause__
            if not isinstance(cause, APIError) or (
                (cause.status_code or 500) >= 500 and "dockerfile" not in str(cause)
            ):
                raise
            log(f"{cause.explanation}\n".encode())
            raise ImageBuildFailed(f"The image could not be built: {cause.explanation}") from error
        image = self.image(tag)
        if image is None:
            raise ImageBuildFailed("The build ended without an image.")
        return image

    def info(self) -> dict[str, Any]:
        """Give what the engine says of itself."""
        with translated("tell of itself"):
            found: dict[str, Any] = self._api.info()
            return found


@contextmanager
def _gone_is_fine(what: str) -> Iterator[None]:
    """Translate the engine's errors; what is gone already, or is just going, is no error."""
    try:
        with translated(what):
            yield
    except EngineUnavailable as error:
        cause = error.__cause__
        # 409: somebody else is removing it at this moment, or it is in use after all.
        if not isinstance(cause, APIError) or cause.status_code not in (404, 409):
            raise


def _filter(labels: dict[str, str]) -> list[str]:
    return [f"{LABEL}{key}={value}" for key, value in labels.items()]


def _ours(labels: dict[str, str] | None) -> dict[str, str]:
    return {key.removeprefix(LABEL): value for key, value in (labels or {}).items() if key.startswith(LABEL)}


def _reference(name: str) -> tuple[str, str | None]:
    """Split the name of an image into repository and tag; a digest stays with the repository."""
    if "@" in name:
        return name, None
    repository, colon, tag = name.rpartition(":")
    return (repository, tag) if colon and "/" not in tag else (name, "latest")
