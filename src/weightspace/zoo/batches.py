"""A zoo's networks as a data set of torch: flat weights and their labels, read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from weightspace.weights.population import Population

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor


class NetworkRows:
    """What `Zoo.torch` gives, see there: `rows[i]` is (weights, labels) of one network."""

    def __init__(self, networks: Population, table: pa.Table) -> None:
        """Networks, and their rows of the index in the same order."""
        self._networks = networks
        columns = {name: _plain(table.column(name)) for name in table.column_names}
        self._labels = {name: values for name, values in columns.items() if values is not None}

    def __len__(self) -> int:
        return len(self._networks)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        import torch

        weights = self._networks[index].weights
        return torch.from_numpy(weights.copy()), {name: values[index] for name, values in self._labels.items()}

    def __iter__(self) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        return (self[index] for index in range(len(self)))


def _plain(column: pa.ChunkedArray) -> list[Any] | None:
    """A value for each network that torch can put into a batch, or None if some have none."""
    import pyarrow as pa

    kind, holes = column.type, column.null_count > 0
    if pa.types.is_floating(kind) or (pa.types.is_integer(kind) and holes):
        return np.asarray(column.cast(pa.float64()), dtype=np.float64).tolist()
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if holes or not (text or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        return None
    return column.to_pylist()
