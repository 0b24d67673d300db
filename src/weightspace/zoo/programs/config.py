"""A population of compiled programs as data: how many, of which distribution, how long and how large."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from weightspace.errors import RaspError, ZooError
from weightspace.rasp.sampler import Distribution, check_lengths
from weightspace.rasp.validate import Mode

KIND = "programs"


@dataclass(frozen=True, kw_only=True)
class ProgramZooConfig:
    """A population of compiled programs: data and nothing else.

    Attributes:
        recipe: its name.
        distribution: `paper` or `typed`.
        count: different programs, by canonical form; at least 1.
        seed: of the zoo.
        mode: `tracr_compat` for Tracr's own weights, or `fixed`.
        lengths: lengths that are wanted, equally likely; empty for those published.
        most_parameters: transformers that are larger are dropped.
        shard_size: accepted draws a shard, the unit that is made anew after a kill.
    """

    recipe: str
    distribution: Distribution
    count: int
    seed: int = 0
    mode: Mode = "tracr_compat"
    lengths: tuple[int, ...] = ()
    most_parameters: int = 65_536
    shard_size: int = 5_000

    def __post_init__(self) -> None:
        try:
            check_lengths(self.distribution, self.lengths)
        except RaspError as error:
            raise ZooError(str(error)) from None
        for name, least in (("count", 1), ("most_parameters", 1), ("shard_size", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ZooError(f"{name} is at least {least}, not {getattr(self, name)}")

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "lengths": list(self.lengths)}
