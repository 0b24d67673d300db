"""The methods that are asked what networks were trained on, by name: readers, and what a sceptic would use instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from weightspace.metamodels.baselines.linear import AlignedLinear, StatisticsLinear
from weightspace.metamodels.baselines.queries import Asking
from weightspace.metamodels.baselines.statistics import StatisticsBoosting
from weightspace.metamodels.contract import Predictor
from weightspace.provenance.set_reader import SetReader, SetReaderConfig, normalised
from weightspace.provenance.stacked import stacked_answers
from weightspace.provenance.views import GramLinear
from weightspace.train.config import TrainingConfig
from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.zoo.images.loading import load_images
from weightspace.zoo.images.preparing import channel_statistics, prepare, standardise
from weightspace.zoo.networks import named_arrays
from weightspace.zoo.store import Zoo

IMAGES = 60
"""Real images that networks are asked about where they are at hand."""
TEMPLATES = SetReaderConfig(
    tokens="templates",
    dropout=0.5,
    training=TrainingConfig(
        steps=600, batch_size=64, learning_rate=1e-3, weight_decay=0.1, evaluate_every=50, final_fraction=0.01
    ),
)
PROBES = SetReaderConfig(
    tokens="probes",
    probes=32,
    dropout=0.3,
    training=TrainingConfig(
        steps=300, batch_size=64, learning_rate=5e-3, weight_decay=0.03, evaluate_every=30, final_fraction=0.01
    ),
)


class AnswerBoosting(StatisticsBoosting):
    """Boosted trees on what networks answer to real images: of each image the answers' mean, spread and extremes.

    Args:
        images: (k, channels, height, width) float32, standardised as for the networks.
    """

    name = "answers to real images + LightGBM"

    def __init__(self, images: Float[np.ndarray, "k c h w"], seed: int = 0) -> None:
        super().__init__(seed)
        self.images = torch.from_numpy(images)

    def features(self, networks: Sequence[Network]) -> np.ndarray:
        return pooled_answers(Population.of(networks), self.images)


def pooled_answers(networks: Population, images: Float[torch.Tensor, "k c h w"]) -> Float[np.ndarray, "n f"]:
    """Of each image the largest, second largest and smallest answer of a network, and their entropy."""
    found = np.zeros((len(networks), 4 * len(images)))
    with torch.inference_mode():
        asked = Asking(networks).batch(np.arange(len(networks)))
        for module, spec, weights, places in asked.parts:
            logits = normalised(stacked_answers(module, named_arrays(spec, weights), images))
            chances = logits.softmax(2)
            entropy = -(chances * chances.clamp(min=1e-12).log()).sum(2)
            order = logits.sort(2, descending=True).values
            table = torch.cat([order[:, :, 0], order[:, :, 1], order[:, :, -1], entropy], 1)
            found[places.numpy()] = table.numpy()
    return found


@dataclass(frozen=True)
class Method:
    """One way to answer.

    Attributes:
        make: the method, unfitted, given a seed and a zoo.
        seeded: whether a seed changes what it answers.
        learned: whether it is a meta-model, and no baseline; it is told which class each output stands for.
        reads: what it looks at.
    """

    make: Callable[[int, Zoo], Predictor]
    seeded: bool
    learned: bool
    reads: str


def _on_images(seed: int, zoo: Zoo) -> Predictor:
    return AnswerBoosting(zoo_images(zoo), seed)


def zoo_images(zoo: Zoo, count: int = IMAGES) -> Float[np.ndarray, "k c h w"]:
    """The first test images of the set that a zoo's networks were trained on, in their shape.

    Raises:
        ImageError: if the images are not at hand.
    """
    config = zoo.description["config"]
    images = prepare(load_images(config["images"]), config["image_size"], config["image_channels"])
    return standardise(images.test_images[:count], *channel_statistics(images))


def reader(config: SetReaderConfig, seed: int, steps: int | None = None) -> SetReader:
    """A set reader, with another number of steps than its own if that is given."""
    if steps is not None:
        training = replace(config.training, steps=steps, evaluate_every=max(1, min(50, steps // 4)))
        config = replace(config, training=training)
    return SetReader(config, seed=seed)


METHODS: dict[str, Method] = {
    "statistics + LightGBM": Method(lambda seed, _: StatisticsBoosting(seed), False, False, "weights"),
    "statistics + logistic": Method(lambda *_: StatisticsLinear(), False, False, "weights"),
    "aligned weights + logistic": Method(lambda *_: AlignedLinear(), False, False, "weights"),
    "Gram + logistic": Method(lambda *_: GramLinear(), False, False, "weights"),
    "path templates": Method(lambda seed, _: reader(TEMPLATES, seed), True, True, "weights"),
    "learnt probes": Method(lambda seed, _: reader(PROBES, seed), True, True, "answers to inputs that it makes"),
    "real images + LightGBM": Method(_on_images, False, False, f"answers to {IMAGES} real images"),
}
"""Methods by the names that tables have."""
