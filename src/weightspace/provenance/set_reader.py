"""A reader of networks as sets of outputs: tokens of weights or of answers to learnt probes, in whatever order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from weightspace.metamodels.baselines.queries import Asked, Asking
from weightspace.metamodels.contract import Examples
from weightspace.metamodels.learner import Answering, Learner
from weightspace.provenance.questions import asked_targets
from weightspace.provenance.stacked import stacked_answers
from weightspace.provenance.views import path_templates
from weightspace.train.config import TrainingConfig
from weightspace.weights.population import Population
from weightspace.zoo.networks import named_arrays

Tokens = Literal["templates", "probes"]
HELD = 16
"""Batches of networks to be judged that are held, at most."""


@dataclass(frozen=True, kw_only=True)
class SetReaderConfig:
    """What a set reader is.

    Attributes:
        tokens: what stands for an output: `templates`, paths through the weights, see `path_templates`; or `probes`,
            its answers to learnt inputs.
        probes: how many of these.
        latent: dimensions of the codes from which a linear generator makes probes.
        width: of the tokens inside.
        dropout: inside.
        training: how it is trained.
    """

    tokens: Tokens = "probes"
    probes: int = 64
    latent: int = 32
    width: int = 128
    dropout: float = 0.1
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            steps=800, batch_size=64, learning_rate=3e-3, weight_decay=1e-2, evaluate_every=50, final_fraction=0.01
        )
    )


@dataclass(frozen=True)
class Answered:
    """What a set reader answers.

    Attributes:
        classes: of the image set, each a question.
        numbers: a class has: two, logits of no and yes, or one, its share.
        taught: outputs of which it was said in training which class each stands for, at most; 0 for none.
    """

    classes: int
    numbers: int
    taught: int

    @staticmethod
    def by(answering: Answering) -> Answered:
        """From the targets of training: first those of all classes, then those of the outputs."""
        classes = len(asked_targets(answering.targets))
        return Answered(classes, answering.sizes[0], len(answering.targets) - classes)

    @property
    def size(self) -> int:
        """Numbers in all."""
        return self.classes * (self.numbers + self.taught)


class SetHead(nn.Module):
    """From a set of tokens (b, n, size), one an output, to answers, whatever the order of the n tokens.

    A shared layer sees each token, a second one each token beside mean and maximum of all. Of each output it says which
    class it may stand for. A class is there as far as some output stands for it, and as the log-sum-exp over outputs of
    what each says to it, and a linear map of the pooled tokens, have it; its share is that of the outputs that stand
    for it.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, size: int, width: int, answered: Answered, dropout: float) -> None:
        super().__init__()
        self.answered = answered
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        self.first = nn.Sequential(nn.Linear(size, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, width))
        self.second = nn.Sequential(nn.GELU(), nn.Linear(3 * width, width), nn.GELU(), nn.Dropout(dropout))
        self.each = nn.Linear(width, answered.classes)
        self.share = nn.Linear(width, 1)
        self.slots = nn.Linear(width, answered.classes * answered.numbers)
        self.pooled = nn.Linear(2 * width, answered.classes * answered.numbers)
        self.trust = nn.Parameter(torch.ones(()))
        nn.init.zeros_(self.pooled.weight)

    def forward(self, tokens: Float[Tensor, "b n size"]) -> Float[Tensor, "b answers"]:
        inner = self.inner(tokens)  # (b, n, width)
        standing = self.each(inner)  # (b, n, classes)
        said = self.slots(inner).logsumexp(1) - float(np.log(inner.shape[1])) + self.pooled(pooled(inner))
        wide = said.unflatten(1, (self.answered.classes, self.answered.numbers))
        chances = standing.softmax(2)
        if self.answered.numbers == 1:
            seen = (chances * self.share(inner)).sum(1)
        else:
            absent = torch.log1p(-chances.clamp(max=1 - 1e-4)).sum(1)  # logarithm of the chance that no output is it
            seen = torch.log1p(-absent.exp().clamp(max=1 - 1e-4)) - absent
        answers = torch.cat([wide[:, :, :-1], wide[:, :, -1:] + self.trust * seen[:, :, None]], 2).flatten(1)
        if not self.answered.taught:
            return answers
        missing = self.answered.taught - standing.shape[1]
        return torch.cat([answers, nn.functional.pad(standing, (0, 0, 0, missing)).flatten(1)], 1)

    def inner(self, tokens: Float[Tensor, "b n size"]) -> Float[Tensor, "b n width"]:
        """What is made of each token beside the others."""
        seen = self.first((tokens - self.centre) / self.scale)
        mean, most = seen.mean(1, keepdim=True), seen.amax(1, keepdim=True)
        return self.second(torch.cat([seen, mean.expand_as(seen), most.expand_as(seen)], 2))

    @torch.no_grad()
    def standardise(self, tokens: Float[Tensor, "b n size"]) -> None:
        """Take the scale of every number from tokens of the training networks."""
        flat = tokens.flatten(0, 1)
        self.centre.copy_(flat.mean(0))
        self.scale.copy_(flat.std(0, correction=0).clamp(min=1e-6))


def pooled(inner: Float[Tensor, "b n width"]) -> Float[Tensor, "b twice"]:
    """Mean and maximum over the tokens."""
    return torch.cat([inner.mean(1), inner.amax(1)], 1)


class TemplateNetwork(nn.Module):
    """Tokens that are made beforehand, in groups of networks with as many outputs, and a head."""

    def __init__(self, config: SetReaderConfig, size: int, answered: Answered) -> None:
        super().__init__()
        self.head = SetHead(size, config.width, answered, config.dropout)

    def forward(self, tokens: Sequence[tuple[Tensor, Tensor]]) -> Float[Tensor, "b answers"]:
        return _in_order([(self.head(part), places) for part, places in tokens])


class ProbeNetwork(nn.Module):
    """Networks run on learnt inputs, and a head on their answers.

    The inputs are made of codes by a linear generator of two layers: so a step moves them all, and along what many of
    them share. Answers are centred over the outputs, as no probability depends on their mean, and of size 1 a network.

    Args:
        shape: (channels, height, width) of an input.
        answered: what is answered.
    """

    def __init__(self, config: SetReaderConfig, shape: tuple[int, ...], answered: Answered) -> None:
        super().__init__()
        pixels = int(np.prod(shape))
        self.shape = shape
        self.codes = nn.Parameter(torch.randn(config.probes, config.latent))
        self.generator = nn.Sequential(
            nn.Linear(config.latent, 2 * config.latent, bias=False), nn.Linear(2 * config.latent, pixels, bias=False)
        )
        for layer in self.generator:
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        self.head = SetHead(config.probes, config.width, answered, config.dropout)

    def inputs(self) -> Float[Tensor, "probes c h w"]:
        return self.generator(self.codes).unflatten(1, self.shape)

    def tokens(self, asked: Asked) -> list[tuple[Tensor, Tensor]]:
        """Of each architecture tokens (n, outputs, probes), and the networks' places (n,) in the batch."""
        x, found = self.inputs(), []
        for module, spec, weights, places in asked.parts:
            logits = stacked_answers(module, named_arrays(spec, weights), x)  # (n, probes, outputs)
            found.append((normalised(logits).transpose(1, 2), places))
        return found

    def forward(self, asked: Asked) -> Float[Tensor, "b answers"]:
        return _in_order([(self.head(part), places) for part, places in self.tokens(asked)])


def normalised(logits: Float[Tensor, "n probes outputs"]) -> Float[Tensor, "n probes outputs"]:
    """Answers less their mean over the outputs, of size 1 for each network."""
    centred = logits - logits.mean(2, keepdim=True)
    return centred / (centred.square().mean((1, 2), keepdim=True) + 1e-12).sqrt()


def _in_order(parts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Parts of a batch (n, ...) put at their places."""
    return torch.cat([values for values, _ in parts])[torch.cat([places for _, places in parts]).argsort()]


class SetReader(Learner):
    """Reads networks as sets of outputs, whatever the order of outputs and of hidden neurons.

    With `templates` it reads weights alone, of one architecture or of several whose templates are as long; with
    `probes` it runs the networks, of any architecture with the same inputs, many at once.
    """

    def __init__(self, config: SetReaderConfig | None = None, *, seed: int = 0, show: bool = False) -> None:
        self.config = config or SetReaderConfig()
        super().__init__(replace(self.config.training, seed=seed), show=show)
        self.name = "path templates" if self.config.tokens == "templates" else "learnt probes"
        self._kept: dict[bytes, np.ndarray] = {}
        self._asking: tuple[Population, Asking] | None = None  # of the training networks
        self._held: dict[bytes, tuple[Population, Asked]] = {}  # batches that are judged again and again

    def build(self, training: Examples, validation: Examples) -> nn.Module:  # noqa: ARG002
        answered = Answered.by(self.answering)
        if self.config.tokens == "templates":
            model: nn.Module = TemplateNetwork(self.config, self._templates(training.networks)[0].shape[1], answered)
        else:
            shape, _ = Asking(training.networks).interface()
            model = ProbeNetwork(self.config, shape, answered)
        return model

    def prepare(self, training: Examples) -> None:
        """Tokens are put on the scale that those of some training networks have."""
        few = training.networks.select(np.arange(min(len(training), 256)))
        read = self.read(few, None)
        with torch.no_grad():
            parts = self.model.tokens(read) if isinstance(self.model, ProbeNetwork) else read
            tokens = torch.cat([part.reshape(1, -1, part.shape[2]) for part, _ in parts], 1)
        head = self.model.head
        assert isinstance(head, SetHead)
        head.standardise(tokens)

    def batch(self, training: Examples, positions: np.ndarray, generator: torch.Generator) -> Any:
        if self.config.tokens == "templates":
            return super().batch(training, positions, generator)
        if self._asking is None or self._asking[0] is not training.networks:
            self._asking = training.networks, Asking(training.networks)  # what each network is, is looked up once
        return self._asking[1].batch(positions)

    def read(self, networks: Population, generator: torch.Generator | None) -> Any:  # noqa: ARG002
        if self.config.tokens == "probes":
            key = networks.rows.tobytes()
            known = self._held.get(key)
            if known is None or known[0].source is not networks.source:
                known = networks, Asking(networks).batch(np.arange(len(networks)))
                if len(self._held) < HELD:
                    self._held[key] = known
            return known[1]
        tables = self._templates(networks)
        parts = []
        for count in sorted({len(table) for table in tables}):
            rows = [i for i, table in enumerate(tables) if len(table) == count]
            parts.append((torch.from_numpy(np.stack([tables[i] for i in rows])), torch.tensor(rows)))
        return parts

    def _templates(self, networks: Population) -> list[np.ndarray]:
        """Templates of each network, made once."""
        found = []
        for network in networks:
            key = network.weights.tobytes()
            if key not in self._kept:
                self._kept[key] = path_templates(network)
            found.append(self._kept[key])
        return found

    def settings(self) -> str:
        return repr(self.config)
