"""Networks trained a second on all cores, against a plain PyTorch loop over the same networks."""

import tempfile
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.record import keep
from weightspace.zoo.distortion import distorted
from weightspace.zoo.engine import ProcessEngine
from weightspace.zoo.images.loading import load_images
from weightspace.zoo.images.preparing import channel_statistics, prepare, standardise
from weightspace.zoo.making import make_zoo
from weightspace.zoo.networks import build, initialise
from weightspace.zoo.plan import Choice, ZooConfig, plan
from weightspace.zoo.recipes import zoo_recipe
from weightspace.zoo.records import TrainingPlan

COUNT = 64


def plain_loop(plans: list[TrainingPlan], device: str = "cpu") -> list[float]:
    """What one would write first: nn.Module, torch.optim, shuffled batches, one network after the other."""
    return [_plain(one, device) for one in plans]


def _plain(one: TrainingPlan, device: str) -> float:
    images = prepare(load_images(one.images, one.data), one.image_size, one.image_channels, one.image_count)
    statistics = channel_statistics(images)
    tests = images.test_images[: one.test_count]
    x, test = (torch.from_numpy(standardise(i, *statistics)).to(device) for i in (images.train_images, tests))
    y = torch.from_numpy(images.train_labels.copy()).to(device)
    truth = torch.from_numpy(images.test_labels[: one.test_count].copy()).to(device)
    model = build(one.architecture)
    initialise(model, one.initialisation, torch.Generator().manual_seed(one.seed))
    model.to(device)
    seed = torch.tensor([one.seed], device=device)
    optimiser = {
        "sgd": torch.optim.SGD,
        "momentum": lambda p, lr: torch.optim.SGD(p, lr, one.momentum),
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "rmsprop": torch.optim.RMSprop,
    }[one.optimiser](model.parameters(), one.learning_rate)
    accuracy, step = 0.0, 0
    for _ in range(one.epochs):
        order = torch.randperm(len(x), device=device)
        model.train()
        for i in range(0, len(x) - one.batch_size + 1, one.batch_size):
            batch = order[i : i + one.batch_size]
            step += 1
            seen = distorted(x[batch][None], one, seed, step)[0]
            optimiser.zero_grad()
            F.cross_entropy(model(seen), y[batch]).backward()
            optimiser.step()
        model.eval()
        with torch.no_grad():
            accuracy = float((model(test).argmax(1) == truth).float().mean())
    return accuracy


def ours(config: ZooConfig, stack: int = 1) -> float:
    """Seconds of making a zoo, the start of the worker processes included."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        make_zoo(config, Path(folder) / "zoo", ProcessEngine(stack=stack), show=False)
        return time.perf_counter() - start


def main() -> None:
    config = replace(zoo_recipe("digits-small", count=COUNT), shard_size=4)
    stacks = replace(config, shard_size=32)
    plans = [plan(config, i) for i in range(COUNT)]
    plain_loop(plans[:2])
    rounds = []
    for _ in range(3):  # in turn, so that noise hits both alike
        starting, whole = (ours(one) for one in (_start_only(config), config))
        stacked = ours(stacks, 32)
        start = time.perf_counter()
        plain_loop(plans)
        rounds.append((starting, whole, stacked, time.perf_counter() - start))
    keep("zoo", _figures(COUNT, rounds) | _of_varied_shapes() | _of_plans())


def _start_only(config: ZooConfig) -> ZooConfig:
    """One step a network: the start of the processes, which a zoo pays once."""
    sizes = config.space.get("batch_size")
    batch = max(sizes.values) if isinstance(sizes, Choice) else config.fixed["batch_size"]
    return replace(config, image_count=batch, fixed={**config.fixed, "epochs": 1, "checkpoints": ()})


def _figures(count: int, rounds: list[tuple[float, float, float, float]]) -> dict[str, object]:
    starting, whole, stacked, plain = (float(np.median(column)) for column in zip(*rounds, strict=True))
    return {
        "networks": count,
        "engine_networks_per_s": round(count / (whole - starting), 2),
        "engine_with_start_networks_per_s": round(count / whole, 2),
        "plain_loop_networks_per_s": round(count / plain, 2),
        "ratio": round(float(np.median([p / (w - s) for s, w, _, p in rounds])), 2),
        "ratio_with_start": round(float(np.median([p / w for _, w, _, p in rounds])), 2),
        "engine_with_stacks_of_like_networks_per_s": round(count / (stacked - starting), 2),
        "start_s": round(starting, 2),
        "targets": "a ratio of 1.9 on two cores",
    }


def _of_varied_shapes(count: int = 16) -> dict[str, object]:
    """Eilertsen's networks, no two of one shape, on digits enlarged to 32x32x3."""
    config = replace(zoo_recipe("eilertsen-varied", images="digits", count=count), shard_size=2, image_count=1_024)
    plans = [plan(config, i) for i in range(count)]
    plain_loop(plans[:1])
    ratios, rates = [], []
    for _ in range(3):
        starting, whole = (ours(one) for one in (_start_only(config), config))
        start = time.perf_counter()
        plain_loop(plans)
        ratios.append((time.perf_counter() - start) / (whole - starting))
        rates.append(count / (whole - starting))
    return {
        "eilertsen_networks": count,
        "eilertsen_engine_networks_per_s": round(float(np.median(rates)), 2),
        "eilertsen_ratio": round(float(np.median(ratios)), 2),
    }


def _of_plans(count: int = 2_000) -> dict[str, object]:
    """What it takes to know what each network of a zoo is to be, before any is trained."""
    config = zoo_recipe("digits-small", count=count)
    start = time.perf_counter()
    plans = [plan(config, i) for i in range(count)]
    seconds = time.perf_counter() - start
    tracemalloc.start()
    plans = [plan(config, i) for i in range(count)]
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"plans_per_s": round(count / seconds), "bytes_a_plan": round(size / len(plans))}


if __name__ == "__main__":
    main()
