"""Weights to weights: a network's weights in, the weights it had before it was tampered with out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from weightspace.errors import TaskError
from weightspace.metamodels.config import MetaModelConfig
from weightspace.metamodels.embed import Normaliser
from weightspace.metamodels.encoder import Encoder
from weightspace.metamodels.learner import epoch_batch
from weightspace.metamodels.neuron_tokens import NeuronEmbedding, neuron_tokens, tokens_of
from weightspace.train.log import History
from weightspace.train.loop import train
from weightspace.weights.neurons import group_starts, neuron_entries
from weightspace.weights.population import Population
from weightspace.weights.spec import NetworkSpec

INNER = 24
"""Units of the map that edits one weight."""


class _Edit(nn.Module):
    """A change for every weight, out of the weight itself and what was read of the neurons at its two ends.

    So another order of neurons gives the same changes in that order. At first it changes nothing.
    """

    rows: Tensor
    columns: Tensor
    leaves: Tensor

    def __init__(self, config: MetaModelConfig, spec: NetworkSpec, normaliser: Normaliser) -> None:
        super().__init__()
        self.spec, self.normaliser = spec, normaliser
        self.embedding = NeuronEmbedding(config.width)
        self.encoder = Encoder(config.width, config.depth, config.heads, False, config.dropout)
        self.ends = nn.Linear(config.width, 2 * INNER)
        self.leaf = nn.Parameter(torch.zeros(len(spec.leaves), INNER))
        self.own = nn.Parameter(torch.randn(INNER))
        self.out = nn.Linear(INNER, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        rows, columns, leaves = _ends(spec)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        self.register_buffer("leaves", leaves, persistent=False)

    def forward(self, flat: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """The change of each weight, in standard deviations of its array."""
        mean, deviation = self.normaliser.columns(self.spec)
        x = self.encoder(self.embedding(neuron_tokens(flat, self.spec, self.normaliser)))
        ends = self.ends(x)  # (b, t, 2 inner)
        nobody = ends.new_zeros(len(flat), 1, ends.shape[2])
        ends = torch.cat([ends, nobody], 1)
        inner = ends[:, self.rows, :INNER] + ends[:, self.columns, INNER:] + self.leaf[self.leaves]
        weights = ((flat - mean) / deviation)[..., None]
        return self.out(nn.functional.gelu(inner + weights * self.own))[..., 0]


def _ends(spec: NetworkSpec) -> tuple[Tensor, Tensor, Tensor]:
    """For each weight the token of the neuron that reads by it, of the one that is read, and its array."""
    starts = group_starts(spec)
    rows, columns = (np.full(spec.size, starts[-1]) for _ in range(2))  # the last token is nobody
    for group, _, reads, places in neuron_entries(spec):
        ends = rows if reads else columns
        for i, entries in enumerate(places):
            ends[entries.reshape(-1)] = starts[group] + i
    leaves = np.concatenate([np.full(leaf.size, number) for number, leaf in enumerate(spec.leaves)])
    return torch.from_numpy(rows), torch.from_numpy(columns), torch.from_numpy(leaves)


class Editor:
    """Learns from pairs of networks, one finetuned from the other, the way back (Langosco et al., future work 3).

    Args:
        config: of its reader, which reads neurons, and of its training.
    """

    def __init__(self, config: MetaModelConfig, *, folder: Path | None = None) -> None:
        if config.reading != "neurons":
            raise TaskError("an editor reads neurons: give a configuration that does")
        # small enough for a CPU, where its pairs are
        self.config = replace(config, training=replace(config.training, device="cpu"))
        self.folder = folder
        self.history = History()

    def fit(
        self, spec: NetworkSpec, after: np.ndarray, before: np.ndarray, held_after: np.ndarray, held_before: np.ndarray
    ) -> Editor:
        """Learn to get from weights `after` (n, size) back to those `before`.

        The loss is the squared error relative to that of changing nothing: 1 at first.
        """
        networks = Population.of_weights(spec, after.astype(np.float32))
        normaliser = Normaliser.fit(networks, True, self.config.training.seed)
        with torch.random.fork_rng():
            torch.manual_seed(self.config.training.seed)
            self.model = _Edit(self.config, spec, normaliser)
        self.model.embedding.standardise(tokens_of(networks, normaliser))
        _, deviation = normaliser.columns(spec)
        self.deviation = deviation
        inputs, held_inputs = (torch.from_numpy(x.astype(np.float32)) for x in (after, held_after))
        wanted, held_wanted = (
            torch.from_numpy((b - a).astype(np.float32)) / deviation
            for b, a in ((before, after), (held_before, held_after))
        )
        scale = wanted.square().mean()

        def batch(step: int) -> tuple[Tensor, Tensor]:
            training = self.config.training
            rows = torch.from_numpy(epoch_batch(len(inputs), training.batch_size, step, training.seed))
            return inputs[rows], wanted[rows]

        def loss(model: nn.Module, pairs: tuple[Tensor, Tensor]) -> Tensor:
            return (model(pairs[0]) - pairs[1]).square().mean() / scale

        def evaluate(model: nn.Module) -> dict[str, float]:
            parts = zip(held_inputs.split(32), held_wanted.split(32), strict=True)
            errors = [(len(x), float((model(x) - y).square().mean())) for x, y in parts]
            wrong = sum(n * e for n, e in errors) / len(held_inputs)
            return {"loss": wrong / float(held_wanted.square().mean())}

        self.history = train(
            self.model, loss, batch, self.config.training, evaluate=evaluate, folder=self.folder,
            description="training the editor",
        )  # fmt: skip
        return self

    @property
    def error(self) -> float:
        """Squared error on the validation pairs, relative to changing nothing; the best of the training."""
        return min(float(entry["loss"]) for entry in self.history.evaluations)

    def edit(self, flat: np.ndarray) -> np.ndarray:
        """Flat weights (n, size) as they were before, in the editor's opinion."""
        self.model.eval()
        with torch.no_grad():
            x = torch.from_numpy(flat.astype(np.float32))
            return torch.cat([part + self.model(part) * self.deviation for part in x.split(32)]).numpy()
