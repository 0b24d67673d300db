"""The zoo heads-small: small language models trained one after the other, each a file; a killed run goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.numpy import save

from weightspace.errors import ZooError
from weightspace.files.atomic import write_atomically
from weightspace.files.lock import writing
from weightspace.files.progress import progress
from weightspace.heads.small_models import SmallModel, trained
from weightspace.transformers.loading import load_trained
from weightspace.transformers.trained import TrainedTransformer

RECIPE = "heads-small"
COUNT = 60
MODEL = "model"


@dataclass(frozen=True)
class ZooModel:
    """A trained model of the zoo.

    Attributes:
        loss: of its last training steps, in nats a token.
    """

    number: int
    model: SmallModel
    transformer: TrainedTransformer
    loss: float


def make_model_zoo(folder: Path, count: int = COUNT, seed: int = 0, *, show: bool = True) -> None:
    """Train what is missing of a zoo's models: half a minute to five minutes of one core each.

    A model is a function of seed and number alone, on one kind of processor.

    Raises:
        ValueError: if there is nothing to make.
        ZooError: if the folder holds models of another seed, or of a recipe that has changed since.
    """
    if count < 1:
        raise ValueError(f"a zoo of {count} models is none: give 1 or more")
    with writing(folder):
        there = [number for number in range(count) if _path(folder, number).exists()]
        for number in there:
            drawn = json.loads(json.dumps({"zoo seed": seed, **SmallModel.drawn(seed, number).record()}))
            if {k: v for k, v in _record(_path(folder, number)).items() if k != "loss"} != drawn:
                raise ZooError(
                    f"{_path(folder, number)} is no model {number} of {RECIPE} with seed {seed}, as the recipe is now: "
                    "choose another folder"
                )
        missing = sorted(set(range(count)) - set(there))
        with progress("models", count, "models", show, done=count - len(missing)) as advance:
            for number in missing:
                model = SmallModel.drawn(seed, number)
                weights, loss = trained(model)
                said = {MODEL: json.dumps({"zoo seed": seed, "loss": loss, **model.record()})}
                write_atomically(_path(folder, number), save(weights, said))
                advance()


def models_of(folder: Path) -> Iterator[ZooModel]:
    """The models of a zoo that are there, in order.

    Raises:
        ZooError: if there is none, or a file is none of this zoo.
    """
    paths = sorted(folder.glob("[0-9]" * 4 + ".safetensors"))
    if not paths:
        raise ZooError(f"{folder} holds no models of the recipe {RECIPE}: make it with `weightspace zoo make {RECIPE}`")
    for path in paths:
        record = _record(path)
        loss = float(record.pop("loss"))
        del record["zoo seed"]
        model = SmallModel(**{**record, "mixture": tuple(record["mixture"])})
        yield ZooModel(int(path.stem), model, load_trained(path, config=model.config), loss)


def _record(path: Path) -> dict[str, Any]:
    """What a model's file says of how it was trained.

    Raises:
        ZooError: if it says nothing.
    """
    with safe_open(path, "np") as file:
        said = (file.metadata() or {}).get(MODEL)
    if said is None:
        raise ZooError(f"{path} is no model of the recipe {RECIPE}: it does not say how it was trained")
    return json.loads(said)


def model_zoo_info(folder: Path) -> dict[str, Any]:
    """What a zoo holds: models, heads, and how they differ."""
    models = list(models_of(folder))
    return {
        "folder": str(folder),
        "models": len(models),
        "heads": sum(each.model.layers * each.model.heads for each in models),
        "rotary": sum(each.model.positions == "rotary" for each in models),
        "grouped queries": sum(each.model.key_heads != each.model.heads for each in models),
        "with MLPs": sum(each.model.hidden > 0 for each in models),
        "loss": " to ".join(f"{edge(each.loss for each in models):.2f}" for edge in (min, max)),
    }


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:04d}.safetensors"
