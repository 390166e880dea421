"""Whether a leg's finished units can be taken over from an earlier run's leg, and what differs when not. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from runner.model import UnitResult


@dataclass(frozen=True)
class Made:
    """What a leg's outputs come from, beside its commit. `migrated`: whether migrations ran, and there are any."""

    spec: str
    image: str | None
    data: str | None
    migrated: bool


@dataclass(frozen=True)
class Reuse:
    """The earlier leg that was looked at: what differs, or (when nothing does) its finished units by name."""

    run: int
    leg: str
    differs: tuple[str, ...] = ()
    units: Mapping[str, UnitResult] = field(default_factory=dict)

    def record(self, made: Made, taken: Collection[str]) -> dict[str, Any]:
        """Give what is recorded of it with the leg, as proof; `taken`: the units that were taken over."""
        found: dict[str, Any] = {"run": self.run, "leg": self.leg, "units": len(taken), "differs": list(self.differs)}
        found["seconds_saved"] = sum(self.units[unit].seconds or 0.0 for unit in taken)
        found["proof"] = None if self.differs else {"spec": made.spec, "image": made.image, "data": made.data}
        return found


def differing(wanted: Made, earlier: Made) -> tuple[str, ...]:
    """Name what makes the outputs of two legs of one commit incomparable; empty when nothing does."""
    pairs = (
        ("specification", wanted.spec, earlier.spec),
        ("image", wanted.image, earlier.image),
        ("data", wanted.data, earlier.data),
        ("migrations", wanted.migrated, earlier.migrated),
    )
    return tuple(name for name, a, b in pairs if a != b)
