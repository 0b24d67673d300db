"""Eilertsen et al.'s zoo as a foreign zoo: flat snapshots in their own order, and a table of labels."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt, prod
from pathlib import Path
from typing import Any

import numpy as np

from weightspace.zoo.importers.foreign import (
    Checkpoint,
    ForeignNetwork,
    ForeignZoo,
    LabelTable,
    SourceError,
    Unfit,
    Weights,
    flat_spec,
    number,
    read_table,
)
from weightspace.zoo.networks import ACTIVATIONS, eilertsen, spec_of
from weightspace.zoo.records import Architecture

_PROPERTIES = {
    "dataset": "images",
    "lrate": "learning_rate",
    "augmentation": "augment",
    "optimizer": "optimiser",
    "initialization": "initialisation",
    "depth_conv": "convolution_depth",
    "depth_fc": "dense_depth",
    "width_conv": "convolution_width",
    "width_fc": "dense_width",
}
_CODES = {
    "optimiser": ("adam", "rmsprop", "momentum"),
    "activation": ("relu", "elu", "sigmoid", "tanh"),
    "initialisation": ("constant", "standard_normal", "glorot_uniform", "glorot_normal"),
}
_SHAPING = ("filter_size", "convolution_depth", "convolution_width", "dense_depth", "dense_width")
_SNAPSHOTS = 20


def eilertsen_zoo(source: Path) -> ForeignZoo:
    """Eilertsen et al.'s zoo (nws): a CSV file, or a folder of several, and a folder of snapshots a network.

    The CSV has `path`, the network's folder from where the CSV lies; `weightn_conv` and `weightn_fc`, which add up to
    its number of weights; and `dataset`, `lrate`, `batch_size`, `batch_norm`, `augmentation`, `optimizer`,
    `activation`, `initialization`, `filter_size`, `depth_conv`, `depth_fc`, `width_conv`, `width_fc`, or any other
    labels. In the network's folder lie `weights/001.bin` to `weights/020.bin`, flat float64 (or float32) without a
    header; `error.bin`, float64 (epochs, 5): step, and per cent of errors in training, validation and test; and
    `stat.bin`, four float64, the first of them the number of epochs, over which the snapshots are spread evenly. This
    is what their scripts (classifier.py, model.py, util.py) write and read; the last two files may be missing.

    Their scripts write each kernel as (out, in, height, width), and batch normalisation as shift, scale, mean and
    variance, after the layer it belongs to. Where the columns say that the architecture is one of
    `networks.eilertsen`, with batch normalisation, the weights are put into its order and can be run; all others are
    one flat array.

    Raises:
        SourceError: if there is no CSV file, or one lacks a column.
    """
    if source.is_dir():
        tables = sorted(source.glob("*.csv"))
        if not tables:
            raise SourceError(f"{source} holds no CSV file: expected such as nws_main_train.csv, beside the weights")
    else:
        tables = [source]
    candidates: dict[str, ForeignNetwork] = {}
    unfit: list[Unfit] = []
    for path in tables:
        table = read_table(path, ("path", "weightn_conv", "weightn_fc"), ["path"])
        for place in range(len(table)):
            try:
                found = _eilertsen_candidate(table, place)
                if found.name in candidates:
                    raise Unfit("twice", f"{path} names {found.name} again, which was named before: leave one row")
                candidates[found.name] = found
            except Unfit as error:
                unfit.append(error)
    chosen = list(candidates.values())
    images = {str(candidate.labels.get("images", "unknown")) for candidate in chosen}
    named = images.pop() if len(images) == 1 else "unknown"
    return ForeignZoo(source.resolve().name, chosen, _read_snapshot, named, unfit)


def _eilertsen_candidate(table: LabelTable, place: int) -> ForeignNetwork:
    row = table.row(place)
    name, size = row.pop("path"), (row.pop("weightn_conv"), row.pop("weightn_fc"))
    where = f"row {place + 1} of {table.path}"
    if name is None or not all(isinstance(n, int) and n >= 0 for n in size):
        raise Unfit("labels", f"{where} has no path, or no whole numbers in weightn_conv and weightn_fc: fill them in")
    folder = _below(table.path.parent, name)
    snapshots = sorted((int(p.stem), p) for p in (folder / "weights").glob("*.bin") if p.stem.isdigit())
    if not snapshots:
        raise Unfit("missing", f"{where} names {name}, and {folder} has no weights/001.bin: put the weights there")
    labels = {_PROPERTIES.get(column, column): value for column, value in row.items()}
    for label, names in _CODES.items():
        code = labels.get(label)
        if isinstance(code, int) and not isinstance(code, bool) and 0 <= code < len(names):
            labels[label] = names[code]
    for label in ("batch_norm", "augment"):
        if labels.get(label) in (0, 1):
            labels[label] = bool(labels[label])
    curve = _curve(folder)
    stored = []
    for snapshot, path in snapshots:
        epoch, measures = snapshot - 1, {}
        if curve is not None and 1 <= snapshot <= _SNAPSHOTS:
            epoch = int(np.round(np.linspace(0, len(curve) - 1, _SNAPSHOTS))[snapshot - 1])
            named = ("train_accuracy", "validation_accuracy", "test_accuracy")
            measures = {m: number(1 - float(curve[epoch, k]) / 100) for k, m in enumerate(named, 1)}
        stored.append(Checkpoint(epoch, (path, sum(size)), measures))
    return ForeignNetwork(name, labels, tuple(stored))


def _below(root: Path, name: str) -> Path:
    """The folder that a path of the CSV means: it may begin with folders of the authors' own machine."""
    parts = [part for part in Path(name).parts if part not in ("/", ".")]
    if ".." in parts:
        raise Unfit("missing", f"the path {name} leads out of the folder of the CSV file: give one below it")
    for start in range(len(parts)):
        folder = root.joinpath(*parts[start:])
        if (folder / "weights").is_dir():
            return folder
    return root.joinpath(*parts)


def _curve(folder: Path) -> np.ndarray | None:
    """(epochs, 5) of a network's errors; None if its files are missing, torn or do not fit each other."""
    try:
        errors = np.fromfile(folder / "error.bin", np.float64)
        facts = np.fromfile(folder / "stat.bin", np.float64)
    except OSError:
        return None
    if len(facts) != 4 or not 1 <= facts[0] <= len(errors) / 5 or len(errors) % 5:
        return None
    return errors.reshape(-1, 5)[: int(facts[0])]


def _read_snapshot(candidate: ForeignNetwork, checkpoint: Checkpoint) -> Weights:
    path, size = checkpoint.place
    try:
        found = path.stat().st_size
        kind = {8 * size: np.float64, 4 * size: np.float32}.get(found)
        if kind is None or size == 0:
            raise Unfit(
                "shape" if found and found % 4 == 0 else "unreadable",
                f"{path} has {found} bytes, and {size} weights of float64 would have {8 * size}: download it again",
            )
        with np.errstate(over="ignore"):  # beyond float32 is infinite, which is found later
            flat = np.fromfile(path, kind).astype(np.float32)
    except OSError as error:
        raise Unfit("unreadable", f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    architecture = _eilertsen_architecture(candidate.labels)
    if architecture is None or spec_of(architecture).size != size:
        return Weights(flat_spec(size), flat)
    return Weights(spec_of(architecture), flat[_eilertsen_order(architecture)], architecture)


def _eilertsen_architecture(labels: Mapping[str, Any]) -> Architecture | None:
    options = {name: labels.get(name) for name in _SHAPING}
    activation = labels.get("activation")
    sizes = {name: value for name, value in options.items() if isinstance(value, int) and 0 < value < 10_000}
    if len(sizes) < len(options) or activation not in ACTIVATIONS or labels.get("batch_norm") is not True:
        return None
    if sizes["convolution_depth"] < 3 or sizes["dense_width"] < 2 ** (sizes["dense_depth"] - 1):
        return None
    return eilertsen((3, 32, 32), activation=str(activation), **sizes)


def _eilertsen_order(architecture: Architecture) -> np.ndarray:
    """Where in a snapshot each of our flat weights stands, (size,) int64."""
    spec = spec_of(architecture)
    shapes = {leaf.name: leaf.shape for leaf in spec.leaves}
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in shapes))
    channels = max(shapes[f"{layer}.weight"][0] for layer in layers if layer.startswith("conv"))
    places, start = {}, 0
    for layer in layers:
        norm = f"{layer}.running_mean" in shapes
        for last in ("bias", "weight", "running_mean", "running_var") if norm else ("weight", "bias"):
            name = f"{layer}.{last}"
            shape = shapes[name]
            block = np.arange(start, start + prod(shape))
            start += prod(shape)
            if name == "dense1.weight":  # it reads the pixels' channels last, as TensorFlow flattens them
                side = isqrt(shape[1] // channels)
                block = block.reshape(shape[0], side, side, channels).transpose(0, 3, 1, 2)
            places[name] = block.ravel()
    return np.concatenate([places[name] for name in shapes])
