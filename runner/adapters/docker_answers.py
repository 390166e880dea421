"""What an engine's words mean: no room, a registry's plain word about an image, or that there was none."""

from __future__ import annotations

import re

from runner.errors import DiskFull, ImageMissing, RegistryUnavailable, SeatrialError

# As registries say that they have no such image, or not for us, and as engines old and new pass it on.
_NO = re.compile(
    r"(?:^|: )(?:manifest unknown|name unknown|not found|denied|unauthorized|401 Unauthorized)\b"
    r"|pull access denied|no basic auth credentials|no matching manifest|cannot be used on this platform"
    r"|invalid reference format|invalid repository name"
)
_NO_SPACE = "no space left on device"
# As it sounds when there is no answer, or none about the image.
_NO_ANSWER = re.compile(
    r"https?://|HTTP (?:status|\d)|toomanyrequests|rate limit|\bEOF\b|timeout|timed out|dial tcp", re.IGNORECASE
)
_FROM = re.compile(r"Step \d+/\d+ : FROM ", re.IGNORECASE)


def not_fetched(name: str, why: str) -> SeatrialError:
    """Give what it is that an image could not be fetched: the branch's fault only where the registry said so."""
    if _NO_SPACE in why:
        return _full(why)
    if _NO.search(why):
        return ImageMissing(
            f"The image {name} is not on this machine and could not be fetched: {why}. "
            "Check its name, or build or load it here."
        )
    return RegistryUnavailable(
        f"The image {name} is not on this machine, and its registry could not be asked: {why}. "
        "Build or load it here, or wait for the registry; if the name is wrong, cancel the run and correct it."
    )


def not_built(step: str, why: str) -> SeatrialError | None:
    """Give what kept a build from its end if it was not the branch. `step`: the last one that the build has told of."""
    if _NO_SPACE in why:
        return _full(why)
    if _FROM.match(step) and _NO_ANSWER.search(why) and not _NO.search(why):
        name = _FROM.sub("", step).strip()
        return RegistryUnavailable(
            f"The build begins with the image {name}, which is not on this machine, "
            f"and its registry could not be asked: {why}. Build or load it here, or wait for the registry."
        )
    return None


def no_room(why: str) -> DiskFull | None:
    """Give what it is when an engine lacked room for a container."""
    return _full(why) if _NO_SPACE in why else None


def _full(why: str) -> DiskFull:
    return DiskFull(f"The disk of the Docker engine is full: {why}")
