"""The story of a task: two tuples of functions, each walked by one loop (see pipeline.py)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from runner.errors import (
    BranchError,
    Cancelled,
    Drained,
    Fenced,
    Incomplete,
    SeatrialError,
    StepFailed,
    UnitsError,
    UnitsFailed,
)
from runner.execution import ONE_UNIT, Execution, Runtime, WayOut
from runner.files import open_inside
from runner.images import acquire
from runner.model import Image, Order, Prepared, Template, UnitResult, UnitState
from runner.ports import Recorder
from runner.quantities import format_duration, format_size
from runner.units import filter_units, parse_units
from runner.workspace import Command

UNITS_BYTES = 512 << 20  # far above limits.units times the longest name
# A script that ends with an error loses its first unfinished unit, and the rest go on, this many times.
CONTAINERS_PER_ATTEMPT = 3
EXIT_RESUME = 75  # EX_TEMPFAIL


@dataclass(frozen=True)
class State:
    """What the stages before have found."""

    order: Order
    runtime: Runtime
    recorder: Recorder
    tree: Path | None = None
    image: Image | None = None
    template: Template | None = None
    units: tuple[str, ...] = ()


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
        tree = state.runtime.trees.get(state.order.project, state.order.commit)
        detail.append(state.order.commit[:10])
    return replace(state, tree=tree)


def image(state: State) -> State:
    """Have the workspace's image on this host."""
    assert state.tree is not None
    order, runtime = state.order, state.runtime
    with step(state.recorder, "image") as detail:
        if order.image is not None:
            found, how = runtime.engine.image(order.image), "prepared"
            if found is not None:
                detail.append(how)
                return replace(state, image=found)
        found, how = acquire(runtime.engine, order.spec, state.tree, runtime.build_host, state.recorder.log)
        detail.append(f"{how} {found.name} {found.id.removeprefix('sha256:')[:12]}")
    return replace(state, image=found)


def prepare_database(state: State) -> State:
    """Run set-up, migrations and the listing of units on the leg's own database, then freeze it as the template."""
    order, runtime, recorder = state.order, state.runtime, state.recorder
    commands = _preparation(order)
    database = order.spec.database
    if database is None and not commands:
        return state
    source = None if database is None else runtime.databases(database.source)
    template = None
    units_text: bytes | None = None
    execution = Execution.next(order, runtime, recorder)
    with execution:
        if source is not None:
            base = source.base()
            if not execution.stands:
                with step(recorder, "clone") as detail:
                    clone = source.clone(base.database, order.leg_database())
                    size = format_size(base.size)
                    detail.append(f"{clone.method} {size} in {clone.seconds:.2f} s (data {base.data_id})")
            template = Template(base.source, order.leg_database(), base.owner, base.data_id)
        if commands:
            assert state.image is not None and state.tree is not None
            out = None
            if source is not None and template is not None:
                out = WayOut(source, template.database, order.execution_database(execution.number), template.owner)
            ended = execution.run(commands, image=state.image.id, tree=state.tree, way_out=out)
            if ended.exit_code == EXIT_RESUME:
                raise execution.resume_requested()
            if ended.exit_code != 0:
                execution.blame_the_world_first(ended)
                name = execution.last_step
                code = ended.exit_code
                raise StepFailed(f"The step {name} ended with exit code {code}. {execution.last_lines()}".strip())
            if isinstance(order.spec.units, str):
                units_text = _units_text(execution)
        execution.close()
        if source is not None:
            source.freeze(order.leg_database())
    state = replace(state, template=template)
    if units_text is not None:
        state = replace(state, units=parse_units(units_text, limit=order.spec.workspace.limits.units))
    return state


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
    """Run the units that are left, each container on a pristine clone."""
    order, recorder = state.order, state.recorder
    left = list(order.units)
    failed: list[str] = []
    exit_code = 0
    for _ in range(CONTAINERS_PER_ATTEMPT):
        execution = Execution.next(order, state.runtime, recorder)
        order = replace(order, live=None)
        with execution:
            try:
                exit_code = _run_units(state, execution, tuple(left))
                text = f"The script ended with exit code {exit_code}. {execution.last_lines()}".strip()
            except BranchError as error:
                left = _unfinished(left, execution, failed)
                if left:
                    recorder.mark([UnitResult(left[0], UnitState.FAILED, text=error.text)])
                raise
            left = _unfinished(left, execution, failed)
            if exit_code != 0 and left:
                blamed = left.pop(0)
                recorder.mark([UnitResult(blamed, UnitState.FAILED, text=text)])
                failed.append(blamed)
            if not left or (exit_code == 0 and not execution.voided):
                break
            recorder.log(f"seatrial: {len(left):,} units go on in a new container\n".encode())
    _conclude(left, failed, exit_code)
    return state


def _unfinished(left: list[str], execution: Execution, failed: list[str]) -> list[str]:
    failed += [unit for unit, unit_state in execution.finished.items() if unit_state is UnitState.FAILED]
    return [unit for unit in left if unit not in execution.finished]


def _run_units(state: State, execution: Execution, left: tuple[str, ...]) -> int:
    """Run one container over the units that are left and give its exit code; 75 and the world's faults are raised."""
    order = state.order
    assert state.image is not None and state.tree is not None
    way_out = None
    if order.template is not None:
        source = state.runtime.databases(order.template.source)
        name = order.execution_database(execution.number)
        if not execution.stands:
            with step(state.recorder, "clone") as detail:
                clone = source.clone(order.template.database, name)
                detail.append(f"{clone.method} in {clone.seconds:.2f} s (data {order.template.data_id})")
        way_out = WayOut(source, name, name, order.template.owner)
    text = order.spec.resume if order.resume_from is not None and order.spec.resume else order.spec.run
    units = left if order.has_units else None
    ended = execution.run([Command("run", text)], image=state.image.id, tree=state.tree, way_out=way_out, units=units)
    if ended.exit_code == EXIT_RESUME:
        raise execution.resume_requested()
    if ended.exit_code != 0:
        execution.blame_the_world_first(ended)
    elif not order.has_units:
        result = execution.whole_output(ended)
        execution.finished[result.unit] = result.state
        state.recorder.mark([result])
    return ended.exit_code


def _conclude(left: list[str], failed: list[str], exit_code: int) -> None:
    if left and exit_code == 0:
        shown = ", ".join(left[:5]) + (" …" if len(left) > 5 else "")
        raise Incomplete(f"The script ended with exit code 0, but {len(left):,} units are not finished: {shown}")
    if left:
        raise Incomplete(
            f"{len(left):,} units were not run: the script ended with an error {CONTAINERS_PER_ATTEMPT} times."
        )
    if failed:
        shown = ", ".join(failed[:5]) + (" …" if len(failed) > 5 else "")
        raise UnitsFailed(f"{len(failed):,} unit{'s' if len(failed) != 1 else ''} failed: {shown}")


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
            text = file.read(UNITS_BYTES + 1)
    except FileNotFoundError:
        raise UnitsError("The command `units` left no list.") from None
    if len(text) > UNITS_BYTES:
        raise UnitsError(f"The list of units has more than {UNITS_BYTES:,} bytes.")
    return text


PREPARE: tuple[Stage, ...] = (checkout, image, prepare_database, plan)
VERIFY: tuple[Stage, ...] = (checkout, image, verify)


def prepared(state: State) -> Prepared:
    """Give what a preparation leaves behind."""
    assert state.image is not None
    return Prepared(state.image.name, state.image.id, state.units, state.template)
