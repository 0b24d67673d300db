"""Hyperparameters from weights: how was this network trained? (Langosco et al., section 3.1)"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from weightspace.tasks.base import Examples, Target, TaskError
from weightspace.weights.store import Zoo


def categorical_targets(zoo: Zoo, names: Sequence[str] | None = None) -> tuple[Target, ...]:
    """The hyperparameters of a zoo that can be asked for.

    Args:
        names: which; None for every choice of at least two values that is not architectural (those a spec gives away).
    Raises:
        TaskError: if a name is not among them; the message lists them.
    """
    config = zoo.description["config"]
    possible = {
        name: Target(name, tuple(dict.fromkeys(map(str, distribution["values"]))))  # one listed twice is likelier
        for name, distribution in config["space"].items()
        if distribution["kind"] == "Choice"
        and len(set(distribution["values"])) > 1
        and name not in config["architectural"]
    }
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


def hyperparameter_examples(zoo: Zoo, split: str, targets: Sequence[Target]) -> Examples:
    """The networks of one split with their hyperparameters as labels.

    Raises:
        TaskError: if the zoo has no network in the split.
    """
    networks = zoo.population(split)
    if len(networks) == 0:
        raise TaskError(f"zoo {zoo.folder} has no networks in its {split} split: make it larger with --count")
    labels = {}
    for target in targets:
        position = {name: i for i, name in enumerate(target.classes)}
        values = zoo.column(target.name)[networks.rows]
        strange = {str(value) for value in values} - position.keys()
        if strange:
            raise TaskError(f"zoo {zoo.folder} has {target.name!r} {min(strange)!r}, which is none of {target.classes}")
        labels[target.name] = np.array([position[str(value)] for value in values], np.int64)
    return Examples(networks, labels, tuple(targets))
