"""Clones on a filesystem that shares blocks: no time and no disk, whatever the size."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from fixtures_postgres import Sample, drop_sample, end_server, make_sample, start_server
from loop_mounts import can_mount, unmount

from runner.adapters.postgres_clone import PostgresSource

if can_mount("mkfs.xfs"):

    @pytest.fixture(scope="module")
    def xfs() -> Iterator[Path]:
        """Mount a new XFS with reflink from a file."""
        home = Path(tempfile.mkdtemp(prefix="seatrial-xfs-"))
        home.chmod(0o755)
        image, mount = home / "image", home / "mount"
        with image.open("wb") as file:
            file.truncate(2 * 1024**3)
        mount.mkdir()
        subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, mount], check=True)
        mount.chmod(0o755)
        yield mount
        unmount(mount)
        shutil.rmtree(home)

    @pytest.fixture(scope="module")
    def large(xfs: Path) -> Iterator[Sample]:
        """Give a source of about 200 MB on it."""
        server = start_server("xfs", root=xfs)
        sample = make_sample(server)
        with sample.admin() as admin:
            admin.execute(f"SET ROLE {sample.owner}".encode())
            admin.execute(
                "CREATE TABLE bulk AS SELECT g AS id, repeat(md5(g::text), 10) AS text FROM generate_series(1, 550000) g"
            )
        yield sample
        drop_sample(sample)
        end_server(server)

    def used(path: Path) -> int:
        stat = os.statvfs(path)
        return (stat.f_blocks - stat.f_bfree) * stat.f_frsize

    def test_a_clone_on_xfs_with_reflink_takes_no_disk(large: Sample, xfs: Path) -> None:
        source = PostgresSource("books", large.dsn, installation="reflink")
        base = source.bless()
        assert base.size > 180_000_000
        os.sync()
        before = used(xfs)
        names = [f"seatrial_x_r1_t{number}_e1" for number in range(5)]
        made = [source.clone(base.database, name) for name in names]
        os.sync()
        assert {clone.method for clone in made} == {"clone"}
        assert used(xfs) - before < base.size / 2  # five clones together; copies would have taken five times the size
        assert min(clone.seconds for clone in made) < 10
        login = source.login(names[0], role=names[0], owner=base.owner)
        with psycopg.connect(
            host=login.host, port=login.port, dbname=names[0], user=login.role, password=login.password
        ) as session:
            session.execute("UPDATE bulk SET text = '' WHERE id <= 1000")
            assert session.execute("SELECT count(*) FROM bulk WHERE text <> ''").fetchone() == (549_000,)
        for name in names:
            source.drop(name)
