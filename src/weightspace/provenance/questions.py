"""What networks are asked about their training images: which classes, in which proportions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from weightspace.errors import TaskError
from weightspace.metamodels.contract import Examples, Target
from weightspace.zoo.store import Zoo

Question = Literal["classes", "proportions"]
CLASSES, SHARE, OUTPUT = "class", "share of class", "output"
"""How targets begin: `class 3` is trained on or not, `share of class 3` is a number, `output 2` stands for a class."""
FEWEST = 40
"""Training networks below which nothing is learnt that is worth asking."""


def question_of(zoo: Zoo) -> Question:
    """What a zoo's networks differ in.

    Raises:
        TaskError: if neither.
    """
    space = zoo.description["config"]["space"]
    if "class_proportions" in space:
        return "proportions"
    if "class_subset" not in space:
        raise TaskError(
            f"the networks of zoo {zoo.folder} were all trained on the same classes, so there is nothing to ask: make "
            "one with `weightspace zoo make subsets-small` or `mixtures-small`"
        )
    return "classes"


def provenance_examples(zoo: Zoo, split: str, question: Question | None = None, *, outputs: bool = False) -> Examples:
    """The networks of a split with the classes that they were trained on.

    Args:
        question: `classes`, of each class whether it was among them; `proportions`, its share of the training images.
            Unless given, what the zoo's networks differ in.
        outputs: whether it is asked, after all classes, of each output too which class it stands for: it teaches a
            reader of outputs more than the set of classes does.
    Raises:
        TaskError: if the split is empty or its labels cannot be told.
    """
    asked = question or question_of(zoo)
    networks = zoo.population(split)
    if len(networks) == 0:
        raise TaskError(f"zoo {zoo.folder} has no networks in its {split} split: make it larger with --count")
    subsets = zoo.column("class_subset")[networks.rows]
    of = int(zoo.description["config"]["space"]["class_subset"]["of"])
    table = np.zeros((len(networks), of))
    shares = zoo.column("class_proportions")[networks.rows] if asked == "proportions" else None
    for row, subset in enumerate(subsets):
        classes = np.asarray(subset, int)
        table[row, classes] = 1 if shares is None else np.asarray(shares[row], float)
    targets, labels = [], {}
    for number in range(of):
        if asked == "classes":
            target = Target(f"{CLASSES} {number}", ("no", "yes"))
            labels[target.name] = table[:, number].astype(np.int64)
        else:
            target = Target(f"{SHARE} {number}")
            labels[target.name] = table[:, number]
        targets.append(target)
    if outputs:
        most = max(len(subset) for subset in subsets)
        for place in range(most):
            target = Target(f"{OUTPUT} {place}", tuple(map(str, range(of))))
            standing = [int(subset[place]) if place < len(subset) else -1 for subset in subsets]
            labels[target.name] = np.array(standing, np.int64)
            targets.append(target)
    return Examples(networks, labels, tuple(targets))


def asked_targets(targets: Sequence[Target]) -> tuple[Target, ...]:
    """Those of the classes, without those of the outputs."""
    return tuple(target for target in targets if not target.name.startswith(f"{OUTPUT} "))


def check_enough(training: Examples) -> None:
    """Raise a TaskError if there are too few networks to learn from."""
    if len(training) < FEWEST:
        raise TaskError(f"{len(training)} training networks are too few to learn from: make a zoo of at least 100")


def shuffled(examples: Examples, seed: int) -> Examples:
    """The same networks with the labels of others: what is learnt from these is nothing."""
    order = np.random.default_rng([seed, 0x5F]).permutation(len(examples))
    labels = {name: values[order] for name, values in examples.labels.items()}
    return Examples(examples.networks, labels, examples.targets, examples.units)
