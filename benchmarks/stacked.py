"""The stacked engine on a GPU against a plain loop on the same GPU; on a machine without one a small run on the CPU."""

import time
from dataclasses import replace

import torch

from benchmarks.record import keep
from benchmarks.zoo import plain_loop
from weightspace.recipes.zoos import zoo_recipe
from weightspace.zoo.engine import StackedEngine
from weightspace.zoo.hyperparameters import plan
from weightspace.zoo.records import TrainingPlan


def _forget(*_: object) -> None:
    """Takes what the engine hands out; nothing is written."""


def timed(plans: list[TrainingPlan], device: str) -> float:
    start = time.perf_counter()
    StackedEngine(device=device).run({0: plans}, _forget, _forget)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    cuda = torch.cuda.is_available()
    device, count = ("cuda", 512) if cuda else ("cpu", 16)
    config = zoo_recipe("digits-small", count=count)
    activation = {name: value for name, value in config.space.items() if name != "activation"}
    config = replace(config, space=activation, fixed={**config.fixed, "activation": "relu"})  # one stack
    plans = [plan(config, i) for i in range(count)]
    timed(plans[:4], device)
    stacked = timed(plans, device)
    alone = timed(plans[:1], device)
    start = time.perf_counter()
    plain_loop(plans[:4])
    loop = (time.perf_counter() - start) / 4
    keep(
        "stacked" if cuda else "stacked-cpu.local",
        {
            "device": torch.cuda.get_device_name() if cuda else "cpu",
            "stacked_networks": count,
            "networks_per_s": round(count / stacked, 2),
            "one_by_one_on_the_device_networks_per_s": round(1 / alone, 2),
            "plain_cpu_loop_networks_per_s": round(1 / loop, 2),
            "ratio_to_one_by_one": round(count / stacked * alone, 2),
            "targets": "50 times the loop with 512 networks stacked, on a GPU" + ("" if cuda else "; no GPU here"),
        },
    )


if __name__ == "__main__":
    main()
