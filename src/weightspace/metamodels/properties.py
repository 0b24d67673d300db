"""Hyperparameters from weights: how was this network trained? (Langosco et al., section 3.1)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from weightspace.errors import TaskError
from weightspace.metamodels.contract import Examples, Target
from weightspace.zoo.store import Zoo


def categorical_targets(zoo: Zoo, names: Sequence[str] | None = None) -> tuple[Target, ...]:
    """The hyperparameters of a zoo that can be asked for.

    Args:
        names: which; None for every choice of at least two values that is not architectural (those a spec gives away).
    Raises:
        TaskError: if a name is not among them; the message lists them.
    """
    return _chosen(zoo, _choices(zoo), names)


def property_targets(zoo: Zoo, names: Sequence[str] | None = None, *, checkpoints: bool = False) -> tuple[Target, ...]:
    """What a zoo's networks can be asked for: hyperparameters that are choices, then quantities.

    Args:
        names: which; None for all.
        checkpoints: whether every stored checkpoint is asked about, and so its epoch too.
    Raises:
        TaskError: if a name is not among them; the message lists them.
    """
    numbers = {target.name: target for target in quantities(zoo) if target.name != "epoch" or checkpoints}
    return _chosen(zoo, _choices(zoo) | numbers, names)


def _choices(zoo: Zoo) -> dict[str, Target]:
    """The hyperparameters of at least two values of which the spec does not give them away."""
    config = zoo.description["config"]
    return {
        name: Target(name, tuple(dict.fromkeys(map(str, distribution["values"]))))  # one listed twice is likelier
        for name, distribution in config["space"].items()
        if distribution["kind"] == "Choice"
        and len(set(distribution["values"])) > 1
        and name not in config["architectural"]
    }


def _chosen(zoo: Zoo, possible: Mapping[str, Target], names: Sequence[str] | None) -> tuple[Target, ...]:
    wanted = list(possible) if names is None else list(names)
    if len(set(wanted)) != len(wanted):
        raise TaskError(f"a target is asked for twice among {', '.join(wanted)}: name each once")
    for name in wanted:
        if name not in possible:
            raise TaskError(
                f"zoo {zoo.folder} cannot be asked for {name!r}: it has {', '.join(possible) or 'no choices'}"
            )
    if not wanted:
        raise TaskError(f"zoo {zoo.folder} varies no hyperparameter that is a choice: make one with another recipe")
    return tuple(possible[name] for name in wanted)


def quantities(zoo: Zoo) -> tuple[Target, ...]:
    """The numbers that can be asked of a zoo's networks.

    "test_accuracy"; "generalisation_gap", training accuracy (over the batches of the last epoch, under dropout and
    augmentation) less test accuracy; "learning_rate", its logarithm to base 10, where it is no choice; "epoch" after
    which the checkpoint was stored, where several were. Each varies among the networks.
    """
    choices = zoo.description["config"]["space"].get("learning_rate", {}).get("kind") == "Choice"
    possible = {
        "test_accuracy": "test_accuracy" in zoo.columns,
        "generalisation_gap": {"train_accuracy", "test_accuracy"} <= set(zoo.columns),
        "learning_rate": "learning_rate" in zoo.columns and not choices,
    }
    names = [name for name, there in possible.items() if there and _varies(_quantity(zoo, name, zoo.rows()))]
    if len(zoo.rows(checkpoints=True)) > len(zoo.rows()):
        names.append("epoch")
    return tuple(map(Target, names))


def _varies(values: np.ndarray) -> bool:
    return len(np.unique(values[np.isfinite(values)])) > 1


def _quantity(zoo: Zoo, name: str, rows: np.ndarray) -> np.ndarray:
    """Values (n,) float64 of a quantity, NaN where it was not measured."""

    def column(of: str) -> np.ndarray:
        return zoo.column(of)[rows].astype(np.float64)

    if name == "generalisation_gap":
        return column("train_accuracy") - column("test_accuracy")
    return np.log10(column(name)) if name == "learning_rate" else column(name)


def hyperparameter_examples(zoo: Zoo, split: str, targets: Sequence[Target], *, checkpoints: bool = False) -> Examples:
    """The networks of one split with their hyperparameters, and what was measured of them, as labels.

    Args:
        targets: of `categorical_targets` and `quantities`.
        checkpoints: every stored checkpoint of each network, instead of the last alone.
    Raises:
        TaskError: if the zoo has no network in the split, or a label that is none of a target's classes.
    """
    networks = zoo.population(split, checkpoints=checkpoints)
    if len(networks) == 0:
        raise TaskError(f"zoo {zoo.folder} has no networks in its {split} split: make it larger with --count")
    labels = {}
    for target in targets:
        if target.is_quantity:
            labels[target.name] = _quantity(zoo, target.name, networks.rows)
            continue
        position = {name: i for i, name in enumerate(target.classes)}
        values = zoo.column(target.name)[networks.rows]
        strange = {str(value) for value in values} - position.keys()
        if strange:
            raise TaskError(f"zoo {zoo.folder} has {target.name!r} {min(strange)!r}, which is none of {target.classes}")
        labels[target.name] = np.array([position[str(value)] for value in values], np.int64)
    units = zoo.column("network")[networks.rows].astype(np.int64) if checkpoints else None
    return Examples(networks, labels, tuple(targets), units)
