"""Eilertsen's meta-classifier: one-dimensional convolutions over a slice of the flat weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from weightspace.metamodels.contract import Examples
from weightspace.metamodels.learner import Learner
from weightspace.train.config import TrainingConfig
from weightspace.train.loop import to_device
from weightspace.weights.population import Population

SLICE = 5_000
"""Weights that are read at once."""
CHANNELS = (8, 16, 32, 64, 128, 256, *(256,) * 6)
DENSE = (1024, 1024, 1024, 1024, 64)
DROPOUT = 0.5


class SliceNetwork(nn.Module):
    """Twelve convolutions of kernel 5, each with ReLU, batch normalisation and pooling by 2; then dense layers.

    Args:
        length: weights that are read at once.
        outputs: how many numbers come out.
        narrow: divides all widths, for tests.
        dropout: share of the units of each dense layer.
    """

    def __init__(self, length: int, outputs: int, narrow: int = 1, dropout: float = DROPOUT) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for channels in (max(1, c // narrow) for c in CHANNELS):
            layers += [nn.Conv1d(before, channels, 5, padding=2), nn.ReLU(), nn.BatchNorm1d(channels)]
            layers.append(nn.MaxPool1d(2, ceil_mode=True))
            before, length = channels, -(-length // 2)
        self.convolutions = nn.Sequential(*layers)
        dense: list[nn.Module] = []
        before *= length
        for width in (max(1, d // narrow) for d in DENSE):
            dense += [nn.Linear(before, width), nn.ReLU(), nn.Dropout(dropout)]
            before = width
        self.dense = nn.Sequential(*dense, nn.Linear(before, outputs))

    def forward(self, x: Float[Tensor, "b n"]) -> Float[Tensor, "b outputs"]:
        return self.dense(self.convolutions(x[:, None]).flatten(1))


class SliceConvolutions(Learner):
    """Classification of networks from 5,000 neighbouring weights (Eilertsen et al. 2020, section 5 and appendix).

    In training a slice begins at a random weight of the network, anew each time it is seen. Where we differ: weights
    are divided by the root mean square of those of 500 training networks; where no network has 5,000, a slice is as
    long as the largest, and smaller ones are padded with zeros; for an answer the outputs of `slices` evenly spaced
    slices are averaged, where theirs reads one.

    Args:
        training: theirs is Adam with rate 1e-3, batches of 64, 50 epochs.
        slices: that are read for an answer.
        narrow: divides all widths, for tests.
        dropout: share of the units of each dense layer.
    """

    name = "slice convolutions"

    def __init__(
        self,
        training: TrainingConfig | None = None,
        *,
        slices: int = 4,
        narrow: int = 1,
        dropout: float = DROPOUT,
        folder: str | Path | None = None,
        show: bool = False,
    ) -> None:
        super().__init__(training or TrainingConfig(learning_rate=1e-3), folder=folder, show=show)
        self.slices, self.narrow, self.dropout = slices, narrow, dropout
        self.scale, self.length = 1.0, SLICE

    def settings(self) -> str:
        return f"{self.name} {self.narrow} {self.dropout}"

    def build(self, training: Examples, validation: Examples) -> nn.Module:  # noqa: ARG002
        self.scale = _root_mean_square(training.networks)
        self.length = min(SLICE, max(spec.size for spec in training.networks.specs))
        return SliceNetwork(self.length, sum(self.answering.sizes), self.narrow, self.dropout)

    def read(self, networks: Population, generator: torch.Generator | None) -> Tensor:
        """(b, length) one slice of each network, from a random place, or the first."""
        return self._slices(networks, None if generator is None else torch.rand(len(networks), generator=generator))

    def answer(self, model: nn.Module, networks: Population) -> Tensor:
        device = next(model.parameters()).device
        places = torch.linspace(0, 1, self.slices) if self.slices > 1 else torch.zeros(1)
        said = [
            model(to_device(self._slices(networks, place.expand(len(networks))), device)) for place in places.unbind()
        ]
        return torch.stack(said).mean(0)

    def _slices(self, networks: Population, places: Tensor | None) -> Float[Tensor, "b n"]:
        """From places (b,), 0 for the first possible and 1 for the last."""
        found = torch.zeros(len(networks), self.length)
        for spec, positions in networks.groups():
            weights = torch.from_numpy(networks.read(positions)) / self.scale
            room = max(0, spec.size - self.length)
            own = torch.from_numpy(positions)
            starts = torch.zeros(len(own), dtype=torch.int64)
            if places is not None:
                starts = (places[own] * (room + 1)).long().clamp(max=room)
            columns = starts[:, None] + torch.arange(min(self.length, spec.size))
            found[own, : columns.shape[1]] = weights.gather(1, columns)
        return found


def _root_mean_square(networks: Population, most: int = 500) -> float:
    """Of all weights of the first `most` networks."""
    squares, count = 0.0, 0
    some = networks.select(np.arange(min(most, len(networks))))
    for spec, positions in some.groups():
        for block in np.array_split(positions, -(-len(positions) * spec.size // 2**24)):
            weights = some.read(block).astype(np.float64)
            squares, count = squares + float((weights**2).sum()), count + weights.size
    return (squares / max(1, count)) ** 0.5 or 1.0
