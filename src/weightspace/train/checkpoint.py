"""A run at one step as a safetensors file: model, optimiser, best model and history, whole or not at all.

Tensors: `model/<name>`, `best/<name>` (absent before the first evaluation), and `optimiser/<moment>/<name>` with
moment `step`, `exp_avg` or `exp_avg_sq` for each parameter that had a gradient. Metadata: one key, `weightspace`, with
a JSON record of `version`, `step`, `finished`, `config`, `best_validation` and `history`. There is no loader and no
generator to save, because batches and random numbers are functions of the step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from weightspace.errors import NetworkError, WeightspaceError
from weightspace.files.atomic import write_atomically
from weightspace.files.tensors import METADATA_KEY, read_safetensors
from weightspace.train.config import MAY_CHANGE_ON_RESUME, TrainingConfig
from weightspace.train.log import History
from weightspace.train.ranks import Ranks

CHECKPOINT = "checkpoint.safetensors"
FITTED_ON = "fitted_on.json"
VERSION = 1
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class CheckpointError(WeightspaceError):
    """A checkpoint that is torn, or of another run than the one to resume."""


@dataclass(frozen=True, eq=False)
class Progress:
    """How far a run is, apart from the model and the optimiser.

    Attributes:
        history: what happened so far.
        best: tensors of the model with the lowest validation loss, on the CPU; None before the first evaluation.
        finished: whether nothing is left to do.
    """

    history: History
    best: dict[str, Tensor] | None
    finished: bool


def bind(folder: Path, facts: bytes) -> bool:
    """Tie a folder to what decides its run besides the training's config; False if it is tied to something else.

    Args:
        facts: settings and data, of which the folder keeps the SHA-256; one that is tied to nothing is tied to them,
            by the first process where several train together.
    """
    content = json.dumps({"sha256": hashlib.sha256(facts).hexdigest()}).encode()
    record = folder / FITTED_ON
    if record.exists() and record.read_bytes() != content:
        return False
    if Ranks.here().first:
        write_atomically(record, content)
    return True


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the model's tensors on the CPU, contiguous and each with its own memory, as safetensors needs them."""
    return {name: _copy(tensor) for name, tensor in model.state_dict().items()}


def save_checkpoint(
    path: Path, model: nn.Module, optimiser: Optimizer, config: TrainingConfig, progress: Progress
) -> None:
    """Write a run to `path`; a kill leaves the old checkpoint or the new one, whole."""
    tensors = {f"model/{name}": tensor for name, tensor in snapshot(model).items()}
    tensors |= {f"best/{name}": tensor for name, tensor in (progress.best or {}).items()}
    for name, parameter in _trainable(model):
        for moment, value in optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser/{moment}/{name}"] = _copy(value)
    history = progress.history
    losses = {evaluation["step"]: evaluation["loss"] for evaluation in history.evaluations}
    record = {
        "version": VERSION,
        "step": history.steps,
        "finished": progress.finished,
        "config": asdict(config),
        "best_validation": losses.get(history.best_step) if history.best_step else None,
        "history": history.to_json(),
    }
    write_atomically(path, save(tensors, {METADATA_KEY: json.dumps(record, sort_keys=True)}))


def load_checkpoint(path: Path, model: nn.Module, optimiser: Optimizer, config: TrainingConfig) -> Progress:
    """Put a run that `save_checkpoint` wrote back into `model` and `optimiser`, and say how far it is.

    Both are left as they are unless everything fits.

    Raises:
        CheckpointError: if the file is torn or no checkpoint, if a field of its config differs other than
            `MAY_CHANGE_ON_RESUME`, or if the model has other tensors.
    """
    tensors, record = _read(path)
    _check_config(path, record["config"], config)
    try:
        history = History(**record["history"])
        progress = Progress(history, _under("best/", tensors) or None, bool(record["finished"]))
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is no whole checkpoint: {error!r}; delete it") from error

    own = model.state_dict()
    _check_tensors(path, "model", own, _under("model/", tensors))
    if progress.best is not None:
        _check_tensors(path, "best model", own, progress.best)
    moments = _under("optimiser/", tensors)
    expected = {}
    for name, parameter in _trainable(model):
        if f"step/{name}" in moments:  # a parameter without a gradient so far has no moments
            expected |= {f"{moment}/{name}": parameter for moment in MOMENTS[1:]}
            expected[f"step/{name}"] = torch.zeros(())
    _check_tensors(path, "optimiser", expected, moments)

    model.load_state_dict(_under("model/", tensors))
    for name, parameter in _trainable(model):
        if f"step/{name}" not in moments:
            continue
        step = moments[f"step/{name}"].to(parameter.device)
        optimiser.state[parameter] = {"step": step} | {
            # copied into the parameter's own memory layout, in which AdamW would have made them
            moment: torch.zeros_like(parameter, requires_grad=False).copy_(moments[f"{moment}/{name}"])
            for moment in MOMENTS[1:]
        }
    return progress


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and record of a checkpoint, or a CheckpointError."""
    try:
        arrays, metadata = read_safetensors(path)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        record = json.loads(metadata[METADATA_KEY])
        version = record["version"]
        _ = record["config"].items()
    except NetworkError as error:
        raise CheckpointError(f"{path} is not a whole checkpoint ({error}): delete it to start over") from error
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path} is a safetensors file but no training checkpoint: choose another folder"
        ) from error
    if version != VERSION:
        raise CheckpointError(
            f"{path} has format version {version}, this weightspace reads {VERSION}: delete it to start over"
        )
    return tensors, record


def _check_config(path: Path, stored: Mapping[str, Any], config: TrainingConfig) -> None:
    """Raise a CheckpointError that names the fields in which the stored config is another one."""
    given = json.loads(json.dumps(asdict(config)))  # tuples to lists, as the file has them
    names = [
        name
        for name in sorted(given.keys() | stored.keys())
        if name not in MAY_CHANGE_ON_RESUME and given.get(name) != stored.get(name)
    ]
    if names:
        fields = ", ".join(f"{name} (there {stored.get(name)!r}, here {given.get(name)!r})" for name in names)
        why = " (the learning-rate schedule depends on steps)" if "steps" in names else ""
        raise CheckpointError(
            f"{path} is of a run with other {fields}{why}: use that config, choose another folder, or delete it"
        )


def _check_tensors(path: Path, what: str, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raise a CheckpointError if names, shapes or dtypes differ; it names the first that does."""
    missing, unexpected = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected)
    if missing or unexpected:
        raise CheckpointError(f"{path} is of another {what}: missing {missing[:3]}, unexpected {unexpected[:3]}")
    for name, tensor in expected.items():
        ours, theirs = (tuple(tensor.shape), tensor.dtype), found[name]
        if ours != (tuple(theirs.shape), theirs.dtype):
            raise CheckpointError(
                f"{path} is of another {what}: {name!r} is {theirs.dtype} of shape {tuple(theirs.shape)} there, "
                f"{ours[1]} of shape {ours[0]} here"
            )


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _trainable(model: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    return ((name, p) for name, p in model.named_parameters() if p.requires_grad)


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()
