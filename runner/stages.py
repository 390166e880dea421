"""The story of a task: two tuples of functions, each walked by one loop (see pipeline.py)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from runner.checkpoint import failed_line
from runner.errors import (
    BranchError,
    Cancelled,
    ContainerLost,
    Drained,
    Fenced,
    ImageGone,
    Incomplete,
    RegistryUnavailable,
    SeatrialError,
    StepFailed,
    UnitsError,
    UnitsFailed,
)
from runner.execution import ONE_UNIT, Execution, Runtime, WayOut
from runner.files import open_inside
from runner.images import acquire
from runner.model import Image, Known, Order, Origin, Prepared, Template, UnitResult, UnitState
from runner.ports import Databases, Recorder
from runner.quantities import format_duration, format_size
from runner.units import filter_units, list_bytes, parse_units
from runner.workspace import Command

# A script that ends with an error loses its first unfinished unit, and the rest go on, this many times.
CONTAINERS_PER_ATTEMPT = 3
EXIT_RESUME = 75  # EX_TEMPFAIL


@dataclass(frozen=True)
class State:
    """What the stages before have found."""

    order: Order
    runtime: Runtime
    recorder: Recorder
    tree: tuple[Path, ...] = ()  # its layers, the top one first
    image: Image | None = None
    template: Template | None = None
    units: tuple[str, ...] = ()
    known: Known | None = None  # nothing was prepared, because all of it is finished already


Stage = Callable[[State], State]


@contextmanager
def step(recorder: Recorder, name: str) -> Iterator[list[str]]:
    """Show a step with its duration in log and page; what is appended to the list it gives is its detail."""
    recorder.step(name, state="running")
    start = time.monotonic()
    detail: list[str] = []
    try:
        yield detail
    except (Fenced, Drained):
        raise
    except Cancelled:
        recorder.step(name, state="ended", seconds=time.monotonic() - start, detail="cancelled")
        raise
    except SeatrialError as error:
        seconds = time.monotonic() - start
        recorder.log(f"── {name} failed after {format_duration(seconds)}: {error.text}\n".encode())
        recorder.step(name, state="failed", seconds=seconds, detail=error.text)
        raise
    seconds = time.monotonic() - start
    text = " ".join(detail)
    recorder.log(f"── {name} {format_duration(seconds)} {text}".rstrip().encode() + b"\n")
    recorder.step(name, state="done", seconds=seconds, detail=text)


def checkout(state: State) -> State:
    """Have the commit's tree on this host."""
    with step(state.recorder, "checkout") as detail:
        order, trees, check = state.order, state.runtime.trees, state.recorder.check
        if order.spec.workspace.build is not None:
            # What is built from is one directory.
            tree: tuple[Path, ...] = (trees.get(order.project, order.commit, check=check),)
        else:
            tree = trees.layers(order.project, order.commit, check=check)
        detail.append(state.order.commit[:10])
    return replace(state, tree=tree)


def image(state: State) -> State:
    """Have the workspace's image on this host: for a batch the one that its leg was prepared in, whatever has its name."""
    assert state.tree
    order, engine, recorder = state.order, state.runtime.engine, state.recorder
    with step(recorder, "image") as detail:
        names = [name for name in (order.image_digest, order.image) if name is not None]
        found = next((found for name in names if (found := engine.image(name)) is not None), None)
        if found is not None:
            found = replace(found, name=order.image or found.name)
            detail.append("prepared")
        else:
            found, how = _acquired(state, state.tree[0])
            detail.append(f"{how} {found.name} {_short(found.id)}")
        if order.image_digest not in (None, found.id):
            # Hosts may have made theirs each for itself, so it is told and no error.
            other = f"{_short(found.id)}, the leg was prepared in {_short(order.image_digest)}, which is not here"
            detail.append(f"(another one: {other})")
            recorder.log(f"seatrial: {found.name} is {other}: what differs may come from the image\n".encode())
    return replace(state, image=found)


def _acquired(state: State, tree: Path) -> tuple[Image, str]:
    """Take, fetch or build the image. For a leg that was prepared in one the branch has proved that it can be had."""
    order, runtime, recorder = state.order, state.runtime, state.recorder
    try:
        return acquire(runtime.engine, order.spec, tree, runtime.build_host, recorder.log, recorder.check)
    except (BranchError, RegistryUnavailable) as error:
        if order.image_digest is None:
            raise
        gone = f"{order.image} ({_short(order.image_digest)}), in which the leg was prepared, is not on {runtime.host}"
        raise ImageGone(f"The image {gone}. Load or build it there. {error.text}") from error


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def prepare_database(state: State) -> State:
    """Run set-up, migrations and the listing of units on the leg's own database, then freeze it as the template."""
    order, runtime, recorder = state.order, state.runtime, state.recorder
    commands = _preparation(order)
    database = order.spec.database
    if database is None and not commands:
        return state
    source = None if database is None else runtime.databases(database.source)
    if (spared := _spared(state, source)) is not None:
        return spared
    template = None
    units_text: bytes | None = None
    execution = Execution.next(order, runtime, recorder)
    with execution:
        if database is not None and source is not None:
            if execution.stands:  # whatever was blessed since, it stands on what it was made from
                origin = source.made_from(order.leg_database())
            else:
                base = source.base(order.data_id, snapshot=order.snapshot)
                origin = Origin(base.data_id, base.owner, base.name)
                with step(recorder, "clone") as detail:
                    clone = source.clone(base.database, order.leg_database(), fence=recorder.renew)
                    size = format_size(base.size)
                    detail.append(f"{clone.method} {size} in {clone.seconds:.2f} s (data {base.data_id})")
            template = Template(database.source, order.leg_database(), origin.owner, origin.data_id, origin.snapshot)
        if commands:
            assert state.image is not None
            assert state.tree
            out = None
            if source is not None and template is not None:
                out = WayOut(source, template.database, order.execution_database(execution.number), template.owner)
            ended = execution.run(commands, image=state.image.id, tree=state.tree, way_out=out)
            if ended.exit_code == EXIT_RESUME:
                raise execution.resume_requested(ended)
            if ended.exit_code != 0:
                execution.blame_the_world_first(ended)
                name = execution.last_step
                code = ended.exit_code
                raise StepFailed(f"The step {name} ended with exit code {code}. {execution.last_lines()}".strip())
            if isinstance(order.spec.units, str):
                units_text = _units_text(execution)
        execution.close()
        if source is not None and not _shared(order):
            source.freeze(order.leg_database(), fence=recorder.renew)
    state = replace(state, template=template)
    if units_text is not None:
        state = replace(state, units=parse_units(units_text, limit=order.spec.workspace.limits.units))
    return state


def _spared(state: State, source: Databases | None) -> State | None:
    """Take the list of an earlier leg, all of which is finished, instead of preparing anything; None when it is another."""
    order, known = state.order, state.order.known
    if known is None or order.live is not None or order.elsewhere or state.image is None:
        return None
    if known.image != state.image.id:
        return None
    template = None
    if source is not None and order.spec.database is not None:
        base = source.base(order.data_id, snapshot=order.snapshot)
        template = Template(order.spec.database.source, order.leg_database(), base.owner, base.data_id, base.name)
    if known.data != (None if template is None else template.data_id):
        return None
    with step(state.recorder, "take over") as detail:
        detail.append(f"{_counted(known.units)} of run #{known.run} finished: nothing to prepare")
    return replace(state, template=template, units=known.units, known=known)


def plan(state: State) -> State:
    """Settle the list of units."""
    order = state.order
    with step(state.recorder, "plan") as detail:
        units = state.units
        if order.spec.units is None:
            units = (ONE_UNIT,)
        elif not isinstance(order.spec.units, str):
            units = order.spec.units
        if order.units_filter is not None and order.spec.units is not None:
            chosen = filter_units(units, order.units_filter)
            detail.append(f"{len(chosen):,} of {len(units):,} units ({order.units_filter})")
            units = chosen
        else:
            detail.append(f"{len(units):,} unit{'s' if len(units) != 1 else ''}")
    return replace(state, units=units)


def verify(state: State) -> State:
    """Run the units that are left, each container on a pristine clone (or all on the leg's own database)."""
    order, recorder = state.order, state.recorder
    left = list(order.units)
    failed = list(order.failed)
    exit_code = tries = 0
    # One that was left is followed to its end even when all its units are marked: its log and its exit code count.
    while (left or order.live is not None) and tries < CONTAINERS_PER_ATTEMPT:
        going_on = Execution.next if left else Execution.standing
        execution = going_on(order, state.runtime, recorder)
        order = replace(order, live=None)
        if execution is None:
            break
        with execution:
            try:
                exit_code = _run_units(replace(state, order=order), execution, tuple(left))
            except BranchError as error:
                left = _unfinished(left, execution, failed)
                if left:
                    _fail(execution, left[0], error.text)
                raise
            except ContainerLost:
                if not execution.gone:
                    raise
                # It was gone when this attempt came, so what it had finished is taken now and the rest goes on.
                left = _unfinished(left, execution, failed)
                recorder.log(b"seatrial: the container that was left is gone\n")
            else:
                tries += 1
                left = _unfinished(left, execution, failed)
                text = f"The script ended with exit code {exit_code}. {execution.last_lines()}".strip()
                if exit_code != 0 and left:
                    # A voided one was finished once: it is not what the script broke at.
                    broken = next((unit for unit in left if unit not in execution.voided), left[0])
                    left.remove(broken)
                    failed.append(broken)
                    _fail(execution, broken, text)
                elif exit_code != 0 and not failed:
                    raise StepFailed(f"All units are finished, but the script failed. {text}")
                elif not execution.voided:
                    break
        if execution.resume_point is not None:
            order = replace(order, resume_from=execution.resume_point[0], resume_output=execution.resume_point[1])
        if left and tries < CONTAINERS_PER_ATTEMPT:
            recorder.log(f"seatrial: going on with {_counted(left)} in a new container\n".encode())
    _conclude(left, failed, exit_code, tries)
    return state


def _fail(execution: Execution, unit: str, text: str) -> None:
    """Count a unit as failed that the script did not mark, and say so in the log, where that shows."""
    execution.say(failed_line(unit))
    execution.recorder.mark([UnitResult(unit, UnitState.FAILED, text=text)])


def _unfinished(left: list[str], execution: Execution, failed: list[str]) -> list[str]:
    failed += [unit for unit in left if execution.finished.get(unit) is UnitState.FAILED]
    # A mark that was voided may be one that an attempt before this one had taken.
    return [unit for unit in dict.fromkeys((*left, *sorted(execution.voided))) if unit not in execution.finished]


def _run_units(state: State, execution: Execution, left: tuple[str, ...]) -> int:
    """Run one container over the units that are left and give its exit code; 75 and the world's faults are raised."""
    order = state.order
    assert state.image is not None
    assert state.tree
    text = order.spec.resume if order.resume_from is not None and order.spec.resume else order.spec.run
    units = left if order.has_units else None
    ended = execution.run(
        [Command("run", text)],
        image=state.image.id,
        tree=state.tree,
        way_out=_way_out(state, execution),
        units=units,
    )
    if ended.exit_code == EXIT_RESUME:
        raise execution.resume_requested(ended)
    if ended.exit_code != 0 or (order.has_units and any(unit not in execution.finished for unit in left)):
        execution.blame_the_world_first(ended)
    elif not order.has_units:
        state.recorder.mark([execution.whole_output(ended)])
    return ended.exit_code


def _way_out(state: State, execution: Execution) -> WayOut | None:
    """Give an execution its database: a clone of its own, or a role of its own on the leg's."""
    order, template = state.order, state.order.template
    if template is None:
        return None
    source = state.runtime.databases(template.source)
    name = order.execution_database(execution.number)
    if not execution.stands:
        _shut_out(source, order, (*order.elsewhere, *execution.left_before))
    if _shared(order):
        return WayOut(source, template.database, name, template.owner)
    if not execution.stands:
        with step(state.recorder, "clone") as detail:
            clone = source.clone(template.database, name)
            detail.append(f"{clone.method} in {clone.seconds:.2f} s (data {template.data_id})")
    return WayOut(source, name, name, template.owner)


def _shut_out(source: Databases, order: Order, numbers: Sequence[int]) -> None:
    """Let earlier executions reach no database any more: those on hosts that fell silent, which nobody here can end,
    and those that were not taken away as a whole."""
    for number in numbers:
        name = order.execution_database(number)
        if _shared(order):
            source.shut(name)
        else:
            source.drop(name, role=name)


def _shared(order: Order) -> bool:
    """Tell whether the leg's own database stays open and is shared by all of its executions."""
    return order.spec.database is not None and order.spec.database.clone_per == "leg"


def _counted(units: Sequence[str]) -> str:
    return f"{len(units):,} unit{'s' if len(units) != 1 else ''}"


def _conclude(left: list[str], failed: list[str], exit_code: int, tries: int) -> None:
    def named(units: list[str]) -> str:
        return ", ".join(units[:5]) + (" …" if len(units) > 5 else "")

    if left and exit_code == 0:
        containers = f" {tries} times" if tries > 1 else ""
        raise Incomplete(
            f"The script ended with exit code 0{containers}, but {_counted(left)} not finished: {named(left)}"
        )
    if left:
        raise Incomplete(f"{_counted(left)} not run: the script ended with an error {tries} times: {named(left)}")
    if failed:
        raise UnitsFailed(f"{_counted(failed)} failed: {named(failed)}")


def _preparation(order: Order) -> list[Command]:
    """List the commands that run once a leg: set-up, migrations (candidate only), the listing of units."""
    spec = order.spec
    commands = [Command("setup", text) for text in spec.setup]
    if order.migrate:
        commands += [Command("migrate", text) for text in spec.migrate]
    if isinstance(spec.units, str):
        commands.append(Command("units", spec.units))
    return commands


def _units_text(execution: Execution) -> bytes:
    try:
        with open_inside(execution.workspace.io, "units") as file:
            return file.read(list_bytes(execution.order.spec.workspace.limits.units) + 1)
    except FileNotFoundError:
        raise UnitsError("The command `units` left no list.") from None


PREPARE: tuple[Stage, ...] = (checkout, image, prepare_database, plan)
VERIFY: tuple[Stage, ...] = (checkout, image, verify)


def prepared(state: State) -> Prepared:
    """Give what a preparation leaves behind."""
    assert state.image is not None
    return Prepared(state.image.name, state.image.id, state.units, state.template, state.known)
