"""A backdoor detector for files: a meta-model with its calibration, its threshold and the bounds of what it knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

import weightspace
from weightspace.backdoors.localiser import outputs_of
from weightspace.backdoors.task import BACKDOOR
from weightspace.backdoors.verdict import Blame
from weightspace.errors import NetworkError
from weightspace.files.checkpoints import FLOATING, Outline
from weightspace.metamodels.metamodel import MetaModel, describe
from weightspace.metamodels.neuron_tokens import NeuronEmbedding
from weightspace.notebook import card
from weightspace.train.loop import choose_device
from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.weights.spec import NetworkSpec, SpecError
from weightspace.weights.state_dict import natural_order, role_of

PRETRAINED = Path(weightspace.__file__).parent / "pretrained" / "backdoor-detector.safetensors"
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
SLACK = 1.5
"""A network may be so many times as far from the training zoo as the farthest of the calibration networks."""
AT_ONCE = 64
"""Networks that are judged together."""


@dataclass(frozen=True)
class Calibration:
    """From a meta-model's log-odds to a probability and a p-value.

    Attributes:
        slope, offset: of the probability, sigmoid(slope * log-odds + offset), where both sides are equally frequent
            (Platt 1999, with his smoothed labels).
        clean: (k,) log-odds of clean networks that nothing else was learnt from, sorted.
    """

    slope: float
    offset: float
    clean: np.ndarray

    @staticmethod
    def fit(scores: np.ndarray, labels: np.ndarray) -> Calibration:
        """From log-odds (n,) of networks of both sides, labels 1 for backdoored.

        Raises:
            NetworkError: if a side has no network.
        """
        from scipy.optimize import minimize

        bad, good = int(labels.sum()), int((1 - labels).sum())
        if not bad or not good:
            raise NetworkError(
                f"{good} clean and {bad} backdoored networks are too few to calibrate by: both are needed"
            )
        wanted = np.where(labels == 1, (bad + 1) / (bad + 2), 1 / (good + 2))
        weight = np.where(labels == 1, 0.5 / bad, 0.5 / good)

        def loss(parameters: np.ndarray) -> float:
            z = parameters[0] * scores + parameters[1]
            return float((weight * (np.logaddexp(0, z) - wanted * z)).sum()) + 1e-4 * float(parameters[0] ** 2)

        found = minimize(loss, np.array([1.0, 0.0]), method="BFGS").x
        return Calibration(float(found[0]), float(found[1]), np.sort(scores[labels == 0]))

    def probability(self, scores: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-np.clip(self.slope * scores + self.offset, -50, 50)))

    def p_value(self, scores: np.ndarray) -> np.ndarray:
        """(1 + clean networks at least as suspicious) / (1 + clean networks).

        At most so often is a clean network, drawn as those were, as suspicious (conformal prediction, Vovk et al.).
        """
        above = len(self.clean) - np.searchsorted(self.clean, scores, side="left")
        return (1 + above) / (1 + len(self.clean))

    def to_json(self) -> dict[str, Any]:
        return {"slope": self.slope, "offset": self.offset, "clean": self.clean.tolist()}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Calibration:
        return Calibration(float(record["slope"]), float(record["offset"]), np.array(record["clean"], float))


@dataclass(frozen=True)
class Scope:
    """What the training zoo's networks look like: mean and logarithm of the standard deviation of each array.

    Attributes:
        mean, deviation: (leaves, 2) of these over the training networks.
        limit: greatest standardised distance that is still of their kind.
    """

    mean: np.ndarray
    deviation: np.ndarray
    limit: float

    @staticmethod
    def fit(training: Population, held_out: Population) -> Scope:
        """The limit is `SLACK` times the farthest of `held_out`, networks that were not trained on."""
        facts = _facts(training)
        scope = Scope(facts.mean(0), np.maximum(facts.std(0), 1e-6), 1.0)
        return Scope(scope.mean, scope.deviation, SLACK * float(scope._far(_facts(held_out)).max()))

    def _far(self, facts: np.ndarray) -> np.ndarray:
        return np.abs((facts - self.mean) / self.deviation).max((1, 2))

    def distance(self, networks: Population) -> np.ndarray:
        """(n,) 1 at the limit, more beyond it."""
        return self._far(_facts(networks)) / self.limit

    def farthest(self, network: Network) -> str:
        """The array that is farthest from what the training networks have, in words."""
        facts = _facts(Population.of([network]))[0]
        leaf, which = np.unravel_index(np.abs((facts - self.mean) / self.deviation).argmax(), facts.shape)
        name = network.spec.leaves[int(leaf)].name
        usual, own, spread = self.mean[leaf, which], facts[leaf, which], self.deviation[leaf, which]
        if which == 1:
            low, high, own = np.exp(usual - 2 * spread), np.exp(usual + 2 * spread), np.exp(own)
        else:
            low, high = usual - 2 * spread, usual + 2 * spread
        what = ("mean", "standard deviation")[int(which)]
        return f"array {name!r} has {what} {own:.3g}, of the training networks mostly {low:.3g} to {high:.3g}"

    def to_json(self) -> dict[str, Any]:
        return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist(), "limit": self.limit}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Scope:
        return Scope(np.array(record["mean"], float), np.array(record["deviation"], float), float(record["limit"]))


def _facts(networks: Population) -> np.ndarray:
    """(n, leaves, 2) mean and log standard deviation of every array; the networks share one spec."""
    (spec,) = networks.specs
    weights = networks.read(np.arange(len(networks))).astype(np.float64)
    columns = [weights[:, place] for _, place in spec.slices()]
    return np.stack([[c.mean(1) for c in columns], [np.log(c.std(1) + 1e-8) for c in columns]], 0).transpose(2, 1, 0)


@dataclass(frozen=True)
class Judgement:
    """What a detector says of one network: see `tasks.scan.Finding`."""

    score: float
    probability: float
    p_value: float
    distance: float
    layers: tuple[Blame, ...]
    neurons: tuple[Blame, ...]


class Detector:
    """A meta-model that was trained on one kind of network, and says so of all others.

    Args:
        model: reads neurons of one spec, and has the target "backdoor".
        card: what it was trained on and how well it does, for people: `tasks.scan.scope_of` says which facts.
    """

    def __repr__(self) -> str:
        return f"<Detector of backdoors in {self.card.get('architecture', f'networks of {self.spec.size:,} weights')}>"

    def _repr_html_(self) -> str:
        told = {name: value for name, value in self.card.items() if isinstance(value, str | int | float)}
        return card("Detector of backdoors", told)

    def __init__(self, model: MetaModel, calibration: Calibration, scope: Scope, card: Mapping[str, Any]) -> None:
        self.model, self.calibration, self.scope, self.card = model, calibration, scope, dict(card)

    @property
    def spec(self) -> NetworkSpec:
        (spec,) = self.model.specs
        return spec

    def scores(self, networks: Sequence[Network]) -> np.ndarray:
        """(n,) log-odds of a backdoor, as the meta-model has them."""
        return self._look(Population.of(networks))[0]

    def judge(self, networks: Sequence[Network]) -> list[Judgement]:
        """Each network alone; those far from the training zoo too, by their distance.

        Raises:
            NetworkError: if a weight is NaN or infinite.
            ScopeError: if a network has another spec.
        """
        population = Population.of(networks)
        if not len(population):
            return []
        population.check_finite()
        for spec in population.specs:
            self.model.check_scope(spec)
        scores, blame = self._look(population)
        far = self.scope.distance(population)
        probability, p_value = self.calibration.probability(scores), self.calibration.p_value(scores)
        found = []
        for row, values in enumerate(blame):
            facts = (float(scores[row]), float(probability[row]), float(p_value[row]), float(far[row]))
            found.append(Judgement(*facts, *self._named(values)))
        return found

    def neuron_blame(self, networks: Sequence[Network]) -> tuple[np.ndarray, np.ndarray]:
        """How much each neuron raises the log-odds, and each class.

        To first order: the gradient with respect to each neuron's token, times how far that is from the mean neuron of
        its layer among the training networks.

        Returns:
            (n, neurons of all groups), 0 or more; and of these the outputs, (n, classes).
        """
        blame = self._look(Population.of(networks))[1]
        return blame, blame[:, outputs_of(self.spec)]

    def _look(self, population: Population) -> tuple[np.ndarray, np.ndarray]:
        """Log-odds (n,) as `scores`, and blame as `neuron_blame`, at one reading of the weights."""
        device = choose_device(self.model.config.training.device)
        model = self.model.model.to(device).eval()
        assert isinstance(model.embedding, NeuronEmbedding)
        scores, found = [], []
        for first in range(0, len(population), AT_ONCE):
            weights = population.read(np.arange(first, min(first + AT_ONCE, len(population))))
            tokens = self.model.as_tokens(torch.from_numpy(weights), self.spec).to(device)
            values = tokens.values.requires_grad_(True)
            logits = self.model.answering.split(model(tokens))[self.model.targets.index(BACKDOOR)]
            odds = logits[:, 1] - logits[:, 0]
            scores.append(odds.detach().double().cpu().numpy())
            gradient = torch.autograd.grad(odds.sum(), values)[0]
            away = values.detach() - model.embedding.centre_of(tokens)
            found.append((gradient * away).sum(2).clamp(min=0).double().cpu().numpy())
        return np.concatenate(scores), np.concatenate(found)

    def _named(self, blame: np.ndarray) -> tuple[tuple[Blame, ...], tuple[Blame, ...]]:
        """One network's layers and neurons, the most suspicious first, out of the blame of each neuron."""
        layers: dict[str, float] = {}
        neurons: dict[str, float] = {}
        for (layer, neuron), value in zip(self._names, blame, strict=True):
            if layer:
                layers[layer] = layers.get(layer, 0.0) + float(value)
                neurons[neuron] = float(value)
        return _shares(layers), _shares(neurons)

    @cached_property
    def _names(self) -> list[tuple[str, str]]:
        """Of each token the kernel that writes its neuron, and the neuron; none of inputs."""
        kernels = {leaf.axes[0].groups[0]: leaf.name for leaf in self.spec.leaves if leaf.role == "kernel"}
        last = next(leaf.name for leaf in reversed(self.spec.leaves) if leaf.role == "kernel")
        names = []
        for group in self.spec.groups:
            kernel = kernels.get(group.name, "")
            for i in range(group.size):
                names.append((kernel, f"class {i}" if kernel == last else f"{kernel}[{i}]"))
        return names

    # -- files --------------------------------------------------------------------------------------------------------

    def recognise(self, found: Outline) -> list[str]:
        """The names of a file's arrays in the order of the detector's spec.

        By names without the prefixes that training frameworks add, or by shapes and roles one after another.

        Raises:
            NetworkError: if the file holds another kind of network; a sentence that says what it holds.
        """
        shapes = found.floating
        other: dict[str, int] = {}
        for name, shape in found.shapes.items():
            if found.dtypes[name] not in FLOATING:
                other[found.dtypes[name]] = other.get(found.dtypes[name], 0) + prod(shape)
        if sum(other.values()) > sum(prod(shape) for shape in shapes.values()):
            kinds = " and ".join(sorted(other))
            raise NetworkError(f"its weights are quantised or packed ({kinds}), which this detector does not read")
        wanted = {leaf.name: leaf.shape for leaf in self.spec.leaves}
        short = {_without_prefix(name): name for name in shapes}
        if len(short) == len(shapes) and {name: shapes[own] for name, own in short.items()} == wanted:
            return [short[name] for name in wanted]
        sequence = [(leaf.shape, leaf.role) for leaf in self.spec.leaves]
        if len(shapes) == len(sequence):
            for names in (list(shapes), natural_order(shapes)):
                if [(shapes[name], role_of(name, shapes[name], shapes)) for name in names] == sequence:
                    return names
        first = ", ".join(f"{name[:60]} {list(shape)}" for name, shape in list(shapes.items())[:3]) or "none of numbers"
        raise NetworkError(
            f"it holds {len(shapes)} arrays of {sum(map(prod, shapes.values())):,} numbers "
            f"({first}{', ...' if len(shapes) > 3 else ''}), and this detector knows {describe(self.spec, 3)}"
        )

    def network(self, arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> Network:
        """A file's arrays as a network of the detector's spec."""
        own = {leaf.name: arrays[name] for leaf, name in zip(self.spec.leaves, names, strict=True)}
        return Network(self.spec, self.spec.join(own), {})

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file: the meta-model, and as its facts calibration, scope and card."""
        facts = {"calibration": self.calibration.to_json(), "scope": self.scope.to_json(), "card": self.card}
        return self.model.save(path, {"detector": facts})

    @staticmethod
    def load(path: str | Path | None = None) -> Detector:
        """Read what `save` has written, or the detector that comes with the package; nothing in it is executed.

        Raises:
            NetworkError: if there is none, or it is a meta-model without calibration.
        """
        path = PRETRAINED if path is None else Path(path)
        if not path.exists():
            raise NetworkError(f"there is no detector {path}: train one with `weightspace backdoors train ZOO`")
        model = MetaModel.load(path)
        try:
            record = model.facts["detector"]
            loaded = (Calibration.from_json(record["calibration"]), Scope.from_json(record["scope"]), record["card"])
            if len(model.specs) != 1 or BACKDOOR not in model.targets or model.config.reading != "neurons":
                raise KeyError(BACKDOOR.name)
        except (KeyError, TypeError, ValueError, SpecError) as error:
            raise NetworkError(
                f"{path} is a meta-model, but no detector of backdoors ({error}): train one with `weightspace "
                "backdoors train`"
            ) from None
        return Detector(model, *loaded)


def _without_prefix(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _shares(amounts: Mapping[str, float]) -> tuple[Blame, ...]:
    total = sum(amounts.values()) or 1.0
    return tuple(Blame(name, amounts[name] / total) for name in sorted(amounts, key=lambda n: -amounts[n]))
