"""Part with what this host can have again: built images, cached trees, what killed gits left. Only our own things."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

import structlog

from jobs.adapters.sql_store import Store
from jobs.compose import Mirrors
from jobs.floor import HostRoom
from jobs.keeping import DAY, MARK, Done, Kept, Removal, images_to_retire, may_go_for_good, to_remove
from jobs.settings import Settings
from runner.adapters.docker_engine import DockerEngine
from runner.adapters.docker_images import RETIRED, BuiltImages
from runner.adapters.tree_eviction import evict_trees, standing_trees
from runner.errors import InfraError, StoreUnavailable
from runner.quantities import format_size

TEND_SECONDS = DAY
REPACK_SECONDS = 7 * DAY
RETIRED_AT_ONCE = 3

log = structlog.get_logger(__name__)


class Images(Protocol):
    """The images that Seatrial built on an engine (see runner.adapters.docker_images)."""

    def built(self) -> dict[str, int]: ...

    def retired(self) -> dict[str, int]: ...

    def retire(self, name: str) -> None: ...

    def remove(self, name: str) -> bool: ...


class Tended(Protocol):
    """A mirror that can be tended (see GitMirror.tend)."""

    def tend(self, *, older_than: float, repack: bool) -> int: ...


class Housekeeping:
    """What one host parts with; safe to do twice at once."""

    def __init__(
        self,
        store: Store,
        room: HostRoom,
        images: Images,
        trees: Path,
        mirrors: Mapping[str, Path],
        mirror: Callable[[str], Tended],
        *,
        host: str,
    ) -> None:
        """Take the parts. `mirrors`: the directory of each project's mirror; `mirror` opens one."""
        self._store, self._room, self._images, self._trees, self._host = store, room, images, trees, host
        self._mirrors, self._mirror = mirrors, mirror
        self._retired: dict[str, float] = {}

    def tidy(self) -> Iterator[Done]:
        """Part with what nobody needs; each part goes on when another's world is away."""
        parts = {"trees": self._part_with_trees, "images": self._part_with_images}
        for project, path in self._mirrors.items():
            parts[f"mirror of {project}"] = partial(self._tend_mirror, project, path)
        for name, part in parts.items():
            try:
                yield from part()
            except StoreUnavailable:
                raise
            except InfraError as error:
                log.warning("housekeeping.postponed", part=name, code=error.code, error=error.text)
            except (OSError, KeyError) as error:  # a directory or a token that cannot be read: its name, never its text
                log.warning("housekeeping.postponed", part=name, error=type(error).__name__)
            except Exception as error:  # whatever is wrong with one part, the others go on
                log.exception("housekeeping.postponed", part=name, error=str(error))

    def _below_mark(self) -> str | None:
        return self._room.lacking(times=MARK)

    def _still(self, chosen: list[Removal]) -> Iterator[Removal]:
        """Give one after the other, those for want of room only while there is none."""
        for one in chosen:
            if not one.pressed or self._below_mark() is not None:
                yield one

    # ---- trees ----------------------------------------------------------------------------------------------

    def _part_with_trees(self) -> Iterator[Done]:
        standing = standing_trees(self._trees)
        if not standing:
            return
        living = self._store.keeping.living_commits()
        kept = [
            Kept(str(tree), at, (tree.parent.name, tree.name.partition(".")[0]) in living)
            for tree, at in standing.items()
        ]
        left = len(standing)
        for one in self._still(to_remove(kept, time.time(), lacking=self._below_mark())):
            left -= 1
            for tree in evict_trees(self._trees, left):
                yield Done("tree", f"{tree.parent.name}/{tree.name}", one.why)

    # ---- mirrors --------------------------------------------------------------------------------------------

    def _tend_mirror(self, project: str, path: Path) -> Iterator[Done]:
        if not path.is_dir() or not _due(path, "tended", TEND_SECONDS):
            return
        every = REPACK_SECONDS if self._below_mark() is None else TEND_SECONDS  # it may give room
        repack = self._has_room_for_a_copy(path) and _due(path, "repacked", every)
        freed = self._mirror(project).tend(older_than=DAY, repack=repack)
        _note(path, "tended")
        if repack:
            _note(path, "repacked")
        if freed:
            why = "left by gits that were killed, or held by no ref and no run for two weeks"
            yield Done("mirror", project, f"{format_size(freed)} {why}")

    def _has_room_for_a_copy(self, path: Path) -> bool:
        size = sum(pack.stat().st_size for pack in path.glob("objects/pack/*.pack"))
        spare = self._room.spare()  # nor may the copy take the host below its floor
        return shutil.disk_usage(path).free > 2 * size and (spare is None or spare.used.size > size)

    # ---- images ---------------------------------------------------------------------------------------------

    def _part_with_images(self) -> Iterator[Done]:
        """Retire first and remove later, so that whoever has just found an image still gets its container."""
        standing, retired = self._images.built(), self._images.retired()
        if not standing and not retired:
            return
        now, used = self._store.keeping.now(), self._store.keeping.images()
        ours = {f"{RETIRED}:{_key(name)}" for name in used}  # another installation may have retired others
        self._retired = {name: self._retired.get(name, now) for name in retired if name in ours}
        oldest = self._store.keeping.oldest_claim(self._host)
        for name, at in list(self._retired.items()):
            if may_go_for_good(at, oldest) and self._images.remove(name):
                del self._retired[name]
                why = "retired before, and nothing that runs here began before that"
                yield Done("image", name, f"{why}: up to {format_size(retired[name])}")
        waiting = len(self._retired)
        for one in images_to_retire(standing, used, now, lacking=self._below_mark()):
            if one.pressed:  # retiring frees nothing by itself: see what the first ones bring before there are more
                waiting += 1
                if waiting > RETIRED_AT_ONCE:
                    break
            self._images.retire(one.name)
            self._retired[f"{RETIRED}:{_key(one.name)}"] = now
            yield Done("image", one.name, f"retired: {one.why}")


def build_housekeeping(settings: Settings, store: Store, *, host: str) -> Housekeeping:
    """Put together what a host can part with."""
    home, url = settings.server.home, settings.server.docker_url
    return Housekeeping(
        store,
        HostRoom(settings, DockerEngine(url).info),
        BuiltImages(url),
        home / "trees",
        {project: home / "mirrors" / f"{project}.git" for project in settings.projects},
        Mirrors(settings),
        host=host,
    )


def _key(image: str) -> str:
    return image.partition(":")[2]


def _stamp(mirror: Path, what: str) -> Path:
    return mirror.with_name(f".{mirror.name}.{what}")


def _due(mirror: Path, what: str, every: float) -> bool:
    """Tell whether the last time lies so many seconds back; a mirror that is young has nothing to be tended."""
    try:
        last = _stamp(mirror, what).stat().st_mtime
    except FileNotFoundError:
        _note(mirror, what)
        return False
    return abs(time.time() - last) > every


def _note(mirror: Path, what: str) -> None:
    _stamp(mirror, what).touch()
