"""What a server left behind: of its runs while it stands, and of itself when it has ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import docker
from fixtures_postgres import Sample
from fixtures_server import Server


def of_runs(server: Server, sample: Sample | None) -> list[str]:
    """List what there still is of runs that have all ended, while the server stands."""
    found = server.left(sample)
    # A tree that is not whole yet.
    found += [str(path) for path in sorted((server.home / "trees").glob("*/.new-*"))]
    return found + list(mounts(server.root))


class Mark:
    """What tells a server's things from others' when it has ended and its directory is gone."""

    def __init__(self, server: Server) -> None:
        self.root, self.installation = server.root, server.installation
        self._server = server

    def left(self, sample: Sample | None) -> list[str]:
        """List what there still is of the server on this host, and of its databases beside the frozen bases."""
        found = [f"process {one.pid}" for one in self._server.processes()]
        client = docker.from_env()
        label = {"label": f"seatrial.installation={self.installation}"}
        found += [f"container {one['Names'][0]}" for one in client.api.containers(all=True, filters=label)]
        for network in client.api.networks():
            if self.installation in f"{network['Name']} {network['Labels']}":
                found.append(f"network {network['Name']}")
        for volume in client.api.volumes()["Volumes"] or []:
            if str(self.root) in str(volume["Options"]) or self.installation in f"{volume['Name']} {volume['Labels']}":
                found.append(f"volume {volume['Name']}")
        client.close()
        if sample is not None:
            found += [name for name in sample.databases() | sample.roles() if f"_{self.installation}_" in name]
        return [*found, *mounts(self.root), *sockets(self.root)]


def mounts(root: Path) -> Iterator[str]:
    """List what is mounted below a directory."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        place = line.split()[1]
        if Path(place).is_relative_to(root):
            yield f"mount {place}"


def sockets(root: Path) -> Iterator[str]:
    """List the sockets below a directory that somebody holds open."""
    for line in Path("/proc/net/unix").read_text().splitlines():
        if str(root) in line:
            yield f"socket {line.split()[-1]}"
