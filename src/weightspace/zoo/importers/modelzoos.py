"""Schürholt et al.'s ModelZoos as a foreign zoo: Ray Tune's trials, PyTorch state dicts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from weightspace.files.checkpoints import Outline
from weightspace.weights.spec import NetworkSpec, SpecError
from weightspace.weights.state_dict import spec_of_state_dict
from weightspace.zoo.importers.foreign import (
    Checkpoint,
    ForeignNetwork,
    ForeignZoo,
    SourceError,
    Unfit,
    Weights,
    number,
)
from weightspace.zoo.importers.state_dicts import network_in, read_arrays
from weightspace.zoo.networks import ACTIVATIONS, cnn_s, spec_of
from weightspace.zoo.records import Architecture

_RAY = {
    "model::nlin": "activation",
    "model::dropout": "dropout",
    "model::init_type": "initialisation",
    "optim::optimizer": "optimiser",
    "optim::lr": "learning_rate",
    "optim::wd": "weight_decay",
    "optim::momentum": "momentum",
    "training::batchsize": "batch_size",
    "seed": "source_seed",
}
_RESULTS = {
    f"{split}_{short}": f"{whole}_{name}"
    for split, whole in (("train", "train"), ("test", "test"), ("validation", "validation"), ("val", "validation"))
    for short, name in (("acc", "accuracy"), ("loss", "loss"))
}


def modelzoos(folder: Path) -> ForeignZoo:
    """Schürholt et al.'s ModelZoos: a folder of Ray Tune's trials, each a folder with these files.

    `params.json`, the configuration; `result.json`, one JSON object a line, of which that with `training_iteration` k
    belongs to checkpoint k; `checkpoint_000000/checkpoints` and so on (or `checkpoint_0`), a PyTorch state dict each.
    A training accuracy of -999, as their code writes before the first epoch, is a missing value.

    The names of their arrays count the dropout layers, and so would give the dropout away: arrays of their CNNs for
    28x28 images get the names of `networks.cnn_s`, and can be run; those of other chains (`module_list.`) are numbered
    anew. Other networks, such as their ResNets, keep their names, and no neurons are known of them.

    Raises:
        SourceError: if there is no trial.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is no folder: give that of a ModelZoo, with one folder a trial in it")
    trials = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    candidates, unfit, torn = [], [], []
    for trial in trials:
        checkpoints = {int(p.parent.name[11:]): p for p in trial.glob("checkpoint_*/checkpoints") if _numbered(p)}
        configured = (trial / "params.json").is_file()
        if not checkpoints and not configured:
            continue  # no trial, but something else beside them
        try:
            if not configured:
                raise Unfit("labels", f"{trial} has no params.json, which holds its labels: restore it")
            if not checkpoints:
                raise Unfit("missing", f"{trial} has no checkpoint_000000/checkpoints or the like: download it again")
            labels = _parameters(trial / "params.json")
        except Unfit as error:
            unfit.append(error)
            continue
        results, whole = _results(trial / "result.json")
        if not whole:
            torn.append(trial)
        stored = tuple(Checkpoint(k, path, results.get(k, {})) for k, path in sorted(checkpoints.items()))
        candidates.append(ForeignNetwork(trial.name, labels, stored))
    if not candidates and not unfit:
        raise SourceError(f"{folder} holds no trial: expected folders with params.json and checkpoint_000000 in them")
    notes = [f"{len(torn)} trials have a missing or torn result.json, the first is {torn[0]}"] if torn else []
    return ForeignZoo(folder.resolve().name, candidates, _read_trial, unfit=unfit, notes=notes)


def _numbered(path: Path) -> bool:
    return re.fullmatch(r"checkpoint_\d{1,9}", path.parent.name) is not None


def _parameters(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise Unfit("labels", f"{path} is torn or no JSON ({error}): restore it") from None
    return {_RAY.get(str(name), str(name)): value for name, value in found.items()}


def _results(path: Path) -> tuple[dict[int, dict[str, float | None]], bool]:
    """What is known of each epoch, and whether the file is whole: its last line may be torn where Ray was killed."""
    found: dict[int, dict[str, float | None]] = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}, False
    whole = bool(lines)
    for line in lines:
        try:
            record = json.loads(line)
            epoch = int(record["training_iteration"])
        except (ValueError, KeyError, TypeError, RecursionError):
            whole = False
            continue
        measures = {ours: number(record.get(theirs)) for theirs, ours in _RESULTS.items() if theirs in record}
        found[epoch] = {name: value if value is None or value >= 0 else None for name, value in measures.items()}
    return found, whole


def _read_trial(candidate: ForeignNetwork, checkpoint: Checkpoint) -> Weights:
    outline = network_in(checkpoint.place)
    names, arrays = read_arrays(outline)
    shapes = [array.shape for array in arrays]
    flat = np.concatenate([array.ravel() for array in arrays])
    architecture = _small_convolutional(shapes, candidate.labels)
    if architecture is not None:
        return Weights(spec_of(architecture), flat, architecture)
    return Weights(_spec_of_trial(outline, names), flat)


def _small_convolutional(shapes: Sequence[tuple[int, ...]], labels: Mapping[str, Any]) -> Architecture | None:
    """The architecture of their CNN (8, 6, 4 channels) and CNN2 (6, 9, 6), known by shapes; None for others."""
    named = {"leakyrelu": "leaky_relu"}.get(str(labels.get("activation")), str(labels.get("activation")))
    kernels = [shape for shape in shapes if len(shape) == 4]
    if named not in ACTIVATIONS or [kernel[2:] for kernel in kernels] != [(5, 5), (5, 5), (2, 2)]:
        return None
    base = cnn_s((kernels[0][1], 28, 28), activation=named, dropout=number(labels.get("dropout")) or 0.0)
    widths = iter(kernels)
    layers = tuple(
        ("convolution", next(widths)[0], *layer[2:]) if layer[0] == "convolution" else layer for layer in base.layers
    )
    made = Architecture(input_shape=base.input_shape, layers=layers, activation=named)
    return made if [leaf.shape for leaf in spec_of(made).leaves] == list(shapes) else None


def _spec_of_trial(outline: Outline, names: Sequence[str]) -> NetworkSpec:
    shapes = {name: outline.floating[name] for name in names}
    if not all(re.fullmatch(r"module_list\.\d+\.(weight|bias)", name) for name in names):
        return spec_of_state_dict(shapes)
    layers = list(dict.fromkeys(name.split(".")[1] for name in names))
    again = {f"module_list.{layers.index(n.split('.')[1])}.{n.split('.')[2]}": shape for n, shape in shapes.items()}
    try:
        return spec_of_state_dict(again, topology="chain")
    except SpecError:
        return spec_of_state_dict(again)
