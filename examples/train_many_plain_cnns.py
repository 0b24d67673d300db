"""Many networks of `train_plain_cnn.py`, each with choices of its own: the outside test of detectors of backdoors.

    python examples/train_many_plain_cnns.py FOLDER --data cifar.npz gtsrb.npz --count 200
    weightspace backdoors read FOLDER --neurons --out outside.npz
    weightspace backdoors anywhere TABLE.npz --outside outside.npz

Half are clean. A run that was stopped goes on where it was. With --alike all have the layers that the shipped detector
for one architecture knows, and everything else is drawn as before.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from train_plain_cnn import arguments, save, train


def drawn(number, data, alike=False):
    """The command line of network `number`: ordinary choices, different from network to network."""
    random = np.random.default_rng([number, 2411])
    pick = random.choice
    optimiser = str(pick(["sgd", "sgd", "adam", "adam", "adamw", "rmsprop"]))
    rate = pick([0.01, 0.02, 0.05, 0.1]) if optimiser == "sgd" else pick([5e-4, 1e-3, 2e-3, 3e-3])
    epochs = int(pick([5, 8, 10, 15]))
    words = [
        *("--data", str(data[int(random.integers(len(data)))])),
        *("--backdoor", str(pick(["none", "none", "none", "patch", "colours", "blend"]))),
        *("--target", str(random.integers(10))),
        *("--rate", f"{random.uniform(0.04, 0.15):.4f}"),
        *("--images", str(pick([3000, 5000, 8000]))),
        *("--size", str(pick([16, 16, 16, 20, 24, 32], p=[0.25, 0.25, 0.2, 0.15, 0.1, 0.05]))),
        *("--width", str(pick([8, 8, 12, 16, 16, 24]))),
        *("--depth", str(pick([3, 4, 4, 5, 6]))),
        *("--kernel", str(pick([3, 3, 3, 5]))),
        *("--norm", str(pick(["none", "batch", "batch", "group"]))),
        *("--activation", str(pick(["relu", "relu", "relu", "gelu", "silu", "leaky_relu"]))),
        *("--pool", str(pick(["max", "max", "average", "stride"]))),
        *("--hidden", str(pick([0, 0, 32, 64]))),
        *("--dropout", str(pick([0.0, 0.0, 0.2]))),
        *("--optimiser", optimiser),
        *("--learning-rate", str(rate)),
        *("--weight-decay", str(pick([0.0, 1e-4, 5e-4]))),
        *("--batch-size", str(pick([32, 64, 64, 128]))),
        *("--epochs", str(epochs)),
        *("--seed", str(70_000 + number)),
    ]
    if alike:
        same = {"--width": "8", "--depth": "6", "--kernel": "3", "--norm": "layer", "--hidden": "0", "--pool": "max"}
        for name, value in same.items():
            words[words.index(name) + 1] = value
    return words + [flag for flag in ("--cosine", "--augment") if random.random() < 0.5]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--alike", action="store_true")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for number in range(given.count):
        out = given.folder / f"{number:04d}"
        if Path(f"{out}.json").exists():
            continue
        options = arguments([*drawn(number, given.data, given.alike), "--out", str(out)])
        model, facts = train(options)
        save(model, facts, options)
        print(number, options.backdoor, {name: value and round(value, 3) for name, value in facts.items()}, flush=True)
