"""A detector that reads a network of any architecture as sets: the neurons of its layers, and its classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from weightspace.backdoors.table import NetworkTable
from weightspace.errors import NetworkError
from weightspace.metamodels.invariants import CLASS_FEATURES, NEURON_FEATURES, WHOLE, Invariants
from weightspace.metamodels.order import NormalScores

SLOTS = 4
"""Places of a layer: last hidden one, second last, third last, any before."""
WIDTH = 48
KIND = SLOTS + 2
"""What a neuron's token says of its layer: its place, whether it is the first, and how many neurons it has."""


@dataclass(frozen=True)
class Sets:
    """Networks as padded sets.

    Attributes:
        neurons: (n, t, NEURON_FEATURES) normal scores of ranks, 0 on padding; kinds: (n, t, KIND).
        slot: (n, t) place of each neuron's layer, SLOTS on padding.
        classes: (n, c, CLASS_FEATURES) normal scores; class_mask: (n, c).
        whole: (n, WHOLE) normal scores.
    """

    neurons: Float[Tensor, "n t f"]
    kinds: Float[Tensor, "n t k"]
    slot: Int[Tensor, "n t"]
    classes: Float[Tensor, "n c g"]
    class_mask: Bool[Tensor, "n c"]
    whole: Float[Tensor, "n w"]

    def take(self, rows: Tensor) -> Sets:
        return Sets(
            self.neurons[rows],
            self.kinds[rows],
            self.slot[rows],
            self.classes[rows],
            self.class_mask[rows],
            self.whole[rows],
        )


class SetReader(nn.Module):
    """Neurons and classes each through one small network, pooled place by place, then one answer.

    Pooled are the mean, the greatest, and a mean by learned weights, of any number of neurons, layers and classes.
    """

    def __init__(self, width: int = WIDTH, dropout: float = 0.3) -> None:
        super().__init__()
        self.neuron = _small(len(NEURON_FEATURES) + KIND, width)
        self.one_class = _small(len(CLASS_FEATURES), width)
        self.weight, self.class_weight = nn.Linear(width, 1), nn.Linear(width, 1)
        inputs = (SLOTS + 1) * 3 * width + WHOLE
        self.answer = nn.Sequential(
            nn.LayerNorm(inputs),
            nn.Dropout(dropout),
            nn.Linear(inputs, 64),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(64, 1),
        )

    def forward(self, sets: Sets) -> Float[Tensor, " n"]:
        neurons = self.neuron(torch.cat([sets.neurons, sets.kinds], 2))
        pooled = [_pooled(neurons, self.weight(neurons), sets.slot == slot) for slot in range(SLOTS)]
        classes = self.one_class(sets.classes)
        pooled.append(_pooled(classes, self.class_weight(classes), sets.class_mask))
        return self.answer(torch.cat([*pooled, sets.whole], 1)).squeeze(1)


def _small(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, width), nn.GELU())


def _pooled(x: Tensor, weight: Tensor, mask: Tensor) -> Float[Tensor, "n p"]:
    """Mean, greatest and weighted mean over the tokens of a mask; zeros where it has none."""
    inside = mask[:, :, None]
    count = inside.sum(1).clamp(min=1)
    some = mask.any(1, keepdim=True)
    mean = (x * inside).sum(1) / count
    greatest = torch.where(some, x.masked_fill(~inside, -1e4).amax(1), 0.0)
    shares = torch.where(inside, weight, torch.full_like(weight, -1e4)).softmax(1) * inside
    return torch.cat([mean, greatest, (x * shares).sum(1)], 1)


@dataclass(eq=False)
class NeuronSet:
    """Several `SetReader`s on one table, by AdamW; their mean log-odds are the answer.

    Attributes:
        epochs, rate, decay, batch: of training; chosen on training networks (see `experiments.diverse`).
        readers: how many, which differ in their seed.
    """

    epochs: int = 30
    rate: float = 3e-3
    decay: float = 0.05
    batch: int = 32
    readers: int = 2
    seed: int = 0
    fitted: list[SetReader] = field(default_factory=list)
    ranks: list[NormalScores] = field(default_factory=list)

    def fit(self, table: NetworkTable, bad: Bool[np.ndarray, " n"]) -> NeuronSet:
        known = neurons_of(table)
        self.ranks = [NormalScores(1, n) for n in (len(NEURON_FEATURES), len(CLASS_FEATURES), WHOLE)]
        for ranks, rows in zip(self.ranks, _rows(known), strict=True):
            ranks.fit(0, torch.from_numpy(rows).float())
        sets, y = self._sets(known), torch.from_numpy(bad).float()
        balance = (len(y) - y.sum()) / y.sum().clamp(min=1)
        self.fitted = []
        for number in range(self.readers):
            torch.manual_seed(1_000 * self.seed + number)
            self.fitted.append(self._fit_one(sets, y, balance))
        return self

    def _fit_one(self, sets: Sets, y: Tensor, balance: Tensor) -> SetReader:
        reader = SetReader().train()
        optimiser = torch.optim.AdamW(reader.parameters(), self.rate, weight_decay=self.decay)
        steps = self.epochs * -(-len(y) // self.batch)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, self.rate, total_steps=steps)
        for _ in range(self.epochs):
            for rows in torch.randperm(len(y)).split(self.batch):
                loss = F.binary_cross_entropy_with_logits(reader(sets.take(rows)), y[rows], pos_weight=balance)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
        return reader.eval()

    def scores(self, table: NetworkTable) -> Float[np.ndarray, " n"]:
        sets = self._sets(neurons_of(table))
        with torch.no_grad():
            return torch.stack([reader(sets) for reader in self.fitted]).mean(0).double().numpy()

    def blame(self, one: NetworkTable) -> Float[np.ndarray, " t"]:
        """(neurons of all layers, then classes) how much each raises the answer on a network, to first order: the
        gradient with respect to its numbers, times how far these are from the median, 0 or more."""
        sets = self._sets(neurons_of(one))
        neurons, classes = (tokens.detach().requires_grad_(True) for tokens in (sets.neurons, sets.classes))
        given = replace(sets, neurons=neurons, classes=classes)
        odds = torch.stack([reader(given) for reader in self.fitted]).mean(0).sum()
        gradients = torch.autograd.grad(odds, (neurons, classes))
        both = [(gradient * tokens).sum(2)[0] for gradient, tokens in zip(gradients, (neurons, classes), strict=True)]
        return torch.cat(both).detach().clamp(min=0).double().numpy()

    def _sets(self, known: Sequence[Invariants]) -> Sets:
        tokens = max(sum(map(len, one.neurons)) for one in known)
        classes = max(len(one.classes) for one in known)
        n = len(known)
        neurons = torch.zeros(n, tokens, len(NEURON_FEATURES))
        kinds, slot = torch.zeros(n, tokens, KIND), torch.full((n, tokens), SLOTS)
        of_class, mask = torch.zeros(n, classes, len(CLASS_FEATURES)), torch.zeros(n, classes, dtype=torch.bool)
        for i, one in enumerate(known):
            start = 0
            for depth, layer in enumerate(one.neurons):
                rows = slice(start, start + len(layer))
                place = min(len(one.neurons) - 1 - depth, SLOTS - 1)
                neurons[i, rows] = self._scored(0, layer)
                kinds[i, rows, place] = 1
                kinds[i, rows, SLOTS] = float(depth == 0)
                kinds[i, rows, SLOTS + 1] = float(np.log(len(layer)) - 3)
                slot[i, rows] = place
                start += len(layer)
            of_class[i, : len(one.classes)] = self._scored(1, one.classes)
            mask[i, : len(one.classes)] = True
        whole = self._scored(2, np.stack([one.whole for one in known]))
        return Sets(neurons, kinds, slot, of_class, mask, whole)

    def _scored(self, which: int, values: np.ndarray) -> Tensor:
        x = torch.from_numpy(values).float()
        return self.ranks[which](x, torch.zeros(len(x), dtype=torch.long))


def neurons_of(table: NetworkTable) -> Sequence[Invariants]:
    """The neurons and classes of each network of a table.

    Raises:
        NetworkError: if it does not keep them.
    """
    if table.sets is None:
        raise NetworkError("this table holds no neurons: read the networks again, and keep them with --neurons")
    return table.sets


def _rows(known: Sequence[Invariants]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All neurons, all classes and all networks as rows; of many neurons some thousand."""
    neurons = np.concatenate([layer for one in known for layer in one.neurons])
    few = np.random.default_rng(0).permutation(len(neurons))[:20_000]
    return neurons[few], np.concatenate([one.classes for one in known]), np.stack([one.whole for one in known])
