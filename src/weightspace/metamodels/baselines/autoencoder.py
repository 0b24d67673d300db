"""Schürholt's hyper-representations: an autoencoder of weights that learns without labels, and probes on its code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from weightspace.metamodels.baselines.linear import Linear
from weightspace.metamodels.contract import Examples, UnfitError
from weightspace.metamodels.learner import bind_to, epoch_batch
from weightspace.train.config import TrainingConfig
from weightspace.train.loop import choose_device, mix, train
from weightspace.weights.augment import Permuter
from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.weights.spec import NetworkSpec

TEMPERATURE = 0.1
"""Of the contrastive loss."""
ERASING, SHARE = 0.5, (0.02, 0.33)
"""How likely a stretch of the weights is erased, and how long it is."""
NOISE = 0.05
"""Standard deviation of the noise on standardised weights."""
ORDERS = 1_024
"""Random orders of neurons that are drawn once."""
AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """The autoencoder and its training.

    Attributes:
        width: of a token's vector.
        depth: transformer layers of the encoder, and of the decoder.
        heads: of attention; a divisor of the width.
        code: numbers of a network's code.
        contrast: share of the contrastive loss, 0 to 1; the rest is reconstruction.
        training: of the autoencoder.
    """

    width: int = 64
    depth: int = 2
    heads: int = 4
    code: int = 128
    contrast: float = 0.5
    training: TrainingConfig = field(default_factory=lambda: _training(2_000))


def _training(steps: int) -> TrainingConfig:
    return TrainingConfig(
        steps=steps, batch_size=64, learning_rate=1e-3, weight_decay=1e-6, evaluate_every=max(1, steps // 10)
    )


class Autoencoder(nn.Module):
    """Weights in, a token a neuron, a code, weights out.

    Args:
        layers: for each layer the entries (neurons, numbers) of its neurons in flat weights.
        size: of flat weights.
    """

    def __init__(self, config: AutoencoderConfig, layers: Sequence[np.ndarray], size: int) -> None:
        super().__init__()
        width, tokens = config.width, sum(len(rows) for rows in layers)
        self.layers, self.size = [torch.from_numpy(rows) for rows in layers], size
        self.into = nn.ModuleList(nn.Linear(rows.shape[1], width) for rows in layers)
        self.place = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.encoder = _transformer(config)
        self.code = nn.Linear(tokens * width, config.code)
        self.uncode = nn.Linear(config.code, tokens * width)
        self.decoder = _transformer(config)
        self.out = nn.ModuleList(nn.Linear(width, rows.shape[1]) for rows in layers)
        self.project = nn.Sequential(nn.Linear(config.code, config.code), nn.GELU(), nn.Linear(config.code, 32))

    def encode(self, x: Float[Tensor, "b n"]) -> Float[Tensor, "b k"]:
        tokens = [into(x[:, rows.to(x.device)]) for into, rows in zip(self.into, self.layers, strict=True)]
        return self.code(self.encoder(torch.cat(tokens, 1) + self.place).flatten(1)).tanh()

    def decode(self, code: Float[Tensor, "b k"]) -> Float[Tensor, "b n"]:
        tokens = self.decoder(self.uncode(code).unflatten(1, self.place.shape) + self.place)
        found = code.new_zeros(len(code), self.size)
        for out, rows, own in zip(self.out, self.layers, tokens.split([len(r) for r in self.layers], 1), strict=True):
            found[:, rows.to(code.device)] = out(own)
        return found


def _transformer(config: AutoencoderConfig) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        config.width, config.heads, 4 * config.width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, config.depth, enable_nested_tensor=False)


class HyperRepresentation(Linear):
    """Self-supervised codes of networks with linear probes (Schürholt, Kostadinov and Borth 2021, sections 3 and 4).

    A token is a neuron with the weights it reads by and its bias. The encoder is a transformer whose tokens are mapped
    to one code; the loss is reconstruction and NT-Xent contrast of two views, which are random permutations of the
    neurons, one stretch erased half of the time, noise. No label is seen until the linear probes, which are fitted on
    the codes as `Linear` is on weights. Where we differ: sizes are ours and small; what is reconstructed is the
    permuted weights before erasing and noise.

    Raises:
        UnfitError: from `fit` and `predict`, if networks differ in their architecture: a code has places of neurons.
    """

    name = "autoencoder + linear"

    def __init__(self, config: AutoencoderConfig | None = None, *, folder: str | Path | None = None) -> None:
        super().__init__()
        self.config = config or AutoencoderConfig()
        self.folder = Path(folder) if folder is not None else None

    def fit(self, training: Examples, validation: Examples) -> HyperRepresentation:
        specs = training.networks.specs
        if len(specs) != 1:
            raise UnfitError(
                f"networks of {len(specs)} architectures have no codes of one kind: the autoencoder reads one"
            )
        (self.spec,) = specs
        if self.folder is not None:
            bind_to(
                self.folder,
                "an autoencoder",
                repr(replace(self.config, training=TrainingConfig())),
                training,
                validation,
            )
        self._learn(training.networks, validation.networks)
        super().fit(training, validation)
        return self

    def _learn(self, training: Population, held: Population) -> None:
        """Train the autoencoder; the labels are not there."""
        config = self.config
        weights = torch.from_numpy(training.read(np.arange(len(training))))
        self.centre, self.spread = torch.empty(self.spec.size), torch.empty(self.spec.size)
        for _, place in self.spec.slices():  # layer by layer, as the weights of a layer are alike
            self.centre[place] = weights[:, place].mean()
            self.spread[place] = weights[:, place].std().clamp(min=1e-6)
        normal = self._normal(weights)
        apart = self._normal(torch.from_numpy(held.read(np.arange(len(held)))))
        permuter = Permuter((self.spec,), ORDERS, config.training.seed)
        with torch.random.fork_rng():
            torch.manual_seed(config.training.seed)
            self.model = Autoencoder(config, neuron_rows(self.spec), self.spec.size)

        def views(rows: Tensor, seed: int) -> tuple[Tensor, Tensor]:
            """Two views of each network, one after the other, and what they are of."""
            generator = torch.Generator().manual_seed(seed)
            whole = permuter.permute(self.spec, torch.cat([rows, rows]), generator)
            return damaged(whole, generator), whole

        def batch(step: int) -> tuple[Tensor, Tensor]:
            chosen = epoch_batch(len(normal), config.training.batch_size, step, config.training.seed)
            return views(normal[torch.from_numpy(chosen)], mix(config.training.seed, step))

        def loss(model: nn.Module, pair: tuple[Tensor, Tensor]) -> Tensor:
            assert isinstance(model, Autoencoder)
            code = model.encode(pair[0])
            rebuilt = F.mse_loss(model.decode(code), pair[1])
            return (1 - config.contrast) * rebuilt + config.contrast * contrast(model.project(code))

        def evaluate(model: nn.Module) -> dict[str, float]:
            device = next(self.model.parameters()).device
            found = views(apart[: 4 * AT_ONCE], 0)
            return {"loss": float(loss(model, (found[0].to(device), found[1].to(device))))}

        train(
            self.model,
            loss,
            batch,
            config.training,
            evaluate=evaluate,
            folder=self.folder,
            description="training the autoencoder",
        )

    def _normal(self, weights: Tensor) -> Tensor:
        return ((weights - self.centre) / self.spread).clamp(-30, 30)

    def _matrix(self, networks: Sequence[Network]) -> np.ndarray:
        """Codes (n, numbers)."""
        population = Population.of(networks)
        if any(spec != self.spec for spec in population.specs):
            raise UnfitError("a network is not of the architecture that the autoencoder was trained on")
        device = choose_device(self.config.training.device)
        model = self.model.to(device).eval()
        found = [np.zeros((0, self.config.code))]
        with torch.no_grad():
            for first in range(0, len(population), AT_ONCE):
                rows = np.arange(first, min(first + AT_ONCE, len(population)))
                x = self._normal(torch.from_numpy(population.read(rows)))
                found.append(model.encode(x.to(device)).double().cpu().numpy())
        return np.concatenate(found)

    @property
    def parameters(self) -> int:
        """Number of the autoencoder's weights."""
        return sum(p.numel() for p in self.model.parameters())


def neuron_rows(spec: NetworkSpec) -> list[np.ndarray]:
    """For each kernel the entries (neurons, numbers) by which its neurons read, and their vectors such as the bias.

    Raises:
        UnfitError: if there is no kernel.
    """
    rows: list[np.ndarray] = []
    for leaf, place in spec.slices():
        entries = np.arange(place.start, place.stop).reshape(leaf.shape)
        if leaf.role == "kernel":
            rows.append(entries.reshape(len(entries), -1))
        elif rows and len(leaf.shape) == 1 and leaf.shape[0] == len(rows[-1]):
            rows[-1] = np.concatenate([rows[-1], entries[:, None]], 1)
    if not rows:
        raise UnfitError("a network without kernels has no neurons to read")
    return rows


def damaged(x: Float[Tensor, "b n"], generator: torch.Generator) -> Float[Tensor, "b n"]:
    """Standardised weights with noise, and in half of the rows a stretch of 2 to 33% of them erased."""
    low, high = SHARE
    drawn = torch.rand(3, len(x), 1, generator=generator)
    length = (low + (high - low) * drawn[0]) * x.shape[1]
    start = drawn[1] * (x.shape[1] - length)
    place = torch.arange(x.shape[1])
    erased = (drawn[2] < ERASING) & (place >= start) & (place < start + length)
    noisy = x + NOISE * torch.randn(x.shape, generator=generator)
    return torch.where(erased, torch.zeros(()), noisy)


def contrast(x: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
    """NT-Xent (Chen et al. 2020) of b / 2 pairs, the first half of the rows beside the second."""
    unit = F.normalize(x, dim=1)
    likeness = unit @ unit.T / TEMPERATURE
    likeness = likeness.masked_fill(torch.eye(len(x), dtype=torch.bool, device=x.device), -torch.inf)
    other = torch.arange(len(x), device=x.device).roll(len(x) // 2)
    return F.cross_entropy(likeness, other)
