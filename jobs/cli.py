"""The command line: `seatrial`."""

from __future__ import annotations

from pathlib import Path

import click

from jobs.cli_server import sweeper, up, web, worker


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Settings file (default: SEATRIAL_CONFIG, else ./seatrial.toml).",
)
@click.version_option(package_name="seatrial")
def main(config: Path | None) -> None:
    """Take any branch on a sea trial beside a copy of production, and bring back proof.

    Exit codes: 0 passed, 1 failed or different, 2 usage, 3 infrastructure.
    """


for command in (up, worker, sweeper, web):
    main.add_command(command)

if __name__ == "__main__":
    main()
