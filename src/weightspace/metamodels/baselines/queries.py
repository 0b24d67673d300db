"""MNTD and ULP: inputs that are learnt, what networks answer to them, and a small head on the answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from weightspace.errors import TaskError
from weightspace.metamodels.contract import Examples, Predictions, check_learnable
from weightspace.metamodels.learner import Answering
from weightspace.train.config import TrainingConfig
from weightspace.train.loop import choose_device, mix, train
from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.weights.spec import NetworkSpec
from weightspace.zoo.networks import answers, module_of, named_arrays

AT_ONCE = 64
"""Networks that answer together."""


@dataclass(frozen=True, kw_only=True)
class QueryConfig:
    """One setting of a detector that asks networks.

    Attributes:
        queries: inputs that are learnt.
        hidden: units of the head's hidden layer; 0 for a linear head.
        stride: steps of the queries are so many times larger than those of the head.
        limit: queries stay within this, in standard deviations of a pixel; None for no limit.
        variation: weight of the queries' total variation in the loss.
        training: of queries and head together, by AdamW.
    """

    queries: int
    hidden: int
    stride: float = 1.0
    limit: float | None = None
    variation: float = 0.0
    training: TrainingConfig = field(default_factory=TrainingConfig)


@dataclass(frozen=True, eq=False)
class Asked:
    """Networks of one batch, by architecture.

    Attributes:
        parts: for each architecture a module, the spec of its weights, flat weights (n, size), and the networks' places
            (n,) in the batch.
        labels: (b, targets) as `Answering.labels` has them; (b, 0) where nobody asks.
        shapes: (channels, height, width) of an input of each architecture.
    """

    parts: tuple[tuple[nn.Sequential, NetworkSpec, Tensor, Tensor], ...]
    labels: Tensor
    shapes: tuple[tuple[int, ...], ...]

    def to(self, device: torch.device) -> Asked:
        parts = tuple((m.to(device), s, w.to(device), p.to(device)) for m, s, w, p in self.parts)
        return Asked(parts, self.labels.to(device), self.shapes)


class QueryNetwork(nn.Module):
    """Networks in, through their answers (logits) to the learnt inputs, logits of each target out.

    Args:
        shape: (channels, height, width) of an input.
        answers: classes of the networks that are asked.
        outputs: how many the head gives in all.
    """

    def __init__(self, config: QueryConfig, shape: tuple[int, ...], answers: int, outputs: int) -> None:
        super().__init__()
        self.config = config
        # AdamW moves every number by the learning rate: where it is stretched afterwards, by as much more
        self.queries = nn.Parameter(torch.randn(config.queries, *shape) / config.stride)
        size = config.queries * answers
        head: list[nn.Module] = [nn.Linear(size, config.hidden), nn.ReLU()] if config.hidden else []
        self.head = nn.Sequential(*head, nn.Linear(config.hidden or size, outputs))

    def inputs(self) -> Float[Tensor, "q c h w"]:
        x = self.queries * self.config.stride
        return x if self.config.limit is None else x.clamp(-self.config.limit, self.config.limit)

    def answers(self, asked: Asked) -> Float[Tensor, "b qk"]:
        """What each network answers to every query."""
        x, found, places = self.inputs(), [], []
        for module, spec, weights, rows in asked.parts:
            found.append(answers(module, named_arrays(spec, weights), x).flatten(1))
            places.append(rows)
        return torch.cat(found)[torch.cat(places).argsort()]

    def forward(self, asked: Asked) -> Float[Tensor, "b outputs"]:
        return self.head(self.answers(asked))

    def total_variation(self) -> Tensor:
        """Mean absolute difference of neighbouring pixels."""
        x = self.inputs()
        return (x.diff(dim=-1).abs().mean() + x.diff(dim=-2).abs().mean()) / 2


class LearntQueries:
    """A detector that asks networks questions that it has learnt; of its settings that with the lowest validation loss.

    Args:
        grid: the settings that are tried.
        seed: of everything random.
    Raises:
        TaskError: from `fit` and `predict`, if a network does not say which architecture it has.
    """

    name = "learnt queries"

    def __init__(self, grid: Sequence[QueryConfig], seed: int = 0) -> None:
        self.grid = tuple(grid)
        self.seed = seed
        self.answering = Answering((), ())
        self.model: QueryNetwork | None = None

    def fit(self, training: Examples, validation: Examples) -> LearntQueries:
        check_learnable(training, validation)
        self._choose(training, validation)
        return self

    def _choose(self, training: Examples, validation: Examples) -> None:
        self.answering = Answering.of(training)
        lowest = np.inf
        for number, config in enumerate(self.grid):
            model, loss = self._fit_one(config, training, validation, number)
            if loss < lowest:
                self.model, lowest = model, loss

    def _outputs(self) -> int:
        return sum(self.answering.sizes)

    def _loss(self, model: nn.Module, asked: Asked) -> Tensor:
        return self.answering.loss(model(asked), asked.labels)

    def _network(self, config: QueryConfig, asking: Asking) -> QueryNetwork:
        """Untrained, for the networks that are to be asked."""
        shape, answers = asking.interface()
        return QueryNetwork(config, shape, answers, self._outputs())

    def _fit_one(
        self, config: QueryConfig, training: Examples, validation: Examples, number: int
    ) -> tuple[QueryNetwork, float]:
        asking = Asking(training.networks, self.answering.labels(training))
        held = Asking(validation.networks, self.answering.labels(validation)).batches(AT_ONCE)
        size = config.training.batch_size
        with torch.random.fork_rng():
            torch.manual_seed(mix(self.seed, number))
            model = self._network(config, asking)

        def batch(step: int) -> Asked:
            epoch, place = divmod(step, max(1, len(training) // size))
            order = np.random.default_rng([self.seed, epoch]).permutation(len(training))
            return asking.batch(order[place * size : (place + 1) * size])

        def loss(network: nn.Module, asked: Asked) -> Tensor:
            return self._loss(network, asked) + config.variation * model.total_variation()

        def evaluate(network: nn.Module) -> dict[str, float]:
            device = next(model.parameters()).device
            losses = [float(self._loss(network, part.to(device))) for part in held]
            return {"loss": float(np.average(losses, weights=[len(part.labels) for part in held]))}

        history = train(model, loss, batch, replace(config.training, seed=self.seed), evaluate=evaluate)
        return model, min(entry["loss"] for entry in history.evaluations)

    def predict(self, networks: Sequence[Network]) -> Predictions:
        return self.answering.predictions(self._answers(networks))

    def _answers(self, networks: Sequence[Network]) -> Float[Tensor, "n outputs"]:
        """What the head says of each network."""
        assert self.model is not None, "fit comes first"
        device = choose_device("auto")
        model, found = self.model.to(device).eval(), [torch.zeros(0, self._outputs())]
        with torch.inference_mode():
            for asked in Asking(Population.of(networks)).batches(AT_ONCE):
                found.append(model(asked.to(device)).cpu())
        return torch.cat(found)


class MNTD(LearntQueries):
    """Meta Neural Trojan Detection (Xu et al. 2021, section V): ten tuned queries, twenty hidden units, Adam.

    Jumbo learning is a matter of the networks: it is what this learns where they are poisoned by `mntd-patch` and
    `mntd-blend`. Where we differ: batches of 16 networks instead of one, some 2,000 steps, and three learning rates, of
    which validation chooses; theirs is the first.
    """

    name = "MNTD"

    def __init__(self, seed: int = 0, steps: int = 2_000, rates: Sequence[float] = (1e-3, 3e-3, 1e-2)) -> None:
        super().__init__([QueryConfig(queries=10, hidden=20, training=_training(rate, steps)) for rate in rates], seed)


class ULP(LearntQueries):
    """Universal Litmus Patterns (Kolouri et al. 2020): learnt patterns, a linear head on all answers.

    Patterns move much faster than the head, under a total variation of 1e-6, and stay images: as in the paper, where
    plain SGD of rate 1e3 moves them. Here AdamW moves them 10 or 100 times as fast as the head; validation chooses.
    """

    def __init__(
        self,
        patterns: int = 10,
        seed: int = 0,
        steps: int = 2_000,
        settings: Sequence[tuple[float, float]] = ((1e-3, 10.0), (1e-3, 100.0), (1e-2, 10.0)),
    ) -> None:
        self.name = f"ULP {patterns}"
        grid = [
            QueryConfig(
                queries=patterns, hidden=0, stride=stride, limit=2.0, variation=1e-6, training=_training(rate, steps)
            )
            for rate, stride in settings
        ]
        super().__init__(grid, seed)


class OneClassMNTD(LearntQueries):
    """MNTD's one-class variant (section V-C): it sees clean networks only, and learns what is usual among them.

    The head's hidden layer h is read by a one-class objective: 1/2 |w|^2 + mean(max(0, r - w . h)) / nu - r, nu 0.05; a
    network is the odder the further w . h is below r. What it answers as a probability is the logistic function of
    that, in units of its deviation among the clean validation networks; it is not calibrated.

    Raises:
        TaskError: if it is asked anything but one question of two answers, of which the first is the usual one.
    """

    name = "MNTD one-class"
    nu = 0.05

    def __init__(self, seed: int = 0, steps: int = 2_000) -> None:
        rates = (1e-3, 3e-3, 1e-2)
        super().__init__([QueryConfig(queries=10, hidden=20, training=_training(rate, steps)) for rate in rates], seed)
        self.centre, self.scale = 0.0, 1.0

    def fit(self, training: Examples, validation: Examples) -> OneClassMNTD:
        if [len(target.classes) for target in training.targets] != [2]:
            raise TaskError("a one-class detector answers one question, whose first answer is the usual one")
        check_learnable(training, validation)
        (target,) = training.targets
        usual, held = (e.select(np.flatnonzero(e.labels[target.name] == 0)) for e in (training, validation))
        self._choose(usual, held)
        odd = self._oddness(held.networks)
        self.centre, self.scale = float(odd.mean()), float(odd.std()) or 1.0
        return self

    def _outputs(self) -> int:
        return 2  # w . h, and r, which the second bias is

    def _loss(self, model: nn.Module, asked: Asked) -> Tensor:
        last = _last(model)
        score, r = model(asked)[:, 0] - last.bias[0], last.bias[1]
        return 0.5 * last.weight[0].square().sum() + F.relu(r - score).mean() / self.nu - r

    def _oddness(self, networks: Sequence[Network]) -> np.ndarray:
        assert self.model is not None, "fit comes first"
        last = _last(self.model)
        scores = self._answers(networks)[:, 0]
        return (last.bias[1] - scores + last.bias[0]).double().detach().cpu().numpy()

    def predict(self, networks: Sequence[Network]) -> Predictions:
        odd = 1 / (1 + np.exp(-np.clip((self._oddness(networks) - self.centre) / self.scale, -50, 50)))
        return {self.answering.targets[0].name: np.stack([1 - odd, odd], 1)}


def _last(model: nn.Module) -> nn.Linear:
    assert isinstance(model, QueryNetwork)
    last = model.head[-1]
    assert isinstance(last, nn.Linear)
    return last


def _training(rate: float, steps: int) -> TrainingConfig:
    return TrainingConfig(
        steps=steps, batch_size=16, learning_rate=rate, weight_decay=0.0, evaluate_every=max(1, steps // 10)
    )


class Asking:
    """Networks by architecture, with a module of each to run their weights through."""

    def __init__(self, networks: Population, labels: Tensor | None = None) -> None:
        self.networks = networks
        self.labels = torch.zeros(len(networks), 0) if labels is None else labels  # (n, targets)
        self.modules: list[nn.Sequential] = []
        self.specs: list[NetworkSpec] = []
        self.shapes: list[tuple[int, ...]] = []
        self.of = np.zeros(len(networks), np.int64)  # which module each network has
        known: dict[tuple[NetworkSpec, str], int] = {}
        for spec, positions in networks.groups():
            for position in positions.tolist():
                network = networks[position]
                key = (spec, json.dumps(network.metadata.get("architecture"), sort_keys=True))
                if key not in known:
                    if network.metadata.get("architecture") is None:
                        raise TaskError("a network does not say which architecture it has, so that it cannot be asked")
                    known[key] = len(self.modules)
                    self.modules.append(module_of(network).requires_grad_(False))
                    self.specs.append(spec)
                    self.shapes.append(tuple(network.metadata["architecture"]["input_shape"]))
                self.of[position] = known[key]

    def interface(self) -> tuple[tuple[int, ...], int]:
        """The shape of an input, and the number of classes of an answer."""
        with torch.inference_mode():
            return self.shapes[0], self.modules[0](torch.zeros(1, *self.shapes[0])).shape[1]

    def batch(self, positions: np.ndarray) -> Asked:
        parts, shapes = [], []
        for number in np.unique(self.of[positions]).tolist():
            rows = np.flatnonzero(self.of[positions] == number)
            weights = torch.from_numpy(self.networks.read(positions[rows]))
            parts.append((self.modules[number], self.specs[number], weights, torch.from_numpy(rows)))
            shapes.append(self.shapes[number])
        return Asked(tuple(parts), self.labels[torch.from_numpy(positions)], tuple(shapes))

    def batches(self, size: int) -> list[Asked]:
        return [
            self.batch(np.arange(first, min(first + size, len(self.networks))))
            for first in range(0, len(self.networks), size)
        ]
