"""Export the units named in $SEATRIAL_UNITS as CSV, and mark each when its file is complete."""

import csv
import os
import sys
import time
from pathlib import Path

from django.core.management.base import BaseCommand
from django.db import InterfaceError, OperationalError
from django_ledger.models import EntityModel

from verification.statements import HEADER, STATEMENTS

RESUME_ME = 75  # EX_TEMPFAIL: interrupted, not failed


class Command(BaseCommand):
    help = __doc__

    def handle(self, **_options: object) -> None:
        units = Path(os.environ["SEATRIAL_UNITS"]).read_text().split()
        output = Path(os.environ["SEATRIAL_OUTPUT"])
        with open(os.environ["SEATRIAL_CHECKPOINT"], "a") as checkpoint:
            for number, unit in enumerate(units, start=1):
                started = time.monotonic()
                try:
                    rows = self.export(unit, output)
                except (OperationalError, InterfaceError) as error:
                    self.stderr.write(f"the database went away in {unit}: {error}")
                    sys.exit(RESUME_ME)
                checkpoint.write(f"{unit}\n")
                checkpoint.flush()
                seconds = time.monotonic() - started
                self.stdout.write(f"{number}/{len(units)} {unit}: {rows} rows in {seconds:.2f} s")

    def export(self, unit: str, output: Path) -> int:
        """Write `<output>/<unit>.csv` and return its number of rows."""
        slug, statement = unit.rsplit("/", 1)
        rows = list(STATEMENTS[statement](EntityModel.objects.get(slug=slug)))
        path = output / f"{unit}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(HEADER)
            writer.writerows(rows)
        return len(rows)
