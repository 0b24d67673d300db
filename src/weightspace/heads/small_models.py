"""Small language models, trained in minutes with the forward pass that reads the large ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from weightspace.heads.language import Language, mixture
from weightspace.transformers.families import transformer_lens
from weightspace.transformers.settings import Settings
from weightspace.transformers.source import MemorySource
from weightspace.transformers.trained import TrainedTransformer

BATCH = 24
DRAWN = 40
"""Batches that are drawn at a time."""
LONGEST = 256


@dataclass(frozen=True)
class SmallModel:
    """What a small language model is and how it is trained.

    Attributes:
        seed: of its language, its first weights and its batches.
        positions: rotary or standard (learned), as TransformerLens names them.
        base: of rotary positions.
        hidden: units of an MLP; 0 for attention alone.
        bias: whether queries, keys and values have one.
        norm: RMS or LN.
        length: of a training sequence.
        mixture: shares of the kinds of sequences.
    """

    seed: int
    layers: int
    width: int
    heads: int
    key_heads: int
    head_size: int
    positions: str
    base: float
    hidden: int
    bias: bool
    norm: str
    vocabulary: int
    length: int
    rate: float
    steps: int
    mixture: tuple[float, ...]

    @property
    def language(self) -> Language:
        """Its language."""
        return Language(self.seed, self.vocabulary, self.mixture)

    @property
    def config(self) -> dict[str, Any]:
        """Its settings by TransformerLens's names, which the reader of its state dicts takes."""
        return {
            "positional_embedding_type": self.positions,
            "rotary_base": self.base,
            "rotary_dim": self.head_size,
            "n_ctx": LONGEST,
            "act_fn": "gelu",
            "eps": 1e-5,
        }

    def record(self) -> dict[str, Any]:
        """Itself as JSON."""
        return asdict(self)

    @classmethod
    def drawn(cls, seed: int, number: int) -> SmallModel:
        """The model of a number in a zoo: a pure function of both."""
        random = np.random.default_rng((seed, number))
        heads = int(random.choice((4, 4, 4, 8)))
        rotary = random.random() < 0.8
        width = int(random.choice((64, 64, 96, 128, 128, 256)))
        return cls(
            seed=int(random.integers(2**31)),
            layers=int(random.choice((1, 2, 2, 3, 4))),
            width=width,
            heads=heads,
            key_heads=heads // int(random.choice((1, 2, 2, 4))),
            head_size=int(random.choice((16, 32))),
            positions="rotary" if rotary else "standard",
            base=float(random.choice((1e3, 1e4, 1e5, 1e6))),
            hidden=2 * width if random.random() < 0.4 else 0,
            bias=bool(random.random() < 0.25),
            norm="RMS" if rotary and random.random() < 0.8 else "LN",
            vocabulary=int(random.choice((32, 48, 64))),
            length=48,
            rate=float(6e-3 * (48 / width) ** 0.5),
            steps=1500,
            mixture=mixture(random),
        )


def first_weights(model: SmallModel) -> dict[str, Tensor]:
    """Random weights by TransformerLens's names."""
    random = torch.Generator().manual_seed(model.seed)
    width, size = model.width, model.head_size

    def normal(*shape: int, scale: float) -> Tensor:
        return torch.randn(*shape, generator=random) * scale

    found = {"embed.W_E": normal(model.vocabulary, width, scale=0.5)}
    if model.positions == "standard":
        found["pos_embed.W_pos"] = normal(LONGEST, width, scale=0.2)
    for number in range(model.layers):
        at = f"blocks.{number}"
        for letter, heads in (("Q", model.heads), ("K", model.key_heads), ("V", model.key_heads)):
            mark = "_" if letter != "Q" and model.key_heads != model.heads else ""
            found[f"{at}.attn.{mark}W_{letter}"] = normal(heads, width, size, scale=width**-0.5)
            if model.bias:
                found[f"{at}.attn.{mark}b_{letter}"] = torch.zeros(heads, size)
        found[f"{at}.attn.W_O"] = normal(model.heads, size, width, scale=0.5 * (model.heads * size) ** -0.5)
        if model.hidden:
            found[f"{at}.mlp.W_in"] = normal(width, model.hidden, scale=width**-0.5)
            found[f"{at}.mlp.b_in"] = torch.zeros(model.hidden)
            found[f"{at}.mlp.W_out"] = normal(model.hidden, width, scale=0.5 * model.hidden**-0.5)
    for name in [
        "ln_final",
        *(f"blocks.{n}.ln{k}" for n in range(model.layers) for k in (1, 2)[: 1 + bool(model.hidden)]),
    ]:
        found[f"{name}.w"] = torch.ones(width)
        if model.norm == "LN":
            found[f"{name}.b"] = torch.zeros(width)
    found["unembed.W_U"] = normal(width, model.vocabulary, scale=width**-0.5)
    return found


def trained(model: SmallModel) -> tuple[dict[str, np.ndarray], float]:
    """Its weights after training, and the loss of the last tenth of the steps."""
    weights = {name: array.requires_grad_() for name, array in first_weights(model).items()}
    matrices = [array for array in weights.values() if array.dim() > 1]
    vectors = [array for array in weights.values() if array.dim() == 1]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.02}, {"params": vectors, "weight_decay": 0.0}],
        lr=model.rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    random = torch.Generator().manual_seed(model.seed + 1)
    losses: list[float] = []
    tokens: Sequence[Tensor] = ()
    for step in range(model.steps):
        for group in optimiser.param_groups:
            group["lr"] = model.rate * _height(step, model.steps)
        if step % DRAWN == 0:
            tokens = model.language.draw(BATCH * DRAWN, model.length, random).split(BATCH)
        loss = _loss(model, weights, tokens[step % DRAWN])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
        optimiser.step()
        losses.append(float(loss.detach()))
    return {name: array.detach().numpy() for name, array in weights.items()}, float(
        np.mean(losses[-model.steps // 10 :])
    )


def _height(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / 100) * (0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2)


def _loss(model: SmallModel, weights: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
    logits = _live(model, weights).run(tokens, gradients=True).logits
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


@dataclass(frozen=True)
class _LiveSource(MemorySource):
    """Arrays that are being trained: gradients flow back to them."""

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        return {name: torch.as_tensor(self.arrays[name]) for name in names}


def _live(model: SmallModel, weights: Mapping[str, Tensor]) -> TrainedTransformer:
    """The transformer of weights that are being trained; its views of them hold for one step."""
    settings = Settings(model.config, f"the small model of seed {model.seed}")
    names = {name: tuple(array.shape) for name, array in weights.items()}
    shape = transformer_lens.shape(settings, names)
    layers = [transformer_lens.layer(shape, number, names) for number in range(shape.layers)]
    ends = transformer_lens.ends(shape, settings, names)
    return TrainedTransformer(shape, _LiveSource(weights, settings.where), ends, layers)
