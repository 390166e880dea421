"""What the scoreboard measures beside Seatrial leaves nothing on the machine either."""

from __future__ import annotations

import docker
from fixtures_server import IMAGE
from plain_rq import Rq


def test_what_plain_rq_left_is_taken_away() -> None:
    """Also a container that was made and never started: its client was killed between the two."""
    rq = Rq(tuned=True)
    labels = {"seatrial.installation": rq.mark}
    engine = docker.from_env()
    try:
        made = engine.containers.create(IMAGE, ["true"], labels=labels, network_mode="none")
        assert rq.containers() == []
        assert rq.containers(running=False) == [made.id]
    finally:
        rq.end()
    assert engine.containers.list(all=True, filters={"label": f"seatrial.installation={rq.mark}"}) == []
    engine.close()
