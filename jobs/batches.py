"""Divide a leg's units into batches. Pure."""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Mapping, Sequence

# A batch is one container: long enough to make its start (about half a second) and its clone cheap, short
# enough that a lost machine and the tail of a run cost little.
BATCH_SECONDS = 600.0

# Without known durations each slot gets a few batches, so that an unlucky one does not hold up the end.
FIRST_RUN_BATCHES_PER_SLOT = 2


def divide(
    units: Sequence[str],
    durations: Mapping[str, float],
    *,
    slots: int,
    can_split: bool = True,
    first: Collection[str] = (),
) -> list[tuple[str, ...]]:
    """Divide `units` into batches, longest work first; each batch keeps the order of `units`.

    `durations`: seconds a unit took in the last comparable run; a unit that it does not name is taken as their
    median. Without any, the split is even. `slots`: how many batches can run at once. `first`: units that go before
    all others, in batches of their own.
    """
    if not units:
        return []
    early = [unit for unit in units if unit in first]
    if can_split and 0 < len(early) < len(units):
        late = [unit for unit in units if unit not in first]
        return [batch for part in (early, late) for batch in divide(part, durations, slots=slots)]
    if not can_split or len(units) == 1:
        return [tuple(units)]
    slots = max(1, slots)
    known = sorted(durations[unit] for unit in units if unit in durations)
    if not known:
        return _evenly(units, min(len(units), slots if len(units) < 4 * slots else slots * FIRST_RUN_BATCHES_PER_SLOT))
    median = known[len(known) // 2]
    weight = {unit: max(durations.get(unit, median), 0.0001) for unit in units}
    total = sum(weight.values())
    count = min(len(units), max(slots, math.ceil(total / BATCH_SECONDS)))
    return _longest_first(units, weight, count)


def _evenly(units: Sequence[str], count: int) -> list[tuple[str, ...]]:
    size, rest = divmod(len(units), count)
    batches, start = [], 0
    for index in range(count):
        end = start + size + (1 if index < rest else 0)
        batches.append(tuple(units[start:end]))
        start = end
    return batches


def _longest_first(units: Sequence[str], weight: Mapping[str, float], count: int) -> list[tuple[str, ...]]:
    """Give each unit, longest first, to the lightest batch; put the heaviest batch first."""
    heap: list[tuple[float, int]] = [(0.0, index) for index in range(count)]
    chosen: list[list[int]] = [[] for _ in range(count)]
    for position in sorted(range(len(units)), key=lambda p: -weight[units[p]]):
        load, index = heapq.heappop(heap)
        chosen[index].append(position)
        heapq.heappush(heap, (load + weight[units[position]], index))
    loads = {index: load for load, index in heap}
    order = sorted((index for index in range(count) if chosen[index]), key=lambda index: -loads[index])
    return [tuple(units[position] for position in sorted(chosen[index])) for index in order]
