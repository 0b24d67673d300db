"""Horwitz et al.'s Model Jungle as a foreign zoo: repositories of the hub as it caches them, in folders by split."""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from weightspace.errors import UnreadableError
from weightspace.files.checkpoints import Outline
from weightspace.files.tensors import read_header
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

SPLITS = {"train": "train", "val": "validation", "test": "test"}
"""Their folders, and what we call these splits."""
WEIGHTS = "model.safetensors"
CLASSES = "dataset_chosen_targets"
LONGEST = 1 << 16
"""Characters of a list of classes."""


def model_jungle(folder: Path, layer: str | None = None) -> ForeignZoo:
    """One subset of the Model Jungle, such as ResNet or SupViT: a folder with these in it.

    `train`, `val` and `test`, each with a folder for each model, as the hub caches it: `refs/main` has the commit, and
    `snapshots/COMMIT/model.safetensors` the weights, with hyperparameters as metadata. A folder that holds
    `model.safetensors` itself is read too. `dataset_chosen_targets` is a list of the classes that a model was trained
    on: each class of the subset becomes a label `trained on CLASS`, yes or no. Splits are those of the authors.

    Args:
        layer: the name of one array to take, as their readers do; all of a model unless given.
    Raises:
        SourceError: if there is no model.
    """
    found = [(split, *model) for split in SPLITS for model in _models(folder, split)]
    if not found:
        raise SourceError(
            f"{folder} holds no models of the Model Jungle: expected {', '.join(SPLITS)}, each with folders such as "
            "models--ProbeX--Model-J__ResNet__model_idx_0001"
        )
    facts: list[tuple[str, str, Path, dict[str, Any], list[str]]] = []
    unfit = []
    for split, name, path in found:
        try:
            facts.append((split, name, path, *_facts(path)))
        except Unfit as error:
            unfit.append(error)
    classes = sorted({each for *_, own in facts for each in own})
    candidates = []
    for split, name, path, labels, own in facts:
        trained = {f"trained on {each}": "yes" if each in own else "no" for each in classes}
        candidates.append(ForeignNetwork(name, labels | trained, (Checkpoint(0, path),), SPLITS[split]))

    def read(_: ForeignNetwork, checkpoint: Checkpoint) -> Weights:
        outline = network_in(checkpoint.place)
        return _weights(*read_arrays(outline)) if layer is None else _layer(outline, layer)

    return ForeignZoo(folder.resolve().name, candidates, read, unfit=unfit)


def _models(folder: Path, split: str) -> Iterator[tuple[str, Path]]:
    """Name and file of each model of a split; of one that is not all there, the file that is missing."""
    inside = folder / split
    if not inside.is_dir():
        return
    for place in sorted(path for path in inside.iterdir() if path.is_dir() and not path.name.startswith(".")):
        name = f"{split}/{place.name}"
        if (place / WEIGHTS).is_file():
            yield name, place / WEIGHTS
            continue
        try:
            with (place / "refs" / "main").open(encoding="ascii") as file:
                commit = file.read(LONGEST).strip()
        except (OSError, ValueError):
            continue  # not a model: another folder beside them
        known = re.fullmatch("[0-9a-f]{40}", commit)
        yield name, place / "snapshots" / (commit if known else "no-commit-in-refs-main") / WEIGHTS


def _facts(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The hyperparameters in a file's metadata, and the classes that it says it was trained on."""
    if not path.is_file():
        raise Unfit("missing", f"there is no {path}: download this model again")
    try:
        metadata = read_header(path).metadata
    except UnreadableError as error:
        raise Unfit("unreadable", str(error)) from None
    try:
        text = metadata[CLASSES]
        classes = literal_eval(text) if len(text) <= LONGEST else None
        if not isinstance(classes, list | tuple) or not all(isinstance(each, str | int) for each in classes):
            raise ValueError
        named = [str(each).encode("utf-8", "backslashreplace").decode() for each in classes]
    except (KeyError, ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise Unfit("labels", f"{path} has no list of classes as {CLASSES} in its metadata: restore it") from None
    labels = {name: _value(value) for name, value in metadata.items() if name not in (CLASSES, "format")}
    return labels, named


def _value(text: str) -> Any:
    """A number or a truth where the text is one, else the text."""
    known = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in known:
        return known[text.lower()]
    if re.fullmatch(r"[+-]?\d{1,18}", text):
        return int(text)
    found = number(text)
    return text if found is None else found


def _layer(outline: Outline, layer: str) -> Weights:
    """One array, which alone is read."""
    if not prod(outline.floating.get(layer, (0,))):
        shown = ", ".join(list(outline.floating)[:6])
        raise Unfit("shape", f"{outline.path} has no array {layer!r} with numbers in it: its first are {shown}")
    return _weights(*read_arrays(outline, [layer]))


def _weights(names: Sequence[str], arrays: Sequence[np.ndarray]) -> Weights:
    shapes = {name: array.shape for name, array in zip(names, arrays, strict=True)}
    return Weights(spec_of_state_dict(shapes), np.concatenate([array.ravel() for array in arrays]))
