"""A clone of a 1 GB database on XFS with reflink, against a plain file copy on this disk's file system."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from benchmarks.measure import Row, pairs, ratio_row
from jobs.adapters.embedded_postgres import EmbeddedPostgres

ROWS = 7_000_000  # about 1 GB


@contextmanager
def _xfs(root: Path) -> Iterator[Path]:
    image, mount = root / "xfs.img", root / "xfs"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(12 << 30)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(mount)], check=True)
    mount.chmod(0o755)
    try:
        yield mount
    finally:
        subprocess.run(["umount", str(mount)], check=False)


def _filled(home: Path, port: int) -> EmbeddedPostgres:
    server = EmbeddedPostgres(home / "data", port=port, settings={"fsync": "on", "max_wal_size": "8GB"})
    server.start()
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE big")
    with psycopg.connect(server.dsn("big"), autocommit=True) as admin:
        admin.execute(
            "CREATE TABLE t AS SELECT g AS id, md5(g::text) || md5((g + 1)::text) AS a, g * 1.5 AS b "
            f"FROM generate_series(1, {ROWS}) g"
        )
        admin.execute("CHECKPOINT")
    return server


def rows(root: Path) -> Iterator[Row]:
    """Measure; wants root and xfsprogs."""
    if os.geteuid() != 0 or shutil.which("mkfs.xfs") is None:
        yield Row(
            "clone of a 1 GB database, XFS reflink",
            "FILE_COPY on this disk",
            "not measured",
            "≤ 0.15×",
            False,
            "wants root and xfsprogs",
        )
        return
    plain_home = root / "plain"
    plain_home.mkdir()
    root.chmod(0o755)
    plain_home.chmod(0o755)
    with _xfs(root) as mount:
        plain, reflink = _filled(plain_home, 54_871), _filled(mount, 54_872)
        try:
            counter = itertools.count()

            def clone(server: EmbeddedPostgres, method: str) -> None:
                # None is dropped before the end: to give a gigabyte back takes the disk's time for a while.
                with psycopg.connect(server.dsn(), autocommit=True) as admin:
                    admin.execute(f"SET file_copy_method = {method}")
                    admin.execute(f"CREATE DATABASE c{next(counter)} TEMPLATE big STRATEGY FILE_COPY")

            measured = pairs(lambda: clone(plain, "copy"), lambda: clone(reflink, "clone"), rounds=7)
            yield ratio_row("clone of a 1 GB database, XFS reflink", "FILE_COPY on this disk", measured, 0.15)
        finally:
            plain.stop()
            reflink.stop()
