"""Pretraining without labels: a meta-model learns to fill in tokens that were hidden from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from weightspace.metamodels.config import MetaModelConfig
from weightspace.metamodels.contract import Examples
from weightspace.metamodels.embed import TokenBatch
from weightspace.metamodels.learner import epoch_batch
from weightspace.metamodels.metamodel import MetaModel, Transformer
from weightspace.metamodels.neuron_tokens import FEATURES, NeuronEmbedding
from weightspace.train.loop import mix, train

HIDDEN = 0.3
"""Share of the tokens that are hidden."""


class _FillIn(nn.Module):
    """The reader of a meta-model, a vector that stands for what is hidden, and a linear map back to tokens."""

    def __init__(self, model: Transformer, features: int) -> None:
        super().__init__()
        self.model = model
        self.hidden = nn.Parameter(torch.randn(model.config.width) * 0.02)
        self.back = nn.Linear(model.config.width, features)

    def forward(self, tokens: TokenBatch, hide: Tensor) -> Tensor:
        """Mean squared error of the hidden tokens; 1 is what the mean of all tokens of a layer would have."""
        embedding = self.model.embedding
        wanted = embedding.standard(tokens) if isinstance(embedding, NeuronEmbedding) else tokens.values
        blank = TokenBatch(torch.where(hide[..., None], self._blank(tokens), tokens.values), tokens.mask, tokens.kinds)
        x = embedding(blank) + hide[..., None] * self.hidden
        x = self.model.encoder(x, tokens.mask if tokens.padded else None)
        return (self.back(x) - wanted).square()[hide].mean()

    def _blank(self, tokens: TokenBatch) -> Tensor:
        embedding = self.model.embedding
        return embedding.centre_of(tokens) if isinstance(embedding, NeuronEmbedding) else torch.zeros(())


class PretrainedMetaModel(MetaModel):
    """A meta-model whose reader first learns to fill in hidden tokens of the training networks, without their labels.

    The paper's future work 1, as masked modelling (Devlin et al. 2019): 30% of the tokens are hidden.

    Args:
        steps: of pretraining, with the batch size and learning rate of `config`.
    Raises:
        ValueError: if it reads leaves, which have no token that could be hidden.
    """

    name = "meta-model, pretrained"

    def __init__(self, config: MetaModelConfig, *, steps: int, folder: str | Path | None = None) -> None:
        if config.reading == "leaves":
            raise ValueError(
                "pretraining hides tokens, and a meta-model that reads leaves has none: read chunks or neurons"
            )
        super().__init__(config, folder=folder)
        self.steps = steps
        self.filled_in: list[float] = []

    def prepare(self, training: Examples) -> None:
        config = self.config
        features = FEATURES if self.known is not None else config.chunk_size
        with torch.random.fork_rng():
            torch.manual_seed(mix(config.training.seed, 1))
            filler = _FillIn(self.model, features)

        def batch(step: int) -> tuple[TokenBatch, Tensor]:
            chosen = epoch_batch(len(training), config.training.batch_size, step, config.training.seed)
            generator = torch.Generator().manual_seed(mix(config.training.seed + 1, step))
            tokens = self.known.select(torch.from_numpy(chosen)) if self.known is not None else None
            if tokens is None:  # chunks in the order that the networks have
                tokens = self.read(training.networks.select(chosen), None)
            hide = (torch.rand(tokens.mask.shape, generator=generator) < HIDDEN) & tokens.mask
            hide[:, 0] |= ~hide.any(1)
            return tokens, hide

        def loss(model: nn.Module, examples: tuple[TokenBatch, Tensor]) -> Tensor:
            return model(*examples)

        folder = self.folder / "pretraining" if self.folder is not None else None
        settings = replace(config.training, steps=self.steps)
        history = train(filler, loss, batch, settings, folder=folder, description="pretraining", progress=self.show)
        self.filled_in = history.training_loss
