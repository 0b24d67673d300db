"""MNTD and ULP for networks of any architecture: images that are learnt, and what networks answer, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from weightspace.backdoors.table import NetworkTable
from weightspace.backdoors.task import BACKDOOR
from weightspace.errors import TaskError
from weightspace.metamodels.baselines.queries import MNTD, ULP, Asked, Asking, LearntQueries, QueryConfig, QueryNetwork
from weightspace.metamodels.contract import Examples
from weightspace.weights.population import Population
from weightspace.zoo.networks import named_arrays

SIDE = 32
"""Height and width of an image that is learnt; each network gets it at its own size."""
HELD = 5
"""Of so many training networks one is kept apart, to choose a setting by."""
STEPS, RATES = 300, 2
"""Of each setting, some five passes over a thousand networks; and how many of the published settings are tried."""


class ClassByClass(QueryNetwork):
    """A query network whose head reads one class at a time, by its log-probabilities for all images.

    MNTD and ULP read all classes side by side. Here networks have as many classes as they like, so that each is read
    alike, and what stands out most counts.
    """

    def __init__(self, config: QueryConfig, outputs: int) -> None:
        super().__init__(config, (3, SIDE, SIDE), 1, outputs)

    def forward(self, asked: Asked) -> Float[Tensor, "b outputs"]:
        x, found, places = self.inputs(), [], []
        for (module, spec, weights, rows), shape in zip(asked.parts, asked.shapes, strict=True):
            channels, height, width = shape
            shown = F.interpolate(x, (height, width), mode="bilinear", antialias=True)
            shown = shown if channels == x.shape[1] else shown.mean(1, keepdim=True).expand(-1, channels, -1, -1)
            arrays = named_arrays(spec, weights)
            # one after the other: few are alike, and their mean over all pixels is slow in one vectorised step
            each = [{name: array[n] for name, array in arrays.items()} for n in range(len(weights))]
            said = F.log_softmax(torch.stack([functional_call(module, own, (shown,)) for own in each]), 2)
            found.append(self.head(said.transpose(1, 2)).logsumexp(1))  # (n, classes, q) to (n, outputs)
            places.append(rows)
        return torch.cat(found)[torch.cat(places).argsort()]


class AnyNetwork(LearntQueries):
    """Learnt queries for networks of any architecture, number of classes and image size."""

    def _network(self, config: QueryConfig, asking: Asking) -> QueryNetwork:  # noqa: ARG002 - they need not be alike
        return ClassByClass(config, self._outputs())


@dataclass(eq=False)
class LearntImages:
    """A method on tables, of `backdoors anywhere`, that asks their networks."""

    queries: AnyNetwork

    def fit(self, table: NetworkTable, bad: Bool[np.ndarray, " n"]) -> LearntImages:
        """Learn images and head; of the settings that with the lowest loss on a part that is kept apart.

        Raises:
            TaskError: if the table has no networks, or one does not say which architecture it has.
        """
        every = Examples(_networks(table), {BACKDOOR.name: bad.astype(np.int64)}, (BACKDOOR,))
        apart = np.random.default_rng(self.queries.seed).permutation(len(bad)) % HELD == 0
        self.queries.fit(every.select(np.flatnonzero(~apart)), every.select(np.flatnonzero(apart)))
        return self

    def scores(self, table: NetworkTable) -> Float[np.ndarray, " n"]:
        """The higher the more suspicious: log-odds."""
        said = np.clip(self.queries.predict(_networks(table))[BACKDOOR.name], 1e-12, 1)
        return np.log(said[:, 1]) - np.log(said[:, 0])


def _networks(table: NetworkTable) -> Population:
    if table.networks is None:
        raise TaskError("the table has numbers of networks and not the networks, which MNTD and ULP ask: give --zoos")
    return Population.of(table.networks)


def mntd() -> LearntImages:
    """See `queries.MNTD`; with fewer steps and rates."""
    return _brief(MNTD().grid)


def ulp() -> LearntImages:
    """See `queries.ULP`; with fewer steps and settings."""
    return _brief(ULP().grid)


def _brief(grid: Sequence[QueryConfig]) -> LearntImages:
    brief = {"steps": STEPS, "evaluate_every": STEPS // 10}
    return LearntImages(AnyNetwork([replace(one, training=replace(one.training, **brief)) for one in grid[:RATES]]))
