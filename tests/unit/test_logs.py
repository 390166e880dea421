from __future__ import annotations

import os
from pathlib import Path

from jobs.logs import Lines


def test_a_disk_that_is_full_ends_nothing_and_is_told_later(tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    lines = Lines(full)
    assert lines.write("lost\n") == 5
    lines.write("lost too\n")
    with (tmp_path / "log").open("wb") as file:
        os.dup2(file.fileno(), full)
    lines.write("there is room again\n")
    lines.write("and more\n")
    os.close(full)
    assert (tmp_path / "log").read_text() == (
        "2 lines of this log could not be written\nthere is room again\nand more\n"
    )
