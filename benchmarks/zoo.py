"""Networks trained a second on all cores, against a plain PyTorch loop over the same networks."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.record import keep
from weightspace.recipes.zoos import zoo_recipe
from weightspace.zoo.engine import ProcessEngine
from weightspace.zoo.generate import make_zoo
from weightspace.zoo.hyperparameters import ZooConfig, plan
from weightspace.zoo.images import channel_statistics, load_images, standardise
from weightspace.zoo.networks import build, initialise
from weightspace.zoo.records import TrainingPlan

COUNT = 64


def plain_loop(plans: list[TrainingPlan]) -> list[float]:
    """What one would write first: nn.Module, torch.optim, shuffled batches, one network after the other."""
    images = load_images("digits")
    statistics = channel_statistics(images)
    x, test = (torch.from_numpy(standardise(i, *statistics)) for i in (images.train_images, images.test_images))
    y, truth = torch.from_numpy(images.train_labels.copy()), torch.from_numpy(images.test_labels.copy())
    accuracies = []
    for one in plans:
        model = build(one.architecture)
        initialise(model, one.initialisation, torch.Generator().manual_seed(one.seed))
        optimiser = {
            "momentum": lambda p, lr: torch.optim.SGD(p, lr, 0.9),
            "adam": torch.optim.Adam,
            "rmsprop": torch.optim.RMSprop,
        }[one.optimiser](model.parameters(), one.learning_rate)
        accuracy = 0.0
        for _ in range(one.epochs):
            order = torch.randperm(len(x))
            for i in range(0, len(x) - one.batch_size + 1, one.batch_size):
                batch = order[i : i + one.batch_size]
                optimiser.zero_grad()
                F.cross_entropy(model(x[batch]), y[batch]).backward()
                optimiser.step()
            with torch.no_grad():
                accuracy = float((model(test).argmax(1) == truth).float().mean())
        accuracies.append(accuracy)
    return accuracies


def ours(config: ZooConfig, stack: int = 1) -> float:
    """Seconds of making a zoo, the start of the worker processes included."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        make_zoo(config, Path(folder) / "zoo", ProcessEngine(stack=stack), show=False)
        return time.perf_counter() - start


def main() -> None:
    config = replace(zoo_recipe("digits-small", count=COUNT), shard_size=4)
    plans = [plan(config, i) for i in range(COUNT)]
    start_only = replace(config, image_count=64, fixed={**config.fixed, "epochs": 1})
    stacks = replace(config, shard_size=32)
    plain_loop(plans[:2])
    rounds = []
    for _ in range(3):  # in turn, so that noise hits both alike
        starting = ours(start_only)  # one step a network: the start of the processes, which a zoo pays once
        whole = ours(config)
        stacked = ours(stacks, 32)
        start = time.perf_counter()
        plain_loop(plans)
        rounds.append((starting, whole, stacked, time.perf_counter() - start))
    starting, whole, stacked, plain = (float(np.median(column)) for column in zip(*rounds, strict=True))
    keep(
        "zoo",
        {
            "networks": COUNT,
            "engine_networks_per_s": round(COUNT / (whole - starting), 2),
            "engine_with_start_networks_per_s": round(COUNT / whole, 2),
            "plain_loop_networks_per_s": round(COUNT / plain, 2),
            "ratio": round(float(np.median([p / (w - s) for s, w, _, p in rounds])), 2),
            "ratio_with_start": round(float(np.median([p / w for _, w, _, p in rounds])), 2),
            "engine_with_stacks_of_like_networks_per_s": round(COUNT / (stacked - starting), 2),
            "start_s": round(starting, 2),
            "targets": "a ratio of 1.9 on two cores",
        },
    )


if __name__ == "__main__":
    main()
