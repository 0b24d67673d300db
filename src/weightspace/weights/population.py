"""A population: many networks as one sequence, held as matrices of flat weights, one for each spec."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, overload, runtime_checkable

import numpy as np

from weightspace.errors import NetworkError
from weightspace.weights.network import Network, check_finite
from weightspace.weights.spec import NetworkSpec


@runtime_checkable
class Source(Protocol):
    """Where a population's weights lie: memory, or the shards of a zoo."""

    @property
    def specs(self) -> tuple[NetworkSpec, ...]:
        """The different specs, each once."""
        ...

    def spec_ids(self, rows: np.ndarray) -> np.ndarray:
        """For each row (n,) the position of its spec in `specs`, (n,) int64."""
        ...

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Copy the flat weights of rows (n,) of one spec into `out` (n, spec.size) float32."""
        ...

    def metadata(self, row: int) -> Mapping[str, Any]:
        """What is known about one network."""
        ...


@dataclass(frozen=True, eq=False)
class Population(Sequence[Network]):
    """Some of the networks of a source, in an order of the caller's.

    A predictor is given any sequence of networks; `Population.of` turns each kind into this one, which hands out whole
    matrices instead of networks one by one.
    """

    source: Source
    rows: np.ndarray

    @staticmethod
    def of(networks: Sequence[Network]) -> Population:
        """The networks as a population; one that is a population already is returned as it is."""
        if isinstance(networks, Population):
            return networks
        memory = _Memory(networks)
        return Population(memory, np.arange(len(networks)))

    @staticmethod
    def of_weights(spec: NetworkSpec, flat: Iterable[np.ndarray]) -> Population:
        """Networks of one spec and nothing known about them, from flat float32 weights (size,) of each."""
        return Population.of([Network(spec, row) for row in flat])

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Network: ...
    @overload
    def __getitem__(self, index: slice) -> Population: ...
    def __getitem__(self, index: int | slice) -> Network | Population:
        if isinstance(index, slice):
            return Population(self.source, self.rows[index])
        if not -len(self) <= index < len(self):
            raise IndexError(f"network {index} of a population of {len(self)}")
        row = self.rows[[index]]
        spec = self.source.specs[int(self.source.spec_ids(row)[0])]
        weights = np.empty((1, spec.size), np.float32)
        self.source.read(row, weights)
        return Network(spec, weights[0], self.source.metadata(int(row[0])))

    def select(self, positions: np.ndarray) -> Population:
        """The networks at `positions` (n,), in that order."""
        return Population(self.source, self.rows[positions])

    def and_then(self, others: Population) -> Population:
        """These networks, then others; those of one source stay where they lie, others are read into memory."""
        if self.source is others.source:
            return Population(self.source, np.concatenate([self.rows, others.rows]))
        return Population.of([*self, *others])

    @property
    def specs(self) -> tuple[NetworkSpec, ...]:
        """The specs that occur, in the order of the source's list."""
        ids = np.unique(self.source.spec_ids(self.rows)) if len(self) else []
        return tuple(self.source.specs[int(i)] for i in ids)

    def groups(self) -> Iterator[tuple[NetworkSpec, np.ndarray]]:
        """Each spec that occurs, with the positions (n,) of its networks."""
        if not len(self):
            return
        ids = self.source.spec_ids(self.rows)
        for i in np.unique(ids):
            yield self.source.specs[int(i)], np.flatnonzero(ids == i)

    def read(self, positions: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Flat weights (n, size) float32 of the networks at `positions` (n,), which must share one spec.

        Args:
            out: a buffer to fill and return; reusing one avoids fresh memory for every batch.
        """
        rows = self.rows[positions]
        ids = self.source.spec_ids(rows)
        if len(ids) == 0 or (ids != ids[0]).any():
            raise NetworkError("one matrix was asked of networks with different specs, or of none: read by `groups`")
        if out is None:
            out = np.empty((len(rows), self.source.specs[int(ids[0])].size), np.float32)
        self.source.read(rows, out)
        return out

    def check_finite(self) -> None:
        """Raise a NetworkError that names network and array, if any weight is NaN or infinite."""
        for spec, positions in self.groups():
            for block in np.array_split(positions, -(-len(positions) // 1024)):
                matrix = self.read(block)
                for bad in block[~np.isfinite(matrix).all(axis=1)]:
                    network = self[int(bad)]
                    name = network.metadata.get("network", int(bad))
                    check_finite(spec, network.weights, f"network {name}")


class _Memory:
    """A source over networks that lie in memory."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self.networks = list(networks)
        places: dict[NetworkSpec, int] = {}
        self.ids = np.array([places.setdefault(n.spec, len(places)) for n in self.networks], np.int64)
        self.specs = tuple(places)

    def spec_ids(self, rows: np.ndarray) -> np.ndarray:
        return self.ids[rows]

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        for target, row in zip(out, rows, strict=True):
            target[:] = self.networks[int(row)].weights

    def metadata(self, row: int) -> Mapping[str, Any]:
        return self.networks[row].metadata
