"""The file of a trained model, of whatever kind: its tensors, and a record that says what they are; checked on load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from weightspace import __version__
from weightspace.errors import NetworkError, WeightspaceError
from weightspace.files.atomic import write_atomically
from weightspace.files.tensors import METADATA_KEY, read_header, read_safetensors
from weightspace.train.config import TrainingConfig

FORMAT = 1
"""Version of the record, common to all kinds."""
UNNAMED = "meta-model"
"""The kind of files that do not say theirs: until 0.1.0 meta-models did not."""


def write_model(path: Path, kind: str, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write a model as safetensors; it appears whole or not at all.

    Args:
        kind: such as `meta-model` or `decompiler`.
        tensors: on any device.
        record: its config and whatever else is needed to use it; JSON-serialisable.
    """
    whole = {"format": FORMAT, "kind": kind, "version": __version__, **record}
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save(kept, {METADATA_KEY: json.dumps(whole, sort_keys=True)}))


def read_model(path: Path, kind: str, made_by: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and record of a file that `write_model` wrote; nothing in it is executed.

    Args:
        kind: which is expected.
        made_by: the command that makes such a file, for the sentence.
    Raises:
        NetworkError: if there is no such file, it is damaged, or it is of another kind or a later format.
    """
    if not path.is_file():
        raise NetworkError(f"{path} holds no {kind}: make one with `{made_by}`")
    arrays, metadata = read_safetensors(path)
    try:
        record = json.loads(metadata.get(METADATA_KEY, "null"))
    except (ValueError, RecursionError) as error:
        raise NetworkError(f"{path} is not a whole {kind}: its record is no JSON ({error})") from None
    # networks and checkpoints of trainings have records of their own, without `facts`
    found = record.get("kind", UNNAMED) if isinstance(record, dict) and "facts" in record else None
    if found != kind or not isinstance(record, dict):
        other = f" but a {found}" if isinstance(found, str) else ""
        raise NetworkError(f"{path} is no {kind}{other}: name the file that `{made_by}` wrote")
    if record.get("format") != FORMAT:
        raise NetworkError(
            f"{path} is a {kind} of format {record.get('format')!r}, this weightspace reads format {FORMAT}: install "
            "the version that wrote it"
        )
    return {name: torch.from_numpy(array) for name, array in arrays.items()}, record


def kind_of(path: Path) -> str | None:
    """What `write_model` was told that a file is; None of another file, or of none."""
    try:
        record = json.loads(read_header(path).metadata.get(METADATA_KEY, "null"))
    except (WeightspaceError, OSError, ValueError, RecursionError):
        return None
    found = record.get("kind") if isinstance(record, dict) else None
    return found if isinstance(found, str) else None


def training_of(options: Mapping[str, Any]) -> TrainingConfig:
    """The training in a model's record; where a model was trained says nothing about where it is used."""
    return TrainingConfig(**{**options, "betas": tuple(options["betas"]), "device": "auto"})
