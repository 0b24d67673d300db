"""A detector of backdoors: a meta-model with its calibration and its scope, that judges networks and blames neurons."""

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
from weightspace.backdoors.calibration import Calibration
from weightspace.backdoors.localiser import outputs_of
from weightspace.backdoors.task import BACKDOOR
from weightspace.backdoors.verdict import Blame
from weightspace.errors import NetworkError
from weightspace.files.checkpoints import FLOATING, Outline
from weightspace.metamodels.metamodel import MetaModel
from weightspace.metamodels.neuron_tokens import NeuronEmbedding
from weightspace.metamodels.scope import Scope
from weightspace.notebook import card
from weightspace.train.loop import choose_device
from weightspace.weights.canonical_scale import in_canonical_scale
from weightspace.weights.matching import Match, MismatchError, match
from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.weights.spec import NetworkSpec, SpecError

PRETRAINED = Path(weightspace.__file__).parent / "pretrained" / "backdoor-detector.safetensors"
AT_ONCE = 64
"""Networks that are judged together."""


@dataclass(frozen=True)
class Judgement:
    """What a detector says of one network: see `backdoors.verdict.Finding`.

    Attributes:
        near: of a detector for many architectures, in a sentence: which networks it knows that are like this one, and
            how well it does among them.
        competent: whether that is well enough to judge this one.
    """

    score: float
    probability: float
    p_value: float
    distance: float
    layers: tuple[Blame, ...]
    neurons: tuple[Blame, ...]
    near: str = ""
    competent: bool = True


class Detector:
    """A meta-model that was trained on one kind of network, and says so of all others.

    Args:
        model: reads neurons of one spec, and has the target "backdoor".
        card: what it was trained on and how well it does, for people: `backdoors.verdict.scope_of` says which facts.
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
        return self._look(self.scaled(networks))[0]

    def scaled(self, networks: Sequence[Network]) -> Population:
        """Networks as the meta-model reads them: in the canonical scale of its spec, so that no rewrite that keeps the
        function moves an answer. A detector of an earlier version knows of no scalings and leaves them as they are."""
        return in_canonical_scale(networks, self.spec.scalings) if self.spec.scalings else Population.of(networks)

    def judge(self, networks: Sequence[Network]) -> list[Judgement]:
        """Each network alone, in canonical scale; those far from the training zoo too, by their distance.

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
        population = self.scaled(population)
        scores, blame = self._look(population)
        far = self.scope.distance(population)
        probability, p_value = self.calibration.probability(scores), self.calibration.p_value(scores)
        found = []
        for row, values in enumerate(blame):
            facts = (float(scores[row]), float(probability[row]), float(p_value[row]), float(far[row]))
            found.append(Judgement(*facts, *self._named(values)))
        return found

    def farthest(self, network: Network) -> str:
        """The array that is farthest from what the training networks have, in words."""
        return self.scope.farthest(self.scaled([network])[0])

    def neuron_blame(self, networks: Sequence[Network]) -> tuple[np.ndarray, np.ndarray]:
        """How much each neuron raises the log-odds, and each class.

        To first order: the gradient with respect to each neuron's token, times how far that is from the mean neuron of
        its layer among the training networks.

        Returns:
            (n, neurons of all groups), 0 or more; and of these the outputs, (n, classes).
        """
        blame = self._look(self.scaled(networks))[1]
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
        return shares(layers), shares(neurons)

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

    def matched(self, found: Outline) -> Match:
        """Which of a file's arrays is which of the detector's, whatever they are called, and what a person should know.

        Raises:
            NetworkError: if the file holds another kind of network; a sentence with the first difference.
        """
        floating = sum(prod(shape) for shape in found.floating.values())
        other: dict[str, int] = {}
        for name, shape in found.shapes.items():
            if found.dtypes[name] not in FLOATING:
                other[found.dtypes[name]] = other.get(found.dtypes[name], 0) + prod(shape)
        if sum(other.values()) > floating:
            kinds = " and ".join(sorted(other))
            raise NetworkError(f"its weights are quantised or packed ({kinds}), which this detector does not read")
        try:
            return match(self.spec, found.shapes, found.dtypes)
        except MismatchError as error:
            holds = len(found.floating), len(self.spec.leaves)
            if holds[0] == holds[1]:
                raise
            raise NetworkError(
                f"{error} (it holds {holds[0]} arrays of {floating:,} numbers, this detector knows {holds[1]} of "
                f"{self.spec.size:,})"
            ) from None

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


def shares(amounts: Mapping[str, float]) -> tuple[Blame, ...]:
    """Amounts of blame by name as shares of their sum, the greatest first."""
    total = sum(amounts.values()) or 1.0
    return tuple(Blame(name, amounts[name] / total) for name in sorted(amounts, key=lambda n: -amounts[n]))
