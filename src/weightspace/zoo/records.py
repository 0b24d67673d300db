"""Records: what a base network is to be before it is trained, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from weightspace.zoo.poison import Poison

SCHEDULES = ("constant", "exponential", "triangular", "cosine")
OPTIMISERS = ("sgd", "momentum", "adam", "adamw", "rmsprop")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A feed-forward base network as data.

    Attributes:
        input_shape: (channels, height, width) of one image.
        layers: one tuple a layer, a kind and its options: ("convolution", channels, kernel, stride, "same"|"valid"),
            ("dense", width), ("batch_norm",), ("layer_norm",), ("group_norm", groups), ("activation",),
            ("max_pool", size), ("average_pool", size), ("dropout", rate), ("flatten",), ("global_average_pool",),
            ("global_max_pool",), ("residual", layers), which adds what the layers make of their input to it.
        activation: the nonlinearity at every ("activation",).
    """

    input_shape: tuple[int, int, int]
    layers: tuple[tuple[Any, ...], ...]
    activation: str

    def to_json(self) -> dict[str, Any]:
        return {
            "input_shape": list(self.input_shape),
            "layers": _lists(self.layers),
            "activation": self.activation,
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Architecture:
        """The inverse of `to_json`.

        Raises:
            ValueError: if the record is not one that `to_json` makes.
        """
        try:
            channels, height, width = (int(n) for n in record["input_shape"])
            return Architecture(
                input_shape=(channels, height, width),
                layers=tuple(_tuples(layer) for layer in record["layers"]),
                activation=str(record["activation"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not the description of an architecture: {error!r}") from error


def _lists(layers: tuple[Any, ...]) -> list[Any]:
    return [_lists(part) if isinstance(part, tuple) else part for part in layers]


def _tuples(layers: list[Any]) -> tuple[Any, ...]:
    return tuple(_tuples(part) if isinstance(part, list) else part for part in layers)


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """Everything that decides one network of a zoo: a pure function of (configuration, zoo seed, number).

    Attributes:
        network: its number in the zoo.
        seed: seeds its weights, its order of images and its dropout.
        split: "train", "validation" or "test".
        images: name of the image set; `data` is a folder to look in first.
        image_size, image_channels, image_count: pixels a side, channels and number of training images; None for as is.
        classes: how many of the image set's classes are told apart, None for all; `class_choice` numbers the draw that
            decides which. Where they have fewer than `image_count` training images, all are taken.
        class_subset: instead, the numbers of the image set's classes that are told apart, in the order of the outputs;
            the network trains on its own draw of their images.
        class_proportions: share of each of these outputs among the training images; None for whatever the draw gives.
        label_noise: share of these training images that are labelled as another class.
        test_count: how many test images the metrics are taken on; None for all.
        architecture: what is trained.
        initialisation, bias_initialisation: names that `networks.initialise` knows.
        optimiser: one of `OPTIMISERS`; "momentum" is SGD with `momentum`.
        learning_rate: at the start (constant, exponential, cosine) or at the peak (triangular).
        schedule: constant; exponential (times 0.96 an epoch); triangular (up for a fifth of the steps, then down to 0);
            cosine (down to 0 along half a wave).
        weight_decay: added to the gradient, except for adamw, where it is decoupled.
        clip_norm: largest norm of the gradient, None for no clipping.
        batch_size: images a step; the last, smaller batch of an epoch is left out.
        epochs: passes over the training images.
        crop: pixels by which each image is shifted at most in every direction, anew each time it is seen; what comes in
            from outside has the mean colour, and a trigger is shifted with its image.
        flip: whether each image is mirrored from left to right half of the times that it is seen, trigger and all.
        augment: whether each image is distorted anew each time it is seen, see `distortion.augmented`.
        channels_last: whether a network that trains alone keeps the channels of a pixel together in memory: a quarter
            faster on a CPU where there are many, and other rounding.
        checkpoints: epochs, 0 to below `epochs`, after which the weights are stored too, in rising order; those after
            the last epoch always are.
        poison: how the training images and labels are tampered with; None for not at all.
        parent: the network that this one is derived from, None for one of its own.
        derivation: how, step by step: names of `derivation.STEPS`.
        hyperparameters: what was sampled, as it goes into the index: the labels of the zoo.
    """

    network: int
    seed: int
    split: str
    images: str
    data: str | None = None
    image_size: int | None = None
    image_channels: int | None = None
    image_count: int | None = None
    test_count: int | None = None
    classes: int | None = None
    class_choice: int = 0
    class_subset: tuple[int, ...] | None = None
    class_proportions: tuple[float, ...] | None = None
    label_noise: float = 0.0
    architecture: Architecture
    initialisation: str
    bias_initialisation: str = "zero"
    optimiser: str
    learning_rate: float
    schedule: str = "constant"
    momentum: float = 0.9
    weight_decay: float = 0.0
    clip_norm: float | None = None
    batch_size: int
    epochs: int
    crop: int = 0
    flip: bool = False
    augment: bool = False
    channels_last: bool = False
    checkpoints: tuple[int, ...] = ()
    poison: Poison | None = None
    parent: TrainingPlan | None = None
    derivation: tuple[str, ...] = ()
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("optimiser", self.optimiser, OPTIMISERS),
            ("schedule", self.schedule, SCHEDULES),
        ):
            if value not in allowed:
                raise ValueError(f"unknown {name} {value!r}: choose from {', '.join(allowed)}")
        if self.batch_size < 1 or self.epochs < 0 or not self.learning_rate > 0 or self.crop < 0:
            raise ValueError(
                f"a network cannot train with batch size {self.batch_size}, {self.epochs} epochs, learning rate "
                f"{self.learning_rate} and crops of {self.crop}: the first must be at least 1, the second and the last "
                "at least 0, the third above 0"
            )
        object.__setattr__(self, "checkpoints", tuple(self.checkpoints))
        if list(self.checkpoints) != sorted(set(self.checkpoints) & set(range(self.epochs))):
            raise ValueError(
                f"a network of {self.epochs} epochs cannot be stored after epochs {list(self.checkpoints)}: name "
                f"epochs from 0 to {self.epochs - 1}, each once and in rising order; the last is always stored"
            )


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """What came of a plan.

    Attributes:
        plan: what it was to be.
        weights: (spec.size,) float32 in the order of `networks.spec_of(plan.architecture)`, or None if dropped.
        curves: `train_loss`, `train_accuracy`, `test_loss`, `test_accuracy`, one value an epoch; the training ones are
            means over the epoch's batches, the others are taken after it.
        measures: what else was measured at the end. Of a network with a `poison`: `attack_success`, the share of test
            images of other classes that are answered as the target with the trigger, None where there is none; and
            `target_rate`, the same without it. Where an attack has a target for each class, of all images.
        snapshots: weights, as above, after each of the plan's `checkpoints`; none of a dropped network.
        dropped: why the network is not part of the population, such as "diverged: loss is NaN in epoch 3"; or None.
    """

    plan: TrainingPlan
    weights: np.ndarray | None
    curves: Mapping[str, list[float]]
    dropped: str | None = None
    measures: Mapping[str, float | None] = field(default_factory=dict)
    snapshots: Mapping[int, np.ndarray] = field(default_factory=dict)
