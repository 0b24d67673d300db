"""Heads of the zoo with their fingerprints and behaviours: what a reader of heads is trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from weightspace.heads.behaviour import BEHAVIOURS, HeadInputs, head_behaviour, repeated_texts
from weightspace.heads.fingerprint import fingerprints
from weightspace.heads.head_reader import READ, LabelledHeads
from weightspace.heads.invariants import head_invariants
from weightspace.heads.language import MARKS
from weightspace.heads.model_zoo import ZooModel, models_of
from weightspace.heads.planted import planted
from weightspace.transformers.trained import TrainedTransformer

TEXTS, REPEATED, PERIOD = 128, 64, 24
PLANTED = 10_000


class _Labelled(NamedTuple):
    number: int
    name: str
    transformer: TrainedTransformer
    inputs: HeadInputs


def labelled_heads(folder: Path) -> LabelledHeads:
    """All heads of a zoo of small models, labelled on texts of each model's own language.

    Raises:
        ZooError: if there are no models.
    """
    models = models_of(folder)
    return _labelled(
        _Labelled(each.number, f"small model {each.number}", each.transformer, inputs_of_model(each)) for each in models
    )


def planted_heads(count: int, seed: int = 0) -> LabelledHeads:
    """All heads of some planted models, labelled on random texts; their models are counted from `PLANTED` on."""
    return _labelled(_planted(count, seed))


def joined(one: LabelledHeads, other: LabelledHeads) -> LabelledHeads:
    """The heads of both."""
    return LabelledHeads(
        one.names,
        np.concatenate((one.rows, other.rows)),
        np.concatenate((one.scores, other.scores)),
        np.concatenate((one.models, other.models)),
        one.heads + other.heads,
    )


def _planted(count: int, seed: int) -> Iterator[_Labelled]:
    for number in range(count):
        model, transformer = planted(seed, number)
        random = torch.Generator().manual_seed(number)
        texts = torch.randint(0, model.vocabulary, (32, 2 * PERIOD), generator=random)
        repeated = repeated_texts(model.vocabulary, 16, PERIOD, number)
        inputs = HeadInputs(texts, repeated, None, "random texts")
        yield _Labelled(PLANTED + number, f"planted model {number}", transformer, inputs)


def _labelled(given: Iterable[_Labelled]) -> LabelledHeads:
    names: tuple[str, ...] = ()
    rows, scores, models, heads = [], [], [], []
    for model in given:
        found = fingerprints(head_invariants(model.transformer))
        behaviour = head_behaviour(model.transformer, model.inputs, batch=32)
        names = found.names
        rows.append(found.rows.numpy())
        scores.append(behaviour.scores.flatten(0, 1)[:, [BEHAVIOURS.index(name) for name in READ]].numpy())
        models.append(np.full(len(rows[-1]), model.number))
        layers, each = behaviour.scores.shape[:2]
        heads += [f"{model.name}, layer {n}, head {h}" for n in range(layers) for h in range(each)]
    return LabelledHeads(names, np.concatenate(rows), np.concatenate(scores), np.concatenate(models), tuple(heads))


def inputs_of_model(model: ZooModel) -> HeadInputs:
    """Texts of its language, and repeated random ones."""
    random = torch.Generator().manual_seed(model.model.seed + 2)
    texts = model.model.language.draw(TEXTS, model.model.length, random)
    repeated = repeated_texts(model.model.vocabulary - MARKS, REPEATED, PERIOD, model.model.seed) + MARKS
    return HeadInputs(texts, repeated, None, f"{TEXTS} texts of its own language; {REPEATED} random texts, said twice")
