"""Networks of a zoo as subjects of a repair: each with images to repair it by, and others to score it on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from weightspace.backdoors.repairing.classifier import Classifier
from weightspace.backdoors.trials import poison_of
from weightspace.errors import TaskError
from weightspace.weights.network import Network
from weightspace.zoo.networks import module_of
from weightspace.zoo.plan import ZooConfig, plan
from weightspace.zoo.poison import ALL_TO_ALL, Poison
from weightspace.zoo.records import TrainingPlan
from weightspace.zoo.training_images import Images, Tampered

SCORED = 1_000
"""Test images on which a network is scored; half of them, where there are not twice as many."""
APART = 2_500
"""Further test images, which nothing was trained on, to repair by."""


@dataclass(frozen=True, eq=False)
class Subject:
    """One network of a zoo before any repair.

    Attributes:
        number: in the zoo.
        poison: its attack.
        apart, apart_labels: (m, c, h, w) standardised images to repair by, in a random order; their classes.
        images, labels: (n, c, h, w) other images, to score on; their classes.
        triggered: (n, c, h, w) the same with its trigger; the images themselves where it has none.
        wanted: (n,) what the attack wants of each.
    """

    number: int
    classifier: Classifier
    poison: Poison
    apart: Float[Tensor, "m c h w"]
    apart_labels: Int[Tensor, " m"]
    images: Float[Tensor, "n c h w"]
    labels: Int[Tensor, " n"]
    triggered: Float[Tensor, "n c h w"]
    wanted: Int[Tensor, " n"]
    tampered: Tampered | None

    def with_trigger(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Images with the attack's own trigger."""
        return images if self.tampered is None else self.tampered.trigger(images[None])[0]


@dataclass(frozen=True)
class Scores:
    """What a network does on a subject's images.

    Attributes:
        accuracy: on images as they are.
        success: share of images of other classes than the wanted one that are answered as wanted with the trigger.
        chance: the same of those images without it.
        right: share of these that are answered rightly with the trigger.
    """

    accuracy: float
    success: float
    chance: float
    right: float

    @property
    def net(self) -> float:
        """Success beyond chance, as a share of what there is beyond chance; 0 or more."""
        return max(0.0, (self.success - self.chance) / max(1e-9, 1 - self.chance))


def scores(network: Classifier, subject: Subject) -> Scores:
    """Scores of a network that was a subject before it was repaired."""
    plain, attacked = network.answers(subject.images), network.answers(subject.triggered)
    other = subject.labels != subject.wanted
    return Scores(
        float((plain == subject.labels).float().mean()),
        float((attacked == subject.wanted)[other].float().mean()),
        float((plain == subject.wanted)[other].float().mean()),
        float((attacked == subject.labels)[other].float().mean()),
    )


def subject_of(network: Network, config: ZooConfig) -> Subject:
    """A network of a zoo with its images.

    Args:
        network: of the zoo, with its row as metadata.
        config: of the zoo; `data` says where its images lie.
    Raises:
        TaskError: if the zoo was not made by this configuration.
    """
    facts: Mapping[str, Any] = network.metadata
    made = plan(config, int(facts["network"]))
    poison = poison_of(facts)
    drawn = made.hyperparameters.get("attack", poison.attack), made.hyperparameters.get("target", poison.target)
    if drawn != (poison.attack, poison.target):
        raise TaskError(
            f"network {made.network} was attacked by {poison.attack}, and the recipe {config.recipe} draws {drawn[0]} "
            "for it: the zoo was made by another version of it, so that its images are not known"
        )
    images = _images(replace(made, poison=None, test_count=SCORED + APART))
    tampered = images.poisoned([replace(made, poison=poison)]).tampered if poison.triggers else None
    order = torch.from_numpy(np.random.default_rng(3).permutation(len(images.test)))
    count = min(SCORED, len(order) // 2)
    scored, apart = order[:count], order[count:]
    x, y = images.standardise(images.test[scored]), images.test_labels[scored]
    classes = int(images.train_labels.max()) + 1
    wanted = (y + 1) % classes if poison.attack in ALL_TO_ALL else torch.full_like(y, poison.target)
    module = module_of(network)
    outputs = module(x[:2]).shape[1]
    shape = made.architecture.input_shape
    mean, deviation = images.mean.reshape(-1).tolist(), images.deviation.reshape(-1).tolist()
    return Subject(
        number=int(facts["network"]),
        classifier=Classifier.of(module, shape, outputs, mean, deviation),
        poison=poison,
        apart=images.standardise(images.test[apart]),
        apart_labels=images.test_labels[apart],
        images=x,
        labels=y,
        triggered=x if tampered is None else tampered.trigger(x[None])[0],
        wanted=wanted,
        tampered=tampered,
    )


def _images(made: TrainingPlan) -> Images:
    """The images of a plan; those of the last plan that had the same stay in memory."""
    shown = replace(made, network=0, seed=0, split="train", hyperparameters={}, poison=None)
    names = ("images", "data", "image_size", "image_channels", "image_count", "test_count", "classes", "class_choice")
    return _loaded(_Key(tuple(getattr(shown, name) for name in names), shown))


@dataclass(frozen=True)
class _Key:
    """A plan that is known by what decides its images."""

    facts: tuple[Any, ...]
    plan: TrainingPlan = field(compare=False)


@lru_cache(maxsize=2)
def _loaded(key: _Key) -> Images:
    return Images.of(key.plan, torch.device("cpu"))
