"""What a task is: networks, targets with their classes, the truth; and what every method that answers must do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from weightspace.errors import TaskError
from weightspace.weights.network import Network
from weightspace.weights.population import Population

Predictions = dict[str, np.ndarray]
"""For each target's name the probabilities of its classes, (networks, classes), rows summing to 1; of a quantity its
estimates, (networks,)."""


class UnfitError(TaskError):
    """Networks that a method cannot read, such as those of several architectures where it reads one."""


@dataclass(frozen=True)
class Target:
    """One question: with a finite set of answers, or with a number as its answer.

    Attributes:
        name: what is asked, such as "optimiser".
        classes: the possible answers, at least two, in the order of the probabilities; none for a quantity, such as
            "test_accuracy".
    """

    name: str
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.classes)) != len(self.classes) or len(self.classes) == 1:
            raise TaskError(
                f"target {self.name!r} needs at least two different classes, or none for a number, not {self.classes}"
            )

    @property
    def is_quantity(self) -> bool:
        """Whether the answer is a number."""
        return not self.classes


@dataclass(frozen=True, eq=False)
class Examples:
    """Networks with the truth about them.

    Attributes:
        networks: n networks.
        labels: for each target's name the position of the true class, (n,) int64, -1 where it is not known; of a
            quantity its value, (n,) float64, NaN where it is not known.
        targets: what is asked.
        units: (n,) int64 which network each is a checkpoint of; None where no two are of the same.
    """

    networks: Population
    labels: Mapping[str, np.ndarray]
    targets: tuple[Target, ...]
    units: np.ndarray | None = None

    def __post_init__(self) -> None:
        names = [target.name for target in self.targets]
        if len(set(names)) != len(names):
            raise TaskError(f"a target is asked for twice among {', '.join(names)}: name each once")
        for target in self.targets:
            labels = self.labels[target.name]
            if labels.shape != (len(self.networks),):
                raise TaskError(f"target {target.name!r} has {len(labels)} labels for {len(self.networks)} networks")
            if target.is_quantity:
                if labels.dtype != np.float64 or np.isinf(labels).any():
                    raise TaskError(f"target {target.name!r} is a number: its labels are float64, finite or NaN")
            elif len(labels) and not (labels.min() >= -1 and labels.max() < len(target.classes)):
                raise TaskError(f"target {target.name!r} has labels outside its {len(target.classes)} classes")

    def __len__(self) -> int:
        return len(self.networks)

    def select(self, positions: np.ndarray) -> Examples:
        """The examples at `positions` (k,), in that order."""
        labels = {name: values[positions] for name, values in self.labels.items()}
        units = None if self.units is None else self.units[positions]
        return Examples(self.networks.select(positions), labels, self.targets, units)

    @property
    def unit(self) -> np.ndarray:
        """(n,) a number for each network, the same for all of its checkpoints: what is split, drawn and counted."""
        return np.arange(len(self)) if self.units is None else self.units

    def drawn(self, count: int, seed: int) -> np.ndarray:
        """Positions of the checkpoints of `count` networks, in their order."""
        names = np.unique(self.unit)
        return np.flatnonzero(np.isin(self.unit, np.random.default_rng(seed).permutation(names)[:count]))

    def hiding(self, kept: np.ndarray) -> Examples:
        """The same networks, of which only those at positions `kept` (k,) keep their labels."""
        labels = {}
        for target in self.targets:
            labels[target.name] = np.full_like(self.labels[target.name], np.nan if target.is_quantity else -1)
            labels[target.name][kept] = self.labels[target.name][kept]
        return Examples(self.networks, labels, self.targets, self.units)

    def and_then(self, others: Examples) -> Examples:
        """These, then others of the same source and with the same targets."""
        networks = self.networks.and_then(others.networks)
        labels = {t.name: np.concatenate([self.labels[t.name], others.labels[t.name]]) for t in self.targets}
        several = self.units is not None or others.units is not None
        return Examples(networks, labels, self.targets, np.concatenate([self.unit, others.unit]) if several else None)

    def known(self, target: str) -> np.ndarray:
        """Positions (k,) of the networks whose class or value of `target` is known."""
        labels = self.labels[target]
        return np.flatnonzero(np.isfinite(labels) if labels.dtype.kind == "f" else labels >= 0)


def check_learnable(training: Examples, validation: Examples) -> None:
    """Raise a TaskError that names the target, unless there is something to learn and something to choose by.

    Each target needs two of its classes or values among the training networks, and one known label among the others.
    """
    if len(training) == 0 or len(validation) == 0:
        raise TaskError("there must be networks to train on and others to validate on: make a larger zoo")
    for target in training.targets:
        classes = set(training.labels[target.name][training.known(target.name)].tolist())
        if len(classes) < 2 or len(validation.known(target.name)) == 0:
            what = "values" if target.is_quantity else "classes"
            raise TaskError(
                f"target {target.name!r} has {len(classes)} {what} among {len(training)} training networks and "
                f"{len(validation.known(target.name))} known labels for validation: make a larger zoo, or leave it out"
            )


@runtime_checkable
class Predictor(Protocol):
    """A method that answers questions about networks: a meta-model or a baseline.

    `metamodels.checks.check_predictor` tests whether a class keeps this contract.
    """

    name: str
    """What tables call it."""

    def fit(self, training: Examples, validation: Examples) -> Predictor:
        """Learn from `training`; `validation` is for choosing settings and for early stopping, never for more."""
        ...

    def predict(self, networks: Sequence[Network]) -> Predictions:
        """Probabilities for every target that it was fitted on. Each network is judged alone: the others beside it
        do not matter."""
        ...
