"""MNTD and ULP for networks of any architecture: images that are learnt, and what networks answer, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from weightspace.backdoors.table import NetworkTable
from weightspace.errors import TaskError
from weightspace.zoo.networks import module_of

SIDE = 32
"""Height and width of an image that is learnt; each network gets it at its own size."""
HELD = 5
"""Of so many training networks one is kept apart, to choose a setting by."""


@dataclass(frozen=True, eq=False)
class Asked:
    """A network that answers: its module, and the shape of an image."""

    module: nn.Module
    shape: tuple[int, int, int]


class Asker(nn.Module):
    """A network in, through its answers to the learnt images, one number out.

    MNTD (Xu et al. 2021) reads the answers with a hidden layer, ULP (Kolouri et al. 2020) with a linear one, both all
    classes side by side. Here networks have as many classes as they like, so that each class is read alike, by its
    log-probabilities for all images, and what stands out most counts.

    Args:
        images: that are learnt.
        hidden: units for each class; 0 for a linear reader.
        stride: how many times faster the images move than the reader.
        limit: images stay within this, in standard deviations of a pixel; None for no limit.
    """

    def __init__(self, images: int, hidden: int, stride: float, limit: float | None) -> None:
        super().__init__()
        self.stride, self.limit = stride, limit
        self.images = nn.Parameter(torch.randn(images, 3, SIDE, SIDE) / stride)
        self.first = nn.Linear(images, hidden or 1)
        self.last = nn.Linear(hidden, 1) if hidden else None

    def forward(self, asked: Sequence[Asked]) -> Float[Tensor, " n"]:
        shown = self.images * self.stride
        shown = shown if self.limit is None else shown.clamp(-self.limit, self.limit)
        return torch.stack([self._of(one, shown) for one in asked])

    def _of(self, one: Asked, shown: Float[Tensor, "q 3 side side"]) -> Float[Tensor, ""]:
        channels, height, width = one.shape
        x = F.interpolate(shown, (height, width), mode="bilinear", antialias=True)
        x = x if channels == x.shape[1] else x.mean(1, keepdim=True).expand(-1, channels, -1, -1)
        answers = F.log_softmax(one.module(x), 1).T  # (classes, q)
        if self.last is None:
            return self.first(answers).squeeze(1).logsumexp(0)
        return self.last(F.relu(self.first(answers)).amax(0)).squeeze()


def asked_of(table: NetworkTable) -> list[Asked]:
    """The networks of a table, ready to answer.

    Raises:
        TaskError: if the table has no networks, or one does not say which architecture it has.
    """
    if table.networks is None:
        raise TaskError("the table has numbers of networks and not the networks, which MNTD and ULP ask: give --zoos")
    found = []
    for network in table.networks:
        architecture = network.metadata.get("architecture")
        if architecture is None:
            raise TaskError("a network does not say which architecture it has, so that it cannot be asked")
        channels, height, width = architecture["input_shape"]
        found.append(Asked(module_of(network).requires_grad_(False), (channels, height, width)))
    return found


@dataclass(eq=False)
class LearntImages:
    """A method on tables that ask networks; of its learning rates that with the lowest loss on networks kept apart."""

    images: int = 10
    hidden: int = 20
    stride: float = 1.0
    limit: float | None = None
    rates: tuple[float, ...] = (1e-3, 1e-2)
    steps: int = 300
    batch: int = 16
    seed: int = 0
    model: Asker | None = None

    def fit(self, table: NetworkTable, bad: Bool[np.ndarray, " n"]) -> LearntImages:
        """Learn images and reader together, both sides weighing the same.

        Raises:
            TaskError: see `asked_of`.
        """
        asked, labels = asked_of(table), torch.from_numpy(bad.astype(np.float32))
        apart = np.random.default_rng(self.seed).permutation(len(asked)) % HELD == 0
        weight = torch.tensor(float((~bad).sum()) / max(1, int(bad.sum())))
        lowest = np.inf
        for rate in self.rates:
            model = self._trained(rate, asked, labels, np.flatnonzero(~apart), weight)
            held = [asked[row] for row in np.flatnonzero(apart)]
            said = _answers(model, held)
            loss = float(F.binary_cross_entropy_with_logits(said, labels[torch.from_numpy(apart)], pos_weight=weight))
            if loss < lowest:
                self.model, lowest = model, loss
        return self

    def _trained(self, rate: float, asked: Sequence[Asked], labels: Tensor, rows: np.ndarray, weight: Tensor) -> Asker:
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            model = Asker(self.images, self.hidden, self.stride, self.limit)
        optimiser = torch.optim.Adam(model.parameters(), lr=rate)
        rng = np.random.default_rng([self.seed, 1])
        for _ in range(self.steps):
            chosen = rng.choice(rows, min(self.batch, len(rows)), replace=False)
            said = model([asked[row] for row in chosen])
            optimiser.zero_grad()
            F.binary_cross_entropy_with_logits(said, labels[torch.from_numpy(chosen)], pos_weight=weight).backward()
            optimiser.step()
        return model.eval().requires_grad_(False)

    def scores(self, table: NetworkTable) -> Float[np.ndarray, " n"]:
        """The higher the more suspicious."""
        assert self.model is not None, "fit comes first"
        return _answers(self.model, asked_of(table)).double().numpy()


def _answers(model: Asker, asked: Sequence[Asked]) -> Float[Tensor, " n"]:
    with torch.no_grad():
        return model(asked)


def mntd() -> LearntImages:
    """As published: ten images, twenty hidden units, Adam at 1e-3; the second rate is ours."""
    return LearntImages()


def ulp() -> LearntImages:
    """As published: ten images that stay images and move much faster than a linear reader."""
    return LearntImages(hidden=0, stride=10.0, limit=2.0)
