"""A log of many megabytes costs whoever shows it little memory."""

from __future__ import annotations

import tracemalloc

from web_site import Site

from web.hub import TAIL, Channel

MEGABYTES = 24


def test_a04_following_a_long_log_takes_little_memory(site: Site) -> None:
    """Its viewers' channel keeps the end of it; who is further behind reads it from the store, piece by piece."""
    run = site.submit()
    claim = site.claim()
    task = claim.task.id
    megabyte = b"one of many lines\n" * ((1 << 20) // 18) + b"\n" * ((1 << 20) % 18)
    tracemalloc.start()
    try:
        channel = Channel(site.service, run.id, None)
        for _ in range(MEGABYTES):
            site.log(claim, megabyte)
            channel.refresh(site.service.pulses([run.id])[run.id], changed=True)
            while channel.behind:
                channel.refresh(site.service.pulses([run.id])[run.id], changed=True)
        assert channel.heads[task] == MEGABYTES << 20
        kept, _ = tracemalloc.get_traced_memory()
        assert kept < 2 * TAIL, f"{kept:,} bytes are kept"
        tracemalloc.reset_peak()
        size = sum(len(piece) for piece in site.service.open_log(task))
        _, highest = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size == MEGABYTES << 20
    assert highest < kept + TAIL, f"{highest - kept:,} bytes more"
