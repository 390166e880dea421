"""The command line: `seatrial`."""

from __future__ import annotations

from pathlib import Path

import click

from jobs.cli_group import LazyGroup

SECTIONS = {
    "Runs": {
        "submit": ("jobs.cli_runs:submit", "Verify a branch, tag or commit."),
        "list": ("jobs.cli_runs:list_runs", "List runs, newest first."),
        "show": ("jobs.cli_runs:show", "Show a run: its state and why, its units, steps and tasks."),
        "attempts": ("jobs.cli_runs:attempts", "List a run's attempts: by whom, how each ended, what it repeated."),
        "logs": ("jobs.cli_files:logs", "Write a run's log, byte by byte as the branch wrote it."),
        "units": ("jobs.cli_runs:units", "List a run's units."),
        "output": ("jobs.cli_files:output", "Fetch a unit's output, or all of a run as an archive."),
        "diff": (
            "jobs.cli_diff:diff",
            "Show what differs in a compare run, or compare two local files or directories as one does.",
        ),
        "report": ("jobs.cli_report:report", "Write the report of a compare run as one file."),
        "groups": (
            "jobs.cli_accept:groups",
            "List the causes of a compare run's differences, those of most units first.",
        ),
        "accept": (
            "jobs.cli_accept:accept",
            "Accept a group of differences, in this run and in later ones of its project.",
        ),
        "withdraw": (
            "jobs.cli_accept:withdraw",
            "Let an accepted group count as different again, in this run and in later ones.",
        ),
        "acceptances": (
            "jobs.cli_accept:acceptances",
            "List what a project accepts, also what expired or was withdrawn.",
        ),
        "resume": ("jobs.cli_runs:resume", "Go on with a run at its first unfinished unit."),
        "cancel": ("jobs.cli_runs:cancel", "End a run."),
        "rerun": ("jobs.cli_runs:rerun", "Run the same commit again from its beginning, as a new run."),
        "projects": ("jobs.cli_around:projects", "List the server's projects."),
        "refs": ("jobs.cli_around:refs", "List the branches and tags of a project."),
        "capacity": (
            "jobs.cli_capacity:capacity",
            "Show pools, their workers and machines; start, stop and keep machines awake.",
        ),
    },
    "Server": {
        "up": (
            "jobs.cli_server:up",
            "Start everything: web, workers, sweeper, comparer, and a Valkey when none is set.",
        ),
        "demo": ("jobs.cli_demo:demo", "Show Seatrial on real input, with sample databases and repositories."),
        "worker": ("jobs.cli_server:worker", "Do the work of a pool on this machine, some tasks at once."),
        "sweeper": (
            "jobs.cli_server:sweeper",
            "Watch leases, ring for what waits, clean up what is over. Safe to run twice.",
        ),
        "comparer": (
            "jobs.cli_server:comparer",
            "Compare the units of compare runs as soon as both branches have them. Safe to run twice.",
        ),
        "web": ("jobs.cli_server:web", "Serve the pages and the API."),
    },
    "Set-up": {
        "doctor": ("jobs.cli_doctor:doctor", "Check all that Seatrial needs, and say how to mend it."),
        "settings": ("jobs.cli_admin:settings", "Check seatrial.toml."),
        "spec": ("jobs.cli_admin:spec", "Check a seatrial.yml."),
        "project": ("jobs.cli_admin:project", "Look at the projects of seatrial.toml."),
        "db": ("jobs.cli_db:db", "Bless, check and tidy the verification databases."),
    },
}


@click.group(
    cls=LazyGroup,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Settings file (default: SEATRIAL_CONFIG, else ./seatrial.toml).",
)
@click.version_option(package_name="seatrial")
def main(config: Path | None) -> None:
    """Take any branch on a sea trial beside a copy of production, and bring back proof.

    Exit codes: 0 passed, 1 failed, different or cancelled, 2 usage, 3 infrastructure.
    """


if __name__ == "__main__":
    main()
