"""How long what is left of a run is kept: rules and facts into what is over, with its reason. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jobs.settings import Settings
from runner.quantities import format_duration

# A run is not removed at the moment in which its outputs are: whoever looks at it is told why they are gone, and what was
# committed about them is on the disk, power cut or not.
BETWEEN_SECONDS = 3600.0
SERVER_OUTPUTS = "server.keep_outputs"


@dataclass(frozen=True)
class Rule:
    """How many seconds after a run's end something goes, and the setting that says so; None: never."""

    seconds: float | None
    setting: str

    def before(self, now: float) -> float | None:
        """Give the time before which a run has ended whose time is over; None when it never is."""
        return None if self.seconds is None else now - self.seconds

    @property
    def why(self) -> str:
        """Say why something went."""
        return f"{format_duration(self.seconds or 0.0)} after the run's end ({self.setting})"


@dataclass(frozen=True)
class Rules:
    """How long outputs and log of a project's runs are kept, and the runs themselves."""

    outputs: Rule
    runs: Rule

    @property
    def pinned(self) -> bool:
        """Tell whether the project itself wants its outputs kept for ever, however little room there is."""
        return self.outputs.seconds is None and self.outputs.setting != SERVER_OUTPUTS


@dataclass(frozen=True)
class Ended:
    """A run that ended and was cleaned up. Times are in seconds since 1970.

    `outputs_removed_at`: when its outputs were; None while they are there. `needed`: a living run repeats it, or an
    Idempotency-Key that still counts names it. `measure`: the next run of its project takes its durations from it.
    """

    run: int
    project: str
    finished_at: float
    outputs_removed_at: float | None = None
    needed: bool = False
    measure: bool = False


@dataclass(frozen=True)
class Over:
    """Something whose time is over: `outputs` (and log) of a run, or the `run` itself."""

    run: int
    what: str
    rule: Rule


def for_want_of_room(ended: Iterable[Ended], used: Mapping[int, float]) -> list[int]:
    """Order the runs whose outputs may go before their time, those that were used longest ago first.

    `used`: when a run was last repeated, or taken over from. What is needed stays, and so does the last whole run of a
    project: the next baseline may take over from it.
    """
    free = [one for one in ended if one.outputs_removed_at is None and not one.needed and not one.measure]
    return [one.run for one in sorted(free, key=lambda one: (max(one.finished_at, used.get(one.run, 0.0)), one.run))]


def rules_of(settings: Settings, project: str) -> Rules:
    """Give the rules for a project's runs: its own, else the server's, which also hold for projects that are no more."""
    server, own = settings.server, settings.projects.get(project)
    said = own.model_fields_set if own is not None else frozenset()
    outputs = Rule(server.keep_outputs, SERVER_OUTPUTS)
    runs = Rule(server.keep_runs, "server.keep_runs")
    if own is not None and "keep_outputs" in said:
        outputs = Rule(own.keep_outputs, f"projects.{project}.keep_outputs")
    if own is not None and "keep_runs" in said:
        runs = Rule(own.keep_runs, f"projects.{project}.keep_runs")
    return Rules(outputs, runs)


def over(ended: Iterable[Ended], rules: Rules, now: float) -> list[Over]:
    """Choose what goes. A run goes some time after its outputs, which go with it at the latest; what is needed stays."""
    found = []
    outputs_end, runs_end = rules.outputs.before(now), rules.runs.before(now)
    for one in ended:
        run_is_over = runs_end is not None and one.finished_at < runs_end and not one.measure
        if one.needed:
            continue
        if one.outputs_removed_at is None:
            if outputs_end is not None and one.finished_at < outputs_end:
                found.append(Over(one.run, "outputs", rules.outputs))
            elif run_is_over:
                found.append(Over(one.run, "outputs", rules.runs))
        elif run_is_over and one.outputs_removed_at < now - BETWEEN_SECONDS:
            found.append(Over(one.run, "run", rules.runs))
    return found
