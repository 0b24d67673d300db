"""What methods that learn by gradients have in common: batches, the loss over all targets, answers, the fit itself."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from weightspace.errors import TaskError
from weightspace.metamodels.contract import Examples, Predictions, Target, check_learnable
from weightspace.train.checkpoint import bind
from weightspace.train.config import TrainingConfig
from weightspace.train.log import History
from weightspace.train.loop import choose_device, mix, to_device, train
from weightspace.train.ranks import WHOLE, Part, Ranks
from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.weights.spec import NetworkSpec


@dataclass(frozen=True)
class Answering:
    """How the outputs of a module answer targets: logits of each class, or one standardised number of a quantity.

    Attributes:
        targets: in the order of the outputs.
        scales: for each target mean and standard deviation of a quantity among the training networks; (0, 1) of others.
    """

    targets: tuple[Target, ...]
    scales: tuple[tuple[float, float], ...]

    @staticmethod
    def of(training: Examples) -> Answering:
        scales = []
        for target in training.targets:
            values = training.labels[target.name][training.known(target.name)]
            quantity = target.is_quantity and len(values) > 0
            scales.append((float(values.mean()), float(values.std()) or 1.0) if quantity else (0.0, 1.0))
        return Answering(training.targets, tuple(scales))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Outputs of each target."""
        return tuple(max(1, len(target.classes)) for target in self.targets)

    def labels(self, examples: Examples) -> Float[Tensor, "n targets"]:
        """The truth as the module is to answer it: numbers of classes, standardised quantities, NaN where not known."""
        columns = []
        for target, (mean, deviation) in zip(self.targets, self.scales, strict=True):
            values = examples.labels[target.name].astype(np.float64)
            if target.is_quantity:
                columns.append((values - mean) / deviation)
            else:
                columns.append(np.where(values < 0, np.nan, values))
        return torch.from_numpy(np.stack(columns, 1)).float()

    def split(self, outputs: Float[Tensor, "n outputs"]) -> tuple[Tensor, ...]:
        """The outputs of each target, (n, size)."""
        return outputs.split(self.sizes, 1)

    def loss(
        self,
        outputs: Float[Tensor, "b outputs"],
        labels: Float[Tensor, "b targets"],
        counts: Int[Tensor, " targets"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean over the targets of the mean over the networks whose answer is known.

        Cross-entropy of classes, half the squared error of standardised quantities.

        Args:
            counts: networks of the whole batch whose answer is known, where these are a part of it: so the losses of
                the parts add up to the batch's, however the known answers fall on them. None: these are all.
        """
        losses = []
        counts = labels.isfinite().sum(0) if counts is None else counts
        parts = zip(self.targets, self.split(outputs), labels.unbind(1), counts.clamp(min=1).unbind(), strict=True)
        for target, values, truth, count in parts:
            known = truth.isfinite()
            if target.is_quantity:
                error = values.float()[:, 0] - truth.nan_to_num()
                losses.append(0.5 * (error.square() * known).sum() / count)
            else:
                classes = truth.nan_to_num(nan=-1).long()
                losses.append(F.cross_entropy(values.float(), classes, ignore_index=-1, reduction="sum") / count)
        return torch.stack(losses).mean()

    def measures(self, outputs: Float[Tensor, "b outputs"], labels: Float[Tensor, "b targets"]) -> dict[str, float]:
        """The loss, and the mean over the targets of accuracy, or of the share of a quantity's variance explained."""
        right = []
        for target, values, truth in zip(self.targets, self.split(outputs), labels.unbind(1), strict=True):
            known = truth.isfinite()
            if target.is_quantity:
                error = values.float()[:, 0][known] - truth[known]
                right.append(1 - error.square().mean() / truth[known].var(correction=0).clamp(min=1e-12))
            else:
                right.append((values.argmax(1) == truth)[known].float().mean())
        return {"loss": float(self.loss(outputs, labels)), "accuracy": float(torch.stack(right).mean())}

    def predictions(self, outputs: Float[Tensor, "n outputs"]) -> Predictions:
        """Probabilities (n, classes) of each target, or estimates (n,) of a quantity."""
        found = {}
        for target, (mean, deviation), values in zip(self.targets, self.scales, self.split(outputs), strict=True):
            if target.is_quantity:
                found[target.name] = (values.double()[:, 0] * deviation + mean).cpu().numpy()
            else:
                found[target.name] = values.double().softmax(1).cpu().numpy()
        return found


class Learner(ABC):
    """A `Predictor` that trains a torch model on networks, and keeps the weights with the lowest validation loss.

    Args:
        training: how it is trained; a network is seen once an epoch, whatever the number of steps.
        folder: where checkpoints go, so that a killed `fit` goes on when it is called again; None for nowhere.
        show: whether to show a progress line.
    """

    name = "learner"

    def __init__(self, training: TrainingConfig, *, folder: str | Path | None = None, show: bool = False) -> None:
        self.training = training
        self.folder = Path(folder) if folder is not None else None
        self.show = show
        self.history = History()
        self.answering = Answering((), ())

    # -- what a subclass says ---------------------------------------------------------------------------------------

    @abstractmethod
    def build(self, training: Examples, validation: Examples) -> nn.Module:
        """A new model for these networks; of what `read` gives, it answers with (b, sum of `answering.sizes`)."""

    @abstractmethod
    def read(self, networks: Population, generator: torch.Generator | None) -> Any:
        """A batch of networks as the model reads them: tensors, or an object with `.to(device)`.

        Args:
            generator: of what is random about it in training; None where networks are judged.
        """

    def batch(self, training: Examples, positions: np.ndarray, generator: torch.Generator) -> Any:
        """What `read` gives for the training networks at `positions` (b,), or something kept."""
        return self.read(training.networks.select(positions), generator)

    def settings(self) -> str:
        """Whatever of a subclass decides what it learns, besides `training`."""
        return self.name

    def prepare(self, training: Examples) -> None:  # noqa: B027 - most have nothing to do
        """What a subclass does with the new model before it learns from labels; nothing here."""

    def check_scope(self, spec: NetworkSpec) -> None:  # noqa: B027 - most judge all
        """Raise an error that says why, if networks with this spec cannot be judged; none does here."""

    def answer(self, model: nn.Module, networks: Population) -> Float[Tensor, "n outputs"]:
        """Outputs for networks that are judged, of which one batch is given at a time."""
        return model(to_device(self.read(networks, None), next(model.parameters()).device))

    # -- learning -----------------------------------------------------------------------------------------------------

    def fit(self, training: Examples, validation: Examples) -> Learner:
        """Train on `training`, keep the weights with the lowest loss on `validation`.

        Within `ranks.joined` it shares the work with other processes, each of which calls it with the same arguments.
        Networks of which no label is known teach nothing, unless `prepare` learns from them.

        Raises:
            NetworkError: if a weight is NaN or infinite.
            TaskError: if there is nothing to learn, or the folder holds another run.
        """
        check_learnable(training, validation)
        training.networks.check_finite()
        validation.networks.check_finite()
        answering = self.answering = Answering.of(training)
        config = self.training
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.model = self.build(training, validation)
        labels, held_labels = answering.labels(training), answering.labels(validation)
        taught = np.flatnonzero(labels.isfinite().any(1).numpy())
        if self.folder is not None:
            bind_to(self.folder, f"a {self.name}", self.settings(), training, validation)
        self.prepare(training)

        def batch(step: int, part: Part = WHOLE) -> tuple[Any, Tensor, Tensor]:
            chosen = taught[epoch_batch(len(taught), config.batch_size, step, config.seed)]
            counts = labels[torch.from_numpy(chosen)].isfinite().sum(0)
            chosen = chosen[part.rows(len(chosen))]
            generator = torch.Generator().manual_seed(mix(config.seed, step, *part.key))
            return self.batch(training, chosen, generator), labels[torch.from_numpy(chosen)], counts

        def loss(model: nn.Module, examples: tuple[Any, Tensor, Tensor]) -> Tensor:
            return answering.loss(model(examples[0]), *examples[1:])

        def evaluate(model: nn.Module) -> dict[str, float]:
            outputs = self._outputs(model, validation.networks, Ranks.here())
            return answering.measures(outputs, held_labels.to(outputs.device))

        self.history = train(
            self.model,
            loss,
            batch,
            config,
            divisible=True,
            evaluate=evaluate,
            folder=self.folder,
            description=f"training the {self.name}",
            progress=self.show,
        )
        return self

    # -- answering ----------------------------------------------------------------------------------------------------

    def predict(self, networks: Sequence[Network]) -> Predictions:
        """Probabilities (n, classes) for each target, estimates (n,) for each quantity.

        Raises:
            NetworkError: if a weight is NaN or infinite.
            ValueError: if a network is out of scope, see `check_scope`.
        """
        population = Population.of(networks)
        population.check_finite()
        for spec in population.specs:
            self.check_scope(spec)
        self.model.to(choose_device(self.training.device)).eval()
        with torch.no_grad():
            return self.answering.predictions(self._outputs(self.model, population, Ranks()))

    def _outputs(self, model: nn.Module, population: Population, ranks: Ranks) -> Float[Tensor, "n outputs"]:
        """Outputs for all networks, block by block, of which each process reads its own."""
        size, width = self.training.batch_size, sum(self.answering.sizes)
        blocks = [np.arange(i, min(i + size, len(population))) for i in range(0, len(population), size)]
        device = next(model.parameters()).device
        parts = [torch.zeros(len(block), width, device=device) for block in blocks]
        for number in range(ranks.rank, len(blocks), ranks.count):
            parts[number] = self.answer(model, population.select(blocks[number])).float()
        return ranks.sum(torch.cat(parts)) if parts else torch.zeros(0, width)

    @property
    def parameters(self) -> int:
        """Number of its own weights."""
        return sum(p.numel() for p in self.model.parameters())


def bind_to(folder: Path, what: str, settings: str, training: Examples, validation: Examples) -> None:
    """Tie a folder to a method's settings and the networks that it learns from: their labels, and some of the weights.

    Raises:
        TaskError: if it is tied to others.
    """
    digest = hashlib.sha256(settings.encode())
    for examples in (training, validation):
        for name in sorted(examples.labels):
            digest.update(name.encode() + examples.labels[name].tobytes())
        for spec, positions in examples.networks.groups():
            digest.update(spec.signature.encode())
            digest.update(examples.networks.read(positions[[0, -1]]).tobytes())
    if not bind(folder, digest.digest()):
        raise TaskError(
            f"{folder} holds {what} of other networks, targets or settings: choose another folder, or delete that one"
        )


def epoch_batch(count: int, size: int, step: int, seed: int) -> np.ndarray:
    """Positions (size,) of the examples of a step: every epoch a new order, each example once an epoch.

    A pure function of its arguments, so that a resumed run goes on with the same batches. An epoch's end may fall
    inside a batch.
    """
    positions = np.arange(step * size, (step + 1) * size)
    epochs = positions // count
    batch = np.empty(size, np.int64)
    for epoch in np.unique(epochs):
        order = np.random.default_rng([seed, int(epoch)]).permutation(count)
        inside = epochs == epoch
        batch[inside] = order[positions[inside] % count]
    return batch
