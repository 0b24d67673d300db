"""Unterthiner et al.'s Small CNN Zoo as a foreign zoo: one matrix of weights in TensorFlow's order."""

from __future__ import annotations

import random
from ast import literal_eval
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from weightspace.zoo.importers.foreign import (
    Checkpoint,
    ForeignNetwork,
    ForeignZoo,
    SourceError,
    Unfit,
    Weights,
    number,
    read_table,
)
from weightspace.zoo.networks import ACTIVATIONS, small_cnn, spec_of

_CONFIG = {
    "b_init": "bias_initialisation",
    "w_init": "initialisation",
    "init_std": "initialisation_std",
    "l2reg": "weight_decay",
    "optimizer": "optimiser",
    "dnn_architecture": "family",
    "random_seed": "source_seed",
    "seed": "source_seed",
    "dataset": "images",
}
_LARGER_IMAGES = ("cifar", "svhn")
FINAL = 86
"""The step of the last checkpoints, which alone the published splits are about."""


def small_cnn_zoo(folder: Path, splits: Path | None = None) -> ForeignZoo:
    """Unterthiner et al.'s Small CNN Zoo: a folder with these three files.

    `weights.npy`, a float32 matrix with a row of 4,970 weights a checkpoint, which stays on disk; `metrics.csv.gz` (or
    `metrics.csv`), a row a checkpoint with `modeldir` (the network), `step` (the checkpoint), `config.*` (the labels)
    and accuracies and losses; `layout.csv` with `varname`, `start_idx`, `end_idx`, `size` and `shape` of each array, as
    TensorFlow orders them: kernels (height, width, in, out) and (in, out).

    The networks get the spec of `networks.small_cnn`, and can be run where `networks.ACTIVATIONS` has the activation.

    Args:
        splits: Zhou et al.'s order of the rows (`cifar10_split.csv` and its like, a row's number a line): only last
            checkpoints are taken, and splits are theirs, which Neural Graphs and ProbeGen use too.
    Raises:
        SourceError: if a file is missing or torn, or they do not fit each other.
    """
    zipped, bare = folder / "metrics.csv.gz", folder / "metrics.csv"
    metrics = read_table(
        bare if bare.is_file() and not zipped.is_file() else zipped, ("modeldir", "step"), ["modeldir"]
    )
    matrix = _matrix(folder / "weights.npy")
    if len(matrix) != len(metrics):
        raise SourceError(
            f"{folder / 'weights.npy'} has {len(matrix)} rows and {metrics.path.name} has {len(metrics)}: one row a "
            "checkpoint is expected in both, so restore the file that is cut off"
        )
    order = _small_order(folder / "layout.csv", matrix.shape[1])
    configured = [name for name in metrics.columns if name.startswith("config.")]
    measured = [
        name for name in metrics.columns if name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
    ]
    rows: dict[str, list[int]] = {}
    unfit = []
    for place, network in enumerate(metrics.columns["modeldir"].to_pylist()):
        if network is None:
            unfit.append(
                Unfit("labels", f"row {place + 1} of {metrics.path} has no modeldir: say which network it is of")
            )
        else:
            rows.setdefault(network, []).append(place)
    steps = metrics.columns["step"].to_pylist()
    published = None if splits is None else _published(splits, steps)
    candidates = []
    for network, places in rows.items():
        found = metrics.row(places[0], configured)
        labels = {_CONFIG.get(short := name.removeprefix("config."), short): value for name, value in found.items()}
        stored = []
        for place in places:
            if not isinstance(steps[place], int):
                unfit.append(Unfit("labels", f"row {place + 1} of {metrics.path} has no whole number as its step"))
                continue
            if published is not None and place not in published:
                continue
            measures = {name: number(value) for name, value in metrics.row(place, measured).items()}
            stored.append(Checkpoint(steps[place], place, measures))
        if stored:
            split = None if published is None else published[stored[0].place]
            candidates.append(ForeignNetwork(network, labels, tuple(stored), split))
    images = {str(candidate.labels.get("images", "unknown")) for candidate in candidates}

    def read(candidate: ForeignNetwork, checkpoint: Checkpoint) -> Weights:
        known = candidate.labels.get("activation") in ACTIVATIONS
        activation = str(candidate.labels["activation"]) if known else "relu"
        trained_on = str(candidate.labels.get("images", folder.resolve().name))
        side = 32 if trained_on.startswith(_LARGER_IMAGES) else 28
        dropout = number(candidate.labels.get("dropout")) or 0.0
        architecture = small_cnn((1, side, side), activation=activation, dropout=dropout)
        flat = np.asarray(matrix[checkpoint.place], np.float32)[order]
        return Weights(spec_of(architecture), flat, architecture if known else None)

    named = images.pop() if len(images) == 1 else "unknown"
    return ForeignZoo(folder.resolve().name, candidates, read, named, unfit)


def _published(path: Path, steps: Sequence[Any]) -> dict[int, str]:
    """The split of each row that is a last checkpoint.

    As in the code of Zhou et al. (2023, Neural Functional Networks): of the last checkpoints in the order of the file
    the second half is for testing; the first is shuffled by Python's generator of seed 0, and a fifth of it is for
    validation.
    """
    try:
        order = [int(line) for line in path.read_text(encoding="ascii").split()]
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)[:80]
        raise SourceError(f"{path} holds no row numbers ({said}): expected one a line, and no header") from None
    if sorted(order) != list(range(len(steps))):
        raise SourceError(
            f"{path} does not name each of the {len(steps)} rows of the metrics once ({len(order)} numbers): it is of "
            "another zoo"
        )
    last = [row for row in order if steps[row] == FINAL]
    if not last:
        raise SourceError(f"no row of the metrics has step {FINAL}, the last, which alone {path} is about")
    half = len(last) // 2
    learnt = list(range(half))
    random.Random(0).shuffle(learnt)
    cut = int(0.8 * half)
    found = dict.fromkeys(last[half:], "test")
    found |= {last[place]: "train" for place in learnt[:cut]}
    return found | {last[place]: "validation" for place in learnt[cut:]}


def _matrix(path: Path) -> np.ndarray:
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise SourceError(f"there is no file {path}: it should hold the weights, a row a checkpoint") from None
    except (OSError, ValueError, EOFError) as error:
        raise SourceError(
            f"{path} is torn or no array of numbers ({str(error).splitlines()[0]}): download it again; what only a "
            "pickle could read is refused"
        ) from None
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype.kind != "f":
        raise SourceError(f"{path} is no matrix of floating-point numbers: expected a row of weights a checkpoint")
    return matrix


def _small_order(path: Path, width: int) -> np.ndarray:
    """Where in a row of the matrix each of our flat weights stands, (4970,) int64."""
    spec = spec_of(small_cnn())
    layout = read_table(path, ("varname", "start_idx", "end_idx", "shape"), ["varname", "shape"])
    arrays: list[tuple[int, int, str, tuple[int, ...]]] = []
    for place in range(len(layout)):
        row = layout.row(place)
        try:
            shape = tuple(int(n) for n in literal_eval(row["shape"]))
            arrays.append((int(row["start_idx"]), int(row["end_idx"]), str(row["varname"]), shape))
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            raise SourceError(
                f"row {place + 1} of {path} is damaged: expected such as (3, 3, 1, 16) as shape"
            ) from None
    end = 0
    for start, stop, name, shape in sorted(arrays):
        if start != end or stop - start != prod(shape):
            raise SourceError(
                f"{path} says that {name} of shape {shape} stands at {start} to {stop}, where one of {prod(shape)} "
                f"numbers from {end} on is expected: restore it"
            )
        end = stop
    if end != width:
        raise SourceError(f"{path} describes {end} weights and weights.npy has {width} a row: they are of two zoos")
    layers = list(dict.fromkeys(name.rpartition("/")[0] for _, _, name, _ in sorted(arrays)))
    ours = dict(zip(layers, ("conv1", "conv2", "conv3", "dense1"), strict=False))
    places: dict[str, np.ndarray] = {}
    for start, stop, name, shape in arrays:
        layer, _, last = name.rpartition("/")
        block = np.arange(start, stop).reshape(shape)
        kernel = last.startswith("kernel")
        axes = (3, 2, 0, 1) if kernel and block.ndim == 4 else tuple(reversed(range(block.ndim)))
        places[f"{ours.get(layer, layer)}.{'weight' if kernel else 'bias'}"] = block.transpose(axes)
    expected = {leaf.name: leaf.shape for leaf in spec.leaves}
    found = {name: block.shape for name, block in places.items()}
    if found != expected:
        name = next(n for n in [*expected, *found] if found.get(n) != expected.get(n))
        raise SourceError(
            f"{path} gives {name} the shape {found.get(name)} in PyTorch's order, and the Small CNN Zoo's network has "
            f"{expected.get(name)}: other networks can be imported as state-dicts"
        )
    return np.concatenate([places[leaf.name].ravel() for leaf in spec.leaves])
